"""A number of steps for each site, within a budget of accuracy, steps or spikes."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.progress import watch
from fewspikes.conversion.budget_search import MORE_SPIKES, Build, Search, few_spikes
from fewspikes.conversion.chains import Chains, Whole
from fewspikes.conversion.ladder import MIXTURES, WEIGHTS, Ladder, best, greedy
from fewspikes.conversion.settings import Budget
from fewspikes.graph.graph import refs
from fewspikes.measure.deal import Images
from fewspikes.measure.expectation import resolution
from fewspikes.measure.measurement import Beside, Measurement, classes_of, measure
from fewspikes.measure.sensitivity import MOST_STEPS, Curves, curves
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.parameters import FSParameters

_CHANCE = 3.0  # standard errors above chance that may yet be chance


def allocate(
    snn: SpikingNetwork,
    parameters: Callable[[str, int], FSParameters],
    build: Build,
    images: Images,
    held: Images,
    budget: Budget,
    progress: bool | None = None,
) -> SpikingNetwork:
    """The network whose K by site fit the budget, chosen by what an error at each site does to the output.

    Limits of steps and spikes are used up, for the least error; a limit of the drop is met with few steps, or few
    spikes if these are to be few. Spikes and drop are measured on the held-out images, with the networks themselves.

    Args:
        snn: any network of the sites; its neurons are not used.
        parameters: of a site (by name) for a K, quickly.
        build: makes the network for a K by site.
        images: for the sensitivity.
        held: images that nothing else sees, and their labels.
        budget: what may be spent.
        progress: bars on stderr; None shows them when stderr is a terminal.

    Raises:
        FewSpikesError: the budget cannot be met: the best that can be, and why; or a drop is limited where the
            network's output names no class.
    """
    if budget.drop is not None and classes_of(snn) is None:
        raise FewSpikesError(
            f"a limit of the drop needs one output of shape [batch, classes]; this network returns {_outputs(snn)}: "
            "limit steps or spikes, and measure with evaluate and a metric, or convert a model that returns the logits "
            "alone"
        )
    if not len(held):
        raise FewSpikesError(
            f"a budget holds one of {budget.held_out_every} images out to measure on; give more images"
        )
    chains = Chains(snn)
    if budget.steps is not None and budget.steps < chains.longest:
        given = "".join(f", {name} its {k}" for name, k in zip(chains.sites, chains.fixed, strict=True) if k)
        raise FewSpikesError(
            f"steps={budget.steps} cannot be met: on the longest chain each site takes a step at least{given}, "
            f"so {chains.longest} is the least"
        )
    found = curves(snn, parameters, images, _most_steps(budget, chains), progress)
    held_out = partial(measure, beside=Beside(held, snn.as_ann()), expected=budget.drop is not None)
    with watch("budget", progress) as tell:
        searches = [
            Search(chains.sites, ladder, build, held_out, len(held), budget, tell)
            for ladder in _ladders(chains, found, budget)
        ]
        ends = [(search, *search.best()) for search in searches]
    search, rung, network, measured = min(ends, key=lambda end: (end[2] is None, end[3].spikes_per_neuron))
    if budget.drop is not None:
        _check_accuracy(measured, classes_of(snn) or 2)
    if network is None:
        raise FewSpikesError(f"{budget} cannot be met: {_best_that_can(search, rung, measured)}")
    return network.with_neurons({}, _notes(chains.sites, search.ladder, rung, measured, budget, found.images))


def _check_accuracy(measured: Measurement, classes: int) -> None:
    """Warn where the ANN names the classes no better than chance: then the labels are most often numbered otherwise."""
    if measured.ann_top1 is None:
        return
    chance = 1 / classes
    at_most = 100 * (chance + _CHANCE * (chance * (1 - chance) / measured.images) ** 0.5)
    if measured.ann_top1 <= at_most:
        warn(
            f"the ANN names the class of {measured.ann_top1:.1f}% of the {measured.images} images held out, no more "
            "than chance: are the labels numbered as the network's classes are? A limit of the drop means nothing "
            "otherwise"
        )


def _most_steps(budget: Budget, chains: Chains) -> int:
    """No site gets more than twice its share of the steps, and a little."""
    if budget.steps is None or budget.drop is not None:
        return MOST_STEPS
    return min(MOST_STEPS, 2 * -(-budget.steps // chains.longest) + 2)


def _ladders(chains: Chains, found: Curves, budget: Budget) -> list[Ladder]:
    """Where to look."""
    if budget.minimise == "spikes":  # the fewest of the first may be too few for the drop, within few steps
        return [greedy(chains, found, (1.0, weight)) for weight in (20.0, 1.0)]
    if budget.steps is None or budget.spikes is None:
        free = budget.steps is None and budget.spikes is None
        cost = "both" if free else "steps" if budget.spikes is None else "spikes"
        return [greedy(chains, found, WEIGHTS[cost])]
    ladders = [greedy(chains, found, (1.0, weight)) for weight in MIXTURES]
    within = best(ladders, budget.steps, budget.spikes / MORE_SPIKES)
    return ladders[:1] if within is None else [within[0]]


def _best_that_can(search: Search, rung: int, measured: Measurement) -> str:
    """What comes nearest to the budget, and why it is not enough."""
    ladder, budget = search.ladder, search.budget
    cost = f"latency {ladder.latency[rung]} and {measured.spikes_per_neuron:.3f} spikes per neuron"
    if not few_spikes(budget, measured) and rung == 0:
        return (
            f"with K = 1 at every site the neurons still fire {measured.spikes_per_neuron:.3f} times each; a "
            "larger spike_price gives codes with fewer spikes"
        )
    if not few_spikes(budget, measured) or budget.drop is None:
        return f"the nearest that was found has {cost}"
    if measured.loss is None:  # such as where axis 0 of the output is no batch
        return f"no drop could be measured: the output has no class for each image; the nearest has {cost}"
    return f"the least drop is {measured.loss:.2g} points, with {cost}; {_why(search, rung, measured)}"


def _why(search: Search, rung: int, measured: Measurement) -> str:
    """Why the drop at `rung`, the most that may be spent, is still too large."""
    ladder, limit, images = search.ladder, search.budget.drop or 0.0, search.images
    one = 100.0 / images
    least = one / 4  # less than a quarter of an image says nothing
    if rung < len(ladder) - 1:
        near = max(measured.loss or 0.0, least) * np.sqrt(ladder.errors / ladder.errors[rung]) <= max(limit, least)
        if not near.any():
            return "no number of steps is likely to reach it"
        return (
            f"drop={limit:g} by itself would take up to about {ladder.latency[near][0]} steps and "
            f"{ladder.spikes[near][0] * search.more_spikes:.2g} spikes per neuron"
        )
    if one > limit:
        return f"one of the {images} held-out images is {one:.2g} points: give more calibration images"
    return (
        f"more steps than {ladder.k.max()} a site are not tried: calibrate on more images, so that fewer inputs lie "
        "outside the ranges, or distil"
    )


def _notes(
    sites: Sequence[str], ladder: Ladder, rung: int, measured: Measurement, budget: Budget, images: int
) -> list[str]:
    """How the K were chosen, and what they came to."""
    k = ladder.k[rung]
    text = (
        f"K by site for {budget}, by the sensitivity of the output to each site's error ({images} images): "
        f"{_counted(k)}; latency {ladder.latency[rung]}. On {measured.images} held-out images: output error "
        f"{measured.error:.3g} of its variance, {measured.spikes_per_neuron:.3f} spikes per neuron"
    )
    if measured.agreement is not None:
        text += f", agreement {measured.agreement:.2f}%"
    if measured.drop is not None:
        text += f", drop {measured.drop:.2f} points from the ANN's {measured.ann_top1:.2f}%"
    notes = [text, f"K by site: {_extremes(sites, k)}"]
    if budget.drop is not None:
        notes.append(
            f"The limit was held against the larger of the drop counted and the drop expected "
            f"({measured.expected_loss:.2f}); {resolution(measured.images, measured.agreement)}. Images that the ANN "
            "was trained on flatter both"
        )
    return notes


def _counted(k: Whole) -> str:
    return ", ".join(f"K={steps} at {sites}" for steps, sites in sorted(Counter(k.tolist()).items())) + " sites"


def _extremes(sites: Sequence[str], k: Whole) -> str:
    order = np.argsort(-k, kind="stable")
    most, least = order[:3], [i for i in order[::-1][:3] if k[i] < k[order[0]]]
    words = ", ".join(f"{sites[i]} ({k[i]})" for i in most)
    return f"most at {words}" + (f"; least at {', '.join(f'{sites[i]} ({k[i]})' for i in least)}" if least else "")


def _outputs(snn: SpikingNetwork) -> str:
    """The shapes of what a network returns."""
    value = snn.graph.output.arguments["value"]
    shapes = [", ".join(["batch", *map(str, snn.graph.sizes(ref.name, 2)[1:])]) for ref in refs(value)]
    return " and ".join(f"[{shape}]" for shape in shapes)
