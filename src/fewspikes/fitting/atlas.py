"""The long search: good codes of every number of steps at once, which help each other to get better."""

from collections.abc import Iterator

from fewspikes.fitting.islands import enter
from fewspikes.fitting.problem import Problem
from fewspikes.fitting.search import Effort, Pool, climb, empty_pool, improved, seed_of, shorter

FRESH = Effort(fresh=60, idle=300, most=3000, branches=8, pool=8)  # of a climb from nothing
TOGETHER = Effort(fresh=0, idle=200, most=2000, branches=2, pool=24)  # of a round over all that was found
_EVERY = 5  # a round over everything follows so many climbs

Atlas = dict[int, Pool]


def explore(problem: Problem, K: int, rounds: int, seed: int, atlas: Atlas | None = None) -> Iterator[Atlas]:
    """Climb from nothing again and again, and improve what was found; yields the atlas after each round.

    Args:
        problem: what is minimised.
        K: the most steps; there are codes of 3 (or K, if that is less) to K steps in the end.
        rounds: how many climbs.
        seed: of everything random here.
        atlas: what an earlier search found.
    """
    atlas = dict(atlas or {})
    for number in range(rounds):
        merge(atlas, climb({}, problem, K, FRESH, seed_of(seed, number, 0)))
        if (number + 1) % _EVERY == 0 or number + 1 == rounds:
            go_down(atlas, problem, seed_of(seed, number, 1))
            merge(atlas, climb(atlas, problem, K, TOGETHER, seed_of(seed, number, 2)))
        yield atlas


def go_down(atlas: Atlas, problem: Problem, seed: int) -> None:
    """Improve shorter codes by what is left of longer ones without one of their steps."""
    for k in sorted(atlas, reverse=True)[1:]:
        atlas[k] = improved(atlas[k], k, shorter(atlas[k + 1], problem, 1), problem, TOGETHER, seed)


def merge(atlas: Atlas, found: Atlas) -> None:
    """Take the codes of `found` into the pools of the atlas."""
    for k, pool in found.items():
        if k not in atlas:
            atlas[k] = empty_pool(k, TOGETHER.pool)
        for code, value in zip(*pool, strict=True):
            enter(code, value, *atlas[k])
