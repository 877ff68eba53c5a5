"""Rows of operators that read an image at constant places: all are written with picks along one axis."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import CONSTANT, Batch, Graph, Ref, Shape
from fewspikes.operators.call import Call
from fewspikes.operators.rule import circuit, linear, moves
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import check_size

_WHOLE = (torch.int64, torch.int32)


def _indexes_within_images(call: Call) -> bool:
    """Whether positions of one axis of an image are named by a constant."""
    axis, index = call.axis(), call.fixed("index")
    if axis == 0 or index is None or index.dtype not in _WHOLE or index.ndim != 1:
        return False
    return len(index) > 0 and int(index.min()) >= 0 and int(index.max()) < call.shape_of("self")[axis]


@moves("index_select", takes=_indexes_within_images)
def picked(call: Call) -> Iterable[Box]:
    """Positions along an axis in the order of an index, some perhaps never and some several times."""
    axis, matrix = call.axis(), _one_hot(call)
    return [boxes.contract(box, axis, matrix) for box in call.boxes()]


@linear("index_add", terms=("self", "source"), takes=_indexes_within_images)
def added_at(call: Call) -> Iterable[Box]:
    """A tensor, and on the positions that an index names another one."""
    axis, matrix = call.axis(), _one_hot(call).T
    yield from call.connected(call.node.arguments["self"])
    for box in call.connected(call.node.arguments["source"]):
        yield boxes.contract(box, axis, matrix)


def _one_hot(call: Call) -> Bool[Tensor, "positions index"]:
    """Which position of the axis each entry of the index names."""
    index, size = call.fixed("index"), call.shape_of("self")[call.axis()]
    assert index is not None
    check_size((size, len(index)))
    return torch.arange(size)[:, None] == index


def keeps_images_apart(call: Call, name: str = "self") -> bool:
    """Whether axis 0 of an argument is the batch, and no other axis is."""
    ref = call.node.arguments[name]
    shape = (call.graph[ref.name].shape or ()) if isinstance(ref, Ref) else ()
    return bool(shape) and isinstance(shape[0], Batch) and all(isinstance(size, int) for size in shape[1:])


def coordinates(call: Call) -> dict[int, Int64[Tensor, "..."]] | None:
    """The positions that `indices` names, by axis; None where they are no constants or name images."""
    found: dict[int, Tensor] = {}
    sizes, at = call.shape_of("self"), 0
    for ref in call.node.arguments["indices"]:
        index = None if ref is None else call.fixed_behind(ref)
        if ref is not None and index is None:
            return None
        is_mask = index is not None and index.dtype == torch.bool
        parts = index.nonzero(as_tuple=True) if is_mask else (index,)  # type: ignore[union-attr]
        for part in parts:
            if part is not None:
                found[at] = part.to(torch.int64)
            at += 1
    inside = all(v.numel() and -sizes[a] <= int(v.min()) and int(v.max()) < sizes[a] for a, v in found.items())
    if 0 in found or not found or not inside or not keeps_images_apart(call):
        return None
    return {axis: values % sizes[axis] for axis, values in found.items()}


def spread_index(call: Call, name: str) -> Int64[Tensor, "..."] | None:
    """The positions that an index of an image's own shape names, the same for each image; None for anything else."""
    index, ref = call.fixed(name), call.node.arguments[name]
    is_spread = index is not None and keeps_images_apart(call) and keeps_images_apart(call, name)
    if index is None or not is_spread or call.axis() == 0 or index.ndim != len(call.shape_of("self")):
        return None
    if call.graph[ref.name].shape[:1] != call.graph[call.node.arguments["self"].name].shape[:1]:  # type: ignore[index]
        return None
    inside = index.numel() and int(index.min()) >= 0 and int(index.max()) < call.shape_of("self")[call.axis()]
    return index[0] if inside and bool((index == index[:1]).all()) else None


def permuted(g: Builder, x: Ref, order: Sequence[int]) -> Ref:
    """The axes in another order; what was moved before is moved once."""
    before = g.node(x)
    if before.operator == "aten.permute.default":
        x, order = before.arguments["self"], [before.arguments["dims"][axis] for axis in order]
    return x if list(order) == list(range(len(order))) else g.put("permute", x, list(order))


def reshaped(g: Builder, x: Ref, sizes: Shape) -> Ref:
    """The elements in another shape, in which one axis at most is the batch."""
    if g.shape(x) == tuple(sizes):
        return x
    return g.call("reshape", x, [size if isinstance(size, int) else -1 for size in sizes], like=tuple(sizes))


def length(g: Builder, x: Ref, axis: int) -> int:
    """The number of positions along an axis of the image."""
    size = g.shape(x)[axis]
    assert isinstance(size, int), "the batch is no axis of the image"
    return size


