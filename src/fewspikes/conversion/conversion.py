"""`convert`: a trained network in, a spiking network out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.progress import track
from fewspikes.conversion.allocation import Budget, allocate
from fewspikes.conversion.choice import Choice, choose, site_parameters
from fewspikes.conversion.distillation import distil as learn
from fewspikes.conversion.prices import spend
from fewspikes.conversion.repairs import repair as repair_channels
from fewspikes.graph.capture import Captured, capture
from fewspikes.graph.interpreter import Running
from fewspikes.measure.batches import Batches
from fewspikes.measure.calibration import Calibration, calibrate
from fewspikes.measure.diagnosis import diagnose
from fewspikes.measure.outcome import Fold, HeldOut
from fewspikes.network.spiking import ExactActivation, SpikingNetwork
from fewspikes.network.structure import Structure
from fewspikes.neuron.layer import FSNeuron
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.rewriting import Prepared, prepared

_REPAIR_IMAGES = 512
_QUICK_REPAIR = 64  # while a budget is looked for
_HELD_OUT = 1024
_SENSITIVITY_IMAGES = 64
_DIAGNOSIS_IMAGES = 128


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
    effort: str = "normal",
    repair: bool = True,
    repair_images: int = _REPAIR_IMAGES,
    max_drop: float | None = None,
    max_steps: int | None = None,
    max_spikes: float | None = None,
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
        spike_weight: price of a spike per neuron, in the log of the output's squared error: 0 fits the least error, 1
            saves spikes where they do least for the output. With a `Calibration` in place of images, or a budget, it is
            in the log of each site's own error.
        effort: effort of a site's fit: "quick" (milliseconds), "normal" (a second or two) or "long".
        repair: shift and scale channels where that brings their outputs closer to the ANN's, see `tuning.repair`.
        repair_images: how many of the calibration images (the first ones) that may use.
        max_drop, max_steps, max_spikes: a budget in place of K; needs images. Each site gets a K of its own, chosen by
            what its error does to the output: at most so many points of top-1 (100 - agreement without labels) lost on
            held-out calibration images, so many time steps to the answer, so many spikes per neuron.
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
    choice = Choice(K, alpha, rounding, offset, spike_weight, effort, seed)
    if isinstance(repair_images, bool) or not isinstance(repair_images, int) or repair_images < 2:
        raise FewSpikesError(f"repair_images must be a whole number >= 2; got {repair_images!r}")
    if calibration is None:
        given = {"spike_weight": spike_weight != 0, "repair_images": repair_images != _REPAIR_IMAGES}
        for name in (name for name, is_given in given.items() if is_given):
            warn(f"{name} has no effect without calibration images")
    limits = (max_drop, max_steps, max_spikes)
    budget = None if limits == (None, None, None) else Budget(*limits)
    images = None if isinstance(calibration, Calibration) else calibration
    if budget is not None and (images is None or K is not None or alpha is not None):
        raise FewSpikesError("a budget chooses K on images: give calibration images, and neither K nor alpha")
    if distil is not None and images is None:
        raise FewSpikesError("distilling needs images; give them as calibration")
    repairs = repair_images if repair and alpha is None else 0
    with torch.inference_mode(False), torch.no_grad():  # the network may be called in any mode later
        work = Conversion(model, example_inputs, calibration, choice, max_pool, repairs, budget, progress)
        snn = work.network() if budget is None else work.within(budget)
    if distil is not None:
        snn = learn(snn, images, distil, spike_weight=spike_weight, seed=seed, progress=progress)
    return work.diagnosed(snn)


class Conversion:
    """A model on its way: captured and calibrated once, built with any K.

    Args: as for `convert`; repairs: images that repair may use, 0 leaves it out; budget: holds images out if given.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        calibration: Any,
        choice: Choice,
        max_pool: str = "digital",
        repairs: int = _REPAIR_IMAGES,
        budget: Budget | None = None,
        progress: bool | None = None,
    ) -> None:
        self.captured = capture(model, example_inputs)
        self.prepared = prepared(self.captured, {"max": max_pool})
        self.sites = self.prepared.sites
        self.structure = Structure(self.prepared.graph, self.captured.inputs, self.sites, self.captured.keywords)
        self.choice, self.repairs, self.progress = choice, repairs, progress
        self.images: Batches | Fold | None = None
        self.held: Fold | None = None
        self.calibration: Calibration | None = calibration if isinstance(calibration, Calibration) else None
        if calibration is not None and self.calibration is None:
            batches = _batches(self.captured, calibration)
            every = 0 if budget is None else budget.held_out_every
            self.images = Fold(batches, every, held=False) if every else batches
            self.held = Fold(batches, every, held=True, limit=_HELD_OUT) if every else None
            self.calibration = _calibrate(self.prepared, self.images, progress)

    def network(self, choice: Choice | None = None) -> SpikingNetwork:
        """The network with the choice's K, its spikes priced by what they do for its output, repaired."""
        choice = choice or self.choice
        if not choice.spike_weight or self.images is None or choice.alpha is not None or choice.rounding == "down":
            return self._repaired(self._plain(choice), self.repairs)

        def fit(name: str, price: float) -> FSParameters:
            return self._parameters(name, replace(choice, spike_weight=price))

        base = self._plain(replace(choice, spike_weight=0.0))
        images = first_images(self.images, _SENSITIVITY_IMAGES)
        tables, prices = spend(base, fit, images, choice.spike_weight, self.progress)
        return self._repaired(_with_tables(base, tables), self.repairs, prices)

    def within(self, budget: Budget) -> SpikingNetwork:
        """The network with a K per site that fits a budget."""
        return allocate(*self.given(), budget, self.progress)

    def given(self) -> tuple[SpikingNetwork, Any, Any, list[tuple[Tensor, ...]], HeldOut]:
        """What `allocate` and `pareto` need: a network, parameters by site and K, a builder, and two sets of images."""
        assert self.images is not None
        assert self.held is not None
        quick = replace(self.choice, effort="quick")
        base = self._plain(replace(quick, K=None))

        def parameters(name: str, K: int) -> FSParameters:
            return self._parameters(name, replace(quick, K=K))

        def build(k: Mapping[str, int], quick: bool) -> SpikingNetwork:
            choice = replace(self.choice, K=k, effort="quick" if quick else self.choice.effort)
            tables = choose(self.sites, choice, self.calibration, False)
            repairs = min(self.repairs, _QUICK_REPAIR) if quick else self.repairs
            return self._repaired(_with_tables(base, tables), repairs)

        held = HeldOut(base, list(self.held))
        return base, parameters, build, first_images(self.images, _SENSITIVITY_IMAGES), held

    def diagnosed(self, snn: SpikingNetwork) -> SpikingNetwork:
        """The network with a diagnosis of each site in its report, if there are images."""
        if self.images is None:
            return snn
        with torch.inference_mode(False), torch.no_grad():
            seen = first_images(self.images, _DIAGNOSIS_IMAGES)
            return snn.with_diagnosis(diagnose(snn, seen, self.progress))

    def _parameters(self, name: str, choice: Choice) -> FSParameters:
        return site_parameters(next(site for site in self.sites if site.name == name), choice, self.calibration)

    def _plain(self, choice: Choice) -> SpikingNetwork:
        tables = choose(self.sites, choice, self.calibration, self.progress)
        tensors = {n: t.clone(memory_format=torch.contiguous_format) for n, t in self.prepared.tensors.items()}
        neurons = {name: FSNeuron(table) for name, table in tables.items()}
        images = 0 if self.calibration is None else self.calibration.images
        return SpikingNetwork(self.structure, tensors, neurons, self.prepared.notes, images)

    def _repaired(self, snn: SpikingNetwork, images: int, prices: Mapping[str, float] | None = None) -> SpikingNetwork:
        seen = [] if self.images is None or not images else first_images(self.images, images)
        if sum(len(batch[0]) for batch in seen) < 2:
            return snn
        return repair_channels(snn, seen, self.choice.spike_weight, prices, progress=self.progress)[0]


def _with_tables(snn: SpikingNetwork, tables: Mapping[str, FSParameters]) -> SpikingNetwork:
    return snn.with_neurons({name: FSNeuron(table) for name, table in tables.items()})


def first_images(batches: Batches | Fold, limit: int) -> list[tuple[Tensor, ...]]:
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
    return _calibrate(prepared(captured, {"max": max_pool}), _batches(captured, loader), progress)


def _batches(captured: Captured, loader: Any) -> Batches:
    weight = next((t for t in captured.tensors.values() if t.is_floating_point()), torch.empty(0))
    return Batches(loader, captured.inputs, weight.dtype, "calibration data", weight.device)


def _calibrate(work: Prepared, batches: Batches | Fold, progress: bool | None = None) -> Calibration:
    by_name = {site.name: ExactActivation(site.activation) for site in work.sites}
    ann = Running(work.graph, work.tensors, {site.node: by_name[site.name] for site in work.sites}).eval()
    return calibrate(ann, by_name, track(batches, "calibrating", batches.total, progress))
