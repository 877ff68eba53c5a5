"""When the layers of a pipeline take in, fire and wait.

A layer takes in spikes for as many steps as the layers before it fire, then fires itself, then takes in the next image.
Where a branch is shorter than another one, its spikes wait in a delay buffer, so that all that a layer takes in comes
while it listens. Each layer begins to fire as soon as the last layer that it needs has fired: no schedule has a shorter
latency, and with one membrane for each neuron none has a shorter interval than the longest time that a membrane is busy
with one image.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.wording import counted
from fewspikes.graph.graph import OUTPUT, SITE
from fewspikes.operators.rule import Kind
from fewspikes.simulation.plan import Gate, Layer, Plan, Sum, Way


@dataclass(frozen=True, eq=False)
class Window:
    """When a sum is formed and used, in global steps of its image: after `opens` until `taken`, held until `freed`."""

    sum: Sum
    opens: int
    taken: int
    freed: int

    @property
    def listens(self) -> bool:
        """Whether spikes come at all."""
        return self.taken > self.opens


@dataclass(frozen=True, eq=False)
class Line:
    """Spikes of a layer on their way to some of their ends, all after the same delay.

    Attributes:
        delay: in steps.
        way: to the ends.
        at_once: from the product that they gate when they arrive, to what takes its spikes as they come.
    """

    delay: int
    way: Way
    at_once: Way | None = None


@dataclass(frozen=True, eq=False)
class Late:
    """A gated product's sum, kept until what takes it listens.

    Attributes:
        gate: of the product.
        at: the global step at which it is handed on.
        way: from the product on.
    """

    gate: Gate
    at: int
    way: Way


@dataclass(frozen=True)
class Traffic:
    """What a pipeline takes and gives.

    Attributes:
        latency: the steps from an image to its answer.
        interval: the steps from one image to the next.
        membranes: for each neuron.
        spike_buffers: bits in which spikes wait where a branch is shorter: for each neuron as many as its spikes wait
            steps at most.
        value_buffers: numbers that wait, of images in flight: inputs, results of digital operators, and products whose
            sums are complete before they are taken.
    """

    latency: int
    interval: int
    membranes: int
    spike_buffers: int
    value_buffers: int

    @property
    def images_per_1000_steps(self) -> float:
        """How many images come out in 1,000 steps, once the pipeline is full."""
        return 1000 / self.interval


class Schedule:
    """Who listens, fires and waits when.

    Args:
        plan: of the network.
        membranes: for each neuron: with two, a layer takes in an image while it fires for the one before.

    Attributes:
        windows: of all sums, by number.
        lines: by layer, where its spikes go.
        late: the products that wait.
        latency: the steps from an image to its answer.
        interval: the least number of steps between two images.

    Raises:
        FewSpikesError: a loop over time whose layers need more membranes.
    """

    def __init__(self, plan: Plan, membranes: int = 1) -> None:
        self.plan, self.membranes = plan, membranes
        self._gating = _gating(plan)
        taken = _taken(plan, self._gating)
        self.windows = self._windows(taken)
        self.lines = {layer.node: tuple(self._lines(layer)) for layer in plan.layers}
        self.late = tuple(late for found in self._gating.values() for late in self._late(found))
        self.latency = plan.answer
        units = self._units()
        for windows in units:
            self._check_loop(windows)
        self.interval = max(map(self._of_unit, units), default=1)

    def chosen(self, interval: int | None) -> int:
        """The steps between two images, if so many are asked for; None asks for the fewest.

        Raises:
            FewSpikesError: fewer than the membranes allow.
        """
        if interval is not None and interval < self.interval:
            raise FewSpikesError(
                f"with {counted(self.membranes, 'membrane')} for each neuron this network takes an image every "
                f"{self.interval} steps at most; got interval={interval}: give {self.interval} or more, or None"
            )
        return self.interval if interval is None else interval

    def traffic(self, interval: int | None = None) -> Traffic:
        """What the pipeline takes and gives, at its own interval or a longer one."""
        interval = self.chosen(interval)
        graph, bits, words = self.plan.graph, dict[str, int](), 0
        for layer in self.plan.layers:
            waits = max((line.delay for line in self.lines[layer.node]), default=0)
            neurons = graph.sizes(layer.node, 1).numel()
            bits[layer.site] = max(bits.get(layer.site, 0), waits * neurons)
        for name, waits in self._kept().items():
            words += graph.sizes(name, 1).numel() * -(-waits // interval)
        return Traffic(self.latency, interval, self.membranes, sum(bits.values()), words)

    def _kept(self) -> dict[str, int]:
        """By analog value, how long it is kept for what takes it: inputs, digital results, tables, late products."""
        found: dict[str, int] = defaultdict(int)
        for window in self.windows.values():
            for name in window.sum.segment.sources:
                if self.plan.graph[name].operator != SITE:
                    found[name] = max(found[name], window.taken - self.plan.ready(name))
        for late in self.late:
            opens = min(one.opens for one in self._gating[late.gate.node])
            found[late.gate.node] = max(found[late.gate.node], late.at - opens)
        return found

    def _windows(self, taken: Mapping[int, int]) -> dict[int, Window]:
        begins = dict(taken)
        for layer in self.plan.layers:
            for _, one in self.plan.ways[layer.node].sums:
                begins[one.number] = min(begins[one.number], taken[one.number] - layer.K)
        for found in self._gating.values():
            for _, one in self.plan.ways[found[0].gate.node].sums:
                if taken[one.number] == _complete(found):
                    begins[one.number] = min(begins[one.number], *(gating.opens for gating in found))
        freed = dict(taken)
        for layer in self.plan.layers:
            freed[layer.sum.number] = layer.start + layer.K
        for found in self._gating.values():
            freed[found[0].gate.held.number] = _complete(found)
        sums = (one for own in self.plan.sums.values() for one in own)
        return {one.number: Window(one, *(when[one.number] for when in (begins, taken, freed))) for one in sums}

    def _lines(self, layer: Layer) -> Iterator[Line]:
        way, by_delay = self.plan.ways[layer.node], defaultdict(list)
        for _, one in way.sums:
            by_delay[self.windows[one.number].taken - layer.start - layer.K].append(one)
        for delay, sums in by_delay.items():
            yield Line(delay, way.to(sums))
        for gate in way.gates:
            found = self._gating[gate.node]
            opens = next(one.opens for one in found if one.layer is layer)
            at_once = self._at_once(found)
            onwards = self.plan.ways[gate.node].to(at_once) if at_once else None
            yield Line(opens - layer.start, way.to(gates=[gate]), onwards)

    def _at_once(self, found: "Sequence[Gating]") -> list[Sum]:
        """The sums that take a product's spikes as they come."""
        sums = (one for _, one in self.plan.ways[found[0].gate.node].sums)
        return [one for one in sums if self.windows[one.number].taken == _complete(found)]

    def _late(self, found: "Sequence[Gating]") -> Iterator[Late]:
        gate, way, by_time = found[0].gate, self.plan.ways[found[0].gate.node], defaultdict(list)
        at_once = {one.number for one in self._at_once(found)}
        for _, one in way.sums:
            if one.number not in at_once:
                by_time[max(self.windows[one.number].opens, _complete(found))].append(one)
        for time, sums in by_time.items():
            yield Late(gate, time, way.to(sums))

    def _units(self) -> tuple[list[Window], ...]:
        """When membranes are busy with one image; in a loop, at each time step."""
        found = defaultdict(list)
        for window in sorted(self.windows.values(), key=lambda window: (window.opens, window.freed)):
            if window.freed > window.opens:
                found[window.sum.unit].append(window)
        return tuple(found.values())

    def _check_loop(self, windows: Sequence[Window]) -> None:
        """Raise if time steps of a loop need the same membrane at once."""
        if all(a.freed <= b.opens for a, b in zip(windows, windows[self.membranes :], strict=False)) and all(
            a.taken <= b.opens for a, b in pairwise(windows)
        ):
            return
        graph, name = self.plan.structure.graph, windows[0].sum.unit[0]
        names = {site.node: f"the layer {site.name}" for site in self.plan.structure.sites}
        other = "Pipeline(membranes=2) or " if self.membranes == 1 else ""
        raise FewSpikesError(
            f"{names.get(name, graph[name].where)} takes in a time step of its loop while it is busy with the one "
            f'before, for which {counted(self.membranes, "membrane")} is too few; use {other}engine="steps"'
        )

    def _of_unit(self, windows: list[Window]) -> int:
        """The steps that membranes are busy with one image; two take turns, where there is no loop."""
        first, last = min(w.opens for w in windows), max(w.freed for w in windows)
        if self.membranes == 1 or len(windows) > 1:
            return last - first
        (one,) = windows
        return max(one.taken - one.opens, one.freed - one.taken, -(-(last - first) // self.membranes))


@dataclass(frozen=True, eq=False)
class Gating:
    """A layer that gates a product, and the global step after which its spikes do so."""

    layer: Layer
    gate: Gate
    opens: int


def _gating(plan: Plan) -> dict[str, list[Gating]]:
    """By product, its gate layers; they end together, so that what is held waits as shortly as it can."""
    met = defaultdict(list)
    for layer in plan.layers:
        for gate in plan.ways[layer.node].gates:
            met[gate.node].append((layer, gate))
    found = dict[str, list[Gating]]()
    for node, own in met.items():
        complete = max(max(gate.opens, layer.start) + layer.K for layer, gate in own)
        found[node] = [Gating(layer, gate, complete - layer.K) for layer, gate in own]
    return found


def _complete(found: Sequence[Gating]) -> int:
    """When a product's sum is complete."""
    return found[0].opens + found[0].layer.K


def _taken(plan: Plan, gating: Mapping[str, Sequence[Gating]]) -> dict[int, int]:
    """By sum, the step at which it must be complete: as late as what takes it allows."""
    found: dict[int, int] = {}
    for name, sums in plan.sums.items():
        is_whole = plan.graph[name].operator == OUTPUT or plan.segments.kind(name) is Kind.DIGITAL
        for one in sums:
            found[one.number] = plan.ready(name) if is_whole else one.ready
    for layer in plan.layers:
        found[layer.sum.number] = layer.start
    for own in gating.values():
        found[own[0].gate.held.number] = min(one.opens for one in own)
    return found
