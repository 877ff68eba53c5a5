"""Maxima as spikes: max(a, b) = b + relu(a - b), in a tree over many; of any window, and the same for minima.

Where all that is compared lies on one grid, as the outputs of one layer of ReLUs do, the ReLUs of the tree take that
grid, and the maximum is exact; see `network.grids`.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref
from fewspikes.operators.call import Call
from fewspikes.operators.circuits import is_low_padding
from fewspikes.operators.filling import repeated
from fewspikes.operators.indexing import length, pick, reshaped
from fewspikes.operators.rule import Circuit, Digital, circuit
from fewspikes.operators.summing import broadcast, summed_over
from fewspikes.reach.boxes import Box, contracted
from fewspikes.reach.windows import spread, window

_NEURONS = {"kind": "max", "choice": "neurons"}


def _picked(g: Builder, x: Ref, axis: int, positions: Sequence[Sequence[int]]) -> Ref:
    """For each new position along an axis some of the old ones, along a new axis behind it."""
    sizes, windows = g.shape(x), torch.tensor(positions)
    shape = (*sizes[:axis], *windows.shape, *sizes[axis + 1 :])
    return reshaped(g, pick(g, x, axis, windows.flatten()), shape)


def _first(g: Builder, x: Ref, axis: int) -> Ref:
    """The first position along an axis, without the axis."""
    return g.put("select.int", x, axis, 0)


def _larger(g: Builder, a: Ref, b: Ref) -> Ref:
    """max(a, b) = b + relu(a - b)."""
    return g.put("add.Tensor", b, _excess(g, a, b))


def _smaller(g: Builder, a: Ref, b: Ref) -> Ref:
    """min(a, b) = a - relu(a - b)."""
    return g.put("sub.Tensor", a, _excess(g, a, b))


def _excess(g: Builder, a: Ref, b: Ref) -> Ref:
    return g.put("relu", g.put("sub.Tensor", a, b))


def _largest(g: Builder, x: Ref, axis: int) -> Ref:
    """The maximum along an axis, which keeps one position: in rounds, the first half against the second."""
    while (size := length(g, x, axis)) > 1:
        half = size // 2
        first, second = (pick(g, x, axis, torch.arange(half) + start) for start in (0, half))
        found = _larger(g, first, second)
        x = g.put("cat", [found, pick(g, x, axis, torch.tensor([size - 1]))], axis) if size % 2 else found
    return x


def _largest_of(g: Builder, x: Ref, axis: int, windows: Sequence[Sequence[int]]) -> Ref:
    """The maximum over each of some windows along an axis."""
    if len(windows[0]) == 1:
        return pick(g, x, axis, torch.tensor(windows).flatten())
    if _one_apart(windows):
        return _sliding(g, x, axis, windows)
    return _first(g, _largest(g, _picked(g, x, axis, windows), axis + 1), axis + 1)


def _sliding(g: Builder, x: Ref, axis: int, windows: Sequence[Sequence[int]]) -> Ref:
    """Windows that move by one position: those of twice the length are two of half of it."""
    covered, wanted = 1, len(windows[0])
    x = pick(g, x, axis, torch.tensor([*(window[0] for window in windows), *windows[-1][1:]]))
    while covered < wanted:
        step = min(covered, wanted - covered)
        first, second = (pick(g, x, axis, torch.arange(length(g, x, axis) - step) + start) for start in (0, step))
        x = _larger(g, first, second)
        covered += step
    return x


def _one_apart(windows: Sequence[Sequence[int]]) -> bool:
    """Whether each window is the one before it, moved on by one."""
    pairs = pairwise(windows)
    return len(windows) > 1 and all(list(before[1:]) == list(after[:-1]) for before, after in pairs)


def _of_two(*operators: str, made: Callable[[Builder, Ref, Ref], Ref]) -> Circuit:
    """A maximum or minimum of two signals."""

    @circuit(*operators, takes=lambda call: {"self", "other"} <= call.signals, **_NEURONS)
    def expand(call: Call, g: Builder) -> Ref | None:
        """The larger, or smaller, of two signals: b + relu(a - b), a - relu(a - b)."""
        given = [g.now(call.node.arguments[name]) for name in ("self", "other")]
        like = next((x for x in given if g.shape(x)[:1] == (call.node.shape or ())[:1]), given[0])
        a, b = (repeated(g, x, call.node.shape or (), like) for x in given)
        return None if a is None or b is None else made(g, a, b)

    return expand


def _axes(call: Call) -> list[int]:
    count = len(call.shape_of("self"))
    given = call["dim"]
    return sorted(axis % count for axis in ([given] if isinstance(given, int) else given or range(count)))


def _within_images(call: Call) -> bool:
    """Whether none of the axes is the batch."""
    shape = call.graph[call.node.arguments["self"].name].shape or ()
    return bool(shape) and all(isinstance(shape[axis], int) for axis in _axes(call))


def _over_axes(*operators: str, sign: int) -> Circuit:
    """A maximum (sign 1) or minimum (-1) over some axes of the images."""

    @circuit(*operators, takes=_within_images, **_NEURONS)
    def expand(call: Call, g: Builder) -> Ref:
        """The largest, or smallest, along some axes: the first half against the second, until one is left."""
        x = _signed(g, g.now(call.node.arguments["self"]), sign)
        for axis in _axes(call):
            x = _largest(g, x, axis)
        for axis in reversed([] if call["keepdim"] else _axes(call)):
            x = _first(g, x, axis)
        return _signed(g, x, sign)

    return expand


def _signed(g: Builder, x: Ref, sign: int) -> Ref:
    return x if sign > 0 else g.put("neg", x)


def _pool(axes: int) -> Circuit:
    """A max pool over the last axes, one after the other."""

    @circuit(f"max_pool{axes}d", **_NEURONS)
    def expand(call: Call, g: Builder) -> Ref | None:
        """The largest of each window, axis by axis."""
        start = len(call.shape) - axes
        first, before = _without_low_padding(call, axes)
        x: Ref = g.now(first)
        kernel = spread(call["kernel_size"], axes)
        settings = [spread(call[name] or kernel, axes) for name in ("stride", "padding", "dilation")]
        sizes = zip(g.shape(x)[start:], call.shape[start:], before, kernel, *settings, strict=True)
        windows = [_windows(*size) for size in sizes]
        if not all(windows):
            return None
        for at, places in enumerate(windows, start):
            x = _largest_of(g, x, at, places)
        return x

    return expand


def _without_low_padding(call: Call, axes: int) -> tuple[Ref, list[int]]:
    """What a pool takes, and how much is put before it along its axes by a padding that no maximum takes."""
    first: Ref = call.node.arguments["self"]
    before = Call(call.graph[first.name], call.graph, call.rules, call.carriers, tensors=call.tensors)
    if not is_low_padding(before.node):
        return first, [0] * axes
    amounts = [*before["pad"], *[0] * (2 * axes)]
    if any(amounts[2 * axes :]) or min(amounts) < 0:
        return first, [0] * axes
    return before.node.arguments["self"], [amounts[2 * at] for at in reversed(range(axes))]


def _windows(
    size: int, count: int, before: int, kernel: int, stride: int, padding: int, dilation: int
) -> list[list[int]]:
    """The positions that each window holds; where it leaves the map, its first one again; none if one is empty."""
    windows = []
    for at in range(count):
        places = [at * stride - padding - before + tap * dilation for tap in range(kernel)]
        inside = [place for place in places if 0 <= place < size]
        if not inside:
            return []
        windows.append([place if 0 <= place < size else inside[0] for place in places])
    return windows


def _adaptive(axes: int) -> Circuit:
    """An adaptive max pool whose indices nobody reads: the maxima of its windows, axis by axis."""

    @circuit(f"adaptive_max_pool{axes}d")
    def expand(call: Call, g: Builder) -> Any:
        """The maxima of its windows, axis by axis, where nobody reads their indices."""
        if any(user.arguments.get("index") != 0 for user in call.graph.users(call.node.name)):
            return None
        x = g.now(call.node.arguments["self"])
        for at, wanted in enumerate(spread(call["output_size"], axes), len(g.shape(x)) - axes):
            windows = _adaptive_windows(length(g, x, at), wanted)
            x = g.put("amax", _picked(g, x, at, windows), [at + 1])
        return (x, None)

    return expand


def _adaptive_windows(size: int, count: int) -> list[list[int]]:
    """The positions of each window; shorter ones hold their last position more than once."""
    ends = [(at * size // count, -(-(at + 1) * size // count)) for at in range(count)]
    length = max(last - first for first, last in ends)
    return [[min(first + tap, last - 1) for tap in range(length)] for first, last in ends]


def _adaptively_averaged(axes: int) -> Circuit:
    """The average over the same windows."""

    @circuit(
        f"adaptive_max_pool{axes}d",
        kind="max",
        choice="average",
        note="put average pools in place of the max pools",
    )
    def average(call: Call, g: Builder) -> Any:
        """The average over the same windows."""
        first, like = g.now(call.node.arguments["self"]), call.graph.users(call.node.name)[0].shape
        return (g.call(f"adaptive_avg_pool{axes}d", first, call["output_size"], like=like), None)

    return average


@circuit("max", "min", takes=lambda call: "dim" in call.node.arguments)
def with_place(call: Call, g: Builder) -> Any:
    """A maximum along an axis and its place, each by itself; a place that nobody reads is not looked for."""
    given = [g.now(call.node.arguments[name]) for name in ("self", "dim", "keepdim")]
    read = {user.arguments["index"]: user.shape for user in call.graph.users(call.node.name)}
    (self, dim, keepdim), word = given, call.node.short
    value = g.call(f"a{word}", self, [dim], keepdim, like=read.get(0, read.get(1)))
    place = g.call(f"arg{word}", self, dim, keepdim, like=read[1]) if 1 in read else None
    return (value, place)


@circuit("fmax", "fmin", "max", "min", takes=lambda call: "other" in call.node.arguments)
def without_nan(call: Call, g: Builder) -> Ref:
    """The same as maximum and minimum where nothing is NaN."""
    word = {"max": "maximum", "min": "minimum"}[call.node.short[-3:]]
    return g.call(word, *(g.now(call.node.arguments[name]) for name in ("self", "other")), like=call.node.shape)


@circuit("clamp", "clamp_min", "clamp_max", takes=lambda call: bool(call.signals - {"self"}))
def between_signals(call: Call, g: Builder) -> Ref:
    """Limits that are signals: the larger of x and the lower one, then the smaller of that and the upper one."""
    given = call.node.arguments
    found: Ref = g.now(given["self"])
    for name, word in (("min", "maximum"), ("max", "minimum")):
        if given.get(name) is not None:
            found = g.call(word, found, g.now(given[name]), like=call.node.shape)
    return found


@circuit("aminmax", takes=lambda call: call["dim"] is not None)
def both_ends(call: Call, g: Builder) -> Any:
    """Minimum and maximum along an axis."""
    self, like = g.now(call.node.arguments["self"]), call.graph.users(call.node.name)[0].shape
    return tuple(g.call(word, self, [call["dim"]], call["keepdim"], like=like) for word in ("amin", "amax"))


def _pooled(call: Call) -> Iterable[Box]:
    kernel = call["kernel_size"]
    count = len(kernel)
    settings = (spread(call[name] or kernel, count) for name in ("stride", "padding", "dilation"))
    sizes = zip(call.shape_of("self")[-count:], call.shape[-count:], kernel, *settings, strict=True)
    return contracted(call.boxes(), len(call.shape) - count, [window(*size) for size in sizes])


def _extreme(call: Call) -> Iterable[Box]:
    return summed_over(call, _axes(call), call["keepdim"])


def _compared(call: Call) -> Iterable[Box]:
    return broadcast(call, "self", "other")


_REASON = "a maximum is not a weighted sum of spikes; circuits={'max': 'neurons'} makes it of neurons"
digital_pools = Digital(
    ("max_pool1d", "max_pool2d", "max_pool3d"),
    kind="max",
    reach=_pooled,
    reason=f"{_REASON}, circuits={{'max': 'average'}} changes the network instead",
)
digital_maxima = Digital(("maximum", "minimum"), kind="max", reach=_compared, reason=_REASON)
digital_extremes = Digital(("amax", "amin"), kind="max", reach=_extreme, reason=_REASON, takes=_within_images)

ROWS = (
    *(row(axes) for axes in (1, 2, 3) for row in (_pool, _adaptively_averaged, _adaptive)),
    _of_two("maximum", made=_larger),
    _of_two("minimum", made=_smaller),
    _over_axes("amax", sign=1),
    _over_axes("amin", sign=-1),
    with_place,
    without_nan,
    between_signals,
    both_ends,
    digital_pools,
    digital_maxima,
    digital_extremes,
)
