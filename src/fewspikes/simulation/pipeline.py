"""The paper's pipeline: all layers at work at once, on one image after another, as the schedule says.

Spikes carry no name: they are added to whatever membrane listens when they come.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from fewspikes.base.progress import track
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.firing import Firing
from fewspikes.simulation.plan import Layer, Sum
from fewspikes.simulation.run import Batch
from fewspikes.simulation.schedule import Line, Schedule, Window


class Membranes:
    """The membranes of all layers, and of products that hold: each listens to one image at a time.

    Args:
        count: for each sum.
        windows: of all sums, by number; no spikes come where one is empty.
    """

    def __init__(self, count: int, windows: Mapping[int, Window]) -> None:
        self.count, self.windows = count, windows
        self._listening: dict[tuple[str, int], Tensor | None] = {}  # by unit, what has come to the one that listens
        self._busy: dict[tuple[str, int], int] = defaultdict(int)

    def open(self, one: Sum) -> None:
        """A membrane is empty and listens from now on."""
        if one.unit in self._listening or self._busy[one.unit] == self.count:
            raise AssertionError(f"the membranes of {one.unit} are busy")
        self._listening[one.unit] = None
        self._busy[one.unit] += 1

    def add(self, one: Sum, value: Tensor) -> None:
        """Spikes come to whatever listens."""
        if one.unit not in self._listening:
            raise AssertionError(f"spikes come to {one.unit}, which does not listen")
        before = self._listening[one.unit]
        self._listening[one.unit] = value.clone() if before is None else before.add_(value)

    def take(self, one: Sum) -> Tensor | None:
        """The membrane listens no more."""
        return self._listening.pop(one.unit) if self.windows[one.number].listens else None

    def free(self, one: Sum) -> None:
        """It is of no use any more."""
        self._busy[one.unit] -= 1


def piped(
    schedule: Schedule,
    snn: SpikingNetwork,
    images: Sequence[Sequence[Tensor]],
    interval: int,
    outside: Counter[str],
    progress: bool | None = None,
) -> Iterator[tuple[int, int, Layer | None, int, Tensor]]:
    """Run images one after another, all in flight at once.

    Args:
        schedule: of the network.
        snn: the network.
        images: the inputs of each, in the network's order.
        interval: the steps between two.
        outside: as for a `Batch`.
        progress: shows how far it is on stderr; None: on a terminal.

    Yields:
        The global step, the image, the layer, the step of its code (from 0), and its spikes; with no layer, the image's
        output.
    """
    work = _Pipeline(schedule, snn, images, outside)
    end = schedule.plan.end
    last = end + interval * (len(images) - 1)
    for now in track(range(1, last + 1), "simulating", last, progress):
        first = max(-(-(now - end) // interval), 0)
        flying = [(n, now - n * interval) for n in range(first, min((now - 1) // interval + 1, len(images)))]
        yield from ((now, *told) for told in work.step(now, flying))


class _Pipeline:
    def __init__(
        self, schedule: Schedule, snn: SpikingNetwork, images: Sequence[Sequence[Tensor]], outside: Counter[str]
    ) -> None:
        self.schedule, self.snn, self.images, self.outside = schedule, snn, images, outside
        self.membranes = Membranes(schedule.membranes, schedule.windows)
        self.batches: dict[int, Batch] = {}
        self.firing: dict[tuple[int, str], tuple[Layer, Firing]] = {}
        self.flying: dict[int, list[tuple[int, Line, Tensor]]] = defaultdict(list)  # by step of arrival
        self.products: dict[tuple[int, str], Tensor] = {}  # sums of products that wait, by image
        self.opens, self.taken, self.freed = (defaultdict[int, list[Sum]](list) for _ in range(3))
        for window in schedule.windows.values():
            self.taken[window.taken].append(window.sum)
            if window.listens:
                self.opens[window.opens + 1].append(window.sum)
                self.freed[window.freed].append(window.sum)
        self.layers, self.late = defaultdict(list), defaultdict(list)
        for layer in schedule.plan.layers:
            self.layers[layer.start + 1].append(layer)
        for late in schedule.late:
            self.late[late.at].append(late)
        self.waiting = {late.gate.node for late in schedule.late}

    def step(self, now: int, flying: Sequence[tuple[int, int]]) -> Iterator[tuple[int, Layer | None, int, Tensor]]:
        """One global step of all images in flight, each with its own step."""
        for n, own in flying:
            if own == 1:
                self.batches[n] = Batch(self.schedule.plan, self.snn, self.images[n], self.membranes, n, self.outside)
                self._take(n, 0)
            for one in self.opens.get(own, ()):
                self.membranes.open(one)
            for layer in self.layers.get(own, ()):
                self.firing[n, layer.node] = layer, self.batches[n].firing(layer)
        yield from self._fire(now, dict(flying))
        for n, line, value in self.flying.pop(now, ()):
            self._arrive(self.batches[n], n, line, value)
        for n, own in flying:
            for late in self.late.get(own, ()):
                if (n, late.gate.node) in self.products:
                    batch = self.batches[n]
                    deque(batch.bring(late.way, self.products[n, late.gate.node], batch.aside), 0)
            self._take(n, own)
            for one in self.freed.get(own, ()):
                self.membranes.free(one)
            if own == self.schedule.latency:
                yield n, None, 0, self.batches[n].output()
            if own == self.schedule.plan.end:
                del self.batches[n]
                self.products = {key: value for key, value in self.products.items() if key[0] != n}

    def _take(self, n: int, own: int) -> None:
        for one in self.taken.get(own, ()):
            self.batches[n].total(one)

    def _fire(self, now: int, flying: Mapping[int, int]) -> Iterator[tuple[int, Layer | None, int, Tensor]]:
        for (n, name), (layer, firing) in list(self.firing.items()):
            t = flying[n] - layer.start - 1
            z = firing.fire(t)
            yield n, layer, t, z
            value = firing.value(t, firing.heard(t, z))
            if value is not None:
                for line in self.schedule.lines[name]:
                    self.flying[now + line.delay].append((n, line, value))
            if t + 1 == layer.K:
                del self.firing[n, name]

    def _arrive(self, batch: Batch, n: int, line: Line, value: Tensor) -> None:
        for gate, reaching in batch.bring(line.way, value):
            product = batch.product(gate, reaching)
            if line.at_once is not None:
                deque(batch.bring(line.at_once, product), 0)
            if gate.node in self.waiting:
                before = self.products.get((n, gate.node))
                self.products[n, gate.node] = product if before is None else before + product
