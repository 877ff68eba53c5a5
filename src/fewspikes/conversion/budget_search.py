"""The rung of a ladder of choices that fits a budget, found by building and measuring few networks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from fewspikes.conversion.ladder import Ladder
from fewspikes.conversion.settings import Budget
from fewspikes.measure.measurement import Measurement
from fewspikes.network.spiking import SpikingNetwork

MORE_SPIKES = 1.1  # repaired networks fire a little more than the sites by themselves; a first guess
_FLIPS = 10.0  # percent of images that change their class at a relative output error of 1; a first guess
_STRIDE = 4.0  # factor of the predicted error, to look further away
_CLOSE = {"steps": 1.3, "spikes": 1.05}  # factors of the predicted error, to look no closer
_MOST_QUICK, _MOST_IN_FULL = 9, 4  # networks built


class Build(Protocol):
    """Makes the network with these K by site name; `quick` may fit and repair with less effort."""

    def __call__(self, k: Mapping[str, int], /, quick: bool) -> SpikingNetwork:
        """The network."""


class Search:
    """Looks for the best rung of a ladder within a budget.

    More steps mean less drop and more spikes, so the rungs that fit lie between one that the drop sets and one that
    steps and spikes set. Networks built quickly find it; networks built in full, which are a little better, correct it.

    Args:
        sites: the ladder's names.
        ladder: choices from few steps to many.
        build: makes a network.
        held: measures it on images held out.
        images: how many these are.
        budget: what it may cost.
        tell: is told the share done and what is being tried.

    Attributes:
        more_spikes: spikes measured over spikes predicted, of the last network.
    """

    def __init__(
        self,
        sites: Sequence[str],
        ladder: Ladder,
        build: Build,
        held: Callable[[SpikingNetwork], Measurement],
        images: int,
        budget: Budget,
        tell: Callable[[float, str], None],
    ) -> None:
        self.sites, self.ladder, self.build, self.tell = sites, ladder, build, tell
        self.held, self.images, self.budget = held, images, budget
        self.more_spikes, self._close = MORE_SPIKES, _CLOSE[budget.minimise]
        self._tried: dict[int, Measurement] = {}

    def best(self) -> tuple[int, SpikingNetwork | None, Measurement]:
        """The rung, its network and its measurement; no network if none fits, and then the rung that comes nearest."""
        high = int((self.ladder.latency <= (self.budget.steps or np.inf)).sum()) - 1
        within = self._within_spikes(high)
        rung = within if self.budget.drop is None or within < 0 else self._within_drop(within)
        if rung < 0:
            return 0, None, self._quick(0)
        return self._corrected(rung, high)

    def _corrected(self, rung: int, high: int) -> tuple[int, SpikingNetwork | None, Measurement]:
        """Build in full, and move as long as that shows a better rung."""
        seen: dict[int, Measurement] = {}
        kept: tuple[int, SpikingNetwork] | None = None
        for _ in range(_MOST_IN_FULL):
            self.tell(0.9, f"latency {self.ladder.latency[rung]}, in full")
            snn = self.build(self._k(rung), quick=False)
            seen[rung] = self._measured(rung, snn)
            if self._few_spikes(seen[rung]) and self._small_drop(seen[rung]):
                kept = (rung, snn)
            following = self._after(rung, seen[rung], high)
            if following in seen:
                break
            rung = following
        if kept is None:
            nearest = next(reversed(seen))
            return nearest, None, seen[nearest]
        return *kept, seen[kept[0]]

    def _after(self, rung: int, measured: Measurement, high: int) -> int:
        """Where to look once the network at `rung` was built in full; `rung` itself to stay."""
        errors = self.ladder.errors
        enough = self._guess_spikes(high)
        if not self._few_spikes(measured):
            return max(min(enough, rung - 1), 0)
        if not self._small_drop(measured):
            return min(max(rung + 1, int((errors > errors[rung] / self._close).sum())), max(enough, rung))
        if self.budget.drop is not None:  # built in full it is better, so fewer steps may do
            quick = self._tried.get(rung)
            gained = quick.error / max(measured.error, 1e-12) if quick is not None else 1.0
            fewer = min(int((errors > errors[rung] * gained).sum()), rung)
            return fewer if errors[fewer] > errors[rung] * self._close else rung
        return enough if errors[rung] > errors[max(enough, 0)] * self._close else rung

    def _within_spikes(self, high: int) -> int:
        """The last rung up to `high` with few enough spikes; -1 if there is none."""
        if self.budget.spikes is None:
            return high
        return last(high, lambda low, up: self._guess_spikes(high), lambda i: self._few_spikes(self._quick(i)))

    def _guess_spikes(self, high: int) -> int:
        few = self.ladder.spikes[: high + 1] * self.more_spikes <= (self.budget.spikes or np.inf)
        return int(few.sum()) - 1

    def _within_drop(self, high: int) -> int:
        """The first rung up to `high` with a small enough drop; `high` if there is none."""
        errors = self.ladder.errors[: high + 1][::-1]  # rungs are counted from `high` downwards

        def guess(low: int, up: int) -> int:
            if low < 0 and up > high:
                wanted = (max(self.budget.drop or 0.0, 25.0 / self.images) / _FLIPS) ** 2
            elif up > high:
                wanted = errors[low] * _STRIDE
            elif low < 0:
                wanted = errors[up] / _STRIDE
            elif errors[up] < errors[low] * self._close:
                return low
            else:
                wanted = float(np.sqrt(errors[low] * errors[up]))
            return max(int((errors <= wanted).sum()) - 1, low + 1)

        rung = last(high, guess, lambda i: self._small_drop(self._quick(high - i)))
        return high - max(rung, 0)

    def _quick(self, rung: int) -> Measurement:
        if rung not in self._tried:
            self.tell(0.9 * min(len(self._tried) / _MOST_QUICK, 1.0), f"latency {self.ladder.latency[rung]}")
            self._tried[rung] = self._measured(rung, self.build(self._k(rung), quick=True))
        return self._tried[rung]

    def _measured(self, rung: int, snn: SpikingNetwork) -> Measurement:
        measured = self.held(snn)
        self.more_spikes = measured.spikes_per_neuron / max(float(self.ladder.spikes[rung]), 1e-12)
        return measured

    def _k(self, rung: int) -> dict[str, int]:
        return dict(zip(self.sites, self.ladder.k[rung].tolist(), strict=True))

    def _few_spikes(self, measured: Measurement) -> bool:
        return few_spikes(self.budget, measured)

    def _small_drop(self, measured: Measurement) -> bool:
        return small_drop(self.budget, measured)


def few_spikes(budget: Budget, measured: Measurement) -> bool:
    """Whether the budget allows so many."""
    return budget.spikes is None or measured.spikes_per_neuron <= budget.spikes


def small_drop(budget: Budget, measured: Measurement) -> bool:
    """Whether the budget allows such a loss."""
    return budget.drop is None or (measured.loss is not None and measured.loss <= budget.drop)


def last(high: int, guess: Callable[[int, int], int], good: Callable[[int], bool]) -> int:
    """The last rung from 0 to `high` that is good, where good ones come first; -1 if none is.

    Args:
        high: the last rung of all.
        guess: (low, up) -> where to look next, all being good up to `low` and bad from `up` on; `low` itself ends it.
        good: whether a rung is good.
    """
    low, up = -1, high + 1
    for _ in range(_MOST_QUICK):
        trial = guess(low, up)
        if up - low == 1 or (trial == low and low >= 0):
            break
        trial = min(max(trial, low + 1), up - 1)
        low, up = (trial, up) if good(trial) else (low, trial)
    return 0 if low < 0 < up and good(0) else low
