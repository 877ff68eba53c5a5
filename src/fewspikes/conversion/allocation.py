"""A number of steps for each site, within a budget of accuracy, steps or spikes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.progress import watch
from fewspikes.conversion.chains import Chains, Whole
from fewspikes.conversion.path import MIXTURES, WEIGHTS, Path, best, greedy
from fewspikes.conversion.place import MORE_SPIKES, Build, Limits, Search
from fewspikes.measure.outcome import HeldOut, Outcome, resolution
from fewspikes.measure.sensitivity import MOST_STEPS, Batch, Curves, curves
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.parameters import FSParameters


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
    limits = Limits(budget.max_drop, budget.max_steps or inf, budget.max_spikes or inf)
    with watch("budget", progress) as tell:
        search = Search(chains.sites, path, build, held, limits, tell)
        place, network, outcome = search.best()
    if network is None:
        raise FewSpikesError(f"{budget} cannot be met: {_best_that_can(search, place, outcome)}")
    return network.with_neurons({}, _notes(chains.sites, path, place, outcome, budget, found.images))


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
    within = best(paths, budget.max_steps, budget.max_spikes / MORE_SPIKES)
    return paths[0] if within is None else within[0]


def _best_that_can(search: Search, place: int, outcome: Outcome) -> str:
    """What comes nearest to the budget, and why it is not enough."""
    path, limits = search.path, search.limits
    cost = f"latency {path.latency[place]} and {outcome.spikes_per_neuron:.3f} spikes per neuron"
    if outcome.spikes_per_neuron > limits.spikes and place == 0:
        return (
            f"with K = 1 at every site the neurons still fire {outcome.spikes_per_neuron:.3f} times each; a "
            "larger spike_weight gives codes with fewer spikes"
        )
    if outcome.spikes_per_neuron > limits.spikes or limits.drop is None:
        return f"the nearest that was found has {cost}"
    return f"the least drop is {outcome.loss:.2g} points, with {cost}; {_why(search, place, outcome)}"


def _why(search: Search, place: int, outcome: Outcome) -> str:
    """Why the drop at `place`, the most that may be spent, is still too large."""
    path, limit, images = search.path, search.limits.drop or 0.0, search.held.images
    one = 100.0 / images
    least = one / 4  # less than a quarter of an image says nothing
    if place < len(path) - 1:
        near = max(outcome.loss or 0.0, least) * np.sqrt(path.errors / path.errors[place]) <= max(limit, least)
        if not near.any():
            return "no number of steps is likely to reach it"
        return (
            f"max_drop={limit:g} by itself would take up to about {path.latency[near][0]} steps and "
            f"{path.spikes[near][0] * search.more_spikes:.2g} spikes per neuron"
        )
    if one > limit:
        return f"one of the {images} held-out images is {one:.2g} points: give more calibration images"
    return (
        f"more steps than {path.k.max()} a site are not tried: calibrate on more images, so that fewer inputs lie "
        "outside the ranges, or distil"
    )


def _notes(sites: Sequence[str], path: Path, place: int, outcome: Outcome, budget: Budget, images: int) -> list[str]:
    """How the K were chosen, and what they came to."""
    k = path.k[place]
    text = (
        f"K by site for {budget}, by the sensitivity of the output to each site's error ({images} images): "
        f"{_counted(k)}; latency {path.latency[place]}. On {outcome.images} held-out images: output error "
        f"{outcome.error:.3g} of its variance, {outcome.spikes_per_neuron:.3f} spikes per neuron"
    )
    if outcome.agreement is not None:
        text += f", agreement {outcome.agreement:.2f}%"
    if outcome.drop is not None:
        text += f", drop {outcome.drop:.2f} points"
    notes = [text, f"K by site: {_extremes(sites, k)}"]
    if budget.max_drop is not None:
        notes.append(
            f"max_drop was held against the larger of the drop counted and the drop expected "
            f"({outcome.expected:.2f}); {resolution(outcome)}. Images that the ANN was trained on flatter both"
        )
    return notes


def _counted(k: Whole) -> str:
    return ", ".join(f"K={steps} at {sites}" for steps, sites in sorted(Counter(k.tolist()).items())) + " sites"


def _extremes(sites: Sequence[str], k: Whole) -> str:
    order = np.argsort(-k, kind="stable")
    most, least = order[:3], [i for i in order[::-1][:3] if k[i] < k[order[0]]]
    words = ", ".join(f"{sites[i]} ({k[i]})" for i in most)
    return f"most at {words}" + (f"; least at {', '.join(f'{sites[i]} ({k[i]})' for i in least)}" if least else "")
