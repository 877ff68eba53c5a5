"""How much an error counts, by where it is made: what a fit weighs a site's gate inputs by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting.histogram import Histogram, places


@dataclass(frozen=True, eq=False)
class Weights:
    """Squared sensitivities of a network's output to what one site puts out, summed by the site's gate inputs.

    Attributes:
        inputs: the gate inputs at which they were measured.
        squares: one sum >= 0 per bin of `inputs`.
    """

    inputs: Histogram
    squares: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.squares.shape != self.inputs.counts.shape:
            raise FewSpikesError(f"weights need {len(self.inputs.counts)} sums, one a bin; got {len(self.squares)}")
        if not (np.isfinite(self.squares).all() and (self.squares >= 0).all()):
            raise FewSpikesError("weights must be finite and >= 0")

    @classmethod
    def of(cls, inputs: Tensor, squares: Tensor) -> "Weights":
        """From gate inputs and the squared sensitivity at each; one that is not finite counts as none."""
        seen = Histogram.of(inputs)
        where = places(inputs.reshape(-1), seen.exponent, seen.first)
        counted = squares.reshape(-1).double().nan_to_num(0.0, 0.0, 0.0)
        return cls(seen, torch.bincount(where, counted, len(seen.counts)).cpu().numpy())

    @property
    def total(self) -> float:
        """The sum of all."""
        return float(self.squares.sum())

    def __add__(self, other: "Weights") -> "Weights":
        inputs = self.inputs + other.inputs
        squares = np.zeros(len(inputs.counts))
        for part in (self, other):
            np.add.at(squares, part.inputs.places_in(inputs.exponent, inputs.first), part.squares)
        return Weights(inputs, squares)

    def shares(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of the weight between neighbouring edges [bins + 1], of all between the first and the last.

        Raises:
            FewSpikesError: there is none.
        """
        ends = (self.inputs.first + np.arange(len(self.squares) + 1)) * self.inputs.width
        found = np.diff(np.interp(edges, ends, np.append(0.0, np.cumsum(self.squares))))
        whole = float(found.sum())
        if not whole > 0:
            raise FewSpikesError(f"none of the weight lies in the domain [{edges[0]:g}, {edges[-1]:g}]")
        return np.asarray(np.maximum(found, 0.0) / whole, np.float64)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files; bins without inputs have no weight and are left out."""
        return {"inputs": self.inputs.to_json(), "squares": self.squares[self.inputs.counts > 0].tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Weights":
        """The reverse of `to_json`; raises FewSpikesError where the sums do not belong to the inputs."""
        inputs = Histogram.from_json(content["inputs"])
        given = [checks.finite("a weight", value) for value in content["squares"]]
        seen = inputs.counts > 0
        if len(given) != int(seen.sum()):
            raise FewSpikesError(f"weights need {int(seen.sum())} sums, one a bin with inputs; got {len(given)}")
        squares = np.zeros(len(seen))
        squares[seen] = given
        return cls(inputs, squares)
