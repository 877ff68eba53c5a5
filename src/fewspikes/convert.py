"""`convert`: a trained network in, a spiking network out."""

from typing import Any

import torch
from torch import nn

from fewspikes.batches import Batches
from fewspikes.calibration import Calibration, calibrate
from fewspikes.capture import Captured, capture
from fewspikes.conversion.choose import choose
from fewspikes.conversion.rewrite import Site, rewrite
from fewspikes.kernels import FSNeuron
from fewspikes.network import ExactActivation, SpikingNetwork, build
from fewspikes.progress import track


def convert(
    model: nn.Module,
    example_inputs: Any,
    *,
    calibration: Any = None,
    K: int | None = None,
    alpha: float | None = None,
    rounding: str | None = None,
    max_pool: str = "digital",
) -> SpikingNetwork:
    """Convert a trained network into a spiking network of FS-neurons. The model stays as it is.

    The input image is analog current into the first layer, as in the paper: it is not encoded into spikes.

    Args:
        model: in eval mode, float32 or float64, on any device.
        example_inputs: a tensor, a tuple of tensors, or a dict of keyword arguments, of the sizes to convert for;
            axis 0 is the batch, any size.
        calibration: images to fit each ReLU's range on, as a tensor or a re-iterable of batches (labels are ignored),
            or a `Calibration` made before. Without it: the paper's setting.
        K: time steps of every site; with calibration 8, without it the paper's. SiLU and sigmoid have the published
            tables only (K=16 and 12): leave K out for them.
        alpha: one range for all uncapped ReLUs; wins over calibration. A cap (ReLU6) wins over alpha.
        rounding: "nearest" (least error; the default with data or K) or "down" (the paper's).
        max_pool: "digital" leaves max pools to a digital processor; "average" changes the network.

    Returns:
        A new module; `.report` says what became of every operator.

    Raises:
        FewSpikesError: training mode, an operator without a rule, nothing to convert, NaN or inf, data that do not fit.

    Source: paper, sections 1.1 and 1.2.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> convert(net, torch.zeros(1, 4)).report.neurons
    8
    """
    with torch.inference_mode(False), torch.no_grad():  # the network may be called in any mode later
        return _convert(model, example_inputs, calibration, K, alpha, rounding, max_pool)


def _convert(
    model: nn.Module,
    example_inputs: Any,
    calibration: Any,
    K: int | None,
    alpha: float | None,
    rounding: str | None,
    max_pool: str,
) -> SpikingNetwork:
    captured = capture(model, example_inputs)
    sites, notes = rewrite(captured, max_pool)
    if calibration is not None and not isinstance(calibration, Calibration):
        calibration = _calibrate(captured, sites, calibration)
    tables = choose(sites, K, alpha, rounding, calibration)
    images = 0 if calibration is None else calibration.images
    tensors = {name: t.clone(memory_format=torch.contiguous_format) for name, t in captured.tensors.items()}
    neurons = {site.name: FSNeuron(tables[site.target]) for site in sites}
    return SpikingNetwork(captured.graph, tensors, captured.inputs, sites, neurons, notes, images, captured.keywords)


def calibrate_model(
    model: nn.Module, example_inputs: Any, loader: Any, *, max_pool: str = "digital", progress: bool | None = None
) -> Calibration:
    """Collect what each site of `model` sees over `loader`, to convert with several K from one pass.

    Args and Raises: as for `convert`.
    """
    captured = capture(model, example_inputs)
    sites, _ = rewrite(captured, max_pool)
    return _calibrate(captured, sites, loader, progress)


def _calibrate(captured: Captured, sites: list[Site], loader: Any, progress: bool | None = None) -> Calibration:
    modules = {site.target: ExactActivation(site.activation) for site in sites}
    ann = build(captured.graph, captured.tensors, modules).eval()
    weight = next((t for t in captured.tensors.values() if t.is_floating_point()), torch.empty(0))
    batches = Batches(loader, captured.inputs, weight.dtype, "calibration data", weight.device)
    by_name = {site.name: modules[site.target] for site in sites}
    return calibrate(ann, by_name, track(batches, "calibrating", batches.total, progress))
