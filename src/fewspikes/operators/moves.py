"""Rules for operators that move elements and compute nothing: reshapes, slices, pieces, padding, concatenation."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import fx

from fewspikes.graph.capture import op_name
from fewspikes.operators.arguments import Shapes
from fewspikes.operators.call import Call, Known, call_of
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import Unknown
from fewspikes.reach.reshaping import reshape


def reshaped(call: Call) -> Iterable[Box]:
    """Any operator that keeps the elements in row-major order; the shapes say the rest."""
    return [reshape(box, call.shape) for box in call.boxes()]


def transposed(call: Call) -> Iterable[Box]:
    """T and transpose: two axes change places."""
    order = list(range(len(call.shape)))
    first, second = (call.axis("dim0"), call.axis("dim1")) if "dim0" in call.given else (0, -1)
    order[first], order[second] = order[second], order[first]
    return _permuted(call, order)


def permuted(call: Call) -> Iterable[Box]:
    """permute: the axes in another order."""
    return _permuted(call, [dim % len(call.shape) for dim in call.given["dims"]])


def expanded(call: Call) -> Iterable[Box]:
    """expand: axes of one position, and new leading axes, repeated."""
    return [boxes.broadcast(box, call.shape) for box in call.boxes()]


def sliced(call: Call) -> Iterable[Box]:
    """slice: some of the positions along an axis."""
    axis = call.axis()
    positions = slice(call.given["start"], call.given["end"], call.given["step"])
    return [boxes.take(box, axis, positions) for box in call.boxes()]


def selected(call: Call) -> Iterable[Box]:
    """select: one position along an axis, which is gone afterwards."""
    axis = call.axis()
    return [_selected(box, axis, call.given["index"] % call.shape_of("self")[axis]) for box in call.boxes()]


def split(call: Call) -> Iterable[Box]:
    """split, chunk and unbind: a list keeps the connections of the whole; getitem takes its piece."""
    return call.boxes()


def piece(node: fx.Node, known: Known, shapes: Shapes) -> Iterable[Box]:
    """Getitem of a list of pieces: the positions after those of the pieces before it."""
    whole, index = node.args
    assert isinstance(whole, fx.Node)
    assert isinstance(index, int)
    call = call_of(whole, known, shapes)
    axis = call.axis()
    if op_name(whole) == "aten.unbind.int":
        return [_selected(box, axis, index % call.shape_of("self")[axis]) for box in call.boxes()]
    sizes = _piece_sizes(call, call.shape_of("self")[axis])
    first = sum(sizes[: index % len(sizes)])
    return [boxes.take(box, axis, slice(first, first + sizes[index])) for box in call.boxes()]


def padded(call: Call) -> Iterable[Box]:
    """Constant padding, from the last axis backwards; negative padding crops."""
    if call.given.get("mode", "constant") != "constant":
        raise Unknown(f"padding mode {call.given['mode']!r}")
    return [_padded(box, call.given["pad"]) for box in call.boxes()]


def concatenated(call: Call) -> Iterable[Box]:
    """cat: every operand at its place along the axis, with nothing around it."""
    tensors = call.given["tensors"]
    axis = int(call.given["dim"]) % len(call.shape)
    first = 0
    for tensor in tensors:
        size = call.shapes[tensor][axis]
        for box in call.known.get(tensor, ()):
            yield boxes.pad(box, axis, first, call.shape[axis] - first - size)
        first += size


def stacked(call: Call) -> Iterable[Box]:
    """stack: every operand at one position of a new axis."""
    axis = int(call.given["dim"]) % len(call.shape)
    for at, tensor in enumerate(call.given["tensors"]):
        for box in call.known.get(tensor, ()):
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
    if "split_sizes" in call.given:
        return list(call.given["split_sizes"])
    size = call.given["split_size"] if "split_size" in call.given else -(-total // call.given["chunks"])
    return [min(size, total - first) for first in range(0, total, size)]
