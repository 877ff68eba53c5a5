"""A signal times itself: a product where its squares are summed up, as in a norm, else an activation.

By neurons alone it is two layers, relu(x)^2 and relu(-x)^2: a code of one side has about a tenth of the error of one
that serves both, with half of the spikes.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder, rebuilt
from fewspikes.graph.graph import Graph, Node, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.choices import Choices
from fewspikes.operators.multiplying import GATED, NEURONS, PRODUCT, REASON, SHIFTED, one_for_each
from fewspikes.operators.rule import Digital, moves
from fewspikes.operators.summing import adaptively_pooled, pooled, summed
from fewspikes.reach.boxes import Box

_SUMS = frozenset(name for row in (summed, pooled, adaptively_pooled) for name in row.operators)
_LIBRARY = torch.library.Library("fewspikes", "FRAGMENT")
_LIBRARY.define("squared(Tensor self) -> Tensor")
_LIBRARY.impl("squared", torch.square, "CompositeImplicitAutograd")
_LIBRARY.define("apart(Tensor(a) self) -> Tensor(a)")
_LIBRARY.impl("apart", torch.ops.aten.alias.default, "CompositeImplicitAutograd")

_LIBRARY.define("by_neurons(Tensor(a) self) -> Tensor(a)")
_LIBRARY.impl("by_neurons", torch.ops.aten.alias.default, "CompositeImplicitAutograd")


square = Digital(
    ("fewspikes::squared",),
    kind=PRODUCT,
    also=(GATED, SHIFTED, NEURONS),
    multiplications=one_for_each,
    reach=lambda call: call.boxes(),
    reason=REASON,
)


@moves("fewspikes::by_neurons", multiplications=one_for_each)
def square_by_neurons(call: Call) -> Iterable[Box]:
    """A square that is a product, as neurons give it."""
    return call.boxes()


@moves("fewspikes::apart")
def apart(call: Call) -> Iterable[Box]:
    """A signal as it is, where what follows is to be a layer of neurons by itself."""
    return call.boxes()


def with_squares(
    graph: Graph, tensors: dict[str, Tensor], choices: Choices, layers: Iterable[tuple[str, Sequence[Node]]]
) -> Graph:
    """The graph with squares that are summed up or averaged as products, by neurons two layers for each.

    What counts is the sum, which few large values make. Other squares are activations, and one neuron with the
    elementwise function that they are part of.

    Args:
        graph: with shapes.
        tensors: its constants.
        choices: what was chosen.
        layers: what is to become neurons: what each layer reads, and the nodes that it is made of.
    """
    lone = {
        nodes[0].name: source
        for source, nodes in layers
        if len(nodes) == 1 and _is_square(nodes[0]) and all(u.short in _SUMS for u in graph.users(nodes[0].name))
    }
    if not lone:
        return graph

    def change(node: Node, g: Builder) -> Ref | None:
        if node.name not in lone:
            return None
        x = g.now(Ref(lone[node.name]))
        if choices.of(PRODUCT, node.path) != NEURONS:
            return g.call("fewspikes::squared", x, like=node.shape)
        g.part = node.part or f"{node.short}@{node.name}"
        return g.put("fewspikes::by_neurons", two_sided(g, x))

    return rebuilt(graph, tensors, change)


def two_sided(g: Builder, x: Ref) -> Ref:
    """x^2 = relu(x)^2 + relu(-x)^2, a layer of neurons each."""
    sides = (x, g.put("fewspikes::apart", g.put("neg", x)))
    first, second = (g.put("square", g.put("relu", side)) for side in sides)
    return g.put("add.Tensor", first, second)


def _is_square(node: Node) -> bool:
    given = node.arguments
    if node.short == "mul":
        return bool(given["self"] == given["other"])
    return node.short == "square" or (node.short == "pow" and given["exponent"] in (2, 2.0))


ROWS = (square, square_by_neurons, apart)
