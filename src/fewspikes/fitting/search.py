"""The search for a code: short codes grow into longer ones, step by step, each time improved by a local search.

It begins from the shipped tables, stretched to the domain at hand, from binary codes, and from random codes of few
steps. How hard it tries is counted in descents, so that a seed gives the same result on any day.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fewspikes.base import checks
from fewspikes.base.progress import track
from fewspikes.fitting.descent import STEPS, Pool, descend, empty_pool, enter, local_search, objective, seed_of
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.staircase import workspace
from fewspikes.neuron import known_codes
from fewspikes.neuron.parameters import MAX_STEPS, FSParameters

EFFORTS = ("quick", "normal", "long")
_FIRST_STEPS = 3  # random codes find the best ones up to here; longer codes grow out of shorter ones
_CLOSE = 1.0  # in the objective: a binary code that is no nearer to the best table is not worth a descent

Pools = dict[int, Pool]
"""Good codes by their number of steps."""


class Effort(NamedTuple):
    """How hard a search tries, in descents."""

    fresh: int  # random codes to begin with
    idle: int  # disturbances in a row without gain that end a search
    most: int  # descents that end it at the latest
    branches: int  # new steps tried at each code of the pool when a code grows by a step
    pool: int  # codes kept side by side


_NORMAL = Effort(fresh=40, idle=150, most=1000, branches=8, pool=8)
_MANY = Effort(fresh=40, idle=300, most=3000, branches=8, pool=8)  # for a code of many steps, which has one climb
_TOGETHER = Effort(fresh=0, idle=60, most=400, branches=2, pool=24)
_CLIMBS = {8: (3, _NORMAL), 16: (2, _NORMAL), MAX_STEPS: (1, _MANY)}  # how many up to so many steps, and how hard
# A layer's climbs: half a second with 8 steps, two seconds with 12 or 16.
_LAYER = Effort(fresh=40, idle=60, most=300, branches=8, pool=8)
_LONG_LAYER = Effort(fresh=40, idle=40, most=200, branches=4, pool=6)
_LAYER_CLIMBS = {8: (3, _LAYER), 12: (2, _LAYER), MAX_STEPS: (1, _LONG_LAYER)}
_LAYER_TOGETHER = Effort(fresh=0, idle=40, most=200, branches=1, pool=12)
_GLANCE = Effort(fresh=8, idle=2, most=12, branches=1, pool=4)  # where no table is near; a tenth of a second
_LONG = Effort(fresh=60, idle=300, most=3000, branches=8, pool=8)  # a climb of the long search
_LONG_TOGETHER = Effort(fresh=0, idle=200, most=2000, branches=2, pool=24)  # its rounds over all that was found
_ROUNDS, _EVERY = 12, 5  # of the long search, one to two minutes with 16 steps; all is looked at after so many
_BEGIN = 4  # codes to begin from at each number of steps


def best_codes(
    problem: Problem,
    K: int,
    effort: str,
    seed: int,
    tables: bool = True,
    progress: bool | None = False,
    layer: bool = False,
    near: bool = True,
) -> Pool:
    """The best codes of K steps that are found, best first.

    `effort` is "quick" (the nearest shipped table), "normal" (for one layer of many a second or two at most) or "long".
    The search begins from binary codes and, unless `tables` is False, from the shipped tables. With `near` False none
    is of this function: also a quick search then makes a code of its own.
    """
    if checks.one_of("effort", effort, EFFORTS) == "quick":
        known = beginnings(problem, K, _BEGIN)
        return known[K] if near and K in known_codes.STEPS else climb(known, problem, K, _GLANCE, seed)[K]
    pools = beginnings(problem, K, _BEGIN, tables)
    if effort == "long":
        rounds = track(explore(problem, K, _ROUNDS, seed, pools), f"searching {K} steps", _ROUNDS, progress)
        return deque(rounds, 1)[0][K]
    climbs, together = (_LAYER_CLIMBS, _LAYER_TOGETHER) if layer else (_CLIMBS, _TOGETHER)
    times, own = next(found for most, found in climbs.items() if most >= K)
    for i in track(range(times), f"searching {K} steps", times, progress):
        merge(pools, climb({}, problem, K, own, seed_of(seed, i)))
    merge(pools, climb(pools, problem, K, together, seed_of(seed, times)))
    return pools[K]


def explore(problem: Problem, K: int, rounds: int, seed: int, pools: Pools | None = None) -> Iterator[Pools]:
    """The long search: climb from nothing again and again, and improve all that was found; yields after each round.

    It goes on from `pools`; in the end there are codes of 3 (or K, if that is less) to K steps.
    """
    pools = dict(pools or {})
    for number in range(rounds):
        merge(pools, climb({}, problem, K, _LONG, seed_of(seed, number, 0)))
        if (number + 1) % _EVERY == 0 or number + 1 == rounds:
            _shorten(pools, problem, seed_of(seed, number, 1))
            merge(pools, climb(pools, problem, K, _LONG_TOGETHER, seed_of(seed, number, 2)))
        yield pools


def climb(pools: Pools, problem: Problem, K: int, effort: Effort, seed: int) -> Pools:
    """Pools for every number of steps up to K, each begun from the one below it and from its own in `pools`."""
    first = min(K, _FIRST_STEPS)
    found = {first: _improved(pools.get(first), first, np.zeros((0, 0)), problem, effort, seed)}
    for k in range(first + 1, K + 1):
        below = found[k - 1]
        starts = np.repeat(below.codes[below.values < np.inf], effort.branches, axis=0)
        found[k] = _improved(pools.get(k), k, starts, problem, effort, seed)
    return found


def merge(pools: Pools, found: Pools) -> None:
    """Take the codes of `found` into `pools`."""
    for pool in found.values():
        for code, value in zip(*pool, strict=True):
            enter_at(pools, code, value)


def enter_at(pools: Pools, code: Vector, value: float) -> None:
    """Put one code into the pool of its number of steps."""
    K = len(code) // 2
    enter(code, value, *pools.setdefault(K, empty_pool(K, _LONG_TOGETHER.pool)))


def beginnings(problem: Problem, K: int, size: int, tables: bool = True) -> Pools:
    """The best `size` codes to begin from for every number of steps up to K; tables as they are and stretched."""
    found = {k: _beginning(problem, k, size, tables) for k in range(1, K + 1)}
    return {k: pool for k, pool in found.items() if pool.values[0] < np.inf}


def silent_code(problem: Problem, K: int) -> Vector:
    """(T, h) of a neuron that never fires, nor does it for inputs a little outside of the domain."""
    return np.concatenate([np.full(K, 2 * problem.high - problem.low), np.zeros(K)])


def _beginning(problem: Problem, K: int, size: int, tables: bool) -> Pool:
    work, pool = workspace(K), empty_pool(K, size)
    for name in known_codes.SHIPPED if tables else ():
        for (steps, _), p in known_codes.all_shipped(name).items():
            for code in _stretched(p, problem) if steps == K else ():
                enter(code, objective(code, problem, work), *pool)
    hope = pool.values[0] + _CLOSE
    for code in _binary_codes(problem, K):
        if objective(code, problem, work) < hope:
            enter(code, descend(code, problem, work, STEPS, hope), *pool)
    if problem.spike_cost > 0:  # no descent finds it: around it nothing changes
        silent = silent_code(problem, K)
        enter(silent, objective(silent, problem, work), *pool)
    return pool


def _stretched(p: FSParameters, problem: Problem) -> list[Vector]:
    """The code (T, h) as it is, stretched to the domain, and halfway; v stretches with T and h."""
    low, high = p.domain
    ratio = (problem.high - problem.low) / (high - low)
    maps = ((1.0, 0.0), (ratio, problem.low - ratio * low), (ratio**0.5, 0.0), (ratio, 0.0))
    return [np.concatenate([scale * p.T + shift, scale * p.h]) for scale, shift in maps]


def _binary_codes(problem: Problem, K: int) -> list[Vector]:
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


def _improved(pool: Pool | None, K: int, starts: Vector, problem: Problem, effort: Effort, seed: int) -> Pool:
    """The pool after a search that begins from it and from `starts`, or without any from random codes."""
    pool = empty_pool(K, effort.pool) if pool is None else Pool(pool.codes.copy(), pool.values.copy())
    fresh = 0 if len(starts) else effort.fresh
    local_search(seed_of(seed, K), starts, fresh, effort.idle, effort.most, problem, *pool)
    return pool


def _shorten(pools: Pools, problem: Problem, seed: int) -> None:
    """Improve shorter codes by what is left of longer ones without one of their steps."""
    for k in sorted(pools, reverse=True)[1:]:
        longer, work = pools[k + 1], workspace(k)
        starts = []
        for code in longer.codes[longer.values < np.inf]:
            without = [np.delete(code, [t, k + 1 + t]) for t in range(k + 1)]
            starts.append(min(without, key=lambda p: objective(p, problem, work)))
        pools[k] = _improved(pools[k], k, np.array(starts), problem, _LONG_TOGETHER, seed)
