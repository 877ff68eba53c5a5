"""Quotients of two signals, as products with a reciprocal; those that are functions of one signal stay neurons."""

from collections.abc import Mapping

from torch import Tensor

from fewspikes.graph.builder import Builder, rebuilt
from fewspikes.graph.graph import Graph, Node, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.expressions import Elementwise
from fewspikes.operators.rule import Rules


def with_products_for_quotients(
    graph: Graph, tensors: dict[str, Tensor], rules: Rules, carriers: frozenset[str]
) -> Graph:
    """The graph with x / y as x * (1 / y), where both are signals and no layer of neurons computes it as it stands."""
    found = {node.name for node in graph if _is_of_two_signals(Call(node, graph, rules, carriers))}
    if found:
        found &= _alone(graph, tensors, rules, carriers)
    if not found:
        return graph

    def change(node: Node, made: Builder) -> Ref | None:
        return _product(node, graph, made) if node.name in found else None

    return rebuilt(graph, tensors, change)


def _is_of_two_signals(call: Call) -> bool:
    given = call.node.arguments
    return call.node.short == "div" and given.get("rounding_mode") is None and call.signals == {"self", "other"}


def _alone(graph: Graph, tensors: Mapping[str, Tensor], rules: Rules, carriers: frozenset[str]) -> set[str]:
    """The nodes that are no elementwise function of one signal."""
    parts = Elementwise(graph, tensors, rules, carriers, by_place=True)
    return {name for name, root in parts.root.items() if name == root}


def _product(node: Node, graph: Graph, g: Builder) -> Ref:
    """A divisor that is repeated along some axes is so behind its reciprocal."""
    given = node.arguments
    below = graph[given["other"].name]
    above = graph[given["self"].name]
    before = graph[below.arguments["self"].name] if below.short == "expand" else below
    divisor = before if above.shape == node.shape else below
    made, g.part = g.part, node.part or f"{node.short}@{node.name}"
    inverse = g.call("reciprocal", g.now(Ref(divisor.name)), like=divisor.shape)
    result = g.call("mul.Tensor", g.now(given["self"]), inverse, like=node.shape)
    g.part = made
    return result
