"""Downhill in T and h by L-BFGS, and a local search that disturbs and descends again; compiled, the same by seed."""

from typing import NamedTuple

import numba
import numpy as np

from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.staircase import Work, dot, least_squares, slopes, workspace

STRICTNESS = 20.0  # of the spike limit, in units of the objective per spike: far above what a spike ever gains
STEPS = 160  # of one descent in a local search
_MEMORY = 12  # pairs that the descent remembers
_FIRST = 0.02  # of the domain: the length of the first step
_TRIALS = 24  # of one line search
_DECREASE, _CURVATURE = 1e-4, 0.9  # of the weak Wolfe conditions
_GAIN = 1e-7  # less than this in a step ends the descent
_PATIENCE = 12.0  # after s steps a descent that gets good in the end is rarely further from it than _PATIENCE / s
_PROBATION = 10  # steps that every descent may take
_SAME = 1e-4  # objectives closer than this are taken for the same code's
_PROGRESS = 2e-4  # less is none, for the local search
_PLACES = 32  # tried for a new step, each at the price of one evaluation; a descent costs hundreds


class Pool(NamedTuple):
    """The best codes so far, best first: [m, 2 K] and their objectives [m], infinite where there is none."""

    codes: Vector
    values: Vector


def empty_pool(K: int, size: int) -> Pool:
    """A pool without codes."""
    return Pool(np.zeros((size, 2 * K)), np.full(size, np.inf))


def seed_of(*numbers: int) -> int:
    """A seed of its own for each part of a search."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@numba.njit(cache=True, nogil=True)
def total(error: float, spikes: float, problem: Problem) -> float:
    """The objective of `problem` for an error and mean spikes, with STRICTNESS for each spike above the limit."""
    if not error < np.inf:
        return np.inf
    value = np.log(error + problem.spike_cost * spikes) + problem.preference * spikes
    return float(value + STRICTNESS * max(0.0, spikes - problem.limit))


@numba.njit(cache=True, nogil=True)
def objective(p: Vector, problem: Problem, work: Work) -> float:
    """The objective of the code p = (T, h) with its best d and offset; infinite where it has too many intervals."""
    error, spikes = least_squares(p, problem, work)
    return total(error, spikes, problem)


@numba.njit(cache=True, nogil=True)
def objective_and_gradient(p: Vector, problem: Problem, work: Work, gradient: Vector) -> float:
    """`objective`, with `gradient` [2 K] filled with its derivatives in p."""
    error, spikes = least_squares(p, problem, work)
    value = total(error, spikes, problem)
    if not value < np.inf:
        gradient[:] = 0.0
        return value
    slopes(problem, work)
    paid = error + problem.spike_cost * spikes
    per_spike = problem.preference + problem.spike_cost / paid
    if spikes > problem.limit:
        per_spike += STRICTNESS
    for k in range(len(p)):
        gradient[k] = work.slopes[0, k] / paid + per_spike * work.slopes[1, k]
    return value


@numba.njit(cache=True, nogil=True)
def downhill(g: Vector, S: Vector, Y: Vector, held: int, last: int, direction: Vector) -> None:
    """Fill `direction` with L-BFGS's product of the inverse Hessian and the gradient g."""
    alpha, rho = np.empty(_MEMORY), np.empty(_MEMORY)
    direction[:] = g
    for k in range(held):
        i = (last - 1 - k) % _MEMORY
        rho[i] = 1 / dot(S[i], Y[i])
        alpha[i] = rho[i] * dot(S[i], direction)
        direction -= alpha[i] * Y[i]
    i = (last - 1) % _MEMORY
    direction *= dot(S[i], Y[i]) / dot(Y[i], Y[i])
    for k in range(held - 1, -1, -1):
        i = (last - 1 - k) % _MEMORY
        direction += (alpha[i] - rho[i] * dot(Y[i], direction)) * S[i]


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
        new = objective_and_gradient(trial, problem, work, g)
        if not new < value + _DECREASE * stride * slope:
            upper = stride
        elif -dot(g, direction) < _CURVATURE * slope:
            lower = stride
        else:
            break
        stride = 2 * lower if upper == np.inf else (lower + upper) / 2
    return new


@numba.njit(cache=True, nogil=True)
def descend(p: Vector, problem: Problem, work: Work, steps: int, wanted: float) -> float:
    """Descend from p in place by L-BFGS and return the objective at the end.

    A descent that is not going to get down to `wanted` is broken off early. The objective is continuous, with kinks
    where intervals come and go; quasi-Newton steps with a weak Wolfe line search get down in spite of those.

    Source: Lewis and Overton, Nonsmooth optimization via quasi-Newton methods, 2013.
    """
    n = len(p)
    S, Y = np.empty((_MEMORY, n)), np.empty((_MEMORY, n))
    g, g_new, direction, trial = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    value = objective_and_gradient(p, problem, work, g)
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
            direction[:] = g * (length / max(np.sqrt(dot(g, g)), 1e-300))
        slope = -dot(g, direction)
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
        if dot(S[i], Y[i]) > 1e-14:
            last += 1
            held = min(held + 1, _MEMORY)
        if gained < _GAIN:
            break
    return value


@numba.njit(cache=True, nogil=True)
def random_code(low: float, high: float, p: Vector) -> None:
    """Fill p with a random code: resets that shrink geometrically, thresholds of their size."""
    K = len(p) // 2
    ratio = np.random.uniform(0.45, 0.9)
    size = (high - low) * np.random.uniform(0.2, 0.7)
    shift = np.random.normal() * 0.015 * (high - low)
    for t in range(K):
        p[t] = size * np.random.uniform(0.2, 1.2) + shift
        p[K + t] = size * np.random.uniform(0.5, 1.3)
        size *= ratio


