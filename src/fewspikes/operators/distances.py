"""Rows of distances and angles between vectors: differences or products, and norms."""

from math import sqrt
from typing import Any

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref
from fewspikes.operators.call import Call
from fewspikes.operators.indexing import length
from fewspikes.operators.norms import p_norm
from fewspikes.operators.rule import circuit

_MANY = 25  # vectors, from which on torch, too, takes a matrix product
_DIRECT = 2  # of cdist's compute_mode: differences in any case


def _axis_is_in_images(call: Call) -> bool:
    shapes = [call.graph[call.node.arguments[name].name].shape or () for name in ("x1", "x2")]
    count = max(map(len, shapes))
    axis = call.get("dim", -1) % count - count if count else 0
    return bool(call.signals) and count > 0 and all(isinstance(own[axis], int) for own in shapes if len(own) >= -axis)


@circuit("cosine_similarity", takes=_axis_is_in_images)
def cosine(call: Call, g: Builder) -> Ref:
    """The sum of products, times the reciprocal of each length; a length is `eps` at least."""
    x, y = (g.now(call.node.arguments[name]) for name in ("x1", "x2"))
    count = max(len(g.shape(x)), len(g.shape(y)))
    axis = call["dim"] % count - count
    product = g.put("mul.Tensor", x, y)
    result = g.put("sum.dim_IntList", product, [axis])
    for one in (x, y):
        size = g.put("clamp_min", _length_of_repeated(g, one, axis, length(g, product, axis)), call["eps"])
        result = g.put("mul.Tensor", result, g.put("squeeze.dim", g.put("reciprocal", size), axis))
    return result


def _length_of_repeated(g: Builder, x: Ref, axis: int, count: int) -> Ref:
    """The length of vectors along an axis, of one number repeated where `x` has no more there."""
    while len(g.shape(x)) < -axis:
        x = g.put("unsqueeze", x, 0)
    size, own = p_norm(g, x, 2.0, [axis], True), length(g, x, axis)
    return size if own == count else g.put("mul.Tensor", size, sqrt(count / own))


@circuit("pairwise_distance", takes=_axis_is_in_images)
def distance(call: Call, g: Builder) -> Ref:
    """The norm of the difference."""
    x, y = (g.now(call.node.arguments[name]) for name in ("x1", "x2"))
    apart = g.put("add.Tensor", g.put("sub.Tensor", x, y), call["eps"])
    return p_norm(g, apart, call["p"], [-1], call["keepdim"])


@circuit("cdist", "_cdist_forward", takes=lambda call: call["p"] != 0 and _axis_is_in_images(call))
def all_distances(call: Call, g: Builder) -> Ref:
    """All distances between two sets of vectors: from a matrix product where they are many, as torch does."""
    x, y = (g.now(call.node.arguments[name]) for name in ("x1", "x2"))
    sizes: list[Any] = [g.shape(value)[-2] for value in (x, y)]
    many = any(isinstance(size, int) and size > _MANY for size in sizes)
    if call["p"] != 2 or not many or call.get("compute_mode") == _DIRECT:
        apart = g.put("sub.Tensor", g.put("unsqueeze", x, -2), g.put("unsqueeze", y, -3))
        return p_norm(g, apart, call["p"], [-1], False)
    own, other = (g.put("sum.dim_IntList", g.put("square", value), [-1], True) for value in (x, y))
    product = g.put("matmul", g.put("mul.Tensor", x, -2.0), g.put("transpose.int", y, -2, -1))
    squares = g.put("add.Tensor", g.put("add.Tensor", product, own), g.put("transpose.int", other, -2, -1))
    return g.put("sqrt", g.put("relu", squares))


ROWS = (cosine, distance, all_distances)
