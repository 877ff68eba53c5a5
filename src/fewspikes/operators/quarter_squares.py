"""Products of two signals by neurons alone: x y = ((x + y)^2 - (x - y)^2) / 4, squares being FS-neurons.

The factors are made of one size first, which costs nothing: the number goes into the weighted sums before the squares.
What the squares come to says that the network without spikes multiplies there.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder, rebuilt
from fewspikes.graph.graph import Graph, Node, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.choices import Choices
from fewspikes.operators.measured import balanced
from fewspikes.operators.multiplying import NEURONS, matrix_product, one_for_each, product_to_be
from fewspikes.operators.rule import Rules, linear
from fewspikes.operators.squares import two_sided
from fewspikes.operators.summing import broadcast
from fewspikes.reach.boxes import Box

_PICTURE = 4  # axes of a batch of pictures, whose channels are the second
_LIBRARY = torch.library.Library("fewspikes", "FRAGMENT")
_LIBRARY.define("quarter(Tensor plus, Tensor minus) -> Tensor")
_LIBRARY.impl("quarter", lambda plus, minus: (plus - minus) * 0.25, "CompositeImplicitAutograd")


def _factors(call: Call) -> tuple[str, ...]:
    """The two whose sum the neurons of the first square get."""
    name = call.node.arguments["plus"].name
    for _ in range(2):  # its two sides, and what one of them reads
        name = next(iter(call.graph[name].reads), name)
    return call.graph[name].reads


@linear("fewspikes::quarter", terms=("plus", "minus"), multiplications=one_for_each, factors=_factors)
def quarter(call: Call) -> Iterable[Box]:
    """A quarter of the difference of two squares, which is a product."""
    return broadcast(call, "plus", "minus")


def with_quarter_squares(
    graph: Graph,
    tensors: dict[str, Tensor],
    choices: Choices,
    rules: Rules,
    carriers: frozenset[str],
    layers: Sequence[Sequence[Node]],
) -> Graph:
    """The graph with each product that is to be made of neurons as such, a product of matrices term by term.

    Args:
        graph, rules, carriers: as everywhere.
        tensors: the constants; new ones are added.
        choices: what was chosen.
        layers: the nodes that are to become neurons, layer by layer; a product among them is part of a function.
    """
    inside = {node.name for nodes in layers for node in nodes}

    def change(node: Node, g: Builder) -> Ref | None:
        if node.name in inside or node.name not in carriers:
            return None
        found = product_to_be(Call(node, graph, rules, carriers, tensors=tensors), choices)
        if found is None or found[1] != NEURONS:
            return None
        g.part = node.part or f"{node.short}@{node.name}"
        first, second = (g.now(node.arguments[name]) for name in ("self", "other"))
        if found[0] is not matrix_product:
            shapes = [g.shape(factor) for factor in (first, second)]
            pictures = (
                all(len(shape) == _PICTURE and shape[1] != 1 for shape in shapes) and shapes[0][1] == shapes[1][1]
            )
            return _quarter_squares(g, first, second, -3 if pictures else -1)
        terms = _quarter_squares(g, g.put("unsqueeze", first, -1), g.put("unsqueeze", second, -3), -2)
        return g.put("sum.dim_IntList", terms, [-2])

    return rebuilt(graph, tensors, change)


def _quarter_squares(g: Builder, x: Ref, y: Ref, axis: int) -> Ref:
    """Factors of one size for each position of an axis: the channels, or what a product of matrices sums over."""
    x, y = balanced(g, x, y, axis)
    plus, minus = (two_sided(g, g.put(f"{word}.Tensor", x, y)) for word in ("add", "sub"))
    return g.put("fewspikes::quarter", plus, minus)


ROWS = (quarter,)
