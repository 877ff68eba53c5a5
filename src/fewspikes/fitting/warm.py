"""Where a search begins: the shipped tables, stretched to the domain at hand, and binary codes."""

import numpy as np

from fewspikes.fitting.atlas import Atlas
from fewspikes.fitting.descent import descend, price
from fewspikes.fitting.islands import STEPS, enter
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.search import Pool, empty_pool
from fewspikes.fitting.staircase import workspace
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.shipped import SHIPPED, all_shipped

_CLOSE = 1.0  # in log(error): a binary code that is no nearer to the best table is not worth a descent


def nearest(problem: Problem, K: int, size: int, tables: bool = True) -> Pool:
    """The best codes of K steps to begin from, best first.

    Args:
        problem: what is minimised.
        K: time steps.
        size: how many codes at most.
        tables: whether the shipped tables are among them, as they are and stretched; else only binary codes.
    """
    work, pool = workspace(K), empty_pool(K, size)
    for code in [code for p in _tables(K) for code in stretched(p, problem)] if tables else []:
        enter(code, price(code, problem, work), *pool)
    hope = pool.values[0] + _CLOSE
    for code in binary_codes(problem, K):
        if price(code, problem, work) < hope:
            enter(code, descend(code, problem, work, STEPS, hope), *pool)
    return pool


def warm_atlas(problem: Problem, K: int, size: int, tables: bool = True) -> Atlas:
    """The best codes to begin from for every number of steps up to K, see `nearest`."""
    found = {k: nearest(problem, k, size, tables) for k in range(1, K + 1)}
    return {k: pool for k, pool in found.items() if pool.values[0] < np.inf}


def binary_codes(problem: Problem, K: int) -> list[Vector]:
    """Binary codes, rounding to nearest, of the whole domain and of the parts where f rises and falls.

    The first is the best there is for a line, and a good beginning for what is nearly one.
    """
    rises = np.cumsum(np.abs(problem.densities[:, 3]))
    inner = np.searchsorted(rises / max(rises[-1], 1e-300), [[1e-6, 1 - 1e-6], [0.001, 0.999], [0.02, 0.98]])
    width = (problem.high - problem.low) / len(rises)
    parts = [(problem.low, problem.high), *(problem.low + (part + np.array([0, 1])) * width for part in inner)]
    bits = 2.0 ** -np.arange(1, K + 1)
    codes = [np.concatenate([low + (high - low) * (bits - bits[-1] / 2), (high - low) * bits]) for low, high in parts]
    return [np.asarray(code, np.float64) for code in codes]


def stretched(p: FSParameters, problem: Problem) -> list[Vector]:
    """The code (T, h) as it is, stretched to the domain, and halfway; v stretches with T and h."""
    low, high = p.domain
    ratio = (problem.high - problem.low) / (high - low)
    maps = ((1.0, 0.0), (ratio, problem.low - ratio * low), (ratio**0.5, 0.0), (ratio, 0.0))
    return [np.concatenate([scale * p.T + shift, scale * p.h]) for scale, shift in maps]


def _tables(K: int) -> list[FSParameters]:
    return [p for name in SHIPPED for (k, _), p in all_shipped(name).items() if k == K]
