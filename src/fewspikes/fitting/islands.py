"""Iterated local search over T and h: descend, disturb, descend again; compiled, deterministic by seed."""

import numba
import numpy as np

from fewspikes.fitting.descent import descend, price
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.staircase import Work, workspace

STEPS = 160  # of one descent
_SAME = 1e-4  # objectives closer than this are taken for the same code's
_GAIN = 2e-4  # less is no progress
_TRIALS = 32  # places tried for a new step, each at the price of one evaluation; a descent costs hundreds


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
    for k in range(_TRIALS):
        size = (problem.high - problem.low) * 2.0 ** -np.random.uniform(1.0, 7.0 + K / 4)
        T, h = np.random.normal() * size, np.random.normal() * size
        replace_step(base, skipped, np.random.randint(K), T, abs(h) if np.random.random() < 0.5 else h, trial)
        value = price(trial, problem, work)
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
def island(
    seed: int, starts: Vector, fresh: int, idle: int, most: int, problem: Problem, pool: Vector, values: Vector
) -> int:
    """Descend from `starts` and from `fresh` random codes, then disturb the best until nothing is gained any more.

    Args:
        seed: of everything random here.
        starts: [n, 2 K], codes to begin from; or [n, 2 K - 2], codes that get a step more; or none.
        fresh: how many random codes beside them.
        idle: how many disturbances in a row without gain end the search.
        most: how many descents end it at the latest, those from the starts included.
        problem: what is minimised.
        pool: [m, 2 K], filled with the best codes found, best first.
        values: [m], their objectives; infinite at first.

    Returns:
        How many descents it took.
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
        without = 0 if values[0] < best - _GAIN else without + 1
    return descents
