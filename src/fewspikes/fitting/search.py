"""The search: codes of few steps grow into codes of many, step by step, each time improved."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fewspikes.fitting.descent import price
from fewspikes.fitting.islands import island
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.staircase import workspace

FIRST_STEPS = 3  # random codes find the best ones up to here; longer codes grow out of shorter ones

_NO_STARTS = np.zeros((0, 0))


@dataclass(frozen=True)
class Effort:
    """How hard a search tries; counted in descents, so that a seed gives the same result on any day.

    Attributes:
        fresh: random codes to begin with.
        idle: disturbances in a row without gain that end a search.
        most: descents that end it at the latest.
        branches: new steps tried at each code of the pool when a code grows by a step.
        pool: codes kept side by side.
    """

    fresh: int
    idle: int
    most: int
    branches: int
    pool: int


class Pool(NamedTuple):
    """The best codes so far, best first: [m, 2 K] and their objectives [m], infinite where there is none."""

    codes: Vector
    values: Vector


def empty_pool(K: int, size: int) -> Pool:
    """A pool without codes."""
    return Pool(np.zeros((size, 2 * K)), np.full(size, np.inf))


def grow(problem: Problem, K: int, effort: Effort, seed: int) -> Pool:
    """Search codes of few steps from nothing, then add one step at a time."""
    return climb({}, problem, K, effort, seed)[K]


def climb(pools: dict[int, Pool], problem: Problem, K: int, effort: Effort, seed: int) -> dict[int, Pool]:
    """Pools for every number of steps up to K, each begun from the one below it and from its own in `pools`."""
    first = min(K, FIRST_STEPS)
    found = {first: improved(pools.get(first), first, _NO_STARTS, problem, effort, seed)}
    for k in range(first + 1, K + 1):
        below = found[k - 1]
        starts = np.repeat(below.codes[below.values < np.inf], effort.branches, axis=0)
        found[k] = improved(pools.get(k), k, starts, problem, effort, seed)
    return found


def improved(pool: Pool | None, K: int, starts: Vector, problem: Problem, effort: Effort, seed: int) -> Pool:
    """The pool after a search that begins from it and from `starts`, or without any from random codes."""
    pool = empty_pool(K, effort.pool) if pool is None else Pool(pool.codes.copy(), pool.values.copy())
    fresh = 0 if len(starts) else effort.fresh
    island(seed_of(seed, K), starts, fresh, effort.idle, effort.most, problem, *pool)
    return pool


def shorter(pool: Pool, problem: Problem, keep: int) -> Vector:
    """For each code of the pool the `keep` best ways to leave out a step, as codes of one step less."""
    K = pool.codes.shape[1] // 2
    work, found = workspace(K - 1), []
    for code in pool.codes[pool.values < np.inf]:
        without = [np.delete(code, [t, K + t]) for t in range(K)]
        without.sort(key=lambda p: price(p, problem, work))
        found.extend(without[:keep])
    return np.array(found)


def seed_of(*numbers: int) -> int:
    """A seed of its own for each part of a search."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
