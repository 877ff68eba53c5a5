"""Rows of operators that write at constant places: by a mask, or by a pick among what was there and what is new."""

from collections.abc import Iterable
from math import isfinite
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Batch, Ref, Shape
from fewspikes.operators.call import Call
from fewspikes.operators.circuits import takes_everything
from fewspikes.operators.indexing import (
    coordinates,
    flat,
    joined,
    keeps_images_apart,
    length,
    permuted,
    pick,
    placed,
    reshaped,
    spread_index,
)
from fewspikes.operators.rule import Shapes, circuit, linear
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box


def _mask(call: Call, name: str) -> Bool[Tensor, "..."] | None:
    """A constant mask, the same for each image."""
    mask = call.fixed(name)
    if mask is None or mask.dtype != torch.bool:
        return None
    if mask.ndim < len(call.shape):
        return mask
    return mask[:1] if bool((mask == mask[:1]).all()) else None


def _chooses(call: Call) -> bool:
    numbers = [value for name in ("self", "other") if isinstance(value := call.node.arguments[name], int | float)]
    return _mask(call, "condition") is not None and all(isfinite(value) for value in numbers)


@linear("where", terms=("self", "other"), takes=_chooses)
def chosen(call: Call) -> Iterable[Box]:
    """One of two tensors at each place, by a constant mask."""
    mask = _mask(call, "condition")
    assert mask is not None
    for name, taken in (("self", mask), ("other", ~mask)):
        for box in call.connected(call.node.arguments[name]):
            yield boxes.kept(boxes.broadcast(box, call.shape), taken)


@circuit("masked_fill")
def masked(call: Call, g: Builder) -> Ref | None:
    """One number at the places of a constant mask."""
    given = call.node.arguments
    value = given["value"]
    is_number = isinstance(value, Ref) or isfinite(value)
    if "self" not in call.signals or "value" in call.signals or _mask(call, "mask") is None or not is_number:
        return None
    name = "where.self" if isinstance(value, Ref) else "where.ScalarSelf"
    return g.call(name, g.now(given["mask"]), g.now(value), g.now(given["self"]), like=call.node.shape)


@circuit("mul", takes=lambda call: len(call.signals) == 1)
def multiplied_by_mask(call: Call, g: Builder) -> Ref | None:
    """A product with truths: zero where they are false."""
    (signal,) = call.signals
    mask = "other" if signal == "self" else "self"
    if _mask(call, mask) is None:
        return None
    x = g.now(call.node.arguments[signal])
    return g.call("where.ScalarOther", g.now(call.node.arguments[mask]), x, 0.0, like=call.node.shape)


@circuit("tril", "triu", takes=lambda call: len(call.shape) > 2)
def triangle(call: Call, g: Builder) -> Ref:
    """The lower or the upper triangle of the last two axes."""
    ones = torch.ones(call.shape[-2:], dtype=torch.bool)
    mask = ones.tril(call["diagonal"]) if call.node.short == "tril" else ones.triu(call["diagonal"])
    x = g.now(call.node.arguments["self"])
    return g.call("where.ScalarOther", g.constant(mask), x, 0.0, like=call.node.shape)


@circuit("diag_embed")
def on_a_diagonal(call: Call, g: Builder) -> Ref | None:
    """The last axis on the diagonal of two axes, among zeros."""
    if (call["offset"], call["dim1"] % len(call.shape), call["dim2"] % len(call.shape)) != (
        0,
        len(call.shape) - 2,
        len(call.shape) - 1,
    ):
        return None
    row = g.put("unsqueeze", g.now(call.node.arguments["self"]), -1)
    return g.call(
        "where.ScalarOther", g.constant(torch.eye(call.shape[-1], dtype=torch.bool)), row, 0.0, like=call.node.shape
    )


def _is_the_same_for_all_images(call: Call) -> bool:
    return bool(call.signals) and all(isinstance(size, int) for size in call.node.shape or ())


@circuit(
    "new_zeros",
    "new_ones",
    "new_full",
    "zeros_like",
    "ones_like",
    "full_like",
    takes=_is_the_same_for_all_images,
    early=True,
)
def made_for_a_signal(call: Call, g: Builder) -> Ref:
    """A tensor of one number for a signal's dtype and device, of a fixed shape: a constant."""
    dtypes = [tensor.dtype for tensor in g.tensors.values() if tensor.is_floating_point()]
    dtype = call["dtype"] or (dtypes or [torch.float32])[0]
    (row,) = call.rules.of(Shapes, call.node.short)
    number = 0 if row.fill is None else row.fill(call)
    return g.constant(torch.full(call.shape, number, dtype=dtype))


