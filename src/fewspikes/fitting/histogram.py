"""A histogram that grows with its data: any order of batches and any merge gives the same counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, frexp, isfinite, log2
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError

MAX_BINS = 8192  # so a bin is never wider than 1/4096 of the range, plus one bin at the ends

_LARGEST = 1e300  # more than any float64 that a network could go on with; the width of twice as much is finite
_PLACE = ("exponent", "first")
_AT_ONCE = 1 << 16  # values, of which copies are made while they are counted
_FINEST = -100  # 2^100 is still a float32, so that values can be divided by any width


class Moments(NamedTuple):
    """Integrals of 1, x and x squared against the density, from minus infinity up to given points."""

    m0: NDArray[np.float64]
    m1: NDArray[np.float64]
    m2: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins of width 2^exponent; bin i covers [(first + i), (first + i + 1)) 2^exponent.

    The width is the smallest power of two that covers [low, high] with at most 8192 bins. It depends on the extremes
    alone, so adding histograms in any order gives the same result.

    Args:
        low, high: the exact smallest and largest value.
        exponent, first: the bins' width and place.
        counts: int64, one number per bin.
    """

    low: float
    high: float
    exponent: int
    first: int
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: Tensor) -> "Histogram":
        """The histogram of all elements of a tensor.

        Raises:
            FewSpikesError: the tensor is empty or holds NaN or inf.
        """
        if not values.numel():
            raise FewSpikesError("a histogram needs at least one value")
        low, high = (float(v) for v in torch.aminmax(values))
        if not (isfinite(low) and isfinite(high)):
            raise FewSpikesError("a histogram needs finite values; got NaN or inf")
        if max(-low, high) > _LARGEST:
            raise FewSpikesError(f"a histogram needs values within {_LARGEST:g}; got {low:g} to {high:g}")
        exponent = _exponent(low, high)
        first, last = _bin(low, exponent), _bin(high, exponent)
        counts = torch.zeros(last - first + 1, dtype=torch.int64, device=values.device)
        for part in values.reshape(-1).split(_AT_ONCE):
            counts += torch.bincount(places(part, exponent, first), minlength=len(counts))
        return cls(low, high, exponent, first, counts.cpu().numpy())

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def width(self) -> float:
        """The width of a bin."""
        return 2.0**self.exponent

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return np.asarray((self.first + np.arange(len(self.counts)) + 0.5) * self.width, np.float64)

    @property
    def variance(self) -> float:
        """Of the values, each taken for the centre of its bin."""
        parts = self.counts / self.total
        return float(parts @ (self.centres - parts @ self.centres) ** 2)

    def __add__(self, other: "Histogram") -> "Histogram":
        low, high = min(self.low, other.low), max(self.high, other.high)
        exponent = _exponent(low, high)
        first, last = _bin(low, exponent), _bin(high, exponent)
        counts = np.zeros(last - first + 1, np.int64)
        for part in (self, other):
            np.add.at(counts, part.places_in(exponent, first), part.counts)
        return Histogram(low, high, exponent, first, counts)

    def places_in(self, exponent: int, first: int) -> NDArray[np.int64]:
        """For each bin, its place among those of a wider width 2^exponent that begin at `first`."""
        return ((self.first + np.arange(len(self.counts))) >> (exponent - self.exponent)) - first

    def moments(self, points: NDArray[np.float64]) -> Moments:
        """Integrals up to each point, the density taken as constant within a bin; total mass 1."""
        edges, density, whole = self._cumulative
        x = np.clip(points, edges[0], edges[-1])
        i = np.clip(((x - edges[0]) / self.width).astype(np.int64), 0, len(density) - 1)
        below, share = edges[i], density[i]
        m0, m1, m2 = (w[i] + share * (x**p - below**p) / p for p, w in zip((1, 2, 3), whole, strict=True))
        return Moments(m0, m1, m2)

    @cached_property
    def _cumulative(self) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]]]:
        """Edges of the bins, density in them, and the three integrals up to each edge."""
        edges = np.asarray((self.first + np.arange(len(self.counts) + 1)) * self.width, np.float64)
        density = self.counts / (self.total * self.width)
        whole = [np.concatenate([[0.0], np.cumsum(density * np.diff(edges**p) / p)]) for p in (1, 2, 3)]
        return edges, density, whole

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files; runs of empty bins are written as one negative number, their length."""
        return {
            "low": self.low,
            "high": self.high,
            "exponent": self.exponent,
            "first": self.first,
            "counts": _squeeze(self.counts.tolist()),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Histogram":
        """The reverse of `to_json`; raises FewSpikesError where the bins do not cover the range."""
        low, high = (checks.finite(f"{end} of a histogram", content[end]) for end in ("low", "high"))
        exponent, first = (checks.whole(f"{name} of a histogram", content[name], -1 << 62) for name in _PLACE)
        counts = _unsqueeze(content["counts"])
        if not low <= high or max(-low, high) > _LARGEST or not 1 <= sum(counts) < 1 << 63:
            raise FewSpikesError(f"a histogram from {low} to {high} of {sum(counts):,} values")
        finest = _exponent(low, high)
        size = _bin(high, finest) - _bin(low, finest) + 1
        if (exponent, first, len(counts)) != (finest, _bin(low, finest), size):
            raise FewSpikesError(f"a histogram from {low} to {high} has {size} bins; got {len(counts)}")
        return cls(low, high, exponent, first, np.array(counts, np.int64))


def places(values: Tensor, exponent: int, first: int) -> Tensor:
    """The place of each value among bins of width 2^exponent that begin at `first`; int32."""
    floors = (values * 2.0**-exponent).floor_()
    if exponent > 0:
        floors[(floors == 0) & (values < 0)] = -1  # so small that the product underflowed
    return floors.sub_(first).to(torch.int32)


def _bin(x: float, exponent: int) -> int:
    return int(np.floor(np.ldexp(x, -exponent)))


def _exponent(low: float, high: float) -> int:
    """The smallest exponent with at most MAX_BINS bins, and with bins no finer than a float32 of that size can tell.

    Both limits only grow with the range, so that merging never needs finer bins than its parts have.
    """
    largest = max(abs(low), abs(high))
    finest = max(frexp(largest)[1] - 24, _FINEST) if largest else _FINEST
    exponent = max(ceil(log2(max((high - low) / MAX_BINS, 2.0**_FINEST))), finest)
    while _bin(high, exponent) - _bin(low, exponent) + 1 > MAX_BINS:
        exponent += 1
    return exponent


def _squeeze(counts: list[int]) -> list[int]:
    squeezed: list[int] = []
    for count in counts:
        if count == 0 and squeezed and squeezed[-1] < 0:
            squeezed[-1] -= 1
        else:
            squeezed.append(count if count else -1)
    return squeezed


def _unsqueeze(squeezed: Sequence[int]) -> list[int]:
    counts: list[int] = []
    for number in squeezed:
        checks.whole("a count of a histogram", number, -MAX_BINS)
        counts.extend([0] * -number if number < 0 else [number])
        if len(counts) > MAX_BINS:
            raise FewSpikesError(f"a histogram has at most {MAX_BINS} bins")
    return counts
