"""How hard to look: from the nearest shipped table in milliseconds to minutes of search."""

from collections import deque

from fewspikes.base.progress import track
from fewspikes.fitting.atlas import Atlas, explore, merge
from fewspikes.fitting.checks import known_effort
from fewspikes.fitting.problem import Problem
from fewspikes.fitting.search import Effort, Pool, climb, seed_of
from fewspikes.fitting.warm import warm_atlas
from fewspikes.neuron.shipped import STEPS

_NORMAL = Effort(fresh=40, idle=150, most=1000, branches=8, pool=8)
_MANY = Effort(fresh=40, idle=300, most=3000, branches=8, pool=8)  # for a code of many steps, which has one climb
_TOGETHER = Effort(fresh=0, idle=60, most=400, branches=2, pool=24)
# A site's climbs: half a second with 8 steps, two seconds with 12 or 16.
_SITE = Effort(fresh=40, idle=60, most=300, branches=8, pool=8)
_LONG_SITE = Effort(fresh=40, idle=40, most=200, branches=4, pool=6)
_SITES = {8: (3, _SITE), 12: (2, _SITE)}
_SITE_TOGETHER = Effort(fresh=0, idle=40, most=200, branches=1, pool=12)
_GLANCE = Effort(fresh=8, idle=0, most=8, branches=1, pool=4)  # where no table is near: a K that none is shipped for
_CLIMBS = {8: 3, 16: 2}  # how many climbs up to so many steps; a longer one takes seconds: 1
_ROUNDS = 12  # of the long search: one to two minutes with 16 steps
_WARM = 4  # codes to begin from at each number of steps


def look(problem: Problem, K: int, effort: str, seed: int, warm: bool = True, progress: bool | None = False) -> Pool:
    """The best codes of K steps that are found, best first.

    Args:
        problem: what is minimised.
        K: time steps.
        effort: "quick", "normal" or "long".
        seed: of everything random.
        warm: whether to begin from the shipped tables, too; from binary codes in any case.
        progress: whether to show a bar; None: on a terminal.

    Raises:
        FewSpikesError: another `effort`.
    """
    if known_effort(effort) == "quick":
        known = warm_atlas(problem, K, _WARM)
        return known[K] if K in STEPS else climb(known, problem, K, _GLANCE, seed)[K]
    known = warm_atlas(problem, K, _WARM, warm)
    if effort == "normal":
        return _climbs(problem, K, seed, known, progress)
    return deque(track(explore(problem, K, _ROUNDS, seed, known), f"searching {K} steps", _ROUNDS, progress), 1)[0][K]


def look_quickly(problem: Problem, K: int, effort: str, seed: int) -> Pool:
    """`look` for one of many sites: the "normal" search takes a second or two at most."""
    if effort != "normal":
        return look(problem, K, effort, seed)
    atlas = warm_atlas(problem, K, _WARM)
    times, own = next((found for most, found in _SITES.items() if most >= K), (1, _LONG_SITE))
    for number in range(times):
        merge(atlas, climb({}, problem, K, own, seed_of(seed, number)))
    return climb(atlas, problem, K, _SITE_TOGETHER, seed_of(seed, times))[K]


def _climbs(problem: Problem, K: int, seed: int, known: Atlas, progress: bool | None) -> Pool:
    """Climbs from nothing, and then one from the codes to begin with and all that was found."""
    number = next((times for most, times in _CLIMBS.items() if most >= K), 1)
    atlas: Atlas = dict(known)
    for i in track(range(number), f"searching {K} steps", number, progress):
        merge(atlas, climb({}, problem, K, _NORMAL if number > 1 else _MANY, seed_of(seed, i)))
    merge(atlas, climb(atlas, problem, K, _TOGETHER, seed_of(seed, number)))
    return atlas[K]
