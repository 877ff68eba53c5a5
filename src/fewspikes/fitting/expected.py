"""What a neuron is worth on a problem: its weighted squared error and its mean spikes, from its exact steps."""

import numpy as np

from fewspikes.fitting.bounds import staircase
from fewspikes.fitting.problem import Problem
from fewspikes.parameters import FSParameters


def expected(p: FSParameters, problem: Problem) -> tuple[float, float]:
    """The weighted squared error and the mean spikes of any neuron; a search's own give the same for its best d.

    Both sum to what the problem's weight and inputs sum to (1 where nothing else is said).
    """
    edges, outputs, patterns = staircase(p, (problem.low, problem.high))
    grid = np.linspace(problem.low, problem.high, len(problem.sums))
    shares = (np.diff(np.interp(edges, grid, column)) for column in problem.sums.T)
    weight, target, square, inputs = shares
    y = outputs - problem.middle
    spikes = np.array([int(pattern).bit_count() for pattern in patterns])
    return float(np.sum(square - 2 * y * target + y**2 * weight)), float(spikes @ inputs)
