"""Rules for operators that compute weighted sums: convolutions, linear maps, pools, sums, products with constants."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from fewspikes.graph.shapes import spread
from fewspikes.operators.call import Call
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box
from fewspikes.reach.windows import adaptive_window, conv_windows, groups_matrix, window


def elementwise(call: Call) -> Iterable[Box]:
    """Sums, and products and quotients with constants: each operand, broadcast to the shape of the result."""
    operands = [node for node in call.node.all_input_nodes if node in call.known]
    return [boxes.broadcast(box, call.shape) for operand in operands for box in call.known[operand]]


def convolved(call: Call) -> Iterable[Box]:
    """Convolution: the channels of the group, times a window along each spatial axis."""
    x, weight = call.shape_of("input"), call.shape_of("weight")
    channels = groups_matrix(x[1], weight[0], call.given["groups"])
    return _contracted(call.boxes("input"), 1, [channels, *conv_windows(call.given, x, weight, call.shape)])


def linear(call: Call) -> Iterable[Box]:
    """Linear map: all features of the last axis."""
    axis = len(call.shape_of("input")) - 1
    return [boxes.dense(box, axis, call.shape[-1]) for box in call.boxes("input")]


def multiplied(call: Call) -> Iterable[Box]:
    """Matrix product with a constant on the right: all positions of the last axis."""
    other = call.shape_of("mat2" if "mat2" in call.given else "other")
    axis = len(call.shape_of("self")) - 1
    if len(other) == 1:
        return [boxes.drop(boxes.dense(box, axis, 1), axis) for box in call.boxes()]
    return [boxes.broadcast(boxes.dense(box, axis, other[-1]), call.shape) for box in call.boxes()]


def pooled(call: Call) -> Iterable[Box]:
    """Average pool: a window along each spatial axis."""
    count = call.spatial
    kernels = spread(call.given["kernel_size"], count)
    strides = spread(call.given["stride"] or kernels, count)
    sizes = zip(call.shape_of("self")[-count:], call.shape[-count:], kernels, strides, strict=True)
    paddings = spread(call.given["padding"], count)
    matrices = [window(*size, padding) for size, padding in zip(sizes, paddings, strict=True)]
    return _contracted(call.boxes(), len(call.shape) - count, matrices)


def adaptively_pooled(call: Call) -> Iterable[Box]:
    """Adaptive average pool: as many windows along each spatial axis as outputs are wanted."""
    count = call.spatial
    sizes = zip(call.shape_of("self")[-count:], call.shape[-count:], strict=True)
    return _contracted(call.boxes(), len(call.shape) - count, [adaptive_window(*size) for size in sizes])


def summed(call: Call) -> Iterable[Box]:
    """Sum and mean: all positions along some axes, or all axes."""
    count = len(call.shape_of("self"))
    dims = [dim % count for dim in call.given["dim"] or range(count)]
    return [_summed(box, dims, call.given["keepdim"]) for box in call.boxes()]


def _contracted(relation: Iterable[Box], first: int, matrices: Sequence[Tensor]) -> list[Box]:
    """Every box through one matrix for each axis from `first` on."""
    result = list(relation)
    for axis, matrix in enumerate(matrices, first):
        result = [boxes.contract(box, axis, matrix) for box in result]
    return result


def _summed(box: Box, dims: Sequence[int], keepdim: bool) -> Box:
    for dim in dims:
        box = boxes.dense(box, dim, 1)
    if keepdim:
        return box
    box = boxes.tidy(box)
    return replace(box, axes=tuple(axis for at, axis in enumerate(box.axes) if at not in dims))
