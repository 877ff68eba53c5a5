"""Rows of operators that move elements and compute nothing: reshapes, slices, pieces, padding, concatenation."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from fewspikes.operators.call import IMAGES, Call
from fewspikes.operators.probing import along
from fewspikes.operators.rule import moves
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import Unknown
from fewspikes.reach.reshaping import reshape


def is_constant_pad(call: Call) -> bool:
    """Whether what is put around the map is one number."""
    return bool(call.get("mode", "constant") == "constant")


@moves("flatten", "reshape", "squeeze", "unsqueeze", takes=lambda call: call.node.operator != "aten.squeeze.default")
def reshaped(call: Call) -> Iterable[Box]:
    """Any operator that keeps the elements in row-major order; the shapes say the rest."""
    return [reshape(box, call.shape) for box in call.boxes()]


@moves("transpose", "t")
def transposed(call: Call) -> Iterable[Box]:
    """Two axes change places."""
    order = list(range(len(call.shape)))
    first, second = (call.axis("dim0"), call.axis("dim1")) if call.node.short == "transpose" else (0, -1)
    order[first], order[second] = order[second], order[first]
    return _permuted(call, order)


@moves("permute")
def permuted(call: Call) -> Iterable[Box]:
    """The axes in another order."""
    return _permuted(call, [dim % len(call.shape) for dim in call["dims"]])


@moves("expand")
def expanded(call: Call) -> Iterable[Box]:
    """Axes of one position, and new leading axes, repeated."""
    return [boxes.broadcast(box, call.shape) for box in call.boxes()]


@moves("slice")
def sliced(call: Call) -> Iterable[Box]:
    """Some of the positions along an axis."""
    return [boxes.take(box, call.axis(), slice(call["start"], call["end"], call["step"])) for box in call.boxes()]


@moves("select")
def selected(call: Call) -> Iterable[Box]:
    """One position along an axis, which is gone afterwards."""
    axis = call.axis()
    return [_selected(box, axis, call["index"] % call.shape_of("self")[axis]) for box in call.boxes()]


@moves("unbind", several=True)
def unbound(call: Call) -> Iterable[Iterable[Box]]:
    """Every position along an axis by itself."""
    axis = call.axis()
    return [[_selected(box, axis, i) for box in call.boxes()] for i in range(call.shape_of("self")[axis])]


@moves("split", "split_with_sizes", "chunk", several=True)
def split(call: Call) -> Iterable[Iterable[Box]]:
    """Pieces along an axis, one after the other."""
    axis = call.axis()
    first = 0
    for size in _piece_sizes(call, call.shape_of("self")[axis]):
        yield [boxes.take(box, axis, slice(first, first + size)) for box in call.boxes()]
        first += size


@moves("pad", "constant_pad_nd", zero=("value",))
def padded(call: Call) -> Iterable[Box]:
    """Padding from the last axis backwards, by a constant or by the map's own values; negative padding crops."""
    if not is_constant_pad(call):
        count = len(call.shape)
        return along(call, range(count - len(call["pad"]) // 2, count))
    return [_padded(box, call["pad"]) for box in call.boxes()]


@moves("cat", terms=("tensors",))
def concatenated(call: Call) -> Iterable[Box]:
    """Every operand at its place along the axis, with nothing around it."""
    axis, first = int(call["dim"]) % len(call.shape), 0
    for tensor in call["tensors"]:
        size = call.graph.sizes(tensor.name, IMAGES)[axis]
        for box in call.connected(tensor):
            yield boxes.pad(box, axis, first, call.shape[axis] - first - size)
        first += size


@moves("stack", terms=("tensors",))
def stacked(call: Call) -> Iterable[Box]:
    """Every operand at one position of a new axis."""
    axis = int(call["dim"]) % len(call.shape)
    for at, tensor in enumerate(call["tensors"]):
        for box in call.connected(tensor):
            yield boxes.pad(boxes.insert(box, axis), axis, at, call.shape[axis] - at - 1)


def _permuted(call: Call, order: Sequence[int]) -> list[Box]:
    return [replace(box, axes=tuple(box.axes[axis] for axis in order)) for box in call.boxes()]


def _selected(box: Box, axis: int, index: int) -> Box:
    return boxes.drop(boxes.take(box, axis, slice(index, index + 1)), axis)


def _padded(box: Box, amounts: Sequence[int]) -> Box:
    for at in range(0, len(amounts), 2):
        if amounts[at] or amounts[at + 1]:
            box = boxes.pad(box, len(box.axes) - 1 - at // 2, amounts[at], amounts[at + 1])
    return box


def _piece_sizes(call: Call, total: int) -> list[int]:
    """How long the pieces along the axis are."""
    sizes = call.get("split_sizes", call.get("split_size"))
    if isinstance(sizes, list):
        return sizes
    size = -(-total // call["chunks"]) if sizes is None else sizes
    if size < 1:
        raise Unknown("pieces without a size")
    return [min(size, total - first) for first in range(0, total, size)]


@moves("roll", takes=lambda call: bool(call["dims"]))
def rolled(call: Call) -> Iterable[Box]:
    """Positions shifted around along some axes."""
    relation = call.boxes()
    for axis, shift in zip(call["dims"], call["shifts"], strict=True):
        moved = torch.eye(call.shape[axis], dtype=torch.bool).roll(shift, 1)
        relation = tuple(boxes.contract(box, axis % len(call.shape), moved) for box in relation)
    return relation


@moves(
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
)
def enlarged(call: Call) -> Iterable[Box]:
    """Every position of the pictures as often as it takes; which goes where, the operator itself tells."""
    return along(call, range(2, len(call.shape)))


@moves("flip")
def flipped(call: Call) -> Iterable[Box]:
    """Some axes the other way round."""
    relation = call.boxes()
    for axis in {dim % len(call.shape) for dim in call["dims"]}:
        moved = torch.eye(call.shape[axis], dtype=torch.bool).flip(0)
        relation = tuple(boxes.contract(box, axis, moved) for box in relation)
    return relation


@moves("repeat", "tile")
def repeated(call: Call) -> Iterable[Box]:
    """Axes, and new ones in front of them, one after another as often as it says."""
    repeats, count = call.get("repeats", call.get("dims")), len(call.shape)
    for box in call.boxes():
        box = replace(box, axes=((),) * (count - len(box.axes)) + box.axes)
        for axis, times in enumerate(repeats, count - len(repeats)):
            box = boxes.contract(box, axis, torch.eye(box.shape[axis], dtype=torch.bool).repeat(1, times))
        yield box


ROWS = (
    enlarged,
    flipped,
    repeated,
    rolled,
    reshaped,
    transposed,
    permuted,
    expanded,
    sliced,
    selected,
    unbound,
    split,
    padded,
    concatenated,
    stacked,
)
