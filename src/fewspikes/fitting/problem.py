"""What a fit minimises: a function, how much its errors count and where spikes are counted, summed up on a fine grid.

With E the weighted mean squared error, S the mean spikes and Var(f) the variance of f under the same weight, it is

    log(E + spike_price Var(f) S) + preference S,    and S must not exceed the limit.

Up to a constant that is log(E / Var(f) + spike_price S): the logarithm changes no order, but keeps small errors and
large ones equally steep. At spike_price 1 a code that fires once on average costs as much as a silent one.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 8192  # of the grid; the error of a code is then exact to well under 1%, see tests/test_fitting_staircase.py
PREFERENCE = 0.003  # per spike, in log(error): of two codes of about equal error the one with fewer spikes
_CONSTANT = 1e-24  # of the mean square: what rounding leaves of no variance at all

Vector = NDArray[np.float64]
Function = Callable[[Tensor], Tensor]


class Problem(NamedTuple):
    """A function on [low, high] and what its imitation costs; a plain tuple, so that compiled code can take it."""

    low: float  # the grid's ends
    high: float
    # [bins + 1, 4], prefix sums of weight, of weight f and of the inputs' density, and between the last two the bend of
    # weight f within the bin that begins here: within a bin f is a line, its prefix sum a parabola.
    sums: Vector
    densities: Vector  # [bins, 4]: weight per unit length, f in the middle, inputs per unit length, f's rise in the bin
    square: float  # the sum of weight f^2, after `middle` was taken off
    middle: float  # a constant taken off f, so that squares lose no digits; 0 where the offset may not carry it
    variance: float  # Var(f) under the weight; for a constant f its mean square, or 1 for f = 0
    constant: bool  # whether f has one value wherever the weight is
    offset: bool  # whether c is free; otherwise it is 0
    spike_cost: float  # of one mean spike in units of the squared error: spike_price Var(f)
    preference: float  # the same in units of the objective; small, it decides between codes of about equal error
    limit: float  # the most mean spikes that are allowed


def sum_up(
    function: Function,
    domain: tuple[float, float],
    weight: Vector,
    density: Vector,
    *,
    offset: bool = True,
    spike_price: float = 0.0,
    preference: float = PREFERENCE,
    limit: float = inf,
    centred: bool = True,
) -> Problem:
    """The problem of imitating a function, elementwise on float64 tensors, on a finite domain.

    Args:
        function, domain, offset, preference, limit: as in `Problem`.
        weight: [bins], how much the squared error in each bin counts; sums to 1.
        density: [bins], the share of inputs in each bin; sums to 1. Mean spikes are taken over it.
        spike_price: of a mean spike, as a share of Var(f).
        centred: whether the offset may carry a middle of f; it may not where it has to lie on a grid.
    """
    low, high = domain
    bins = len(weight)
    width = (high - low) / bins
    edges = torch.linspace(low, high, 2 * bins + 1, dtype=torch.float64)  # the middle of each bin among them
    f = function(edges).numpy()
    variance, constant = _variance(f, weight)
    middle = float(weight @ f[1::2]) if offset and centred else 0.0
    f = f - middle
    mean, rise = _mean(f), f[2::2] - f[:-1:2]
    sums = np.zeros((bins + 1, 4))
    for column, part in ((0, weight), (1, weight * mean), (3, density)):
        np.cumsum(part, out=sums[1:, column])
    sums[:-1, 2] = weight * rise / 2
    densities = np.ascontiguousarray(np.stack([weight / width, mean, density / width, rise], axis=1))
    square, cost = float(weight @ _mean(f**2)), float(spike_price) * variance
    ends = float(low), float(high)
    return Problem(*ends, sums, densities, square, middle, variance, constant, offset, cost, preference, float(limit))


def _mean(f: Vector) -> Vector:
    """The mean over each bin by Simpson's rule, exact for a line and for its square; from edges and middles."""
    return np.asarray((f[:-1:2] + 4 * f[1::2] + f[2::2]) / 6, np.float64)


def _variance(f: Vector, weight: Vector) -> tuple[float, bool]:
    """`Problem.variance` and `Problem.constant`."""
    square = float(weight @ _mean(f**2))
    variance = float(weight @ _mean((f - weight @ _mean(f)) ** 2))
    if variance > _CONSTANT * square:
        return variance, False
    return square or 1.0, True