@circuit("copy")
def copied(call: Call, g: Builder) -> Ref | None:
    """A tensor repeated to the shape of another one, whose values it takes the place of."""
    given = call.node.arguments
    return repeated(g, g.now(given["src"]), call.node.shape or (), g.now(given["self"]))


@circuit("fill")
def filled(call: Call, g: Builder) -> Ref | None:
    """A tensor of one number, of the shape of another one."""
    value = call.node.arguments["value"]
    number = g.value(value) if isinstance(value, Ref) else torch.tensor(value)
    if number is None:
        return None
    return g.call("full_like", g.now(call.node.arguments["self"]), number.item(), like=call.node.shape)


def repeated(g: Builder, x: Ref, shape: Shape, like: Ref) -> Ref | None:
    """`x` repeated to a shape; `like` has as many images as the result."""
    own = g.shape(x)
    if own == shape:
        return x
    if not own or len(own) < len(shape) or not isinstance(own[0], Batch):
        images = g.call("sym_size.int", like, 0)
        sizes: list[Any] = [size if isinstance(size, int) else images for size in shape]
    else:
        sizes = [size if isinstance(size, int) else -1 for size in shape]
    batches = [size for size in shape if not isinstance(size, int)]
    return g.call("expand", x, sizes, like=shape) if batches in ([], [Batch(1)]) else None


def overwritten(g: Builder, x: Ref, source: Ref, axis: int, index: Int64[Tensor, "index"]) -> Ref:
    """`x` with the positions that an index names along an axis taken from `source`, in the order of the index."""
    size = length(g, x, axis)
    first, steps = int(index[0]), index.diff().unique().tolist()
    if steps in ([], [1]):
        before, behind = pick_range(g, x, axis, 0, first), pick_range(g, x, axis, first + len(index), size)
        parts = [part for part in (before, source, behind) if part is not None]
        return parts[0] if len(parts) == 1 else g.put("cat", parts, axis)
    table = torch.arange(size)
    table[index] = size + torch.arange(len(index))
    return pick(g, g.put("cat", [x, source], axis), axis, table)


def pick_range(g: Builder, x: Ref, axis: int, first: int, end: int) -> Ref | None:
    """The positions from `first` to `end` along an axis; None where there are none."""
    return g.put("slice.Tensor", x, axis, first, end) if first < end else None


def written(g: Builder, x: Ref, source: Ref, found: dict[int, Tensor], adds: bool) -> Ref:
    """`x` with the places that indices name, axis by axis, taken from `source`, or `source` added to them.

    Args:
        g: where it is built.
        x: what is written into.
        source: its last axes are those of the indices, before them the axes of `x` that have none.
        found: the indices by axis, of one shape.
        adds: whether what is written is added.
    """
    shape, axes = g.shape(x), sorted(found)
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    index = flat([length(g, x, axis) for axis in axes], [found[axis] for axis in axes])
    source = reshaped(g, source, (*g.shape(source)[: len(rest)], len(index)))
    if len(axes) == 1:
        at = axes[0]
        source = permuted(g, source, [*range(at), len(rest), *range(at, len(rest))])
        return _put_along(g, x, source, at, index, adds)
    result = _put_along(g, joined(g, x, axes), source, len(rest), index, adds)
    order = [*rest, *axes]
    result = reshaped(g, result, tuple(shape[axis] for axis in order))
    return permuted(g, result, [order.index(axis) for axis in range(len(order))])


def _put_along(g: Builder, x: Ref, source: Ref, axis: int, index: Int64[Tensor, "index"], adds: bool) -> Ref:
    if adds:
        return g.put("index_add", x, axis, g.constant(index), source)
    return overwritten(g, x, source, axis, index)


@circuit("slice_scatter", "select_scatter", takes=lambda call: call.axis() > 0)
def slice_written(call: Call, g: Builder) -> Ref | None:
    """A tensor with a slice of an axis, or one position of it, taken from another one."""
    if not keeps_images_apart(call):
        return None
    x, source = (g.now(call.node.arguments[name]) for name in ("self", "src"))
    positions, axis = torch.arange(call.shape_of("self")[call.axis()]), call.axis()
    if call.node.short == "select_scatter":
        return overwritten(g, x, g.put("unsqueeze", source, axis), axis, positions[call["index"]][None])
    return overwritten(g, x, source, axis, positions[call["start"] : call["end"]][:: call["step"]])


