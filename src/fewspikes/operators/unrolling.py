"""A graph with its loops over time written out: each node of a loop once for each time step."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from fewspikes.graph.graph import HISTORY, LAST, NEXT, STATE, STEP, Graph, Loop, Node, Ref, replaced


@dataclass(frozen=True, eq=False)
class Unrolled:
    """A graph without loops.

    Attributes:
        graph: what runs.
        origin: by node, the node of the original graph and the time step of its loop, counted as it runs; 0 outside.
    """

    graph: Graph
    origin: Mapping[str, tuple[str, int]]

    def of(self, names: Collection[str]) -> frozenset[str]:
        """Those that come from some nodes of the original graph."""
        return frozenset(name for name, (node, _) in self.origin.items() if node in names)


def unrolled(graph: Graph) -> Unrolled:
    """Write out the loops of a graph. A state is the node whose value it has, but for the first time step.

    >>> unrolled(Graph((Node("x", "input", {}), Node("out", "output", {"value": Ref("x")})))).origin["x"]
    ('x', 0)
    """
    work = _Unrolling(graph)
    for node in graph:
        if node.loop and node is graph.loops[node.loop].nodes[-1]:
            work.enter(graph.loops[node.loop])
        elif not node.loop:
            work.add(node, 0)
    return Unrolled(Graph(tuple(work.nodes)), work.origin)


class _Unrolling:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.origin: dict[str, tuple[str, int]] = {}
        self._found: dict[tuple[str, int], str] = {}  # by node and time step, where its value is

    def enter(self, loop: Loop) -> None:
        """All time steps of a loop."""
        for time in range(loop.time_steps):
            for node in loop.nodes:
                if node.operator == STATE and time:
                    self._found[node.name, time] = self._at(loop.after[node.name], time - 1)
                elif node.operator != NEXT:
                    self.add(node, time)

    def add(self, node: Node, time: int) -> None:
        """One node, at a time step of its loop."""
        if node.operator == LAST:
            name = node.arguments["self"].name
            self._found[node.name, 0] = self._at(name, self._steps(name) - 1)
            return
        operator, arguments = node.operator, node.arguments
        if operator == STEP:
            index = self._steps(node.name) - 1 - time if arguments["reversed"] else time
            given = {"self": self._ref(arguments["self"], 0), "dim": arguments["dim"], "index": index}
            operator, arguments = "aten.select.int", given
        elif operator == STATE:  # at the first time step: a signal, though a constant may stand there
            operator, arguments = "aten.alias.default", {"self": self._ref(arguments["initial"], 0)}
        elif operator == HISTORY:
            of = arguments["self"].name
            order = range(self._steps(of))[:: -1 if arguments["reversed"] else 1]
            tensors = [Ref(self._at(of, at)) for at in order]
            operator, arguments = "aten.stack.default", {"tensors": tensors, "dim": arguments["dim"]}
        else:
            arguments = replaced(arguments, lambda ref: self._ref(ref, time))
        name = f"{node.name}@{time}" if node.loop else node.name
        self.nodes.append(replace(node, name=name, operator=operator, arguments=arguments, loop=""))
        self._found[node.name, time] = name
        self.origin[name] = node.name, time

    def _steps(self, name: str) -> int:
        return self.graph.time_steps(self.graph[name])

    def _ref(self, ref: Ref, time: int) -> Ref:
        return Ref(self._at(ref.name, time if self.graph[ref.name].loop else 0))

    def _at(self, name: str, time: int) -> str:
        return self._found[name, time if self.graph[name].loop else 0]
