"""The frontier of steps, spikes and error as it was measured: its points, as text and as a file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.plain import from_plain, to_plain
from fewspikes.base.seals import Kind

_FRONTIER = Kind("fewspikes-frontier", 1, "frontier", "remove it to measure again")


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
        return to_plain(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Point":
        """The reverse of `to_json`; raises FewSpikesError where something is missing or of another type."""
        return from_plain(cls, content, "a point of the frontier")


@dataclass(frozen=True)
class Frontier:
    """Measured points by latency, each marked whether another dominates it.

    Attributes:
        points: as measured.
        key: of the network, images and settings that they belong to.
    """

    points: tuple[Point, ...]
    key: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(marked(self.points)))

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def __str__(self) -> str:
        points = self.points
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

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return {"key": self.key, "points": [point.to_json() for point in self.points]}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON with its checksum."""
        _FRONTIER.write(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Frontier":
        """Read what `save` wrote.

        Raises:
            FewSpikesError: no such file, no frontier, or changed since it was written.
        """
        content = _FRONTIER.read(path)
        with _FRONTIER.reading(path):
            points = content["points"]
            if not isinstance(points, list):
                raise FewSpikesError("it has no list of points")
            return cls(tuple(map(Point.from_json, points)), str(content["key"]))


def marked(points: Sequence[Point]) -> list[Point]:
    """The points by latency, each with `dominated` set."""
    placed = [(p.latency_steps, p.spikes_per_neuron, p.error) for p in points]
    beaten = [
        any(all(b <= a for a, b in zip(own, other, strict=True)) and other != own for other in placed) for own in placed
    ]
    ordered = sorted(zip(points, beaten, strict=True), key=lambda pair: (pair[0].latency_steps, pair[0].error))
    return [replace(point, dominated=by) for point, by in ordered]
