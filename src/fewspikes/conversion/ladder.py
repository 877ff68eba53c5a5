"""A ladder of choices from one step per site to many: on each rung the site that gains most gets another step."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from fewspikes.conversion.chains import Chains, Whole
from fewspikes.measure.sensitivity import Curves, Vector

# Of latency and of spikes. What counts less still counts: on ResNet20 it saves up to 5% of the spikes for at most 4%
# more error, and keeps sites off the longest chain from steps that gain next to nothing.
WEIGHTS = {"steps": (1.0, 0.3), "spikes": (0.05, 1.0), "both": (1.0, 1.0)}
MIXTURES = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)  # weights of spikes against latency, where both are limited


@dataclass(frozen=True)
class Ladder:
    """Choices of K, from few steps to many.

    Attributes:
        k: [rungs, sites].
        latency: [rungs], exact.
        spikes: [rungs], per neuron, with the other sites exact.
        errors: [rungs], predicted: the sum of what each site does to the output by itself.
    """

    k: Whole
    latency: Whole
    spikes: Vector
    errors: Vector

    def __len__(self) -> int:
        return len(self.latency)


def greedy(chains: Chains, curves: Curves, weights: tuple[float, float]) -> Ladder:
    """From K = 1 everywhere, give the next step where the output's error falls most for what it costs.

    The cost is the relative growth of latency and of spikes, each times its weight. A site looks ahead: two steps
    together may gain what one does not. Sites off the longest chain cost no latency.
    """
    most, together = curves.errors.shape[1], _together(chains, curves)
    k = chains.even(1)
    rungs = [k.copy()]
    while (k < most)[chains.fixed == 0].any():
        k[chains.leader == _next(chains, together, weights, k)] += 1
        rungs.append(k.copy())
    sums = np.array([curves.at(k) for k in rungs])
    latency = np.array([chains.latency(k) for k in rungs])
    return Ladder(np.stack(rungs), latency, sums[:, 1], sums[:, 0])


def best(ladders: Sequence[Ladder], steps: float, spikes: float = inf) -> tuple[Ladder, int] | None:
    """The ladder and the rung of it with the least error within so many steps and spikes; None if nothing fits."""
    found = []
    for ladder in ladders:
        fits = np.flatnonzero((ladder.latency <= steps) & (ladder.spikes <= spikes))
        found += [(float(ladder.errors[fits[-1]]), ladder, int(fits[-1]))] if len(fits) else []
    return min(found, key=lambda entry: entry[0])[1:] if found else None


def _together(chains: Chains, curves: Curves) -> Curves:
    """What a step at a site does with those that follow it, which do nothing by themselves."""
    errors, spikes = np.zeros_like(curves.errors), np.zeros_like(curves.spikes)
    np.add.at(errors, chains.leader, curves.errors)
    np.add.at(spikes, chains.leader, curves.spikes)
    return Curves(errors, spikes, curves.images)


def _next(chains: Chains, curves: Curves, weights: tuple[float, float], k: Whole) -> int:
    """The site that gets the next step."""
    row, most = np.arange(len(k)), curves.errors.shape[1]
    here = np.minimum(k, most) - 1
    ahead = np.arange(1, most + 1) - k[:, None]  # [sites, most], how many steps more
    times = np.bincount(chains.leader, chains.times, len(k))[:, None]  # of a site and those that follow it in a chain
    through = chains.through(k)
    latency, spikes = through.max(), curves.at(k)[1]
    later = np.maximum(0, through[:, None] + ahead * times - latency) / latency
    fired = np.maximum(0, curves.spikes - curves.spikes[row, here][:, None]) / max(spikes, 1e-12)
    cost = weights[0] * later + weights[1] * fired + 1e-9
    gain = curves.errors[row, here][:, None] - curves.errors
    free = (times > 0) & (chains.fixed == 0)[:, None]
    ratio = np.where((ahead > 0) & free, gain / cost, -np.inf)
    return int(ratio.max(1).argmax())
