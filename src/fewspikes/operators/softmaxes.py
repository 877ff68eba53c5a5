"""Rows of softmax and its like: exponentials, their sum, its reciprocal, and a product of two signals.

    softmax(s) = e * (1 / sum(e))        e = exp(s - m), m the maximum over the axis

As m is taken off, no exponential is above 1 and their sum is not below 1: exp and the reciprocal have bounded domains.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref
from fewspikes.operators.call import Call
from fewspikes.operators.masks import (
    Masked,
    by_rows,
    nothing_kept,
    silenced,
    unmasked,
    with_a_kept_score,
    zeroed,
)
from fewspikes.operators.rule import circuit

_WRITTEN_OUT_FIRST = ("baddbmm", "addmm")  # a mask may be among what they add


class Exponentials(NamedTuple):
    """exp(s - m), 0 where a mask leaves it out; their sum along the axes, which stay; s - m; and m."""

    e: Ref
    total: Ref
    below: Ref
    shift: Ref


def shift_of(g: Builder, scores: Ref, axes: Sequence[int]) -> Ref:
    """What is taken off the scores before exp: their maximum."""
    return g.put("amax", scores, list(axes), True)


def exponentials(call: Call, scores: Masked, axes: Sequence[int], g: Builder) -> Exponentials:
    """The exponentials of scores and their sum.

    A row of which a mask by image leaves all out has the sum 1, so that its softmax is 0 throughout.

    Args:
        call: for which they are.
        scores: with their mask, which takes one axis.
        axes: that are summed over, counted from the end.
        g: where it is built.
    """
    s, keep = scores = by_rows(call, scores, axes[0], g)
    shift = shift_of(g, with_a_kept_score(scores, axes[0], g), axes)
    below = silenced(g, g.put("sub.Tensor", s, shift), keep)
    e = zeroed(g, g.put("exp", below), keep)
    total = g.put("sum.dim_IntList", e, list(axes), True)
    empty = nothing_kept(g, keep, axes[0])
    return Exponentials(e, total if empty is None else g.put("add.Tensor", total, empty), below, shift)


def axes_of(call: Call, name: str = "self", dims: Any = None) -> list[int]:
    """Axes of an argument counted from the end, all of them without any."""
    count = len(call.shape_of(name))
    given = [dims] if isinstance(dims, int) else list(dims or range(count))
    return sorted({axis % count - count for axis in given})


def within_images(call: Call, axes: Sequence[int], name: str = "self") -> bool:
    """Whether none of some axes of an argument, counted from the end, counts images."""
    shape = call.graph[call.node.arguments[name].name].shape or ()
    return bool(axes) and all(isinstance(shape[axis], int) for axis in axes)


def _is_plain(call: Call) -> bool:
    dtype = call.get("dtype")
    same = dtype is None or dtype == call.graph[call.node.arguments["self"].name].dtype
    whole = call.get("half_to_float") or not same
    return not whole and call.signals == {"self"} and within_images(call, axes_of(call, dims=call["dim"]))


@circuit("softmax", "_softmax", "_safe_softmax", takes=_is_plain)
def softmax(call: Call, g: Builder) -> Ref | None:
    """Shares of exponentials along an axis; masks in front of it become factors of 0."""
    ref = call.node.arguments["self"]
    if call.graph[ref.name].short in _WRITTEN_OUT_FIRST:
        return None
    found = exponentials(call, unmasked(call, ref, g), axes_of(call, dims=call["dim"]), g)
    return g.put("mul.Tensor", found.e, g.put("reciprocal", found.total))


@circuit("log_softmax", "_log_softmax", takes=_is_plain)
def log_softmax(call: Call, g: Builder) -> Ref:
    """s - m - log(sum(e))."""
    found = exponentials(call, _scores(call, g), axes_of(call, dims=call["dim"]), g)
    return g.put("sub.Tensor", found.below, g.put("log", found.total))


@circuit("logsumexp", takes=lambda call: within_images(call, axes_of(call, dims=call["dim"])))
def log_of_sum(call: Call, g: Builder) -> Ref:
    """m + log(sum(e))."""
    axes = axes_of(call, dims=call["dim"])
    found = exponentials(call, _scores(call, g), axes, g)
    result = g.put("add.Tensor", found.shift, g.put("log", found.total))
    return result if call["keepdim"] else g.put("squeeze.dims", result, axes)


def _scores(call: Call, g: Builder) -> Masked:
    return Masked(g.now(call.node.arguments["self"]), None)


ROWS = (softmax, log_softmax, log_of_sum)
