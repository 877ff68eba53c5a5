"""Constants that are one number: of no axes, or with the same value everywhere."""

from collections.abc import Mapping

from torch import Tensor

from fewspikes.graph.graph import CONSTANT, Graph, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.rule import Rules, Shapes

Number = float | int | bool
GROUPS = 32  # so many different constants at most make layers of an elementwise function, one for each of them


def number(name: str, graph: Graph, tensors: Mapping[str, Tensor], rules: Rules) -> Number | None:
    """The one value of a node that no input changes; None if it has several or is no constant.

    Args:
        name: of the node.
        graph: that it is in.
        tensors: the graph's constants.
        rules: the rows; they tell what operators fill a tensor with.
    """
    node = graph[name]
    if node.operator != CONSTANT:
        call = Call(node, graph, rules)
        row = rules.find(Shapes, call)
        found = None if row is None or row.fill is None else row.fill(call)
        return None if isinstance(found, Ref) else found
    value = tensors[node.arguments["tensor"]]
    if not value.numel() or value.is_complex() or value.is_meta:
        return None
    first = value.flatten()[0]
    return first.item() if bool((value == first).all()) else None