def pick(g: Builder, x: Ref, axis: int, index: Int64[Tensor, "index"]) -> Ref:
    """Positions along an axis in the order of an index: a slice where it is one."""
    first, steps = int(index[0]), index.diff().unique().tolist() or [1]
    if len(steps) > 1 or steps[0] < 1:
        return g.put("index_select", x, axis, g.constant(index))
    if first == 0 and (len(index), steps[0]) == (g.shape(x)[axis], 1):
        return x
    return g.put("slice.Tensor", x, axis, first, int(index[-1]) + 1, steps[0])


def joined(g: Builder, x: Ref, axes: Sequence[int]) -> Ref:
    """The image with some axes as one, its last."""
    rest = [axis for axis in range(len(g.shape(x))) if axis not in axes]
    moved = permuted(g, x, [*rest, *axes])
    return moved if len(axes) == 1 else g.put("flatten.using_ints", moved, len(rest), -1)


def flat(sizes: Sequence[int], found: Sequence[Tensor]) -> Int64[Tensor, "index"]:
    """Positions on joined axes of these sizes."""
    index = torch.zeros((), dtype=torch.int64)
    for size, values in zip(sizes, found, strict=True):
        index = index * size + values
    return index.flatten()


def _picked_together(g: Builder, x: Ref, found: dict[int, Tensor], place: int) -> Ref:
    """Positions named by several axes at once; theirs is the shape of the indices, at `place` among the others."""
    shape, axes = g.shape(x), sorted(found)
    rest = [axis for axis in range(len(shape)) if axis not in axes]
    indices = torch.broadcast_tensors(*(found[axis] for axis in axes))
    index = flat([length(g, x, axis) for axis in axes], indices)
    result = pick(g, joined(g, x, axes), len(rest), index)
    result = reshaped(g, result, (*(shape[axis] for axis in rest), *indices[0].shape))
    new = range(len(rest), len(rest) + indices[0].ndim)
    return permuted(g, result, [*range(place), *new, *range(place, len(rest))])


def _picked_apart(g: Builder, x: Ref, found: dict[int, Tensor], place: int) -> Ref | None:
    """The same one axis after the other; None where an axis of the indices belongs to two of them."""
    wide = torch.broadcast_shapes(*(values.shape for values in found.values()))
    varying = {
        axis: [len(wide) - values.ndim + d for d, size in enumerate(values.shape) if size > 1]
        for axis, values in found.items()
    }
    owned = [d for dims in varying.values() for d in dims]
    if len(set(owned)) < len(owned):
        return None
    labels, sizes = list[tuple[bool, int]](), list[int | Batch]()  # of an axis of the indices or not, and which
    for axis, size in enumerate(g.shape(x)):
        if axis in found:
            x = pick(g, x, axis, found[axis].flatten())
        labels += [(True, d) for d in varying[axis]] if axis in found else [(False, axis)]
        sizes += [wide[d] for d in varying[axis]] if axis in found else [size]
    rest = [label for label in labels if not label[0]]
    wanted = [*rest[:place], *sorted(label for label in labels if label[0]), *rest[place:]]
    result = permuted(g, reshaped(g, x, tuple(sizes)), [labels.index(label) for label in wanted])
    others = [sizes[labels.index(label)] for label in rest]
    return reshaped(g, result, (*others[:place], *wide, *others[place:]))


