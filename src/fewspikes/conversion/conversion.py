"""`convert`: a trained network in, a spiking network out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.conversion.allocation import allocate
from fewspikes.conversion.building import Conversion
from fewspikes.conversion.distillation import distil_within
from fewspikes.conversion.settings import Budget, Codes, Settings, circuits_of
from fewspikes.measure.calibration import Calibration
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.operators.given import rules_with
from fewspikes.operators.rule import Rule, Rules
from fewspikes.operators.rules import RULES


def convert(
    model: nn.Module,
    example_inputs: Any,
    images: Any = None,
    *,
    K: int | Mapping[str, int] | Budget | None = None,
    codes: Codes | None = None,
    circuits: str | Mapping[str, str] | None = None,
    rules: Sequence[Rule] = (),
    seed: int = 0,
    progress: bool | None = None,
    calibration: Any = None,
    alpha: float | None = None,
    rounding: str | None = None,
    offset: bool | None = None,
    spike_price: float | None = None,
    effort: str | None = None,
    repair: bool | None = None,
    max_drop: float | None = None,
    max_steps: int | None = None,
    max_spikes: float | None = None,
    distil: float | None = None,
) -> SpikingNetwork:
    """Convert a trained network into a spiking network of FS-neurons. The model stays as it is.

    The input image is analog current into the first layer, as in the paper, unless `circuits` sends it as spikes.

    Args:
        model: in eval mode, float32 or float64, on any device.
        example_inputs: a tensor, a tuple of tensors, or a dict of keyword arguments, of the sizes to convert for;
            axis 0 is the batch, any size.
        images: to fit each site's code on, as a tensor or a re-iterable of batches of any size (what follows the inputs
            is ignored, but for max_drop), or a `Calibration` made before. Without them: the paper's setting. One
            pass deals each image its role; the first 512 also repair, half of them proposing and half deciding.
        K: time steps of every site, or by site name, or a `Budget`; None: 8 with images, without them the paper's.
        codes: which code each site gets; alpha, rounding, offset, spike_price, effort and repair are shortcuts into it.
        circuits: what becomes of what is no weighted sum, by kind, by a pattern of modules' paths, or one word for all:
            {"max": "digital"} leaves maxima to a digital processor, {"max": "neurons"} makes them of neurons,
            {"max": "average"} changes the network; {"input": "spikes"} sends the inputs as spikes, which needs images;
            {"linear": "relay"} or "neurons" parts two weighted maps; "neurons" is maxima and inputs.
        rules: for operators that the library has no row for, see `fewspikes.rules`. Each rule that applies is tested
            against its operator on random numbers.
        seed: of the searches, and of distilling.
        progress: bars on stderr; None shows them when stderr is a terminal.
        calibration: another name of `images`.
        alpha, rounding, offset, spike_price, effort, repair: see `Codes`.
        max_drop, max_steps, max_spikes: shortcuts to a `Budget` in place of K, which needs images: each site gets a K
            of its own, chosen by what its error does to the output. Some images are held out to measure on.
        distil: minutes to learn the code against the ANN's own outputs, see `distil`; None leaves it out. It learns on
            no image held out, and keeps to the budget.

    Returns:
        A new module; `.report` says what became of every operator, `.settings` how it was made.

    Raises:
        FewSpikesError: training mode, an operator without a rule, a rule that is not true of its operator, nothing to
            convert, NaN or inf, data that do not fit, a setting out of range, given twice, or that cannot act.

    Source: paper, sections 1.1 and 1.2.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> convert(net, torch.zeros(1, 4)).report.neurons
    8
    """
    if images is not None and calibration is not None:
        raise FewSpikesError("images and calibration are two names of one thing; give one of them")
    shortcuts = {"alpha": alpha, "rounding": rounding, "offset": offset, "spike_price": spike_price}
    shortcuts |= {"effort": effort, "repair": repair}
    limits = {"drop": max_drop, "steps": max_steps, "spikes": max_spikes}
    known = rules_with(rules)
    settings = settings_of(K, codes, shortcuts, limits, circuits, distil, seed, known)
    given = calibration if images is None else images
    _check(settings, given)
    with torch.inference_mode(False), torch.no_grad():  # the network may be called in any mode later
        return _converted(model, example_inputs, given, settings, known, progress)


def settings_of(
    K: Any,
    codes: Codes | None,
    shortcuts: Mapping[str, Any],
    limits: Mapping[str, Any],
    circuits: str | Mapping[str, str] | None,
    distil: float | None,
    seed: int,
    rules: Rules = RULES,
) -> Settings:
    """The settings that shortcuts and settings objects say together.

    Args:
        K, codes, circuits, distil, seed: as for `convert`.
        shortcuts: into the codes; None: not given.
        limits: into the budget; None: not given.
        rules: the rows.

    Raises:
        FewSpikesError: a setting out of range, or given twice.
    """
    some = {name: value for name, value in shortcuts.items() if value is not None}
    if codes is not None and some:
        raise FewSpikesError(f"{', '.join(some)}: given twice, as codes say it, too; leave the shortcut or codes out")
    if codes is not None and codes.K is not None and K is not None:
        raise FewSpikesError("K: given twice, as codes say it, too; leave one of them out")
    caps = {name: value for name, value in limits.items() if value is not None}
    if isinstance(K, Budget) and caps:
        raise FewSpikesError(f"max_{next(iter(caps))}: K is a budget already; leave one of them out")
    budget = K if isinstance(K, Budget) else Budget(**caps) if caps else None
    if caps and K is not None:
        raise FewSpikesError("a budget chooses K and ranges: give neither K nor alpha with it")
    if codes is None:
        codes = Codes(**({} if budget is K else {"K": K}), **some)
    elif K is not None and budget is None:
        codes = Codes(**{**codes.to_json(), "K": K})
    return Settings(codes, budget, circuits_of(circuits, rules), distil, seed)


def _check(settings: Settings, images: Any) -> None:
    """What works on images needs some."""
    codes, without = settings.codes, "no images are given"
    if isinstance(images, Calibration):
        without = "a Calibration is given in place of images"
    elif images is not None:
        return
    needing = {
        "a budget": settings.budget is not None,
        "distilling": settings.distil is not None,
        "spike_price": codes.spike_price > 0,
        "repair=True": bool(codes.repair),
    }
    for name in (name for name, asked in needing.items() if asked):
        raise FewSpikesError(f"{name} cannot act: {without}; give images")


def _converted(
    model: nn.Module, example: Any, images: Any, settings: Settings, rules: Rules, progress: bool | None
) -> SpikingNetwork:
    budget = settings.budget
    labels = budget is not None and budget.drop is not None
    work = Conversion(model, example, images, settings, labels, progress, rules)
    if budget is None:
        snn = work.network()
    else:
        given = work.base(), work.parameters, work.network, work.sensitive, work.held
        snn = allocate(*given, budget, progress)
    if settings.distil is not None:
        price, left = settings.codes.spike_price, work.left_out
        snn = distil_within(snn, work.images, work.held, budget, settings.distil, price, settings.seed, left, progress)
    return work.diagnosed(snn)
