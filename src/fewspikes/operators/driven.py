"""Rows of what whole numbers and truths decide anew for each image: masks over a signal, and each image's own pick.

Both are products with factors of 0 and 1, which belong to the synapses: spikes pass where the factor is 1.
"""

from math import inf
from typing import Any

import torch

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import INPUT, Batch, Graph, Node, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.indexing import keeps_images_apart
from fewspikes.operators.rule import Linear, circuit

_LARGE = 1e4  # a number beyond says to a softmax that nothing is there, and is no value of a signal
_CAST = "_to_copy"


def is_image_number(node: Node, graph: Graph) -> bool:
    """Whether a node counts the images of the batch from 0 on."""
    given = node.arguments
    end = given.get("end")
    size = graph[end.name] if node.short == "arange" and isinstance(end, Ref) else None
    if size is None or size.short != "sym_size" or size.arguments["dim"] != 0:
        return False
    from_zero = given.get("start", 0) == 0 and given.get("step", 1) == 1
    return from_zero and graph[size.arguments["self"].name].operator == INPUT


def numbers_images(call: Call, ref: Ref | None) -> bool:
    """Whether a tensor of indices holds the images' own numbers."""
    if ref is None:
        return False
    node = call.graph[ref.name]
    while node.short == _CAST or any(row.moves for row in call.rules.of(Linear, node.short)):
        node = call.graph[node.reads[0]]
    return is_image_number(node, call.graph)


def _is_driven(call: Call, ref: Any) -> bool:
    """Whether a tensor holds truths that whole numbers of an input decide."""
    if not isinstance(ref, Ref) or ref.name in call.carriers or call.fixed_behind(ref) is not None:
        return False
    return call.graph[ref.name].dtype == torch.bool


def _shut(g: Builder, x: Ref, opened: Ref, number: float, call: Call) -> Ref:
    """`x` where truths are, and a number where none is."""
    if number == 0:
        return g.call("mul.Tensor", x, opened, like=call.node.shape)
    below = g.call("sub.Scalar", x, number, like=g.shape(x))
    return g.call("add.Scalar", g.call("mul.Tensor", below, opened, like=call.node.shape), number, like=call.node.shape)


def _not(g: Builder, mask: Ref) -> Ref:
    return g.append("aten.logical_not.default", {"self": mask}, g.shape(mask), torch.bool)


def _number(call: Call, value: Any, g: Builder) -> float | None:
    """A number, or a constant of one, that a signal may be; None for anything else."""
    found = g.value(value) if isinstance(value, Ref) else torch.tensor(value)
    is_one = found is not None and found.numel() == 1 and not found.is_complex()
    number = float(found) if is_one and found is not None else inf
    return number if abs(number) < _LARGE else None


@circuit("masked_fill", takes=lambda call: call.signals == {"self"} and _is_driven(call, call.node.arguments["mask"]))
def filled_by_mask(call: Call, g: Builder) -> Ref | None:
    """One number at the places of each image's own mask."""
    x, mask, number = (call.node.arguments[name] for name in ("self", "mask", "value"))
    found = _number(call, number, g)
    return None if found is None else _shut(g, g.now(x), _not(g, g.now(mask)), found, call)


@circuit("where", takes=lambda call: _is_driven(call, call.node.arguments["condition"]))
def chosen_by_mask(call: Call, g: Builder) -> Ref | None:
    """One of two signals, or a signal and a number, by each image's own mask."""
    given = call.node.arguments
    mask, first, second = g.now(given["condition"]), given["self"], given["other"]
    if call.signals == {"self", "other"}:
        parts = [(first, mask), (second, _not(g, mask))]
        products = [g.call("mul.Tensor", g.now(one), opened, like=call.node.shape) for one, opened in parts]
        return g.call("add.Tensor", *products, like=call.node.shape)
    signal, other, opened = (first, second, mask) if call.signals == {"self"} else (second, first, None)
    found = _number(call, other, g)
    return None if found is None else _shut(g, g.now(signal), opened or _not(g, mask), found, call)


def _names_one_mask(call: Call) -> bool:
    """Whether the places are those of a mask over all axes, and one number goes there."""
    (mask, *others), given = call.node.arguments["indices"], call.node.arguments
    if others or not _is_driven(call, mask) or call.signals != {"self"} or given["accumulate"]:
        return False
    return len(call.graph[mask.name].shape or ()) == len(call.shape)


@circuit("index_put", takes=_names_one_mask)
def put_by_mask(call: Call, g: Builder) -> Ref | None:
    """One number at the places of each image's own mask over all axes."""
    given = call.node.arguments
    found = _number(call, given["values"], g)
    return None if found is None else _shut(g, g.now(given["self"]), _not(g, g.now(given["indices"][0])), found, call)


def _picks_in_each_image(call: Call) -> bool:
    """Whether each image gives one position of its first axis, which whole numbers of its own name."""
    first, *others = call.node.arguments["indices"]
    if call.signals != {"self"} or not others or any(ref is not None for ref in others[1:]):
        return False
    numbers = call.graph[others[0].name] if others[0] is not None else None
    is_one_each = numbers is not None and numbers.shape == (Batch(1),) and numbers.name not in call.carriers
    return is_one_each and keeps_images_apart(call) and numbers_images(call, first)


@circuit("index", takes=_picks_in_each_image)
def own_pick(call: Call, g: Builder) -> Ref:
    """One position of each image: all of them, each times 1 where it is the image's own and 0 elsewhere, added up."""
    given = call.node.arguments
    x, size = g.now(given["self"]), call.shape_of("self")[1]
    number = g.call("remainder.Scalar", g.now(given["indices"][1]), size, like=(Batch(1),))
    column = g.call("unsqueeze", number, 1, like=(Batch(1), 1))
    own = g.append(
        "aten.eq.Tensor", {"self": column, "other": g.constant(torch.arange(size))}, (Batch(1), size), torch.bool
    )
    for axis in range(2, len(g.shape(x))):
        own = g.append("aten.unsqueeze.default", {"self": own, "dim": axis}, (*g.shape(own), 1), torch.bool)
    return g.put("sum.dim_IntList", g.call("mul.Tensor", x, own, like=g.shape(x)), [1])


ROWS = (filled_by_mask, chosen_by_mask, put_by_mask, own_pick)
