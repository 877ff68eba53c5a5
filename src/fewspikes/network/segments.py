"""Segments: the linear maps between neurons. Whatever follows from a graph's structure is worked out on them.

A segment leads from its sources (sites, inputs, tables that are looked up, results of digital operators) to one operand
of one consumer (a site, a digital operator, the network's output). A gated product is part of the segment of its gate,
a weight that changes, and the consumer of the segment of what it holds. In a loop over time a segment may lead through
states, from the time steps before. Nobody else walks the graph.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from fewspikes.graph.functions import is_fresh
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, SITE, Graph, Node, Ref
from fewspikes.network.following import Following
from fewspikes.network.image_axes import ImageAxis, axes_of_images
from fewspikes.operators.call import IMAGES, Call, Known, Relation
from fewspikes.operators.rule import Kind, Linear, Rules
from fewspikes.operators.rules import RULES, Fate, carriers, fates
from fewspikes.reach.boxes import is_empty, tidy
from fewspikes.reach.factors import Unknown
from fewspikes.reach.union import unite


@dataclass(frozen=True, eq=False)
class Segment:
    """One linear map.

    Attributes:
        consumer: what takes its sum.
        end: the node whose value that is; a source itself where nothing lies between.
        nodes: the operators between, in order.
        sources: the nodes that it comes from, in order.
        lags: by node and source, how many time steps of their loop earlier, at least, it gives what arrives.
    """

    consumer: Node
    end: str
    nodes: tuple[Node, ...]
    sources: tuple[str, ...]
    lags: Mapping[str, int]


class Segments:
    """All segments of a graph, in the order of their consumers.

    Args:
        graph: of a spiking network, with shapes.
        fixed: its constants that are structure.
        rules: the rows.
        signals: the nodes that carry a signal, where the graph alone does not tell.

    Raises:
        FewSpikesError: an operator without a row.
    """

    def __init__(
        self,
        graph: Graph,
        fixed: Mapping[str, Tensor],
        rules: Rules = RULES,
        signals: frozenset[str] | None = None,
    ) -> None:
        self.graph, self.fixed, self.rules = graph, fixed, rules
        self.carriers = carriers(graph, rules) if signals is None else signals
        self.fates: Mapping[str, Fate] = fates(graph, fixed, rules, carrying=self.carriers)
        self.all = tuple(self._found())

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.all)

    def held(self, node: Node) -> str | None:
        """What a gated product holds while spikes meet it: the node of that factor, if it is a signal."""
        rule = self.fates[node.name].rule if node.name in self.fates else None
        name = rule.held if isinstance(rule, Linear) else None
        value = None if name is None else node.arguments[name].name
        return value if value in self.carriers else None

    def through(self, node: Node) -> tuple[str, ...]:
        """What a node reads that spikes pass through it from: all but what it holds."""
        if self.held(node) is None:
            return node.reads
        return (node.arguments["gate"].name,)

    def met(self, segment: Segment) -> Mapping[str, int]:
        """What a sum takes in through weights that stay as they are: sources and gated products, with their lags."""

        def is_product(node: Node) -> bool:
            return self.held(node) is not None

        lags = self._lags(segment.end, lambda node: () if is_product(node) else node.reads)
        return {
            name: lag
            for name, lag in lags.items()
            if self.kind(name) is not Kind.SYNAPTIC or is_product(self.graph[name])
        }

    def factors(self, node: Node) -> tuple[str, ...] | None:
        """The nodes that a product of two signals multiplies, whatever it is made of; None for what is no product."""
        rule = self.fates[node.name].rule if node.name in self.fates else None
        if isinstance(rule, Linear) and rule.factors is not None:
            return tuple(rule.factors(self.call(node)))
        is_product = self.kind(node.name) is Kind.DIGITAL or self.held(node) is not None
        return node.reads if is_product else None

    def gates(self, node: Node) -> tuple[str, ...]:
        """The layers whose spikes meet what a gated product holds."""
        return self._back_from(node, node.arguments["gate"].name).sources

    def call(self, node: Node, known: Known | None = None) -> Call:
        """A node as its row sees it."""
        return Call(node, self.graph, self.rules, self.carriers, {} if known is None else known, self.fixed)

    def kind(self, name: str) -> Kind | None:
        """What became of a node; None for inputs, constants and the output."""
        return self.fates[name].kind if name in self.fates else None

    def of(self, consumer: str) -> tuple[Segment, ...]:
        """The segments that end at a consumer."""
        return self._by_consumer.get(consumer, ())

    def from_source(self, source: str) -> tuple[Segment, ...]:
        """The segments that a source is in."""
        return tuple(segment for segment in self.all if source in segment.sources)

    def feeding(self, site: str) -> Mapping[str, int]:
        """The sites whose spikes reach a site with no site between; digital operators are passed.

        With how many time steps they need for it at least, where both are in one loop.
        """
        return self._feeding[site]

    def reached(self, source: str, segments: tuple[Segment, ...]) -> Iterator[Relation]:
        """The connections from a source's result to the end of each segment.

        Those through a gated product are synapses of their own, beside the direct ones and those through another
        product: their weights change, and spikes pass them at other steps.

        Raises:
            Unknown: they cannot be followed.
        """
        between = {node.name: node for segment in segments for node in segment.nodes}
        nodes = sorted(between.values(), key=lambda node: self._order[node.name])
        plain = [node for node in nodes if self.held(node) is None]
        met = self._onwards(source, plain)
        yield from self._ends(source, plain, segments)
        for product in nodes:
            if self.held(product) is not None and not met.isdisjoint(self.through(product)):
                behind = self._onwards(product.name, plain)
                way = [node for node in nodes if node is product or self.held(node) is None]
                yield from self._ends(source, way, [one for one in segments if one.end in behind], behind)

    def _onwards(self, name: str, nodes: Sequence[Node]) -> frozenset[str]:
        """A node and those of the nodes that its value passes on to."""
        found, more = set[str](), {name}
        while more:
            found |= more
            more = {node.name for node in nodes if not found.isdisjoint(self._before(node))} - found
        return frozenset(found)

    def _before(self, node: Node) -> tuple[str, ...]:
        after = self.graph.after(node.name)
        return self.through(node) if after is None else (*self.through(node), after)

    def _ends(
        self, source: str, nodes: Sequence[Node], segments: Sequence[Segment], behind: frozenset[str] = frozenset()
    ) -> Iterator[Relation]:
        """What a source reaches through some nodes; those behind a product, it among them, through it alone."""

        def read(node: Node) -> tuple[str, ...]:
            names = self.through(node)
            alone = node.name in behind and self.held(node) is None
            return tuple(name for name in names if name in behind) if alone else names

        following = Following(self.graph, source, read, self.passed)
        following.follow(nodes)
        for segment in segments:
            found = following.at(segment.end, segment.consumer)
            if found:
                yield found

    def weighs(self, node: Node) -> str | None:
        """The name of the argument that weighs, at a node that is a weighted sum."""
        rule = self.fates[node.name].rule if node.name in self.fates else None
        return rule.weighs(self.call(node)) if isinstance(rule, Linear) else None

    @cached_property
    def weights(self) -> frozenset[str]:
        """The names of the constants of floating numbers that weigh signals, worked on or as they are."""
        found, waiting = set[str](), deque[str]()
        for node in self.graph:
            value = node.arguments.get(self.weighs(node) or "")
            waiting.extend([value.name] if isinstance(value, Ref) and value.name not in self.carriers else [])
        seen = set[str]()
        while waiting:
            node = self.graph[waiting.popleft()]
            if node.operator == CONSTANT and node.arguments["tensor"] not in self.fixed:
                found.add(node.arguments["tensor"])
            waiting.extend(name for name in node.reads if name not in seen)
            seen.update(node.reads)
        return frozenset(found)

    @cached_property
    def overwritable(self) -> frozenset[str]:
        """The sites whose gate inputs lie in memory of their own and are read by nothing else."""
        found = set()
        for site in self.graph.of(SITE):
            source = self.graph[site.arguments["input"].name]
            rule = self.fates[source.name].rule if source.name in self.fates else None
            fresh = isinstance(rule, Linear) and not rule.moves and is_fresh(source.operator)
            if fresh and len(self.graph.users(source.name)) == 1:
                found.add(site.name)
        return frozenset(found)

    @cached_property
    def image_axes(self) -> Mapping[str, ImageAxis]:
        """Where the images of a batch are, by site; a site is not there if no axis has them in a known order."""
        return axes_of_images(self.graph, self.fixed, self.rules)

    def _found(self) -> Iterator[Segment]:
        for node in self.graph:
            if node.operator in (SITE, OUTPUT) or self.kind(node.name) is Kind.DIGITAL:
                for end in self._operands(node):
                    yield self._back_from(node, end)
            else:
                held = self.held(node)
                if held is not None:
                    yield self._back_from(node, held)

    def _operands(self, node: Node) -> list[str]:
        """The values that a consumer takes; x * x takes x twice, but a result returned twice is there once."""
        if node.operator == OUTPUT:
            return [name for name in node.reads if name in self.carriers]
        given = [value.name for value in node.arguments.values() if isinstance(value, Ref)]
        return [name for name in given if name in self.carriers]

    @cached_property
    def _order(self) -> dict[str, int]:
        return {node.name: at for at, node in enumerate(self.graph)}

    def _back_from(self, consumer: Node, end: str) -> Segment:
        lags = self._lags(end, self.through)
        between = {name for name in lags if self.kind(name) is Kind.SYNAPTIC}
        analog = (Kind.DIGITAL, Kind.LOOKUP)
        sources = {name for name in lags if self.graph[name].operator in (SITE, INPUT) or self.kind(name) in analog}
        ordered = [tuple(sorted(names, key=self._order.__getitem__)) for names in (between, sources - between)]
        nodes = tuple(self.graph[name] for name in ordered[0])
        return Segment(consumer, end, nodes, ordered[1], lags)

    def _lags(self, end: str, reads: Callable[[Node], tuple[str, ...]]) -> dict[str, int]:
        """The carriers that a value comes from by linear maps, with how many time steps earlier, at least.

        Args:
            end: the value's node.
            reads: what to go back to from a node of a linear map.
        """
        lags, waiting = dict[str, int](), deque([(end, 0)])  # those of the same time step first
        while waiting:
            name, lag = waiting.popleft()
            if name in lags or name not in self.carriers:
                continue
            lags[name] = lag
            if self.kind(name) is Kind.SYNAPTIC:
                waiting.extendleft((read, lag) for read in reads(self.graph[name]))
                after = self.graph.after(name)
                waiting.extend([(after, lag + 1)] if after is not None else [])
        return lags

    def passed(self, node: Node, known: Known) -> Any:
        """The connections of a node's result; a tuple of them for an operator of several results."""
        try:
            if node.operator == "getitem":
                return known[node.arguments["self"].name][node.arguments["index"]]
            rule = self.fates[node.name].rule
            assert isinstance(rule, Linear)
            found = list(rule.reach(self.call(node, known)))
            if rule.several:
                return tuple(unite(_tidied(boxes)) for boxes in found)  # type: ignore[arg-type]
            boxes = _tidied(found)  # type: ignore[arg-type]
            wanted = tuple(self.graph.sizes(node.name, IMAGES))
            wrong = [box.shape for box in boxes if box.shape != wanted]
            if wrong:
                raise Unknown(f"its connections come out with shape {wrong[0]}, not {wanted}")
            return unite(box for box in boxes if not is_empty(box))
        except Unknown as error:
            raise Unknown(f"{node.where}: {error}") from error

    @cached_property
    def _by_consumer(self) -> dict[str, tuple[Segment, ...]]:
        found: dict[str, tuple[Segment, ...]] = {}
        for segment in self.all:
            found[segment.consumer.name] = (*found.get(segment.consumer.name, ()), segment)
        return found

    @cached_property
    def _feeding(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}  # of sites, digital operators and gated products, by what they hold
        changed = True
        while changed:  # through the states of a loop the last of its operators come before the first
            changed = False
            for segment in self.all:
                own = found.setdefault(segment.consumer.name, {})
                for site, lag in self._feeding_of(segment, found):
                    if lag < own.get(site, lag + 1):
                        own[site], changed = lag, bool(self.graph.loops)
        return found

    def _feeding_of(self, segment: Segment, found: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, int]]:
        """The sites that feed a consumer by one segment, as far as those that feed others are found."""
        here = segment.consumer.loop

        def within(name: str, lag: int) -> int:
            return lag if self.graph[name].loop == here else 0

        for name in segment.sources:
            lag = segment.lags[name]
            if self.kind(name) is Kind.DIGITAL:
                yield from ((site, within(site, lag + more)) for site, more in found.get(name, {}).items())
            elif self.graph[name].operator != INPUT and self.kind(name) is not Kind.LOOKUP:
                yield name, within(name, lag)
        for node in segment.nodes:
            lag = segment.lags[node.name]
            yield from ((site, within(site, lag + more)) for site, more in found.get(node.name, {}).items())


def _tidied(boxes: Any) -> list[Any]:
    return [tidy(box) for box in boxes]
