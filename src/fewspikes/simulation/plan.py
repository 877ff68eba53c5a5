"""Where spikes go and when: worked out once for a network and the shapes of its inputs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush
from typing import Any

from torch import Tensor

from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, SITE, Batch, Node, Ref, replaced
from fewspikes.graph.interpreter import Place, Program, Step, lowered, ready_to_run
from fewspikes.graph.nested import parts
from fewspikes.network.segments import Segment, Segments
from fewspikes.network.structure import Structure
from fewspikes.network.timing import ready_steps
from fewspikes.operators.probing import factors
from fewspikes.operators.rule import Kind, Linear
from fewspikes.operators.unrolling import unrolled


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of neurons at one time step of its loop, if it is in one.

    Attributes:
        node: in the graph without loops.
        site: its site's name.
        time: the time step of its loop, counted as it runs; 0 outside.
        start: the global step before its first one.
        K: how many steps it fires in.
        sum: what its neurons take in.
    """

    node: str
    site: str
    time: int
    start: int
    K: int
    sum: "Sum"


@dataclass(frozen=True, eq=False)
class Sum:
    """A weighted sum in which spikes are collected: a segment's end, at its consumer.

    Attributes:
        number: among all.
        unit: the membranes that it is formed in: its consumer and which of its operands; time steps share them.
        segment: whose end it is.
        end: the place of the segment's value without any spike.
        ready: the global step at which it is complete.
    """

    number: int
    unit: tuple[str, int]
    segment: Segment
    end: int
    ready: int


@dataclass(frozen=True, eq=False)
class Gate:
    """A gated product, which spikes pass once what it holds is complete.

    Attributes:
        node: of the product.
        step: its operator; its result's place is where the way from there begins.
        start: the place that its gate is read from.
        held: the sum that it holds, and the place where it is read.
        opens: the global step after which spikes pass.
    """

    node: str
    step: Step
    start: int
    held: Sum
    place: int
    opens: int


@dataclass(frozen=True, eq=False)
class Way:
    """The operators that spikes pass from where they begin to where they are collected.

    Attributes:
        start: the place where the values of spikes are put.
        steps: the operators' homogeneous parts, in order.
        sums: where they end, each with the place of the value that is added.
        gates: the products that they reach as a gate.
        written: the places that the operators write.
    """

    start: int
    steps: tuple[Step, ...]
    sums: tuple[tuple[int, Sum], ...]
    gates: tuple[Gate, ...]
    written: tuple[int, ...]

    def to(self, sums: Iterable[Sum] = (), gates: Iterable[Gate] = ()) -> "Way":
        """The part of it that leads to some of its ends."""
        wanted, chosen = {one.number for one in sums}, {one.node for one in gates}
        kept = tuple((at, one) for at, one in self.sums if one.number in wanted)
        gated = tuple(one for one in self.gates if one.node in chosen)
        needed, steps = {at for at, _ in kept} | {one.start for one in gated}, list[Step]()
        for step in reversed(self.steps):
            if step.at in needed:
                steps.append(step)
                needed.update(_places([slot for _, slot in step.slots]))
        return Way(self.start, tuple(steps[::-1]), kept, gated, tuple(step.at for step in steps[::-1]))


def _same(value: Tensor) -> Tensor:
    return value


def _places(pattern: Any) -> Iterator[int]:
    if type(pattern) is Place:
        yield pattern.at
    else:
        yield from (at for item in parts(pattern) or () for at in _places(item))


