"""`convert`: a trained network in, a spiking network out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.batches import Batches
from fewspikes.calibration import Calibration, calibrate
from fewspikes.capture import Captured, capture
from fewspikes.conversion.choose import Choice, choose
from fewspikes.conversion.rewrite import Site, rewrite
from fewspikes.errors import FewSpikesError
from fewspikes.kernels import FSNeuron
from fewspikes.network import ExactActivation, SpikingNetwork, build
from fewspikes.progress import track
from fewspikes.tuning.distil import distil as learn
from fewspikes.tuning.repair import repair as repair_channels

_REPAIR_IMAGES = 256


def convert(
    model: nn.Module,
    example_inputs: Any,
    *,
    calibration: Any = None,
    K: int | Mapping[str, int] | None = None,
    alpha: float | None = None,
    rounding: str | None = None,
    max_pool: str = "digital",
    offset: bool = True,
    spike_weight: float = 0.0,
    refine: str = "normal",
    repair: bool = True,
    repair_images: int = _REPAIR_IMAGES,
    distil: float | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> SpikingNetwork:
    """Convert a trained network into a spiking network of FS-neurons. The model stays as it is.

    The input image is analog current into the first layer, as in the paper: it is not encoded into spikes.

    Args:
        model: in eval mode, float32 or float64, on any device.
        example_inputs: a tensor, a tuple of tensors, or a dict of keyword arguments, of the sizes to convert for;
            axis 0 is the batch, any size.
        calibration: images to fit each site's code on, as a tensor or a re-iterable of batches (labels are ignored),
            or a `Calibration` made before. Without it: the paper's setting.
        K: time steps of every site, or by site name; with calibration 8, without it the paper's.
        alpha: one range for all uncapped ReLUs; wins over calibration and switches repairs off. A cap (ReLU6) wins
            over alpha.
        rounding: "nearest" (least error; the default with data or K) or "down" (the paper's).
        max_pool: "digital" leaves max pools to a digital processor; "average" changes the network.
        offset: whether a fitted code may have an offset, the value that silence stands for. It becomes a bias of the
            layers that follow; False is for chips with one bias per channel.
        spike_weight: price of a spike per neuron, in log squared error: 0 fits the least error, 0.3 saves spikes.
        refine: effort of a site's fit: "quick" (milliseconds), "normal" (a second or two) or "long".
        repair: shift and scale channels where that brings their outputs closer to the ANN's, see `tuning.repair`.
        repair_images: how many of the calibration images (the first ones) that may use.
        distil: minutes to learn the code against the ANN's own outputs on the calibration images, see `distil`; None
            leaves it out.
        seed: of the searches, and of distilling.
        progress: bars on stderr; None shows them when stderr is a terminal.

    Returns:
        A new module; `.report` says what became of every operator.

    Raises:
        FewSpikesError: training mode, an operator without a rule, nothing to convert, NaN or inf, data that do not fit,
            or a setting out of range.

    Source: paper, sections 1.1 and 1.2.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> convert(net, torch.zeros(1, 4)).report.neurons
    8
    """
    choice = Choice(K, alpha, rounding, offset, spike_weight, refine, seed)
    if isinstance(repair_images, bool) or not isinstance(repair_images, int) or repair_images < 2:
        raise FewSpikesError(f"repair_images must be a whole number >= 2; got {repair_images!r}")
    if distil is not None and (calibration is None or isinstance(calibration, Calibration)):
        raise FewSpikesError("distilling needs images; give them as calibration")
    repairs = repair_images if repair and alpha is None else 0
    with torch.inference_mode(False), torch.no_grad():  # the network may be called in any mode later
        snn = _convert(model, example_inputs, calibration, choice, max_pool, repairs, progress)
    if distil is None:
        return snn
    return learn(snn, calibration, distil, spike_weight=spike_weight, seed=seed, progress=progress)


def _convert(
    model: nn.Module,
    example_inputs: Any,
    calibration: Any,
    choice: Choice,
    max_pool: str,
    repairs: int,
    progress: bool | None,
) -> SpikingNetwork:
    captured = capture(model, example_inputs)
    sites, notes = rewrite(captured, max_pool)
    batches = None
    if calibration is not None and not isinstance(calibration, Calibration):
        batches = _batches(captured, calibration)
        calibration = _calibrate(captured, sites, batches, progress)
    tables = choose(sites, choice, calibration, progress)
    images = 0 if calibration is None else calibration.images
    tensors = {name: t.clone(memory_format=torch.contiguous_format) for name, t in captured.tensors.items()}
    neurons = {site.name: FSNeuron(tables[site.name]) for site in sites}
    snn = SpikingNetwork(captured.graph, tensors, captured.inputs, sites, neurons, notes, images, captured.keywords)
    if batches is None or not repairs:
        return snn
    seen = first_images(batches, repairs)
    if sum(len(batch[0]) for batch in seen) < 2:
        return snn
    return repair_channels(snn, seen, choice.spike_weight, progress=progress)[0]


def first_images(batches: Batches, limit: int) -> list[tuple[Tensor, ...]]:
    """The first `limit` images, in the loader's batches."""
    kept: list[tuple[Tensor, ...]] = []
    for inputs, _ in batches:
        kept.append(tuple(value[:limit] for value in inputs))
        limit -= len(inputs[0])
        if limit <= 0:
            break
    return kept


def calibrate_model(
    model: nn.Module, example_inputs: Any, loader: Any, *, max_pool: str = "digital", progress: bool | None = None
) -> Calibration:
    """Collect what each site of `model` sees over `loader`, to convert with several K from one pass.

    Args and Raises: as for `convert`.
    """
    captured = capture(model, example_inputs)
    sites, _ = rewrite(captured, max_pool)
    return _calibrate(captured, sites, _batches(captured, loader), progress)


def _batches(captured: Captured, loader: Any) -> Batches:
    weight = next((t for t in captured.tensors.values() if t.is_floating_point()), torch.empty(0))
    return Batches(loader, captured.inputs, weight.dtype, "calibration data", weight.device)


def _calibrate(captured: Captured, sites: list[Site], batches: Batches, progress: bool | None = None) -> Calibration:
    modules = {site.target: ExactActivation(site.activation) for site in sites}
    ann = build(captured.graph, captured.tensors, modules).eval()
    by_name = {site.name: modules[site.target] for site in sites}
    return calibrate(ann, by_name, track(batches, "calibrating", batches.total, progress))