def picks_by_masks(graph: Graph, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a constant of truths says which positions are picked: capture does not know then how many they are."""
    masks = {node.name for node in graph.of(CONSTANT) if tensors[node.arguments["tensor"]].dtype == torch.bool}
    return any(node.short == "index" and not masks.isdisjoint(node.reads) for node in graph)


def _takes_a_mask(call: Call) -> bool:
    masks = (call.fixed_behind(ref) for ref in call.node.arguments["indices"])
    return any(mask is not None and mask.dtype == torch.bool for mask in masks)


@circuit("index", takes=_takes_a_mask, early=True)
def indexed_by_masks(call: Call, g: Builder) -> Ref:
    """The positions at which masks are true, as whole numbers."""
    indices = list[Any]()
    for ref in call.node.arguments["indices"]:
        found = call.fixed_behind(ref)
        is_mask = found is not None and found.dtype == torch.bool
        indices += [g.constant(at) for at in found.nonzero(as_tuple=True)] if is_mask else [g.now(ref)]  # type: ignore
    return g.call("index.Tensor", g.now(call.node.arguments["self"]), indices, like=call.node.shape)


@circuit("index")
def indexed(call: Call, g: Builder) -> Ref | None:
    """Positions named by constant tensors, of whole numbers or of truths, for one or several axes."""
    found, x = coordinates(call), g.now(call.node.arguments["self"])
    if found is None or call.signals != {"self"}:
        return None
    adjacent = max(found) - min(found) + 1 == len(found)
    place = min(found) if adjacent else 0
    apart = _picked_apart(g, x, found, place)
    return _picked_together(g, x, found, place) if apart is None else apart


@circuit("gather")
def gathered(call: Call, g: Builder) -> Ref | None:
    """Positions along an axis, at each place of the image its own, named by a constant."""
    if call.signals != {"self"} or (index := spread_index(call, "index")) is None:
        return None
    x, axis = g.now(call.node.arguments["self"]), call.axis()
    for other, size in enumerate(index.shape, 1):
        if other != axis and size != g.shape(x)[other]:
            x = pick(g, x, other, torch.arange(size))
    found = placed(index, axis)
    if len(found) == 1:
        return pick(g, x, axis, found[axis])
    order = [a for a in range(len(g.shape(x))) if a not in found] + sorted(found)
    together = _picked_together(g, x, found, len(order) - len(found))
    return permuted(g, together, [order.index(a) for a in range(len(order))])


def placed(index: Int64[Tensor, "..."], axis: int, partial: Sequence[int] = ()) -> dict[int, Int64[Tensor, "..."]]:
    """The positions that an index of an image's own shape names, by axis: those along `axis`, and where it changes.

    Args:
        index: positions along the axis.
        axis: of the image, counted with the batch.
        partial: axes that are named in any case.
    """
    changing = {other for other in range(1, index.ndim + 1) if bool((index != index.narrow(other - 1, 0, 1)).any())}
    axes = sorted({axis, *changing, *partial})
    for other in range(index.ndim, 0, -1):
        if other not in axes:
            index = index.select(other - 1, 0)
    own = [torch.arange(n).view([-1 if i == at else 1 for i in range(index.ndim)]) for at, n in enumerate(index.shape)]
    return {a: index if a == axis else values.expand(index.shape) for a, values in zip(axes, own, strict=True)}


@circuit("repeat_interleave", takes=lambda call: call.get("dim") is not None and call.axis() > 0)
def repeated_in_turn(call: Call, g: Builder) -> Ref | None:
    """Every position of an axis several times, one after the other."""
    times = call.fixed("repeats") if call.is_single("repeats") else torch.tensor([call["repeats"]])
    axis = call.axis()
    if times is None or not keeps_images_apart(call):
        return None
    positions = torch.arange(call.shape_of("self")[axis])
    return pick(g, g.now(call.node.arguments["self"]), axis, positions.repeat_interleave(times))


@circuit("repeat_interleave", takes=lambda call: call.get("dim") is not None and call.axis() == 0)
def images_repeated(call: Call, g: Builder) -> Ref | None:
    """Every image, or every part of one, several times, one after the other."""
    times = call["repeats"]
    if not isinstance(times, int):
        return None
    x = g.now(call.node.arguments["self"])
    front, *rest = g.shape(x)
    split = g.call("unsqueeze", x, 1, like=(front, 1, *rest))
    several = g.call("repeat", split, [1, times, *(1 for _ in rest)], like=(front, times, *rest))
    return g.call("reshape", several, [-1, *rest], like=call.node.shape)


@circuit("unfold", takes=lambda call: call.get("dimension") is not None)
def windowed(call: Call, g: Builder) -> Ref | None:
    """Windows along an axis, whose positions become the last axis."""
    shape, size = call.shape_of("self"), call["size"]
    axis = call["dimension"] % len(shape)
    if axis == 0 or not keeps_images_apart(call):
        return None
    starts = torch.arange(0, shape[axis] - size + 1, call["step"])
    index = starts[:, None] + torch.arange(size)
    x = pick(g, g.now(call.node.arguments["self"]), axis, index.flatten())
    x = reshaped(g, x, (*g.shape(x)[:axis], *index.shape, *g.shape(x)[axis + 1 :]))
    order = [a for a in range(len(shape) + 1) if a != axis + 1]
    return permuted(g, x, [*order, axis + 1])


@circuit("diagonal")
def diagonal(call: Call, g: Builder) -> Ref | None:
    """The diagonal of two axes, as the last axis."""
    shape, offset = call.shape_of("self"), call["offset"]
    first, second = (call[name] % len(shape) for name in ("dim1", "dim2"))
    if 0 in (first, second) or not keeps_images_apart(call):
        return None
    places = torch.arange(max(shape[first], shape[second]))
    inside = (places - min(offset, 0) < shape[first]) & (places + max(offset, 0) < shape[second])
    found = {first: places[inside] - min(offset, 0), second: places[inside] + max(offset, 0)}
    return _picked_together(g, g.now(call.node.arguments["self"]), found, len(shape) - 2)


ROWS = (picked, added_at, indexed_by_masks, indexed, gathered, repeated_in_turn, images_repeated, windowed, diagonal)