class Plan:
    """All that does not depend on the images.

    Args:
        structure: of the network, for the shapes of these inputs.
        tensors: its constants.
        k: K by site name.

    Attributes:
        graph: without loops.
        program: the graph ready to run.
        layers: of neurons, in order.
        sums: by consumer, one for each operand.
        answer: the global step at which the output is complete.
        end: the last global step; after the answer only what nobody waits for fires, in a loop's last time step.
        still: what a node is without spikes, for one image, by name; filled by the first batch that runs.
    """

    def __init__(self, structure: Structure, tensors: Mapping[str, Tensor], k: Mapping[str, int]) -> None:
        self.structure, self.tensors = structure, tensors
        found = unrolled(structure.graph)
        self.graph, self.origin = found.graph, found.origin
        signals = found.of(structure.segments.carriers)
        self.segments = Segments(self.graph, structure.fixed, structure.rules, signals)
        self.program: Program = lowered(self.graph)
        self.places = self.program.places
        steps = {site.node: k[site.name] for site in structure.sites}
        self._ready = ready_steps(structure.segments, steps)
        self.sums = self._sums()
        self.answer = self.ready(self.graph.output.name)
        self.end = max(self.ready(node.name) for node in self.graph)
        sites = {site.node: site.name for site in structure.sites}
        self.layers = tuple(self._layer(node, sites, k) for node in self.graph.of(SITE))
        self._order = {node.name: at for at, node in enumerate(self.graph)}
        self._after = self._readers()
        self.still: dict[str, Tensor] = {}
        self.ways = {node.name: self._way(node) for node in self.graph if self._begins(node)}

    def ready(self, name: str) -> int:
        """The global step at which a node's value is complete."""
        node, time = self.origin[name]
        return self._ready[node][time]

    def steps(self) -> Iterator[tuple[int, list[tuple[Layer, int]]]]:
        """Each global step, and who is at work in it: layers in the order in which they begin, and t of their codes."""
        starts = defaultdict[int, list[Layer]](list)
        for layer in self.layers:
            starts[layer.start].append(layer)
        working: list[Layer] = []
        for now in range(1, self.end + 1):
            working = [layer for layer in working if now <= layer.start + layer.K] + starts[now - 1]
            yield now, [(layer, now - layer.start - 1) for layer in working]

    def _layer(self, node: Node, sites: Mapping[str, str], k: Mapping[str, int]) -> Layer:
        origin, time = self.origin[node.name]
        site = sites[origin]
        (sum_,) = self.sums[node.name]
        return Layer(node.name, site, time, self.ready(node.name) - k[site], k[site], sum_)

    def _sums(self) -> dict[str, tuple[Sum, ...]]:
        found: dict[str, list[Sum]] = defaultdict(list)
        for number, segment in enumerate(self.segments):
            own = found[segment.consumer.name]
            unit = self.origin[segment.consumer.name][0], len(own)
            own.append(Sum(number, unit, segment, self.places[segment.end], self.ready(segment.end)))
        return {name: tuple(sums) for name, sums in found.items()}

    def _begins(self, node: Node) -> bool:
        return node.operator == SITE or self.segments.held(node) is not None

    def _readers(self) -> dict[str, list[tuple[Node, bool]]]:
        """By node, who reads it, and whether what it reads passes on."""
        found: dict[str, list[tuple[Node, bool]]] = defaultdict(list)
        for node in self.graph:
            passing = self.segments.kind(node.name) is Kind.SYNAPTIC
            through = self.segments.through(node) if passing else ()
            for name in node.reads:
                found[name].append((node, name in through))
        return found

    def _way(self, source: Node) -> Way:
        """From a layer, or from a gated product on, to where its spikes are collected."""
        sums, gates, steps = list[tuple[int, Sum]](), list[Gate](), list[Step]()
        waiting = [(self._order[source.name], source.name)]
        seen = {source.name}
        while waiting:
            _, name = heappop(waiting)
            if name != source.name:
                steps.append(self._alone(self.graph[name], seen) or self._step(self.graph[name]))
            for reader, passes in self._after.get(name, ()):
                sums += ((self.places[name], one) for one in self.sums.get(reader.name, ()) if one.segment.end == name)
                if passes and self.segments.held(reader) is not None:
                    gates.append(self._gate(reader))
                elif passes and reader.name not in seen:
                    seen.add(reader.name)
                    heappush(waiting, (self._order[reader.name], reader.name))
        return Way(self.places[source.name], tuple(steps), tuple(sums), tuple(gates), tuple(step.at for step in steps))

    def _alone(self, node: Node, reached: Set[str]) -> Step | None:
        """A sum of one value that spikes reach and others that they do not: that value."""
        rule = self.segments.fates[node.name].rule
        if not isinstance(rule, Linear) or not rule.adds:
            return None
        terms = factors(self.segments.call(node)) or {}
        met = [name for name in terms if name in reached]
        if len(met) != 1 or terms[met[0]] != 1 or self.graph[met[0]].shape != node.shape:
            return None
        return Step(node.name, _same, (None,), {}, ((0, Place(self.places[met[0]])),), self.places[node.name], ())

    def _gate(self, node: Node) -> Gate:
        (held,) = self.sums[node.name]
        places = (self.places[node.arguments["gate"].name], self.places[str(self.segments.held(node))])
        return Gate(node.name, self._step(node), places[0], held, places[1], held.ready)

    def _step(self, node: Node) -> Step:
        """An operator without what it adds to its sum."""
        rule = self.segments.fates[node.name].rule
        if not isinstance(rule, Linear):  # one of several results
            return ready_to_run(node, self.places)
        given = replaced(node.arguments, self._constant)
        call = self.segments.call(node)
        return ready_to_run(replace(node, arguments=rule.homogeneous(call, given)), self.places)

    def _constant(self, ref: Ref) -> Any:
        node = self.graph[ref.name]
        return self.tensors[node.arguments["tensor"]] if node.operator == CONSTANT else ref

    @cached_property
    def alike(self) -> frozenset[str]:
        """The signals that are the same for every image where no spikes come, with the images in front."""
        found, carriers = set[str](), self.segments.carriers
        sizes = {node.name for node in self.graph if node.shape is None and node.name not in carriers}
        told = {node.name for node in self.graph.of(CONSTANT)} | sizes
        for node in self.graph:
            if node.name not in carriers or (node.shape or ())[:1] != (Batch(1),):
                continue
            is_sum = self.segments.kind(node.name) is Kind.SYNAPTIC and self.segments.held(node) is None
            if node.operator == SITE or (is_sum and all(name in found or name in told for name in node.reads)):
                found.add(node.name)
        return frozenset(found)

    @cached_property
    def shown(self) -> Sum | None:
        """The sum that the output is, where it is one, no product is in it, and nothing digital comes before."""
        sums = self.sums.get(self.graph.output.name, ())
        if len(sums) != 1 or not isinstance(self.graph.output.arguments["value"], Ref):
            return None
        segment, kind = sums[0].segment, self.segments.kind
        is_plain = all(self.segments.held(node) is None for node in segment.nodes)
        return sums[0] if is_plain and all(kind(name) is not Kind.DIGITAL for name in segment.sources) else None

    @cached_property
    def shown_from(self) -> int:
        """The first global step in which spikes come to it."""
        starts = [x.start for x in self.layers if any(one is self.shown for _, one in self.ways[x.node].sums)]
        return min(starts, default=self.answer) + 1

    @property
    def has_masks(self) -> bool:
        """Whether anything but the number of images decides what bookkeeping comes to: whole numbers, masks."""
        return any(spec.dtype.is_floating_point is False for spec in self.structure.inputs)

    def bookkeeping(self) -> Iterator[Step]:
        """The operators whose results carry no signal, in order."""
        steps = {step.node: step for step in self.program.steps if isinstance(step, Step)}
        for node in self.graph:
            if node.name not in self.segments.carriers and node.operator not in (INPUT, CONSTANT, OUTPUT):
                yield steps[node.name].kept()
