"""What the values of one source reach, node by node, also through loops over time.

Within a loop the rows see one time step. So a relation there has a label for the time step at which it began, and one
relation for each number of time steps that states have carried it on since.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from fewspikes.graph.graph import HISTORY, LAST, STATE, STEP, Graph, Node
from fewspikes.operators.call import IMAGES, Known, Relation
from fewspikes.reach import time
from fewspikes.reach.boxes import Box, identity, is_empty, tidy
from fewspikes.reach.union import unite

Through = Callable[[Node, Known], Any]


class Following:
    """The connections of one source.

    Args:
        graph: with shapes.
        source: a node. One within a loop is a source at each time step: its last axis is time.
        reads: what a node reads that a signal passes through it from.
        through: the connections of a node's result from those of what it reads so.
    """

    def __init__(self, graph: Graph, source: str, reads: Callable[[Node], Iterable[str]], through: Through) -> None:
        self.graph, self.source, self.reads, self.through = graph, source, reads, through
        self.own, sizes = graph[source].loop, graph.sizes(source, IMAGES)
        self._labels = {name: -2 - len(sizes) - at for at, name in enumerate(graph.loops)}
        if self.own:
            self._labels[self.own] = -1 - len(sizes)
        self.known: dict[str, Any] = {} if self.own else {source: (identity(sizes),)}
        self.within: dict[str, list[dict[str, Any]]] = {}  # by loop and number of time steps since, as `known`

    def follow(self, nodes: Sequence[Node]) -> None:
        """Work out the connections of nodes, given in order; loops in one piece."""
        for node in nodes:
            if node.loop and node.loop not in self.within:
                self._enter(node.loop, [one for one in nodes if one.loop == node.loop])
            elif node.operator in (HISTORY, LAST):
                self.known[node.name] = self._left(node)
            elif not node.loop and any(name in self.known for name in self.reads(node)):
                self.known[node.name] = self._through(node, self.known)

    def at(self, end: str, consumer: Node) -> Relation:
        """The connections of a value to what takes it, which within a loop does so at each time step: a last axis."""
        if not consumer.loop:
            found: Relation = self.known.get(end, ())
            return found
        if self.graph[end].loop:
            self._begin(consumer.loop)
            return self._over_time(end)
        steps = self.graph.loops[consumer.loop].time_steps
        return tuple(time.always(box, steps) for box in self.known.get(end, ()))

    def _begin(self, loop: str) -> None:
        if loop == self.own and loop not in self.within:
            self._enter(loop, ())

    def _enter(self, loop: str, nodes: Sequence[Node]) -> None:
        steps = self.graph.loops[loop].time_steps
        first = dict(self._entering(loop, nodes))
        if loop == self.own:
            every = torch.ones(steps, dtype=torch.bool)
            start = identity(self.graph.sizes(self.source, IMAGES))
            first[self.source] = (time.with_label(start, self._labels[loop], every),)
        found = self.within[loop] = [self._one_step(nodes, first)]
        while found[-1] and len(found) < steps:
            carried = {node.name: found[-1].get(str(self.graph.after(node.name))) for node in nodes}
            found.append(self._one_step(nodes, {name: value for name, value in carried.items() if value}))

    def _entering(self, loop: str, nodes: Sequence[Node]) -> Iterator[tuple[str, Relation]]:
        """What comes from outside: sequences step by step, first states at the first time step, all else at every."""
        label, steps = self._labels[loop], self.graph.loops[loop].time_steps
        first, every = torch.arange(steps) == 0, torch.ones(steps, dtype=torch.bool)
        for node in nodes:
            for name in self.reads(node):
                relation = self.known.get(name)
                if relation and node.operator == STEP:
                    axis, backwards = node.arguments["dim"], node.arguments["reversed"]
                    yield node.name, tuple(time.entered(box, axis, label, backwards) for box in relation)
                elif relation and node.operator == STATE:
                    yield node.name, tuple(time.with_label(box, label, first) for box in relation)
                elif relation:
                    yield name, tuple(time.with_label(box, label, every) for box in relation)

    def _one_step(self, nodes: Sequence[Node], start: Mapping[str, Any]) -> dict[str, Any]:
        known = dict(start)
        for node in nodes:
            if node.operator not in (STEP, STATE) and any(name in known for name in self.reads(node)):
                known[node.name] = self._through(node, known)
        return known

    def _through(self, node: Node, known: Mapping[str, Any]) -> Any:
        return self.through(node, {name: known[name] for name in self.reads(node) if name in known})

    def _over_time(self, name: str) -> Relation:
        """The connections of a value of a loop with time as a last axis."""
        loop = self.graph[name].loop
        label, is_source = self._labels[loop], loop == self.own
        boxes = (
            time.shown(box, label, lag, is_source)
            for lag, known in enumerate(self.within.get(loop, ()))
            for box in known.get(name, ())
        )
        return _united(boxes)

    def _left(self, node: Node) -> Relation:
        name = node.arguments["self"].name
        self._begin(self.graph[name].loop)
        relation = self._over_time(name)
        if node.operator == LAST:
            return _united(time.at_the_end(box) for box in relation)
        axis, backwards = node.arguments["dim"], node.arguments["reversed"]
        return tuple(time.along(box, axis, backwards) for box in relation)


def _united(boxes: Iterable[Box]) -> Relation:
    return unite(tidy(box) for box in boxes if not is_empty(box))
