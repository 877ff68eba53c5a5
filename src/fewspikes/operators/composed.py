"""Rows of elementwise operators that are others in one: written out, each part goes where it belongs."""

from math import pi
from typing import Any

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref, Shape
from fewspikes.operators.call import Call
from fewspikes.operators.constants import number
from fewspikes.operators.rule import circuit


@circuit("rrelu", takes=lambda call: not call["training"])
def of_mean_slope(call: Call, g: Builder) -> Any:
    """A ReLU of random slopes, in eval mode: leaky by their mean."""
    slope = (call["lower"] + call["upper"]) / 2
    return g.call("leaky_relu", g.now(call.node.arguments["self"]), slope, like=call.node.shape)


@circuit("positive")
def unchanged(call: Call, g: Builder) -> Any:
    """+x."""
    return g.now(call.node.arguments["self"])


@circuit("deg2rad", "rad2deg")
def turned(call: Call, g: Builder) -> Any:
    """Angles in the other unit."""
    factor = pi / 180 if call.node.short == "deg2rad" else 180 / pi
    return g.call("mul.Tensor", g.now(call.node.arguments["self"]), factor, like=call.node.shape)


@circuit("prelu", "_prelu_kernel", takes=lambda call: call.signals == {"self"})
def prelu(call: Call, g: Builder) -> Any:
    """Leaky ReLU of one slope, or of one per channel: relu(x) - slope relu(-x), so that one code serves all slopes."""
    x, shape, slope = g.now(call.node.arguments["self"]), call.node.shape, call.node.arguments["weight"]
    same, slopes = number(slope.name, call.graph, g.tensors, call.rules), g.value(slope)
    if same is not None:
        return g.call("leaky_relu", x, same, like=shape) if same else g.call("relu", x, like=shape)
    if slopes is None:
        return None
    by_channel = slopes.view(-1, *[1] * (len(call.shape) - 2)) if slopes.ndim == 1 and len(call.shape) > 1 else slopes
    below = g.call("relu", g.call("neg", x, like=shape), like=shape)
    weighed = g.call("mul.Tensor", below, g.constant(by_channel), like=shape)
    return g.call("sub.Tensor", g.call("relu", x, like=shape), weighed, like=shape)


@circuit("glu", takes=lambda call: call.axis() > 0)
def gated(call: Call, g: Builder) -> Any:
    """The first half of an axis times the sigmoid of the second."""
    x, axis, shape = g.now(call.node.arguments["self"]), call.axis(), call.node.shape
    half = call.shape[axis]
    first, second = (g.call("slice.Tensor", x, axis, start, start + half, like=shape) for start in (0, half))
    return g.call("mul.Tensor", first, g.call("sigmoid", second, like=shape), like=shape)


@circuit("lerp")
def interpolated(call: Call, g: Builder) -> Any:
    """self + weight (end - self): a sum where the weight is a constant."""
    start, end, weight = g.now(list(call.node.arguments.values()))
    shape = call.node.shape
    way = g.call("sub.Tensor", end, start, like=shape)
    return g.call("add.Tensor", start, g.call("mul.Tensor", way, weight, like=shape), like=shape)


@circuit("addcmul", "addcdiv")
def added(call: Call, g: Builder) -> Any:
    """self + value times a product, or a quotient."""
    self, first, second, value = g.now(list(call.node.arguments.values()))
    word = "mul.Tensor" if call.node.short == "addcmul" else "div.Tensor"
    both = g.call(word, first, second, like=_broadcast(call, "tensor1", "tensor2"))
    scaled = both if value == 1 else g.call("mul.Tensor", both, value, like=_broadcast(call, "tensor1", "tensor2"))
    return g.call("add.Tensor", self, scaled, like=call.node.shape)


def _is_below_a_constant(call: Call) -> bool:
    return call.signals == {"other"} and call.node.arguments.get("rounding_mode") is None


@circuit("div", takes=_is_below_a_constant)
def divided(call: Call, g: Builder) -> Any:
    """A constant over a signal: a reciprocal, scaled."""
    above, below = (g.now(call.node.arguments[name]) for name in ("self", "other"))
    inverse = g.call("reciprocal", below, like=call.graph[call.node.arguments["other"].name].shape)
    return g.call("mul.Tensor", inverse, above, like=call.node.shape)


def _broadcast(call: Call, *names: str) -> Shape:
    """The shape of what two operands make together."""
    shapes = [call.graph[ref.name].shape or () for name in names if isinstance(ref := call.node.arguments[name], Ref)]
    ndim = max(map(len, shapes))
    padded = [(1,) * (ndim - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True))


ROWS = (of_mean_slope, unchanged, turned, prelu, gated, interpolated, added, divided)
