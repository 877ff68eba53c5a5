"""How the sites follow one another: which of them a further step makes later, and which have steps to spare."""

import numpy as np
from numpy.typing import NDArray

from fewspikes.network.spiking import SpikingNetwork

Whole = NDArray[np.int64]


class Chains:
    """The graph of the sites alone, so that thousands of choices of K can be tried in no time.

    Args:
        snn: any network of these sites.

    Attributes:
        sites: their names, in the order of the graph; K everywhere below is a vector in this order.
        before, after: by site, the places of the sites that feed it directly, and of those that it feeds.
        leader: by site, the place of the site whose K it has; its own where it is free.
        fixed: by site, its K where nobody chooses it, or 0.
    """

    def __init__(self, snn: SpikingNetwork) -> None:
        self.sites = tuple(site.name for site in snn.sites)
        place = {name: i for i, name in enumerate(self.sites)}
        self.before = [tuple(place[name] for name in snn.structure.feeding[site]) for site in self.sites]
        self.after: list[tuple[int, ...]] = [
            tuple(j for j in range(len(self.sites)) if i in self.before[j]) for i in range(len(self.sites))
        ]

        leaders = {name: one.leader for name, one in snn.structure.followers.items() if name in snn.exact}
        fixed = [snn.neurons[name].code.K if name in snn.exact and name not in leaders else 0 for name in self.sites]
        self.fixed = np.array(fixed)
        self.leader = np.array([place[leaders.get(name, name)] for name in self.sites])

    def even(self, k: int) -> Whole:
        """One K for all sites, but for those whose K is fixed."""
        return np.where(self.fixed > 0, self.fixed, k).astype(np.int64)

    @property
    def longest(self) -> int:
        """The steps of the longest chain of sites where each takes as few as it can."""
        return int(self.through(self.even(1)).max())

    def through(self, k: Whole) -> Whole:
        """By site, the steps of the longest chain that it is in. The largest of them is the network's latency."""
        n = len(self.sites)
        until, onward = np.zeros(n, np.int64), np.zeros(n, np.int64)
        for i in range(n):
            until[i] = k[i] + max((until[j] for j in self.before[i]), default=0)
        for i in reversed(range(n)):
            onward[i] = max((k[j] + onward[j] for j in self.after[i]), default=0)
        return np.asarray(until + onward, np.int64)

    def latency(self, k: Whole) -> int:
        """Steps from an image to its output."""
        return int(self.through(k).max())