@numba.njit(cache=True, nogil=True)
def move_step(p: Vector, i: int, j: int) -> None:
    """Take step i out and put it in again as step j."""
    K = len(p) // 2
    step = 1 if j > i else -1
    for base in (0, K):
        held = p[base + i]
        for k in range(i, j, step):
            p[base + k] = p[base + k + step]
        p[base + j] = held


@numba.njit(cache=True, nogil=True)
def disturb(base: Vector, low: float, high: float, p: Vector) -> None:
    """Fill p with a neighbour of `base`: noise, one step changed, two exchanged, or one made anew elsewhere."""
    K = len(base) // 2
    p[:] = base
    size = (high - low) * 2.0 ** -np.random.uniform(1.0, 7.0)
    i, j = np.random.randint(K), np.random.randint(K)
    move = np.random.randint(5)
    if move == 0:
        noise = 0.02 * 3.0 ** np.random.randint(3)
        for k in range(2 * K):
            p[k] += np.random.normal() * noise * abs(p[k])
    elif move == 1:
        p[i] += np.random.normal() * size
        p[K + i] += np.random.normal() * size
    elif move == 2:
        p[i], p[j] = base[j], base[i]
        p[K + i], p[K + j] = base[K + j], base[K + i]
    else:
        move_step(p, i, j)
        p[j] = np.random.normal() * size
        p[K + j] = np.random.normal() * size if move == 3 else abs(np.random.normal()) * size


@numba.njit(cache=True, nogil=True)
def replace_step(base: Vector, skipped: int, place: int, T: float, h: float, p: Vector) -> None:
    """Fill p with `base` less the step `skipped` (-1: none), and with (T, h) put in at `place`."""
    n, K = len(base) // 2, len(p) // 2
    source = 0
    for t in range(K):
        if t == place:
            p[t], p[K + t] = T, h
            continue
        if source == skipped:
            source += 1
        p[t], p[K + t] = base[source], base[n + source]
        source += 1


@numba.njit(cache=True, nogil=True)
def new_step(base: Vector, problem: Problem, work: Work, p: Vector, trial: Vector) -> None:
    """Fill p with `base` and the best of some random new steps, in place of one of its own if p is no longer."""
    n, K = len(base) // 2, len(p) // 2
    skipped = np.random.randint(n) if n == K else -1
    least = np.inf
    for k in range(_PLACES):
        size = (problem.high - problem.low) * 2.0 ** -np.random.uniform(1.0, 7.0 + K / 4)
        T, h = np.random.normal() * size, np.random.normal() * size
        replace_step(base, skipped, np.random.randint(K), T, abs(h) if np.random.random() < 0.5 else h, trial)
        value = objective(trial, problem, work)
        if k == 0 or value < least:
            least = value
            p[:] = trial


@numba.njit(cache=True, nogil=True)
def enter(p: Vector, value: float, pool: Vector, values: Vector) -> None:
    """Put a code into the sorted pool, unless it is no better than the last there or the same as one."""
    n = len(values)
    if not value < values[n - 1]:
        return
    for k in range(n):
        if abs(values[k] - value) < _SAME:
            if value < values[k]:
                values[k] = value
                pool[k] = p
            return
    k = n - 1
    while k > 0 and values[k - 1] > value:
        values[k] = values[k - 1]
        pool[k] = pool[k - 1]
        k -= 1
    values[k] = value
    pool[k] = p


@numba.njit(cache=True, nogil=True)
def local_search(
    seed: int, starts: Vector, fresh: int, idle: int, most: int, problem: Problem, pool: Vector, values: Vector
) -> int:
    """Descend from `starts` and from `fresh` random codes, then disturb the best until nothing is gained any more.

    `idle` disturbances in a row without gain end the search, `most` descents at the latest; returns how many it took.

    Args:
        seed, problem: of everything random here; what is minimised.
        starts: [n, 2 K], codes to begin from; or [n, 2 K - 2], codes that get a step more; or none.
        fresh, idle, most: as above.
        pool, values: [m, 2 K] and [m], filled with the best codes and their objectives, best first; infinite at first.
    """
    np.random.seed(seed)
    K = pool.shape[1] // 2
    p, trial, work = np.empty(2 * K), np.empty(2 * K), workspace(K)
    low, high, last = problem.low, problem.high, len(values) - 1
    descents = 0
    for k in range(len(starts) + fresh):
        if k >= len(starts):
            random_code(low, high, p)
        elif starts.shape[1] == 2 * K:
            p[:] = starts[k]
        else:
            new_step(starts[k], problem, work, p, trial)
        enter(p, descend(p, problem, work, STEPS, values[last]), pool, values)
        descents += 1
    without = 0
    while without < idle and descents < most:
        chosen = min(int(np.random.exponential(1.5)), last)
        if not values[chosen] < np.inf:
            chosen = 0
        if np.random.random() < 0.5:
            disturb(pool[chosen], low, high, p)
        else:
            new_step(pool[chosen], problem, work, p, trial)
        best = values[0]
        enter(p, descend(p, problem, work, STEPS, values[last]), pool, values)
        descents += 1
        without = 0 if values[0] < best - _PROGRESS else without + 1
    return descents
