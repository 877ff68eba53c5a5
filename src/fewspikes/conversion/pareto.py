"""The frontier: what each choice of K costs in steps and spikes, and what it keeps of the ANN."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import read_json, write_json
from fewspikes.base.progress import track
from fewspikes.conversion.chains import Chains, Whole
from fewspikes.conversion.path import MIXTURES, best, greedy
from fewspikes.conversion.place import Build
from fewspikes.measure.outcome import HeldOut
from fewspikes.measure.sensitivity import Batch, Curves, curves
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.parameters import MAX_STEPS, FSParameters

UNIFORM = (3, 4, 5, 6, 8)  # K of the uniform points, and of the budgets that mixed ones get
_ROOM = 4  # more steps than the largest uniform K that a site may get
_FORMAT, _VERSION = "fewspikes-pareto", 1


@dataclass(frozen=True)
class Point:
    """One choice of K, measured on held-out images.

    Attributes:
        choice: "K=5", or which budget the mixed K fit: "steps of K=5" or "both of K=5" (steps and spikes).
        k: K, or by site name.
        latency_steps, spikes_per_neuron: what it costs.
        error: the output's mean squared error over its variance.
        agreement: percent of images on which ANN and network agree; None where the output names no class.
        drop: points of top-1; None without labels.
        images: how many were held out.
        dominated: another point has no more steps, no more spikes and no larger error. (Error, because it is far less
            noisy than agreement or drop, and falls with them.)
    """

    choice: str
    k: int | dict[str, int]
    latency_steps: int
    spikes_per_neuron: float
    error: float
    agreement: float | None
    drop: float | None
    images: int
    dominated: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Point":
        """The reverse of `to_json`; raises FewSpikesError where something is missing."""
        try:
            return cls(**{field.name: content[field.name] for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise FewSpikesError(f"a point of the frontier is incomplete or malformed: {error!r}") from None


def pareto(
    snn: SpikingNetwork,
    parameters: Callable[[str, int], FSParameters],
    build: Build,
    images: Sequence[Batch],
    held: HeldOut,
    *,
    uniform: Sequence[int] = UNIFORM,
    path: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> list[Point]:
    """Measure uniform K, and beside each the mixed K of the same latency and of the same spikes.

    Args:
        snn, parameters, build, images, held: as for `allocate`.
        uniform: the K to begin from.
        path: a JSON file that grows point by point. Points in it that belong to the same network, images and settings
            are not measured again, so a run that was cut off goes on where it was.
        settings: what `build` depends on beside K, as plain JSON data.
        progress: bars on stderr; None shows them when stderr is a terminal.

    Returns:
        The points, by latency.

    Raises:
        FewSpikesError: no K, or one that is no whole number from 1 to 24; a file that is no frontier.
    """
    steps = sorted(set(uniform))
    if not steps or any(isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_STEPS for k in steps):
        raise FewSpikesError(f"the frontier begins from whole numbers K from 1 to {MAX_STEPS}; got {list(uniform)}")
    key = _key(snn, held, settings or {})
    known = {} if path is None else _known(FilePath(path), key)
    found = curves(snn, parameters, images, min(steps[-1] + _ROOM, MAX_STEPS), progress)
    points: list[Point] = []
    choices = _choices(Chains(snn), found, steps)
    for choice, k in track(choices, "frontier", len(choices), progress):
        name = (choice, str(_plain(k)))
        if name not in known:
            known[name] = _measured(choice, k, build(k, quick=False), held)
            if path is not None:
                write_pareto(path, list(known.values()), key)
        points.append(known[name])
    if path is not None:
        write_pareto(path, points, key)
    return marked(points)


def marked(points: Sequence[Point]) -> list[Point]:
    """The points by latency, each with `dominated` set."""
    placed = [(p.latency_steps, p.spikes_per_neuron, p.error) for p in points]
    beaten = [
        any(all(b <= a for a, b in zip(own, other, strict=True)) and other != own for other in placed) for own in placed
    ]
    ordered = sorted(zip(points, beaten, strict=True), key=lambda pair: (pair[0].latency_steps, pair[0].error))
    return [replace(point, dominated=by) for point, by in ordered]


def table(points: Sequence[Point]) -> str:
    """The points as text, a line each; those on the frontier have a star."""
    lines = [f"{'':2}{'choice':<16}{'steps':>6}{'spikes':>8}{'error':>10}{'agreement':>11}{'drop':>7}"]
    for p in points:
        agreement = "" if p.agreement is None else f"{p.agreement:.2f}%"
        drop = "" if p.drop is None else f"{p.drop:.2f}"
        lines.append(
            f"{' ' if p.dominated else '*':2}{p.choice:<16}{p.latency_steps:>6}{p.spikes_per_neuron:>8.3f}"
            f"{p.error:>10.3g}{agreement:>11}{drop:>7}"
        )
    images = points[0].images if points else 0
    lines.append(
        f"spikes per neuron, error over the output's variance, on {images} held-out images; one image is "
        f"{100 / max(images, 1):.2g} points. * on the frontier of steps, spikes and error"
    )
    return "\n".join(lines)


def write_pareto(path: str | os.PathLike[str], points: Sequence[Point], key: str = "") -> None:
    """Write the points as JSON."""
    content = {"format": _FORMAT, "version": _VERSION, "key": key, "points": [p.to_json() for p in marked(points)]}
    write_json(path, content)


def read_pareto(path: str | os.PathLike[str]) -> list[Point]:
    """Read what `pareto` wrote; raises FewSpikesError if it is no frontier."""
    return _read(path)[0]


def _read(path: str | os.PathLike[str]) -> tuple[list[Point], str]:
    content = read_json(path, _FORMAT)
    if content.get("version") != _VERSION:
        raise FewSpikesError(f"{path} has version {content.get('version')!r}; this library reads {_VERSION}")
    return [Point.from_json(entry) for entry in content.get("points", [])], str(content.get("key"))


def _known(path: FilePath, key: str) -> dict[tuple[str, str], Point]:
    if not path.exists():
        return {}
    points, written = _read(path)
    return {(p.choice, str(p.k)): p for p in points} if written == key else {}


def _key(snn: SpikingNetwork, held: HeldOut, settings: Mapping[str, Any]) -> str:
    """What a point depends on: the ANN with the images (by its outputs for them), labels, and the settings."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    for tensor in (*held.wanted, *(() if held.labels is None else (held.labels,))):
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(repr([(site.name, site.activation.to_json()) for site in snn.sites]).encode())
    return digest.hexdigest()


