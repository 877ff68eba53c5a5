"""A number of steps for each site, within a budget of accuracy, steps or spikes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np

from fewspikes.errors import FewSpikesError
from fewspikes.network import SpikingNetwork
from fewspikes.parameters import FSParameters
from fewspikes.progress import watch
from fewspikes.tuning.chains import Chains, Whole
from fewspikes.tuning.outcome import HeldOut, Outcome, resolution
from fewspikes.tuning.path import MIXTURES, WEIGHTS, Path, best, greedy
from fewspikes.tuning.sensitivity import MOST_STEPS, Batch, Curves, curves

_FLIPS = 10.0  # percent of images that change their class at a relative output error of 1; a first guess
_MORE_SPIKES = 1.1  # repaired networks fire a little more than the sites by themselves; a first guess
_STRIDE, _CLOSE = 4.0, 1.3  # factors of the predicted error: to look further away, and to look no closer
_MOST_TRIALS = 9  # networks built while looking for the place on the path
_MOST_REPAIRS = 4  # networks built in full


class Build(Protocol):
    """Makes the network with these K by site name; `quick` may fit and repair with less effort."""

    def __call__(self, k: Mapping[str, int], quick: bool) -> SpikingNetwork:
        """The network."""


@dataclass(frozen=True)
class Budget:
    """What a network may cost; None sets no limit.

    Attributes:
        max_drop: points of top-1 (100 - agreement without labels) on held-out images, >= 0.
        max_steps: time steps from an image to its output, >= 1.
        max_spikes: mean spikes per neuron per image, > 0.

    Raises:
        FewSpikesError: no limit at all, or one out of range.
    """

    max_drop: float | None = None
    max_steps: int | None = None
    max_spikes: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop is None and self.max_steps is None and self.max_spikes is None:
            raise FewSpikesError("a budget needs max_drop, max_steps or max_spikes")
        if self.max_drop is not None and not (_is_number(self.max_drop) and self.max_drop >= 0):
            raise FewSpikesError(f"max_drop must be a number of points >= 0; got {self.max_drop!r}")
        whole = isinstance(self.max_steps, int | np.integer) and not isinstance(self.max_steps, bool)
        if self.max_steps is not None and not (whole and self.max_steps >= 1):
            raise FewSpikesError(f"max_steps must be a whole number of time steps >= 1; got {self.max_steps!r}")
        if self.max_spikes is not None and not (_is_number(self.max_spikes) and self.max_spikes > 0):
            raise FewSpikesError(f"max_spikes must be a number of spikes per neuron > 0; got {self.max_spikes!r}")

    def __str__(self) -> str:
        given = ("max_drop", self.max_drop), ("max_steps", self.max_steps), ("max_spikes", self.max_spikes)
        return " and ".join(f"{name}={value:g}" for name, value in given if value is not None)

    @property
    def held_out_every(self) -> int:
        """One calibration image in so many is held out for measuring: half of them where a drop is limited."""
        return 4 if self.max_drop is None else 2


def allocate(
    snn: SpikingNetwork,
    parameters: Callable[[str, int], FSParameters],
    build: Build,
    images: Sequence[Batch],
    held: HeldOut,
    budget: Budget,
    progress: bool | None = None,
) -> SpikingNetwork:
    """The network whose K by site fit the budget, chosen by what an error at each site does to the output.

    Limits of steps and spikes are used up, for the least error; a limit of the drop alone is met with few steps and
    spikes. Spikes and drop are measured on the held-out images, with the networks themselves.

    Args:
        snn: any network of the sites; its neurons are not used.
        parameters: of a site (by name) for a K, quickly.
        build: makes the network for a K by site.
        images: unlabelled, for the sensitivity.
        held: images that nothing else sees.
        budget: what may be spent.
        progress: bars on stderr; None shows them when stderr is a terminal.

    Raises:
        FewSpikesError: the budget cannot be met: the best that can be, and why; or a drop is limited where the
            network's output names no class.
    """
    if budget.max_drop is not None and held.classes is None:
        raise FewSpikesError(
            f"max_drop needs an output of shape [batch, classes]; this network returns {snn.output_shape()}: "
            "give max_steps or max_spikes"
        )
    chains = Chains(snn)
    if budget.max_steps is not None and budget.max_steps < chains.longest:
        raise FewSpikesError(
            f"max_steps={budget.max_steps} cannot be met: the longest chain has {chains.longest} sites and each takes "
            f"a step at least, so {chains.longest} is the least"
        )
    most = _most_steps(budget, chains)
    found = curves(snn, parameters, images, most, progress)
    path = _path(chains, found, budget)
    with watch("budget", progress) as tell:
        return _Search(chains, path, build, held, budget, tell).best(found)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and isfinite(value)


def _most_steps(budget: Budget, chains: Chains) -> int:
    """No site gets more than twice its share of the steps, and a little."""
    if budget.max_steps is None or budget.max_drop is not None:
        return MOST_STEPS
    return min(MOST_STEPS, 2 * -(-budget.max_steps // chains.longest) + 2)


def _path(chains: Chains, found: Curves, budget: Budget) -> Path:
    """The path whose last place within the limits of steps and spikes has the least error."""
    if budget.max_steps is None or budget.max_spikes is None:
        free = budget.max_steps is None and budget.max_spikes is None
        cost = "both" if free else "steps" if budget.max_spikes is None else "spikes"
        return greedy(chains, found, WEIGHTS[cost])
    paths = [greedy(chains, found, (1.0, weight)) for weight in MIXTURES]
    within = best(paths, budget.max_steps, budget.max_spikes / _MORE_SPIKES)
    return paths[0] if within is None else within[0]


class _Search:
    """Looks for the place on a path that fits a budget, building few networks."""

    def __init__(
        self,
        chains: Chains,
        path: Path,
        build: Build,
        held: HeldOut,
        budget: Budget,
        tell: Callable[[float, str], None],
    ) -> None:
        self.chains, self.path, self.build, self.held, self.budget, self.tell = chains, path, build, held, budget, tell
        self.tried: dict[int, Outcome] = {}
        self.more_spikes = _MORE_SPIKES  # corrected by what is measured

    def best(self, found: Curves) -> SpikingNetwork:
        """The network at the best place, with a note on how it was chosen."""
        high = self._within_spikes(self._within_steps())
        place = high if self.budget.max_drop is None else self._within_drop(high)
        snn, outcome = self._in_full(place)
        for _ in range(_MOST_REPAIRS):
            better = place - (not self._few_spikes(outcome)) + (not self._small_drop(outcome))
            if better == place or not 0 <= better <= high:
                break
            place = better
            snn, outcome = self._in_full(place)
        self._check(outcome, place)
        return snn.with_neurons({}, self._notes(place, outcome, found))

    def _within_steps(self) -> int:
        if self.budget.max_steps is None:
            return len(self.path) - 1
        return int(np.searchsorted(self.path.latency, self.budget.max_steps, side="right")) - 1

    def _within_spikes(self, high: int) -> int:
        """The last place up to `high` with few enough spikes."""
        limit = self.budget.max_spikes
        if limit is None:
            return high

        def guess(low: int, up: int) -> int:
            return int((self.path.spikes * self.more_spikes <= limit).sum()) - 1

        place = _last(high, guess, lambda i: self._few_spikes(self._quick(i)))
        if place < 0:
            self._fail_spikes(self._quick(0))
        return place

    def _within_drop(self, high: int) -> int:
        """The first place up to `high` with a small enough drop."""
        errors = self.path.errors[: high + 1][::-1]  # places are counted from `high` downwards

        def guess(low: int, up: int) -> int:
            if low < 0 and up > high:
                wanted = (max(self.budget.max_drop or 0.0, 25.0 / self.held.images) / _FLIPS) ** 2
            elif up > high:
                wanted = errors[low] * _STRIDE
            elif low < 0:
                wanted = errors[up] / _STRIDE
            elif errors[up] < errors[low] * _CLOSE:
                return low
            else:
                wanted = float(np.sqrt(errors[low] * errors[up]))
            return max(int((errors <= wanted).sum()) - 1, low + 1)

        place = _last(high, guess, lambda i: self._small_drop(self._quick(high - i)))
        return high - max(place, 0)

    def _quick(self, place: int) -> Outcome:
        if place not in self.tried:
            self.tell(min(len(self.tried) / _MOST_TRIALS, 0.9), f"latency {self.path.latency[place]}")
            outcome = self.held(self.build(self._k(place), quick=True))
            self.tried[place] = outcome
            self.more_spikes = outcome.spikes_per_neuron / max(float(self.path.spikes[place]), 1e-12)
        return self.tried[place]

    def _in_full(self, place: int) -> tuple[SpikingNetwork, Outcome]:
        self.tell(0.95, f"latency {self.path.latency[place]}, in full")
        snn = self.build(self._k(place), quick=False)
        return snn, self.held(snn)

    def _k(self, place: int) -> dict[str, int]:
        return dict(zip(self.chains.sites, self.path.k[place].tolist(), strict=True))

    def _few_spikes(self, outcome: Outcome) -> bool:
        return self.budget.max_spikes is None or outcome.spikes_per_neuron <= self.budget.max_spikes

    def _small_drop(self, outcome: Outcome) -> bool:
        return self.budget.max_drop is None or (outcome.loss is not None and outcome.loss <= self.budget.max_drop)

    def _check(self, outcome: Outcome, place: int) -> None:
        if not self._few_spikes(outcome):
            self._fail_spikes(outcome)
        if not self._small_drop(outcome):
            raise FewSpikesError(
                f"{self.budget} cannot be met: the least drop is {outcome.loss:.2g} points, with latency "
                f"{self.path.latency[place]} and {outcome.spikes_per_neuron:.3f} spikes per neuron; "
                + self._why(place, outcome)
            )

    def _fail_spikes(self, outcome: Outcome) -> None:
        raise FewSpikesError(
            f"{self.budget} cannot be met: with K = 1 at every site the neurons still fire "
            f"{outcome.spikes_per_neuron:.3f} times each, the fewest there can be; a spike_weight, or ranges that are "
            "wider (alpha), would silence more of them"
        )

    def _why(self, place: int, outcome: Outcome) -> str:
        """Why the drop at `place`, the most that may be spent, is still too large."""
        limit, one = self.budget.max_drop or 0.0, 100.0 / self.held.images
        least = one / 4  # less than a quarter of an image says nothing
        if place < len(self.path) - 1:
            loss = max(outcome.loss or 0.0, least)
            near = loss * np.sqrt(self.path.errors / self.path.errors[place]) <= max(limit, least)
            return (
                f"max_drop={limit:g} by itself would take up to about {self.path.latency[near][0]} steps and "
                f"{self.path.spikes[near][0] * self.more_spikes:.2g} spikes per neuron"
                if near.any()
                else "no number of steps is likely to reach it"
            )
        if one > limit:
            return f"one of the {self.held.images} held-out images is {one:.2g} points: give more calibration images"
        return (
            f"more steps than {self.path.k.max()} a site are not tried: calibrate on more images, so that fewer inputs "
            "lie outside the ranges, or distil"
        )

    def _notes(self, place: int, outcome: Outcome, found: Curves) -> list[str]:
        k = self.path.k[place]
        text = (
            f"K by site for {self.budget}, by the sensitivity of the output to each site's error ({found.images} "
            f"images): {_counted(k)}; latency {self.path.latency[place]}. On {outcome.images} held-out images: output "
            f"error {outcome.error:.3g} of its variance, {outcome.spikes_per_neuron:.3f} spikes per neuron"
        )
        if outcome.agreement is not None:
            text += f", agreement {outcome.agreement:.2f}%"
        if outcome.drop is not None:
            text += f", drop {outcome.drop:.2f} points"
        notes = [text, f"K by site: {_extremes(self.chains.sites, k)}"]
        if self.budget.max_drop is not None:
            notes.append(
                f"max_drop was held against the larger of the drop counted and the drop expected "
                f"({outcome.expected:.2f}); {resolution(outcome)}. Images that the ANN was trained on flatter both"
            )
        return notes


def _last(high: int, guess: Callable[[int, int], int], good: Callable[[int], bool]) -> int:
    """The last place from 0 to `high` that is good, where good ones come first; -1 if none is.

    `guess(low, up)` says where to look next, all being good up to `low` and bad from `up` on; `low` itself ends it.
    """
    low, up = -1, high + 1
    for _ in range(_MOST_TRIALS):
        trial = guess(low, up)
        if up - low == 1 or (trial == low and low >= 0):
            break
        trial = min(max(trial, low + 1), up - 1)
        low, up = (trial, up) if good(trial) else (low, trial)
    return 0 if low < 0 < up and good(0) else low


def _counted(k: Whole) -> str:
    return ", ".join(f"K={steps} at {sites}" for steps, sites in sorted(Counter(k.tolist()).items())) + " sites"


def _extremes(sites: Sequence[str], k: Whole) -> str:
    order = np.argsort(-k, kind="stable")
    most, least = order[:3], [i for i in order[::-1][:3] if k[i] < k[order[0]]]
    words = ", ".join(f"{sites[i]} ({k[i]})" for i in most)
    return f"most at {words}" + (f"; least at {', '.join(f'{sites[i]} ({k[i]})' for i in least)}" if least else "")
