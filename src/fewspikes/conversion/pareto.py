"""`frontier`: what each choice of K costs in steps and spikes, and what it keeps of the ANN."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path, check_place
from fewspikes.base.progress import track
from fewspikes.base.seals import digest
from fewspikes.conversion.budget_search import Build
from fewspikes.conversion.building import Conversion
from fewspikes.conversion.chains import Chains, Whole
from fewspikes.conversion.ladder import MIXTURES, best, greedy
from fewspikes.conversion.points import Frontier, Point
from fewspikes.conversion.settings import Budget, Codes, Settings, circuits_of
from fewspikes.graph.encoding import graph_to_json
from fewspikes.measure.calibration import Calibration
from fewspikes.measure.deal import Images
from fewspikes.measure.measurement import Beside, Measurement, measure
from fewspikes.measure.outputs import floats
from fewspikes.measure.sensitivity import Curves, curves
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.parameters import MAX_STEPS, FSParameters
from fewspikes.operators.given import rules_with
from fewspikes.operators.rule import Rule

UNIFORM = (3, 4, 5, 6, 8)  # K of the uniform points, and of the budgets that mixed ones get
_ROOM = 4  # more steps than the largest uniform K that a site may get


def frontier(
    model: nn.Module,
    example_inputs: Any,
    images: Any,
    *,
    K: Sequence[int] = UNIFORM,
    codes: Codes | None = None,
    circuits: str | Mapping[str, str] | None = None,
    rules: Sequence[Rule] = (),
    seed: int = 0,
    file: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Frontier:
    """Measure uniform K, and beside each the mixed K of the same latency and of the same steps and spikes.

    Half of the images are held out to measure on; where the output is [batch, classes] their labels give the drop.

    Args:
        model, example_inputs, images, circuits, rules, seed: as for `convert`.
        K: the uniform K to begin from.
        codes: of the sites, without K.
        file: JSON that grows point by point. Points in it that belong to the same network, images and settings are not
            measured again, so a run that was cut off goes on where it was.
        progress: bars on stderr; None shows them when stderr is a terminal.

    Returns:
        The points, by latency; printed, they are a table.

    Raises:
        FewSpikesError: as for `convert`; no images; no K, or one that is no whole number from 1 to 24; a file that is
            no frontier.
    """
    codes = codes or Codes()
    if images is None or isinstance(images, Calibration):
        raise FewSpikesError("a frontier is measured on images: give them, not a Calibration")
    if codes.K is not None or codes.alpha is not None:
        raise FewSpikesError("a frontier tries many K with ranges of their own: leave K and alpha out of the codes")
    _whole(K)
    if file is not None:
        check_place(file)
    known = rules_with(rules)
    settings = Settings(codes, Budget(drop=0.0), circuits_of(circuits, known), seed=seed)
    with torch.inference_mode(False), torch.no_grad():
        work = Conversion(model, example_inputs, images, settings, labels=True, progress=progress, rules=known)
        given = work.base(), work.parameters, work.network, work.sensitive, work.held
        return measured(*given, K=K, file=file, settings=settings.to_json(), progress=progress)


def measured(
    snn: SpikingNetwork,
    parameters: Callable[[str, int], FSParameters],
    build: Build,
    images: Images,
    held: Images,
    *,
    K: Sequence[int] = UNIFORM,
    file: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Frontier:
    """The frontier of a network.

    Args:
        snn, parameters, build, images, held: as for `allocate`.
        K, file, progress: as for `frontier`.
        settings: what `build` depends on beside K, as plain JSON data.
    """
    steps = _whole(K)
    key = _key(snn, held, settings or {})
    known = {} if file is None else _known(as_path(file), key)
    found = curves(snn, parameters, images, min(steps[-1] + _ROOM, MAX_STEPS), progress)
    judge: Callable[[SpikingNetwork], Measurement] = partial(measure, beside=Beside(held, snn.as_ann()))
    points: list[Point] = []
    choices = _choices(Chains(snn), found, steps)
    for choice, k in track(choices, "frontier", len(choices), progress):
        name = (choice, str(_plain(k)))
        if name not in known:
            known[name] = _point(choice, k, build(k, quick=False), judge)
            if file is not None:
                Frontier(tuple(known.values()), key).save(file)
        points.append(known[name])
    whole = Frontier(tuple(points), key)
    if file is not None:
        whole.save(file)
    return whole


def _whole(K: Sequence[int]) -> list[int]:
    steps = list(K) if isinstance(K, Iterable) and not isinstance(K, str) else []
    if not steps or any(isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_STEPS for k in steps):
        raise FewSpikesError(f"the frontier begins from whole numbers K from 1 to {MAX_STEPS}; got {said(K)}")
    return sorted(set(steps))


def _known(path: Path, key: str) -> dict[tuple[str, str], Point]:
    if not path.exists():
        return {}
    before = Frontier.load(path)
    return {(p.choice, str(p.k)): p for p in before} if before.key == key else {}


def _key(snn: SpikingNetwork, held: Images, settings: Mapping[str, Any]) -> str:
    """What a point depends on: the ANN with the images (by both, value by value), labels, and the settings."""
    sites = [(site.name, site.activation.to_json()) for site in snn.sites]
    images = {f"image {i}": values for i, values in enumerate(held.inputs)}
    labels = {} if held.labels is None else {"labels": held.labels}
    tensors = {f"weight {name}": tensor for name, tensor in snn.tensors.items()}
    if snn.structure.rules.own:  # an operator of the user's is known by what it computes
        outputs = floats(snn.as_ann()(*held.batches[0]))
        tensors |= {f"output {i}": values for i, values in enumerate(outputs)}
    return digest([dict(settings), graph_to_json(snn.graph), sites], images | labels | tensors)


def _choices(chains: Chains, found: Curves, steps: Sequence[int]) -> list[tuple[str, dict[str, int]]]:
    """Names and K by site of all points."""
    ladders = [greedy(chains, found, (1.0, weight)) for weight in MIXTURES]
    choices: list[tuple[str, dict[str, int]]] = []
    for k in steps:
        even = chains.even(k)
        latency, spikes = chains.latency(even), found.at(even)[1]
        choices.append((f"K={k}", _named(chains, even)))
        for what, within in (("steps", best(ladders, latency)), ("both", best(ladders, latency, spikes))):
            mixed = {} if within is None else _named(chains, within[0].k[within[1]])
            if mixed and mixed not in [other for _, other in choices]:
                choices.append((f"{what} of K={k}", mixed))
    return choices


def _named(chains: Chains, k: Whole) -> dict[str, int]:
    return dict(zip(chains.sites, k.tolist(), strict=True))


def _plain(k: Mapping[str, int]) -> int | dict[str, int]:
    """K alone where it is the same at every site."""
    return dict(k) if len(set(k.values())) > 1 else next(iter(k.values()))


def _point(
    choice: str, k: Mapping[str, int], snn: SpikingNetwork, judge: Callable[[SpikingNetwork], Measurement]
) -> Point:
    got = judge(snn)
    latency = snn.report.latency_steps
    return Point(choice, _plain(k), latency, got.spikes_per_neuron, got.error, got.agreement, got.drop, got.images)
