"""What a search minimises: the function and the weights of the inputs, summed up on a fine grid."""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 8192  # of the grid; the error of a code is then exact to well under 1%, see tests/test_fitting_search.py

Vector = NDArray[np.float64]
Function = Callable[[Tensor], Tensor]


class Problem(NamedTuple):
    """A function on [low, high] and what its imitation costs; a plain tuple, so that compiled code can take it.

    Attributes:
        low, high: the grid's ends.
        sums: [bins + 1, 4], prefix sums of weight, of weight f and of the inputs' density, and between the last two
            the bend of weight f within the bin that begins here: within a bin f is a line, its prefix sum a parabola.
        densities: [bins, 4], weight per unit length, f in the middle, the inputs' density per unit length, and how
            much f rises over the bin.
        square: the sum of weight f^2.
        middle: a constant taken off f, so that squares lose no digits; 0 where the offset may not carry it.
        offset: whether c is free; otherwise it is 0.
        spike_weight: what one mean spike costs, in units of log(error).
        limit: the most mean spikes that are allowed.
    """

    low: float
    high: float
    sums: Vector
    densities: Vector
    square: float
    middle: float
    offset: bool
    spike_weight: float
    limit: float


def problem(
    function: Function,
    low: float,
    high: float,
    weight: Vector,
    density: Vector,
    *,
    offset: bool = True,
    spike_weight: float = 0.0,
    limit: float = inf,
    centred: bool = True,
) -> Problem:
    """Sum up `function` over the grid.

    Args:
        function: elementwise, on float64 tensors.
        low, high: the domain, finite.
        weight: [bins], how much the squared error in each bin counts; sums to 1.
        density: [bins], the share of inputs in each bin; sums to 1. Mean spikes are taken over it.
        offset, spike_weight, limit: as in `Problem`.
        centred: whether the offset may carry a middle of f; it may not where it has to lie on a grid.
    """
    bins = len(weight)
    width = (high - low) / bins
    edges = torch.linspace(low, high, 2 * bins + 1, dtype=torch.float64)  # the middle of each bin among them
    f = function(edges).numpy()
    middle = float(weight @ f[1::2]) if offset and centred else 0.0
    f = f - middle
    left, centre, right = f[:-1:2], f[1::2], f[2::2]
    mean = (left + 4 * centre + right) / 6  # Simpson's rule: exact for a line, and for its square
    square = (left**2 + 4 * centre**2 + right**2) / 6
    rise = right - left
    sums = np.zeros((bins + 1, 4))
    for column, part in ((0, weight), (1, weight * mean), (3, density)):
        np.cumsum(part, out=sums[1:, column])
    sums[:-1, 2] = weight * rise / 2
    densities = np.ascontiguousarray(np.stack([weight / width, mean, density / width, rise], axis=1))
    return Problem(
        float(low),
        float(high),
        sums,
        densities,
        float(weight @ square),
        middle,
        offset,
        float(spike_weight),
        float(limit),
    )
