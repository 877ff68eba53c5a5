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
    """The distinct values of an input by channel, sorted; None once a channel has more than 256. Add to merge."""

    values: tuple[Vector, ...] | None

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
        found = []
        for channel, part in enumerate(x.movedim(axis, 0).flatten(1)):
            before = part.new_empty(0) if known is None else torch.from_numpy(known.values[channel]).to(part)  # type: ignore[index]
            values = _joined(part.contiguous(), before)
            if values is None:
                return cls(None)
            found.append(values.double().cpu().numpy())
        return cls(tuple(found))

    def __add__(self, other: "Levels") -> "Levels":
        if self.values is None or other.values is None or len(self.values) != len(other.values):
            return Levels(None)
        both = tuple(np.union1d(a, b) for a, b in zip(self.values, other.values, strict=True))
        return Levels(both if max(map(len, both)) <= MOST else None)

    @property
    def spacing(self) -> Spacing | None:
        """How they are spaced, if equally in each channel and within 8 bits."""
        if self.values is None:
            return None
        found = [_spacing(values) for values in self.values]
        if any(one is None for one in found):
            return None
        lowest, step = zip(*found, strict=True)  # type: ignore[arg-type]
        return Spacing(np.array(lowest), np.array(step))

    def to_json(self) -> Any:
        """Plain data for JSON files."""
        return None if self.values is None else [values.tolist() for values in self.values]

    @classmethod
    def from_json(cls, content: Any) -> "Levels":
        """The reverse of `to_json`; raises FewSpikesError where it is none."""
        if content is None:
            return cls(None)
        values = tuple(np.array(entry, np.float64) for entry in content)
        sound = all(
            v.ndim == 1 and 0 < len(v) <= MOST and np.isfinite(v).all() and (np.diff(v) > 0).all() for v in values
        )
        if not values or not sound:
            raise FewSpikesError("the levels of an input must be up to 256 rising numbers for each channel")
        return cls(values)


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
    """The lowest of 256 values and their step; what is not seen is taken to lie on both sides of what is."""
    if len(values) == 1:
        return float(values[0]), abs(float(values[0])) or 1.0
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
    return float(values[0]) - (MOST - 1 - count) // 2 * step, step
