"""Fits whose every number lies on a chip's grid, with the grid in the loop: snapped, then annealed on it."""

import numpy as np

from fewspikes.base.progress import track
from fewspikes.fitting.annealing import anneal, price_on_grid
from fewspikes.fitting.code import parameters_of
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.search import Pool, seed_of
from fewspikes.fitting.staircase import workspace
from fewspikes.neuron.parameters import FSParameters, Grid

_TRIES = {"quick": 3_000, "normal": 60_000, "long": 600_000}  # changes of each annealing; some microseconds each
_STARTS = 4  # codes of the search that are annealed
_HOT, _COLD = 0.3, 0.003  # in log(error)


def search_on_grid(
    problem: Problem, pool: Pool, grid: Grid, effort: str, seed: int, progress: bool | None = False
) -> tuple[FSParameters, Grid]:
    """The best neuron on the grid found from the codes of `pool`, and the grid with its scale.

    T and h are rounded and then annealed; for each code d and the offset are solved, rounded and repaired.

    Args:
        problem: what is minimised, not centred.
        pool: good codes without the grid, best first.
        grid: the values; without a scale it gets the least power of two that holds the best code.
        effort: "quick", "normal" or "long".
        seed: of everything random.
        progress: whether to show a bar; None: on a terminal.
    """
    grid = grid.scaled_for(parameters_of(pool.codes[0], problem, "", (problem.low, problem.high), {}))
    first, step, last = grid.first, grid.step, 2**grid.bits - 1
    starts = pool.codes[pool.values < np.inf][:_STARTS]
    best, least = grid.round(starts[0]), np.inf
    for i in track(range(2 * len(starts)), f"annealing on {last + 1} values", 2 * len(starts), progress):
        # The first half begins from the search's codes, the second from the best so far, each time a little cooler.
        start = grid.round(starts[i]) if i < len(starts) else best
        hot = _HOT if i < len(starts) else _HOT / 2.0 ** (i - len(starts) + 1)
        code, value = anneal(seed_of(seed, i), start, _TRIES[effort], hot, _COLD, problem, first, step, last)
        if value < least:
            best, least = code, value
    return neuron_on_grid(problem, best, grid), grid


def neuron_on_grid(problem: Problem, code: Vector, grid: Grid) -> FSParameters:
    """The neuron of a code (T, h) on the grid, with its weights and offset rounded and repaired."""
    K = len(code) // 2
    work, L, b = workspace(K), np.empty((K + 1, K + 1)), np.empty(K + 1)
    price_on_grid(code, problem, work, grid.first, grid.step, 2**grid.bits - 1, L, b)
    offset = float(work.d[K]) if problem.offset else 0.0
    return FSParameters(code[:K], code[K:], work.d[:K], offset)