@circuit("slice_scatter", takes=takes_everything, early=True)
def everything_written(call: Call, g: Builder) -> Any:
    """A tensor of which everything is taken from another one."""
    return g.now(call.node.arguments["src"])


@circuit("index_copy")
def index_written(call: Call, g: Builder) -> Ref | None:
    """A tensor with the positions that an index names along an axis taken from another one."""
    index, axis = call.fixed("index"), call.axis()
    if index is None or not axis or not keeps_images_apart(call) or not keeps_images_apart(call, "source"):
        return None
    x, source = (g.now(call.node.arguments[name]) for name in ("self", "source"))
    return overwritten(g, x, source, axis, index.flatten())


@circuit("index_fill")
def index_filled(call: Call, g: Builder) -> Ref | None:
    """One number on the positions that an index names along an axis."""
    index, value, axis = call.fixed("index"), call.node.arguments["value"], call.axis()
    if index is None or not axis or call.signals != {"self"}:
        return None
    return _filled_at(call, g, {axis: index.flatten()}, value)


def _filled_at(call: Call, g: Builder, found: dict[int, Tensor], value: Any) -> Ref | None:
    """The first argument with one number at the places that indices name, axis by axis."""
    shape = call.shape_of("self")
    if not isinstance(value, Ref) and not isfinite(value):
        return None
    mask = torch.zeros([size if axis in found else 1 for axis, size in enumerate(shape)], dtype=torch.bool)
    mask[tuple(found.get(axis, torch.tensor(0)) for axis in range(len(shape)))] = True
    first = min(found)
    name = "where.self" if isinstance(value, Ref) else "where.ScalarSelf"
    x = g.now(call.node.arguments["self"])
    return g.call(name, g.constant(mask.flatten(0, first)), g.now(value), x, like=call.node.shape)


@circuit("index_put")
def put_at(call: Call, g: Builder) -> Ref | None:
    """A tensor with the places that constant tensors name taken from another one, or that one added to them."""
    found, value = coordinates(call), call.node.arguments["values"]
    if found is None:
        return None
    size = call.graph[value.name].shape or ()
    indices = torch.broadcast_tensors(*(found[axis] for axis in sorted(found)))
    found = dict(zip(sorted(found), indices, strict=True))
    if "values" not in call.signals and not call["accumulate"] and all(n == 1 for n in size):
        return _filled_at(call, g, found, value) if not size else None
    x = g.now(call.node.arguments["self"])
    rest = [n for axis, n in enumerate(g.shape(x)) if axis not in found]
    adjacent = max(found) - min(found) + 1 == len(found)
    place, new = min(found) if adjacent else 0, len(indices[0].shape)
    wide = (*rest[:place], *indices[0].shape, *rest[place:])
    source = repeated(g, g.now(value), wide, x)
    if source is None:
        return None
    order = [*range(place), *range(place + new, len(wide)), *range(place, place + new)]
    return written(g, x, permuted(g, source, order), found, call["accumulate"])


@circuit("scatter", "scatter_add", "scatter_reduce")
def scattered(call: Call, g: Builder) -> Ref | None:
    """A tensor with places along an axis, at each place of the image its own, taken from another one, or with it added.

    The places are named by a constant.
    """
    index, adds = spread_index(call, "index"), call.node.short != "scatter"
    plain = call.get("reduce", "sum") == "sum" and call.get("include_self", True)
    if index is None or not plain or (call.node.operator.endswith(".reduce") and call.node.short == "scatter"):
        return None
    shape = call.shape_of("self")
    partial = [axis for axis, size in enumerate(index.shape, 1) if size < shape[axis] and axis != call.axis()]
    found = placed(index, call.axis(), partial)
    source = call.node.arguments.get("src", call.node.arguments.get("value"))
    if not isinstance(source, Ref):
        return _filled_at(call, g, found, source)
    value = g.now(source)
    for axis, size in enumerate(index.shape, 1):
        value = pick(g, value, axis, torch.arange(size))
    rest = [axis for axis in range(len(shape)) if axis not in found]
    return written(g, g.now(call.node.arguments["self"]), permuted(g, value, [*rest, *sorted(found)]), found, adds)


ROWS = (
    made_for_a_signal,
    chosen,
    masked,
    multiplied_by_mask,
    triangle,
    on_a_diagonal,
    copied,
    filled,
    slice_written,
    everything_written,
    index_written,
    index_filled,
    put_at,
    scattered,
)
