"""How the sites follow one another: which of them a further step makes later, and which have steps to spare."""

from collections.abc import Iterator, Mapping
from itertools import product

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
        site: by entry, its site's place; a site in a loop over time has an entry for each time step.
        before, after: by entry, the entries that feed it directly, and those that it feeds; all before it come first.
        times: by site, how often it runs for an image: once, or for each time step of its loop.
        leader: by site, the place of the site whose K it has; its own where it is free.
        fixed: by site, its K where nobody chooses it, or 0.
    """

    def __init__(self, snn: SpikingNetwork) -> None:
        self.sites = tuple(site.name for site in snn.sites)
        place = {name: i for i, name in enumerate(self.sites)}
        self._unroll(snn, place)
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
        n, k = len(self.site), k[self.site]
        until, onward, most = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(len(self.sites), np.int64)
        for i in range(n):
            until[i] = k[i] + max((until[j] for j in self.before[i]), default=0)
        for i in reversed(range(n)):
            onward[i] = max((k[j] + onward[j] for j in self.after[i]), default=0)
        np.maximum.at(most, self.site, until + onward)
        return most

    def latency(self, k: Whole) -> int:
        """Steps from an image to its output."""
        return int(self.through(k).max())

    def _unroll(self, snn: SpikingNetwork, place: Mapping[str, int]) -> None:
        """Fill in `site`, `times`, `before` and `after`."""
        structure, entry = snn.structure, dict[tuple[str, int], int]()
        loops = {name: structure.loop(name) for name in self.sites}
        for name in self.sites:
            loop, together = loops[name], [name]
            if (name, 0) not in entry:
                together = [name] if loop is None else [other for other in self.sites if loops[other] is loop]
                times = range(1 if loop is None else loop.time_steps)
                entry |= {(one, time): len(entry) + i for i, (time, one) in enumerate(product(times, together))}
        last = dict(entry.keys())  # its own, as the later entry of a name counts

        def fed(name: str, time: int) -> Iterator[tuple[str, int]]:
            for other, lag in structure.feeding[name].items():
                within = loops[other] is not None and loops[other] is loops[name]
                yield other, (time - lag if within else last[other])
            yield name, time - 1

        self.site = np.array([place[name] for name, _ in entry])
        self.times = np.array([last[name] + 1 for name in self.sites])
        self.before = [tuple(entry[one] for one in fed(*key) if one in entry) for key in entry]
        self.after: list[list[int]] = [[] for _ in entry]
        for i, before in enumerate(self.before):
            for j in before:
                self.after[j].append(i)
