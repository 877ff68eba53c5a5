"""Functions that are constant on their domain: one value needs no search, and with an offset no spike."""

import numpy as np

from fewspikes.fitting.problem import Problem

_CONSTANT = 1e-24  # of the mean square: what rounding leaves of no variance at all


def is_constant(problem: Problem) -> bool:
    """Whether the function has one value wherever the weight is."""
    weight, target = problem.sums[-1, :2]
    variance = problem.square - target**2 / weight
    return bool(variance <= _CONSTANT * (problem.square + weight * problem.middle**2) + 1e-300)


def mean_value(problem: Problem) -> float:
    """The function's weighted mean."""
    return float(problem.sums[-1, 1] / problem.sums[-1, 0]) + problem.middle


def constant_code(problem: Problem, K: int, value: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(T, h), d and offset of a neuron with one value only.

    With an offset it never fires; without one its first step always fires, unless the value is 0.
    """
    span = problem.high - problem.low
    never, always = problem.high + span, problem.low - span
    code, d = np.concatenate([np.full(K, never), np.zeros(K)]), np.zeros(K)
    if problem.offset or value == 0:
        return code, d, value
    code[0], d[0] = always, value
    return code, d, 0.0
