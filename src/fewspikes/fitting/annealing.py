"""Search over codes whose every number lies on a grid: simulated annealing with d rounded and repaired; compiled."""

import numba
import numpy as np

from fewspikes.fitting.descent import STRICTNESS
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.staircase import Work, intervals, solve, workspace

_ROUNDS = 8  # of the repair; it settles in two or three
_RIDGE = 1e-9  # of the total weight: keeps useless steps' weights near 0


@numba.njit(cache=True, nogil=True)
def nearest(value: float, first: float, step: float, last: int) -> float:
    """The nearest value of the grid first + i step, i = 0 to last."""
    i = min(max(np.floor((value - first) / step + 0.5), 0.0), float(last))
    return float(first + i * step)


@numba.njit(cache=True, nogil=True)
def weights_on_grid(problem: Problem, work: Work, first: float, step: float, last: int, L: Vector, b: Vector) -> float:
    """Fill work.d with weights on the grid (the offset last) and return the weighted squared error.

    The least-squares weights are rounded one after the other, those with the most influence first, each time moving
    the rest to make up for it; then single weights are moved as long as that lowers the error. The offset is on the
    grid, too, so the problem must not have a middle taken off.
    """
    A, d = work.A, work.d
    n = len(d) if problem.offset else len(d) - 1
    for i in range(n):
        for j in range(i):
            A[j, i] = A[i, j]
        b[i] = work.b[i]
    for i in range(n):
        for j in range(n):
            L[i, j] = A[i, j]
        L[i, i] += _RIDGE * problem.sums[-1, 0]
    solve(L[:n, :n], b[:n], d[:n])
    # L now holds the Cholesky factor below its diagonal. Rounding d[n-1] first leaves the others' best values at
    # L'[:k, :k] d = L' d* - ..., the nearest-plane rule of integer least squares.
    b[:n] = d[:n]
    for k in range(n - 1, -1, -1):
        centre = b[k]
        for i in range(k + 1, n):
            centre += L[i, k] / L[k, k] * (b[i] - d[i])
        d[k] = nearest(centre, first, step, last)
    repair(A, work.b, d, n, first, step, last)
    error = problem.square
    for i in range(n):
        error -= 2 * d[i] * work.b[i]
        for j in range(n):
            error += d[i] * d[j] * A[i, j]
    return float(max(error, 1e-300))


@numba.njit(cache=True, nogil=True)
def repair(A: Vector, b: Vector, d: Vector, n: int, first: float, step: float, last: int) -> None:
    """Move one weight at a time to the value that is best with the others as they are."""
    for _ in range(_ROUNDS):
        moved = False
        for i in range(n):
            if A[i, i] <= 0:
                d[i] = nearest(0.0, first, step, last)
                continue
            rest = b[i]
            for j in range(n):
                if j != i:
                    rest -= A[i, j] * d[j]
            best = nearest(rest / A[i, i], first, step, last)
            if abs(best - d[i]) > step / 2:
                d[i] = best
                moved = True
        if not moved:
            return


@numba.njit(cache=True, nogil=True)
def price_on_grid(
    p: Vector, problem: Problem, work: Work, first: float, step: float, last: int, L: Vector, b: Vector
) -> float:
    """log(error) + spike_weight spikes + STRICTNESS max(0, spikes - limit) of a code on the grid."""
    n, spikes = intervals(p, problem, work)
    if n == 0:
        return np.inf
    error = weights_on_grid(problem, work, first, step, last, L, b)
    value = np.log(error) + problem.spike_weight * spikes
    return float(value + STRICTNESS * max(0.0, spikes - problem.limit))


@numba.njit(cache=True, nogil=True)
def shake(p: Vector, first: float, step: float, last: int) -> None:
    """Change p in place, on the grid: one number or two a little, a step moved to another place, or made anew."""
    K = len(p) // 2
    move = np.random.random()
    i = np.random.randint(K)
    if move < 0.35:
        k = np.random.randint(2 * K)
        p[k] = nearest(p[k] + jump(last) * step, first, step, last)
    elif move < 0.75:
        k = np.random.randint(2 * K)
        p[k] = nearest(p[k] + jump(last) * step, first, step, last)
        k = np.random.randint(2 * K)
        p[k] = nearest(p[k] + jump(last) * step, first, step, last)
    elif move < 0.85:
        j = np.random.randint(K)
        p[i], p[j] = p[j], p[i]
        p[K + i], p[K + j] = p[K + j], p[K + i]
    else:
        size = (last + 1) * step * 2.0 ** -np.random.uniform(1.0, 7.0)
        p[i] = nearest(np.random.normal() * size, first, step, last)
        p[K + i] = nearest(abs(np.random.normal()) * size, first, step, last)


@numba.njit(cache=True, nogil=True)
def jump(last: int) -> int:
    """A whole number other than 0, mostly small, either sign."""
    size = 1 + int(np.random.exponential(0.7) * (1 + last / 256))
    return size if np.random.random() < 0.5 else -size


@numba.njit(cache=True, nogil=True)
def anneal(
    seed: int,
    start: Vector,
    tries: int,
    hot: float,
    cold: float,
    problem: Problem,
    first: float,
    step: float,
    last: int,
) -> tuple[Vector, float]:
    """The best code on the grid found by annealing from `start`, and its price.

    Args:
        seed: of everything random here.
        start: [2 K], a code on the grid.
        tries: how many changes are tried.
        hot, cold: the temperature at first and in the end, in units of log(error).
        problem: what is minimised, with nothing taken off f (`middle` 0).
        first, step, last: the grid first + i step, i = 0 to last.
    """
    np.random.seed(seed)
    n = len(start)
    K = n // 2
    L, b = np.empty((K + 1, K + 1)), np.empty(K + 1)
    work = workspace(K)
    p, trial, best = start.copy(), start.copy(), start.copy()
    value = price_on_grid(p, problem, work, first, step, last, L, b)
    least = value
    cooling = (cold / hot) ** (1.0 / max(tries, 1))
    temperature = hot
    for _ in range(tries):
        trial[:] = p
        shake(trial, first, step, last)
        new = price_on_grid(trial, problem, work, first, step, last, L, b)
        if new <= value + temperature * np.random.exponential():
            value = new
            p[:] = trial
            if new < least - 1e-12:
                least = new
                best[:] = trial
        temperature *= cooling
    return best, least
