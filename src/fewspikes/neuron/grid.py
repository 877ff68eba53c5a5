"""The values that a chip's parameters can take."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError

MOST_BITS = 24  # as many as a float32 holds


@dataclass(frozen=True)
class Grid:
    """The values that a chip's parameters can take: 2^bits of them, equally spaced from low on, times a scale.

    Without its endpoint the spacing is (high - low) / 2^bits and the last value is one step below high; with it the
    spacing is (high - low) / (2^bits - 1) and the last value is high.

    Args:
        bits: Q, 1 to 24.
        low, high: the range.
        endpoint: whether high itself is a value.
        scale: what one unit of the values stands for; None: the least power of two with which the parameters fit in.

    Raises:
        FewSpikesError: bits out of range, an empty range, or a scale that is not positive.

    Source: paper, Fig. 8c, d (2^Q values in [-8, 8]).

    >>> Grid(8).step
    0.0625
    """

    bits: int
    low: float = -8.0
    high: float = 8.0
    endpoint: bool = False
    scale: float | None = 1.0

    def __post_init__(self) -> None:
        checks.whole("bits", self.bits, 1, MOST_BITS)
        checks.interval("the grid's range", (checks.finite("low", self.low), checks.finite("high", self.high)))
        if not isinstance(self.endpoint, bool):
            raise FewSpikesError(f"endpoint must be True or False; got {checks.said(self.endpoint)}")
        if self.scale is not None:
            checks.positive("the scale", self.scale)

    @property
    def step(self) -> float:
        """The spacing, in units of the parameters."""
        return float((self.high - self.low) / (2**self.bits - self.endpoint) * (self.scale or 1.0))

    @property
    def first(self) -> float:
        """The lowest value, in units of the parameters."""
        return self.low * (self.scale or 1.0)

    @property
    def last(self) -> int:
        """The place of the highest value; the lowest has place 0."""
        return int(2**self.bits - 1)

    def round(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The nearest value for each of `values`; what lies outside gets the value at that end."""
        places = np.clip(np.round((values - self.first) / self.step), 0, self.last)
        return np.asarray(self.first + places * self.step, np.float64)

    def scaled_for(self, numbers: NDArray[np.float64]) -> "Grid":
        """With a scale: the given one, or the least power of two that keeps the numbers from being cut off."""
        if self.scale is not None:
            return self
        if not self.low < 0 < self.high:
            raise FewSpikesError(f"a scale can be chosen for a range around 0 only; got [{self.low}, {self.high}]")
        need = max(float(numbers.max()) / self.high, float(numbers.min()) / self.low, 2.0**-60)
        return replace(self, scale=float(2.0 ** np.ceil(np.log2(need))))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        return asdict(self)
