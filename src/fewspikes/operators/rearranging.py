"""Rows of operators that put together what other rows do: turns, stacks, differences, windows of pictures."""

from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Batch, Ref
from fewspikes.operators.call import IMAGES, Call
from fewspikes.operators.indexing import keeps_images_apart, length, permuted, pick, reshaped
from fewspikes.operators.rule import circuit


@circuit("rot90")
def turned(call: Call, g: Builder) -> Any:
    """A plane turned by right angles."""
    x, (first, second), times = g.now(call.node.arguments["self"]), call["dims"], call["k"] % 4
    if times == 0:
        return x
    if times == 2:
        return g.put("flip", x, [first, second])
    turned = g.put("transpose.int", x, first, second)
    return g.put("flip", turned, [first if times == 1 else second])


@circuit("fft_fftshift", "fft_ifftshift", takes=lambda call: call.get("dim") is not None)
def shifted_by_half(call: Call, g: Builder) -> Ref:
    """Axes whose first half comes last."""
    sizes, forth = call.shape_of("self"), call.node.short == "fft_fftshift"
    shifts = [sizes[axis] // 2 if forth else -(sizes[axis] // 2) for axis in call["dim"]]
    return g.put("roll", g.now(call.node.arguments["self"]), shifts, call["dim"])


@circuit("fliplr", "flipud")
def mirrored(call: Call, g: Builder) -> Ref:
    """An axis the other way round."""
    return g.put("flip", g.now(call.node.arguments["self"]), [1 if call.node.short == "fliplr" else 0])


def _full_parts(call: Call) -> list[Ref]:
    """What a concatenation is of, less what has no elements, as `x[:, :0]`."""
    return [ref for ref in call["tensors"] if 0 not in call.graph.sizes(ref.name, IMAGES)]


def _has_an_empty_part(call: Call) -> bool:
    parts = call["tensors"]
    return 0 < len(_full_parts(call)) < len(parts) and len({call.graph[ref.name].dtype for ref in parts}) == 1


@circuit("cat", takes=_has_an_empty_part, early=True)
def without_empty_parts(call: Call, g: Builder) -> Any:
    """A concatenation to which some tensors add nothing: what made them falls away."""
    parts = [g.now(ref) for ref in _full_parts(call)]
    return parts[0] if len(parts) == 1 else g.call("cat", parts, call.get("dim", 0), like=call.node.shape)


@circuit("concat", "concatenate", "hstack", "dstack", takes=lambda call: call.get("dim", 1) != 0)
def put_together(call: Call, g: Builder) -> Ref | None:
    """Tensors one after the other along an axis."""
    tensors = [g.now(ref) for ref in call.node.arguments["tensors"]]
    axis = call.get("dim", 2 if call.node.short == "dstack" else 1)
    if any(len(g.shape(tensor)) <= axis for tensor in tensors):
        return None
    return g.call("cat", tensors, axis, like=call.node.shape)


@circuit("diff", takes=lambda call: call.axis() > 0)
def differences(call: Call, g: Builder) -> Any:
    """Each position of an axis less the one before, once or several times."""
    x, axis = g.now(call.node.arguments["self"]), call.axis()
    around = [g.now(call.node.arguments[name]) for name in ("prepend", "append")]
    parts = [part for part in (around[0], x, around[1]) if part is not None]
    x = x if len(parts) == 1 else g.put("cat", parts, axis)
    for _ in range(call["n"]):
        size = length(g, x, axis)
        later, earlier = (g.put("slice.Tensor", x, axis, first, size - 1 + first) for first in (1, 0))
        x = g.put("sub.Tensor", later, earlier)
    return x


@circuit("linalg_cross", takes=lambda call: len(call.signals) == 1 and call.axis() > 0)
def cross_product(call: Call, g: Builder) -> Ref:
    """A cross product with a constant."""
    x, y = (g.now(call.node.arguments[name]) for name in ("self", "other"))
    axis = call.axis() - len(call.shape_of("self"))
    after, before = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])

    def product(first: Tensor, second: Tensor) -> Ref:
        factors = ((value, len(g.shape(value)) + axis, index) for value, index in ((x, first), (y, second)))
        return g.put("mul.Tensor", *(pick(g, value, at, index) for value, at, index in factors))

    return g.put("sub.Tensor", product(after, before), product(before, after))


@circuit("im2col", takes=lambda call: len(call.shape_of("self")) == 4)
def patches(call: Call, g: Builder) -> Ref | None:
    """The windows of a picture, each a column."""
    if not keeps_images_apart(call):
        return None
    x = g.now(call.node.arguments["self"])
    images, channels, sizes = g.shape(x)[0], length(g, x, 1), [length(g, x, axis) for axis in (2, 3)]
    rows, columns = call["padding"]
    if rows or columns:
        x = g.put("pad", x, [columns, columns, rows, rows])
    windows = [_windows(call, axis, sizes[axis]) for axis in (0, 1)]
    for axis, window in enumerate(windows, 2):
        x = pick(g, x, axis, window.flatten())
    height, up, width, along = (n for window in windows for n in window.shape)
    x = permuted(g, reshaped(g, x, (images, channels, height, up, width, along)), [0, 1, 2, 4, 3, 5])
    return reshaped(g, x, (images, channels * height * width, up * along))


def _windows(call: Call, axis: int, size: int) -> Int64[Tensor, "kernel windows"]:
    """The positions, along an axis of the padded picture, of each element of each window."""
    kernel, stride, padding, dilation = (call[name][axis] for name in ("kernel_size", "stride", "padding", "dilation"))
    starts = torch.arange(0, size + 2 * padding - dilation * (kernel - 1), stride)
    found: Tensor = torch.arange(kernel)[:, None] * dilation + starts
    return found


@circuit("col2im", takes=lambda call: len(call.shape_of("self")) == 3)
def pictures(call: Call, g: Builder) -> Ref | None:
    """The windows of a picture added up at their places."""
    if not keeps_images_apart(call):
        return None
    sizes, padding = call["output_size"], call["padding"]
    height, up, width, along = (n for axis in (0, 1) for n in _windows(call, axis, sizes[axis]).shape)
    x = g.now(call.node.arguments["self"])
    images, channels = g.shape(x)[0], length(g, x, 1) // (height * width)
    x = permuted(g, reshaped(g, x, (images, channels, height, width, up, along)), [0, 1, 2, 4, 3, 5])
    x = reshaped(g, x, (images, channels, height * up, width * along))
    for axis in (0, 1):
        x = _added_up(g, x, axis + 2, sizes[axis] + 2 * padding[axis], _windows(call, axis, sizes[axis]).flatten())
        x = pick(g, x, axis + 2, torch.arange(padding[axis], padding[axis] + sizes[axis]))
    return x


def _added_up(g: Builder, x: Ref, axis: int, size: int, index: Int64[Tensor, "index"]) -> Ref:
    """The positions of an axis added up at the positions of a new one that an index names."""
    shape = (*g.shape(x)[:axis], size, *g.shape(x)[axis + 1 :])
    images = g.call("sym_size.int", x, 0)
    sizes = [size if not isinstance(size, Batch) else images for size in shape]
    zeros = g.call("new_zeros", x, sizes, like=shape)
    return g.put("index_add", zeros, axis, g.constant(index), x)


ROWS = (
    turned,
    shifted_by_half,
    mirrored,
    without_empty_parts,
    put_together,
    differences,
    cross_product,
    patches,
    pictures,
)