def _choices(chains: Chains, found: Curves, steps: Sequence[int]) -> list[tuple[str, dict[str, int]]]:
    """Names and K by site of all points."""
    paths = [greedy(chains, found, (1.0, weight)) for weight in MIXTURES]
    choices: list[tuple[str, dict[str, int]]] = []
    for k in steps:
        even = np.full(len(chains.sites), k, np.int64)
        latency, spikes = chains.latency(even), found.at(even)[1]
        choices.append((f"K={k}", _named(chains, even)))
        for what, within in (("steps", best(paths, latency)), ("both", best(paths, latency, spikes))):
            mixed = {} if within is None else _named(chains, within[0].k[within[1]])
            if mixed and mixed not in [other for _, other in choices]:
                choices.append((f"{what} of K={k}", mixed))
    return choices


def _named(chains: Chains, k: Whole) -> dict[str, int]:
    return dict(zip(chains.sites, k.tolist(), strict=True))


def _plain(k: Mapping[str, int]) -> int | dict[str, int]:
    """K alone where it is the same at every site."""
    return dict(k) if len(set(k.values())) > 1 else next(iter(k.values()))


def _measured(choice: str, k: Mapping[str, int], snn: SpikingNetwork, held: HeldOut) -> Point:
    got = held(snn)
    latency = snn.report.latency_steps
    return Point(choice, _plain(k), latency, got.spikes_per_neuron, got.error, got.agreement, got.drop, got.images)
