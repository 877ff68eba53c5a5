"""Where a search begins: the shipped tables, stretched to the domain at hand."""

import numpy as np

from fewspikes.fitting.atlas import Atlas
from fewspikes.fitting.descent import price
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.search import Pool
from fewspikes.fitting.shipped import SHIPPED, all_shipped
from fewspikes.fitting.staircase import workspace
from fewspikes.parameters import FSParameters


def nearest(problem: Problem, K: int, size: int) -> Pool:
    """The `size` best of all shipped codes with K steps, as they are and stretched, best first."""
    codes = np.array([code for p in _tables(K) for code in stretched(p, problem)]).reshape(-1, 2 * K)
    work = workspace(K)
    values = np.array([price(code, problem, work) for code in codes])
    order = np.argsort(values, kind="stable")[:size]
    pool = Pool(np.zeros((size, 2 * K)), np.full(size, np.inf))
    pool.codes[: len(order)], pool.values[: len(order)] = codes[order], values[order]
    return pool


def warm_atlas(problem: Problem, K: int, size: int) -> Atlas:
    """Pools of the nearest shipped codes for every number of steps up to K that there are any of."""
    found = {k: nearest(problem, k, size) for k in range(1, K + 1) if _tables(k)}
    return {k: pool for k, pool in found.items() if pool.values[0] < np.inf}


def stretched(p: FSParameters, problem: Problem) -> list[Vector]:
    """The code (T, h) as it is, stretched to the domain, and halfway; v stretches with T and h."""
    low, high = p.domain
    ratio = (problem.high - problem.low) / (high - low)
    maps = ((1.0, 0.0), (ratio, problem.low - ratio * low), (ratio**0.5, 0.0), (ratio, 0.0))
    return [np.concatenate([scale * p.T + shift, scale * p.h]) for scale, shift in maps]


def _tables(K: int) -> list[FSParameters]:
    return [p for name in SHIPPED for (k, _), p in all_shipped(name).items() if k == K]
