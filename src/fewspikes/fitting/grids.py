"""Codes whose every number lies on a chip's grid: snapped, then annealed with d rounded and repaired; compiled."""

import numba
import numpy as np

from fewspikes.base.progress import track
from fewspikes.fitting.descent import Pool, seed_of, total
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.staircase import Work, error_of, intervals, mirror, parameters_of, solve, workspace
from fewspikes.neuron.grid import Grid
from fewspikes.neuron.parameters import FSParameters

_TRIES = {"quick": 3_000, "normal": 60_000, "long": 600_000}  # changes of each annealing; some microseconds each
_STARTS = 4  # codes of the search that are annealed
_HOT, _COLD = 0.3, 0.003  # temperatures, in units of the objective

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
    mirror(A, n)
    b[:n] = work.b[:n]
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
    return error_of(d[:n], problem, work)


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
def objective_on_grid(
    p: Vector, problem: Problem, work: Work, first: float, step: float, last: int, L: Vector, b: Vector
) -> float:
    """The objective of a code on the grid, with weights on the grid."""
    n, spikes = intervals(p, problem, work)
    if n == 0:
        return np.inf
    return total(weights_on_grid(problem, work, first, step, last, L, b), spikes, problem)


@numba.njit(cache=True, nogil=True)
def shake(p: Vector, first: float, step: float, last: int) -> None:
    """Change p in place, on the grid: one number or two a little, a step moved to another place, or made anew."""
    K = len(p) // 2
    move = np.random.random()
    i = np.random.randint(K)
    if move < 0.75:
        for _ in range(1 if move < 0.35 else 2):
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
    seed: int, start: Vector, tries: int, hot: float, problem: Problem, first: float, step: float, last: int
) -> tuple[Vector, float]:
    """The best code on the grid first + i step, i = 0 to last, found by annealing from `start`, and its objective.

    `tries` changes of the code [2 K] are tried, while the temperature falls from `hot` to _COLD. The problem must have
    nothing taken off f (`middle` 0).
    """
    np.random.seed(seed)
    n = len(start)
    K = n // 2
    L, b = np.empty((K + 1, K + 1)), np.empty(K + 1)
    work = workspace(K)
    p, trial, best = start.copy(), start.copy(), start.copy()
    value = objective_on_grid(p, problem, work, first, step, last, L, b)
    least = value
    cooling = (_COLD / hot) ** (1.0 / max(tries, 1))
    temperature = hot
    for _ in range(tries):
        trial[:] = p
        shake(trial, first, step, last)
        new = objective_on_grid(trial, problem, work, first, step, last, L, b)
        if new <= value + temperature * np.random.exponential():
            value = new
            p[:] = trial
            if new < least - 1e-12:
                least = new
                best[:] = trial
        temperature *= cooling
    return best, least


def best_on_grid(
    problem: Problem, pool: Pool, grid: Grid, effort: str, seed: int, progress: bool | None = False
) -> tuple[FSParameters, Grid]:
    """The best neuron on the grid found from the codes of `pool`, and the grid with its scale.

    T and h are rounded and then annealed; for each code d and the offset are solved, rounded and repaired. A grid
    without a scale gets the least power of two that holds the best code. The problem must not be centred.
    """
    grid = grid.scaled_for(parameters_of(pool.codes[0], problem).numbers)
    first, step, last = grid.first, grid.step, grid.last
    starts = pool.codes[pool.values < np.inf][:_STARTS]
    best, least = grid.round(starts[0]), np.inf
    for i in track(range(2 * len(starts)), f"annealing on {last + 1} values", 2 * len(starts), progress):
        # The first half begins from the search's codes, the second from the best so far, each time a little cooler.
        start = grid.round(starts[i]) if i < len(starts) else best
        hot = _HOT if i < len(starts) else _HOT / 2.0 ** (i - len(starts) + 1)
        code, value = anneal(seed_of(seed, i), start, _TRIES[effort], hot, problem, first, step, last)
        if value < least:
            best, least = code, value
    return neuron_on_grid(problem, best, grid), grid


def neuron_on_grid(problem: Problem, code: Vector, grid: Grid) -> FSParameters:
    """The neuron of a code (T, h) on the grid, with its weights and offset rounded and repaired."""
    K = len(code) // 2
    work, L, b = workspace(K), np.empty((K + 1, K + 1)), np.empty(K + 1)
    objective_on_grid(code, problem, work, grid.first, grid.step, grid.last, L, b)
    offset = float(work.d[K]) if problem.offset else 0.0
    return FSParameters(code[:K], code[K:], work.d[:K], offset)
