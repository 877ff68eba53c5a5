"""Rows of operators that add up, average or scale by constants."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewspikes.graph.graph import Ref
from fewspikes.operators.call import Call
from fewspikes.operators.probing import along
from fewspikes.operators.rule import linear
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box, contracted
from fewspikes.reach.windows import adaptive_window, spread, window


def _broadcast_size(given: Mapping[str, Any]) -> Sequence[int] | None:
    a, b = given["self"], given["other"]
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype):
        return None
    ndim = max(a.ndim, b.ndim)
    pairs = list(zip(*((1,) * (ndim - v.ndim) + tuple(v.shape) for v in (a, b)), strict=True))
    return [n if m == 1 else m for m, n in pairs] if all(m == n or 1 in (m, n) for m, n in pairs) else None


def _pooled_size(given: Mapping[str, Any]) -> Sequence[int] | None:
    x, wanted = given["self"], given["output_size"]
    plain = x.ndim == 4 and len(wanted) == 2 and min(wanted) > 0
    return (*x.shape[:2], *wanted) if plain else None


@linear("add", "sub", "rsub", terms=("self", "other"), adds=True, sizes=_broadcast_size)
def added(call: Call) -> Iterable[Box]:
    """Sums and differences: each term, broadcast to the shape of the result."""
    return broadcast(call, "self", "other")


@linear("mul", either=True, sizes=_broadcast_size)
def scaled(call: Call) -> Iterable[Box]:
    """A product with a constant. It has no weight of its own: what scales goes into the weights before or behind it."""
    return broadcast(call, "self", "other")


@linear("div", takes=lambda call: call.node.arguments.get("rounding_mode") is None)
def divided(call: Call) -> Iterable[Box]:
    """A quotient with a constant below the line."""
    return broadcast(call, "self")


@linear("neg", adds=True)
def negated(call: Call) -> Iterable[Box]:
    """The same with the other sign."""
    return call.boxes()


@linear("avg_pool1d", "avg_pool2d", "avg_pool3d")
def pooled(call: Call) -> Iterable[Box]:
    """Average pool: a window along each spatial axis."""
    kernel = call["kernel_size"]
    count = len(kernel)
    kernels, strides = spread(kernel, count), spread(call["stride"] or kernel, count)
    sizes = zip(call.shape_of("self")[-count:], call.shape[-count:], kernels, strides, strict=True)
    windows = [window(*size, padding) for size, padding in zip(sizes, spread(call["padding"], count), strict=True)]
    return contracted(call.boxes(), len(call.shape) - count, windows)


@linear("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", sizes=_pooled_size)
def adaptively_pooled(call: Call) -> Iterable[Box]:
    """Adaptive average pool: as many windows along each spatial axis as outputs are wanted."""
    count = len(call["output_size"])
    sizes = zip(call.shape_of("self")[-count:], call.shape[-count:], strict=True)
    return contracted(call.boxes(), len(call.shape) - count, [adaptive_window(*size) for size in sizes])


@linear("mean", "sum", takes=lambda call: call.get("dim") is not None)
def summed(call: Call) -> Iterable[Box]:
    """Sum and mean: all positions along some axes, or all axes."""
    count = len(call.shape_of("self"))
    dims = [dim % count for dim in call["dim"] or range(count)]
    return summed_over(call, dims, call["keepdim"])


@linear(
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)
def interpolated(call: Call) -> Iterable[Box]:
    """Weighted means of neighbours along each axis of the pictures; of which, the operator itself tells."""
    return along(call, range(2, len(call.shape)))


@linear("cumsum")
def cumulated(call: Call) -> Iterable[Box]:
    """Sums of all positions up to each one, along an axis."""
    axis, size = call.axis(), call.shape[call.axis()]
    return [boxes.contract(box, axis, torch.ones(size, size, dtype=torch.bool).triu()) for box in call.boxes()]


def broadcast(call: Call, *terms: str) -> list[Box]:
    """Each term, broadcast to the shape of the result."""
    given = [call.node.arguments[name] for name in terms]
    distinct = dict.fromkeys(ref.name for ref in given if isinstance(ref, Ref))
    return [boxes.broadcast(box, call.shape) for name in distinct for box in call.known.get(name, ())]


def summed_over(call: Call, dims: Sequence[int], keepdim: bool) -> list[Box]:
    """All positions along some axes at one, or without these axes."""
    return [sums_of(box, dims, keepdim) for box in call.boxes()]


def sums_of(box: Box, dims: Sequence[int], keepdim: bool) -> Box:
    """A box with all positions along some axes as one."""
    for dim in dims:
        box = boxes.dense(box, dim, 1)
    if keepdim:
        return box
    box = boxes.tidy(box)
    return replace(box, axes=tuple(axis for at, axis in enumerate(box.axes) if at not in dims))


ROWS = (added, scaled, divided, negated, pooled, adaptively_pooled, summed, interpolated, cumulated)
