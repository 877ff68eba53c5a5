"""Downhill in T and h: the objective, and a quasi-Newton descent that copes with its kinks; compiled."""

import numba
import numpy as np

from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.staircase import Work, least_squares, slopes

STRICTNESS = 20.0  # of the spike limit, in log(error) per spike: far above what a spike ever gains
_MEMORY = 12  # pairs that the descent remembers
_FIRST = 0.02  # of the domain: the length of the first step
_TRIALS = 24  # of one line search
_DECREASE, _CURVATURE = 1e-4, 0.9  # of the weak Wolfe conditions
_GAIN = 1e-7  # less than this in a step ends the descent
_PATIENCE = 12.0  # after s steps a descent that gets good in the end is rarely further from it than _PATIENCE / s
_PROBATION = 10  # steps that every descent may take


@numba.njit(cache=True, nogil=True)
def objective(p: Vector, problem: Problem, work: Work, gradient: Vector) -> tuple[float, float, float]:
    """log(error) + spike_weight spikes + STRICTNESS max(0, spikes - limit), with its gradient in p = (T, h).

    Returns (objective, error, mean spikes); infinite where the code has too many intervals.
    """
    K = len(p) // 2
    error, spikes = least_squares(p, problem, work)
    if not error < np.inf:
        gradient[:] = 0.0
        return np.inf, error, spikes
    slopes(problem, work)
    per_spike = problem.spike_weight
    value = np.log(error) + per_spike * spikes
    if spikes > problem.limit:
        per_spike += STRICTNESS
        value += STRICTNESS * (spikes - problem.limit)
    for k in range(2 * K):
        gradient[k] = work.slopes[0, k] / error + per_spike * work.slopes[1, k]
    return value, error, spikes


@numba.njit(cache=True, nogil=True)
def price(p: Vector, problem: Problem, work: Work) -> float:
    """The objective alone, see `objective`."""
    error, spikes = least_squares(p, problem, work)
    if not error < np.inf:
        return np.inf
    value = np.log(error) + problem.spike_weight * spikes
    return float(value + STRICTNESS * max(0.0, spikes - problem.limit))


@numba.njit(cache=True, nogil=True)
def downhill(g: Vector, S: Vector, Y: Vector, held: int, last: int, direction: Vector) -> None:
    """Fill `direction` with L-BFGS's product of the inverse Hessian and the gradient g."""
    alpha, rho = np.empty(_MEMORY), np.empty(_MEMORY)
    direction[:] = g
    for k in range(held):
        i = (last - 1 - k) % _MEMORY
        rho[i] = 1 / np.dot(S[i], Y[i])
        alpha[i] = rho[i] * np.dot(S[i], direction)
        direction -= alpha[i] * Y[i]
    i = (last - 1) % _MEMORY
    direction *= np.dot(S[i], Y[i]) / np.dot(Y[i], Y[i])
    for k in range(held - 1, -1, -1):
        i = (last - 1 - k) % _MEMORY
        direction += (alpha[i] - rho[i] * np.dot(Y[i], direction)) * S[i]


@numba.njit(cache=True, nogil=True)
def line_search(
    p: Vector, value: float, slope: float, direction: Vector, problem: Problem, work: Work, trial: Vector, g: Vector
) -> float:
    """Fill `trial` with a point down the direction and g with the gradient there; returns its objective.

    Bisection for the weak Wolfe conditions; the result is no better than `value` where there is none.
    """
    lower, upper, stride = 0.0, np.inf, 1.0
    new = np.inf
    for _ in range(_TRIALS):
        for i in range(len(p)):
            trial[i] = p[i] - stride * direction[i]
        new, _, _ = objective(trial, problem, work, g)
        if not new < value + _DECREASE * stride * slope:
            upper = stride
        elif -np.dot(g, direction) < _CURVATURE * slope:
            lower = stride
        else:
            break
        stride = 2 * lower if upper == np.inf else (lower + upper) / 2
    return new


@numba.njit(cache=True, nogil=True)
def descend(p: Vector, problem: Problem, work: Work, steps: int, wanted: float) -> float:
    """Descend from p in place by L-BFGS and return the objective at the end.

    A descent that is not going to get down to `wanted` is broken off early.

    The objective is continuous, with kinks where intervals come and go; quasi-Newton steps with a weak Wolfe line
    search get down in spite of those.

    Source: Lewis and Overton, Nonsmooth optimization via quasi-Newton methods, 2013.
    """
    n = len(p)
    S, Y = np.empty((_MEMORY, n)), np.empty((_MEMORY, n))
    g, g_new, direction, trial = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    value, _, _ = objective(p, problem, work, g)
    if not value < np.inf:
        return value
    held = last = 0
    length = _FIRST * (problem.high - problem.low)
    for step in range(steps):
        if step >= _PROBATION and value > wanted + _PATIENCE / step:
            break
        if held:
            downhill(g, S, Y, held, last, direction)
        else:
            direction[:] = g * (length / max(np.sqrt(np.dot(g, g)), 1e-300))
        slope = -np.dot(g, direction)
        new = line_search(p, value, slope, direction, problem, work, trial, g_new) if slope < 0 else np.inf
        if not new < value:
            if held == 0:
                break
            held = 0
            length *= 0.25
            continue
        i = last % _MEMORY
        S[i] = trial - p
        Y[i] = g_new - g
        gained = value - new
        p[:] = trial
        g[:] = g_new
        value = new
        if np.dot(S[i], Y[i]) > 1e-14:
            last += 1
            held = min(held + 1, _MEMORY)
        if gained < _GAIN:
            break
    return value
