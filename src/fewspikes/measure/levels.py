"""The values that an input takes: those of 8-bit images are few, and equally spaced in each channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewspikes.base.errors import FewSpikesError

BITS = 8
MOST = 2**BITS
_CLOSE = 0.02  # of a step, that a value may be off: a normalisation rounds

Vector = NDArray[np.float64]


class Spacing(NamedTuple):
    """The lowest of 256 equally spaced values and the step between them, each by channel."""

    lowest: Vector
    step: Vector


@dataclass(frozen=True, eq=False)
class Levels:
    """The distinct values of an input by channel. Add to merge.

    Attributes:
        values: sorted; None once a channel has more than 256.
        seen: how many values each channel had in all.
    """

    values: tuple[Vector, ...] | None
    seen: int = 0

    @classmethod
    def of(cls, x: Tensor, axis: int, known: "Levels | None" = None) -> "Levels":
        """The values of a tensor, and those known before.

        Args:
            x: a batch.
            axis: of the channels.
            known: of batches before.
        """
        if known is not None and known.values is None:
            return known
        found, seen = [], x.numel() // x.shape[axis]
        for channel, part in enumerate(x.movedim(axis, 0).flatten(1)):
            before = part.new_empty(0) if known is None else torch.from_numpy(known.values[channel]).to(part)  # type: ignore[index]
            values = _joined(part.contiguous(), before)
            if values is None:
                return cls(None)
            found.append(values.double().cpu().numpy())
        return cls(tuple(found), seen + (0 if known is None else known.seen))

    def __add__(self, other: "Levels") -> "Levels":
        if self.values is None or other.values is None or len(self.values) != len(other.values):
            return Levels(None)
        both = tuple(np.union1d(a, b) for a, b in zip(self.values, other.values, strict=True))
        return Levels(both if max(map(len, both)) <= MOST else None, self.seen + other.seen)

    @property
    def spacing(self) -> Spacing | None:
        """How they are spaced, if equally in each channel and within 8 bits.

        Values of which none was seen twice tell nothing, nor do those of a channel that has one only: it is spaced as
        the others are.
        """
        if self.values is None or self.seen <= max(map(len, self.values)):
            return None
        found = [_spacing(values) for values in self.values if len(values) > 1]
        steps = [one[1] for one in found if one is not None]
        if not steps or len(steps) < len(found):
            return None
        spaced, least = iter(found), min(steps)
        both = [next(spaced) if len(v) > 1 else (_around(float(v[0]), least), least) for v in self.values]
        lowest, step = zip(*both, strict=True)  # type: ignore[arg-type]
        return Spacing(np.array(lowest), np.array(step))

    def to_json(self) -> Any:
        """Plain data for JSON files."""
        return None if self.values is None else {"seen": self.seen, "values": [one.tolist() for one in self.values]}

    @classmethod
    def from_json(cls, content: Any) -> "Levels":
        """The reverse of `to_json`; raises FewSpikesError where it is none."""
        if content is None:
            return cls(None)
        values, seen = tuple(np.array(entry, np.float64) for entry in content["values"]), int(content["seen"])
        sound = all(
            v.ndim == 1 and 0 < len(v) <= MOST and np.isfinite(v).all() and (np.diff(v) > 0).all() for v in values
        )
        if not values or not sound:
            raise FewSpikesError("the levels of an input must be up to 256 rising numbers for each channel")
        return cls(values, seen)


def of_sites(entries: Mapping[str, Any]) -> dict[str, Levels]:
    """Levels by site name, from JSON."""
    return {str(name): Levels.from_json(entry) for name, entry in entries.items()}


def _joined(values: Tensor, known: Tensor) -> Tensor | None:
    """The distinct ones of both; None if they are more than 256."""
    first = torch.cat([values[: 16 * MOST], known]).unique()
    if len(first) > MOST:
        return None
    at = torch.searchsorted(first, values).clamp_(max=len(first) - 1)
    new = values[first[at] != values]
    found = torch.cat([first, new]).unique() if len(new) else first
    return found if len(found) <= MOST else None


def _spacing(values: Vector) -> tuple[float, float] | None:
    """The lowest of 256 values and their step, from two of them or more; what is not seen is taken to lie above."""
    apart = values - values[0]
    step = float(np.diff(values).min())
    for _ in range(BITS):  # Euclid's algorithm: 2 and 3 steps apart are 1 step
        rest = np.abs(apart / step - np.round(apart / step)) * step
        odd = rest[rest > _CLOSE * step]
        if not len(odd):
            break
        step = float(odd.min())
    count = round(float(apart[-1]) / step)
    if not 0 < count < MOST:
        return None
    step = float(apart[-1]) / count  # the farthest tells it best
    if np.abs(apart / step - np.round(apart / step)).max() > _CLOSE:
        return None
    return float(values[0]), step


def _around(value: float, step: float) -> float:
    """The lowest of 256 values of which one is seen: the others are taken to lie on both sides."""
    return value - float((MOST - 1) // 2) * step
