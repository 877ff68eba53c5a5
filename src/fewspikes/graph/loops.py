"""What a loop over time must be, so that it can be run: checked where a graph comes from a file."""

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.graph import CONSTANT, HISTORY, INPUT, LAST, NEXT, OUTPUT, STATE, STEP, Graph, Loop, Node

_OUTSIDE = (INPUT, CONSTANT, OUTPUT, HISTORY, LAST)


def check_loops(graph: Graph) -> None:
    """Raise FewSpikesError for a loop that cannot be run: one without a sequence, or that values leave half-way."""
    for loop in graph.loops.values():
        _check(graph, loop)
    for node in graph:
        wrong = _is_misplaced(graph, node)
        if wrong:
            raise FewSpikesError(f"the node {node.name} {wrong}")


def _check(graph: Graph, loop: Loop) -> None:
    own, order = {node.name for node in loop.nodes}, [node.name for node in graph]
    first, last = order.index(loop.nodes[0].name), order.index(loop.nodes[-1].name)
    between = {name for name in order[first : last + 1] if graph[name].operator != CONSTANT}
    states = [node.arguments["state"].name for node in loop.of(NEXT)]
    if not loop.of(STEP) or not between <= own:
        raise FewSpikesError(f"the loop {loop.name} has no sequence, or is not in one piece")
    if sorted(states) != sorted(node.name for node in loop.of(STATE)):
        raise FewSpikesError(f"the loop {loop.name} does not say of each of its states, once, what it will be")


def _is_misplaced(graph: Graph, node: Node) -> str:
    """What is wrong with where a node stands; "" if nothing is."""
    if node.loop and node.operator in _OUTSIDE:
        return f"({node.operator}) stands in a loop"
    if not node.loop and node.operator in (STEP, STATE, NEXT):
        return f"({node.operator}) stands in no loop"
    within = {graph[name].loop for name in node.reads} - {""}
    entering = node.operator in (STEP, STATE)
    if node.operator in (HISTORY, LAST):
        return "" if within else "takes something out of a loop that is in none"
    return "reads inside of a loop from elsewhere" if within - {node.loop} or (within and entering) else ""
