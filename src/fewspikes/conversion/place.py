"""The place on a path of choices that fits a budget, found by building and measuring few networks."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fewspikes.conversion.path import Path
from fewspikes.measure.outcome import HeldOut, Outcome
from fewspikes.network.spiking import SpikingNetwork

MORE_SPIKES = 1.1  # repaired networks fire a little more than the sites by themselves; a first guess
_FLIPS = 10.0  # percent of images that change their class at a relative output error of 1; a first guess
_STRIDE, _CLOSE = 4.0, 1.3  # factors of the predicted error: to look further away, and to look no closer
_MOST_QUICK, _MOST_IN_FULL = 9, 4  # networks built


class Build(Protocol):
    """Makes the network with these K by site name; `quick` may fit and repair with less effort."""

    def __call__(self, k: Mapping[str, int], quick: bool) -> SpikingNetwork:
        """The network."""


class Limits(NamedTuple):
    """Points of drop (None: no matter how many), steps and spikes per neuron."""

    drop: float | None
    steps: float
    spikes: float


class Search:
    """Looks for the best place on a path within limits.

    More steps mean less drop and more spikes, so the places that fit lie between one that the drop sets and one that
    steps and spikes set. Networks built quickly find it; networks built in full, which are a little better, correct it.

    Args:
        sites: the path's names.
        path: choices from few steps to many.
        build: makes a network.
        held: measures it.
        limits: what it may cost.
        tell: is told the share done and what is being tried.

    Attributes:
        more_spikes: spikes measured over spikes predicted, of the last network.
    """

    def __init__(
        self,
        sites: Sequence[str],
        path: Path,
        build: Build,
        held: HeldOut,
        limits: Limits,
        tell: Callable[[float, str], None],
    ) -> None:
        self.sites, self.path, self.build, self.held, self.limits, self.tell = sites, path, build, held, limits, tell
        self.more_spikes = MORE_SPIKES
        self._tried: dict[int, Outcome] = {}

    def best(self) -> tuple[int, SpikingNetwork | None, Outcome]:
        """The place, its network and its outcome; no network if none fits, and then the place that comes nearest."""
        high = int((self.path.latency <= self.limits.steps).sum()) - 1
        within = self._within_spikes(high)
        place = within if self.limits.drop is None or within < 0 else self._within_drop(within)
        if place < 0:
            return 0, None, self._quick(0)
        return self._corrected(place, high)

    def _corrected(self, place: int, high: int) -> tuple[int, SpikingNetwork | None, Outcome]:
        """Build in full, and move as long as that shows a better place."""
        seen: dict[int, Outcome] = {}
        kept: tuple[int, SpikingNetwork] | None = None
        for _ in range(_MOST_IN_FULL):
            self.tell(0.9, f"latency {self.path.latency[place]}, in full")
            snn = self.build(self._k(place), quick=False)
            seen[place] = self._measured(place, snn)
            if self._few_spikes(seen[place]) and self._small_drop(seen[place]):
                kept = (place, snn)
            following = self._after(place, seen[place], high)
            if following in seen:
                break
            place = following
        if kept is None:
            nearest = next(reversed(seen))
            return nearest, None, seen[nearest]
        return *kept, seen[kept[0]]

    def _after(self, place: int, outcome: Outcome, high: int) -> int:
        """Where to look once the network at `place` was built in full; `place` itself to stay."""
        errors = self.path.errors
        enough = self._guess_spikes(high)
        if not self._few_spikes(outcome):
            return max(min(enough, place - 1), 0)
        if not self._small_drop(outcome):
            return min(max(place + 1, int((errors > errors[place] / _CLOSE).sum())), max(enough, place))
        if self.limits.drop is not None:  # built in full it is better, so fewer steps may do
            quick = self._tried.get(place)
            gained = quick.error / max(outcome.error, 1e-12) if quick is not None else 1.0
            fewer = min(int((errors > errors[place] * gained).sum()), place)
            return fewer if errors[fewer] > errors[place] * _CLOSE else place
        return enough if errors[place] > errors[max(enough, 0)] * _CLOSE else place

    def _within_spikes(self, high: int) -> int:
        """The last place up to `high` with few enough spikes; -1 if there is none."""
        if self.limits.spikes == np.inf:
            return high
        return last(high, lambda low, up: self._guess_spikes(high), lambda i: self._few_spikes(self._quick(i)))

    def _guess_spikes(self, high: int) -> int:
        few = self.path.spikes[: high + 1] * self.more_spikes <= self.limits.spikes
        return int(few.sum()) - 1

    def _within_drop(self, high: int) -> int:
        """The first place up to `high` with a small enough drop; `high` if there is none."""
        errors = self.path.errors[: high + 1][::-1]  # places are counted from `high` downwards

        def guess(low: int, up: int) -> int:
            if low < 0 and up > high:
                wanted = (max(self.limits.drop or 0.0, 25.0 / self.held.images) / _FLIPS) ** 2
            elif up > high:
                wanted = errors[low] * _STRIDE
            elif low < 0:
                wanted = errors[up] / _STRIDE
            elif errors[up] < errors[low] * _CLOSE:
                return low
            else:
                wanted = float(np.sqrt(errors[low] * errors[up]))
            return max(int((errors <= wanted).sum()) - 1, low + 1)

        place = last(high, guess, lambda i: self._small_drop(self._quick(high - i)))
        return high - max(place, 0)

    def _quick(self, place: int) -> Outcome:
        if place not in self._tried:
            self.tell(0.9 * min(len(self._tried) / _MOST_QUICK, 1.0), f"latency {self.path.latency[place]}")
            self._tried[place] = self._measured(place, self.build(self._k(place), quick=True))
        return self._tried[place]

    def _measured(self, place: int, snn: SpikingNetwork) -> Outcome:
        outcome = self.held(snn)
        self.more_spikes = outcome.spikes_per_neuron / max(float(self.path.spikes[place]), 1e-12)
        return outcome

    def _k(self, place: int) -> dict[str, int]:
        return dict(zip(self.sites, self.path.k[place].tolist(), strict=True))

    def _few_spikes(self, outcome: Outcome) -> bool:
        return outcome.spikes_per_neuron <= self.limits.spikes

    def _small_drop(self, outcome: Outcome) -> bool:
        return self.limits.drop is None or (outcome.loss is not None and outcome.loss <= self.limits.drop)


def last(high: int, guess: Callable[[int, int], int], good: Callable[[int], bool]) -> int:
    """The last place from 0 to `high` that is good, where good ones come first; -1 if none is.

    Args:
        high: the last place of all.
        guess: (low, up) -> where to look next, all being good up to `low` and bad from `up` on; `low` itself ends it.
        good: whether a place is good.
    """
    low, up = -1, high + 1
    for _ in range(_MOST_QUICK):
        trial = guess(low, up)
        if up - low == 1 or (trial == low and low >= 0):
            break
        trial = min(max(trial, low + 1), up - 1)
        low, up = (trial, up) if good(trial) else (low, trial)
    return 0 if low < 0 < up and good(0) else low
