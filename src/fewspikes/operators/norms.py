"""Rows of norms: means, squares, a root or a reciprocal root, and a product of two signals.

    norm(x) = (gain * (x - mean)) * rsqrt(variance + eps) + shift        variance = mean((x - mean)^2)

The gain is part of the factor that is held, so no weight stands between the product and what reads it.
"""

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import torch

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref
from fewspikes.operators.call import Call
from fewspikes.operators.indexing import length, reshaped
from fewspikes.operators.rule import circuit
from fewspikes.operators.softmaxes import axes_of, within_images


class Normalised(NamedTuple):
    """What a norm gives: the result, the mean where there is one, the reciprocal of the deviation."""

    result: Ref
    mean: Ref | None
    inverse: Ref


def _normalised(
    g: Builder, x: Ref, axes: Sequence[int], eps: float, gain: Ref | None, shift: Ref | None, centred: bool = True
) -> Normalised:
    """`x` over the deviation along some axes; `gain` and `shift` broadcast to its shape."""
    mean = g.put("mean.dim", x, axes, True) if centred else None
    held = x if mean is None else g.put("sub.Tensor", x, mean)
    inverse = g.put("rsqrt", _plus(g, g.put("mean.dim", g.put("square", held), axes, True), eps))
    held = held if gain is None else g.put("mul.Tensor", held, gain)
    result = g.put("mul.Tensor", held, inverse)
    return Normalised(result if shift is None else g.put("add.Tensor", result, shift), mean, inverse)


def _plus(g: Builder, x: Ref, number: float) -> Ref:
    return x if number == 0 else g.put("add.Tensor", x, number)


def _last_axes(call: Call) -> list[int]:
    return list(range(-len(call["normalized_shape"]), 0))


def _norms_images(call: Call) -> bool:
    return "input" in call.signals and within_images(call, _last_axes(call), "input")


@circuit("layer_norm", "native_layer_norm", takes=_norms_images)
def layer_norm(call: Call, g: Builder) -> Any:
    """A norm over the last axes."""
    x, gain, shift = (g.now(call.node.arguments[name]) for name in ("input", "weight", "bias"))
    found = _normalised(g, x, _last_axes(call), call["eps"], gain, shift)
    return found.result if call.node.short == "layer_norm" else tuple(found)


@circuit("rms_norm", "_fused_rms_norm", takes=_norms_images)
def rms_norm(call: Call, g: Builder) -> Any:
    """A norm over the last axes that leaves the mean where it is."""
    x, gain = (g.now(call.node.arguments[name]) for name in ("input", "weight"))
    dtype = call.graph[call.node.arguments["input"].name].dtype
    eps = torch.finfo(dtype).eps if call["eps"] is None else call["eps"]  # type: ignore[arg-type]
    found = _normalised(g, x, _last_axes(call), eps, gain, None, centred=False)
    return found.result if call.node.short == "rms_norm" else (found.result, found.inverse)


def _has_images_in_front(call: Call) -> bool:
    return "input" in call.signals and within_images(call, axes_of(call, "input")[1:], "input")


@circuit("group_norm", "native_group_norm", takes=_has_images_in_front)
def group_norm(call: Call, g: Builder) -> Any:
    """A norm over the channels of each group, and all their places."""
    whole = call.node.short == "group_norm"
    groups = call["num_groups" if whole else "group"]
    x, gain, shift = (g.now(call.node.arguments[name]) for name in ("input", "weight", "bias"))
    batch, channels, *places = g.shape(x)
    split = (groups, channels // groups, *places)  # type: ignore[operator]
    gain, shift = (None if c is None else reshaped(g, c, (*split[:2], *[1] * len(places))) for c in (gain, shift))
    axes = list(range(-len(split) + 1, 0))
    found = _normalised(g, reshaped(g, x, (batch, *split)), axes, call["eps"], gain, shift)
    result = reshaped(g, found.result, (batch, channels, *places))
    if whole:
        return result
    return (result, *(reshaped(g, x, (batch, groups)) for x in found[1:] if x is not None))


@circuit("instance_norm", takes=_has_images_in_front)
def instance_norm(call: Call, g: Builder) -> Ref:
    """A norm over all places of a channel; with running statistics a batch norm."""
    x, gain, shift, mean, variance = (
        g.now(call.node.arguments[name]) for name in ("input", "weight", "bias", "running_mean", "running_var")
    )
    if not call["use_input_stats"]:
        settings = (False, call["momentum"], call["eps"], False)
        return g.call("batch_norm", x, gain, shift, mean, variance, *settings, like=call.node.shape)
    axes = axes_of(call, "input")[2:]
    gain, shift = (None if c is None else reshaped(g, c, (length(g, x, 1), *[1] * len(axes))) for c in (gain, shift))
    return _normalised(g, x, axes, call["eps"], gain, shift).result


def _spread_axes(call: Call) -> list[int]:
    return axes_of(call, dims=call.get("dim"))


def _spreads_within_images(call: Call) -> bool:
    return call.signals == {"self"} and within_images(call, _spread_axes(call))


@circuit("var", "std", "var_mean", "std_mean", takes=_spreads_within_images)
def spread(call: Call, g: Builder) -> Any:
    """Variance or standard deviation along some axes, perhaps with the mean."""
    x, axes = g.now(call.node.arguments["self"]), _spread_axes(call)
    count = 1
    for axis in axes:
        count *= length(g, x, axis)
    keepdim, correction = call.get("keepdim", False), call.get("correction", call.get("unbiased"))
    free = count - (1 if correction is None else correction)
    mean = g.put("mean.dim", x, axes, True)
    squares = g.put("square", g.put("sub.Tensor", x, mean))
    result = g.put("div.Tensor", g.put("sum.dim_IntList", squares, axes, keepdim), float(free))
    result = g.put("sqrt", result) if call.node.short.startswith("std") else result
    if not call.node.short.endswith("mean"):
        return result
    return (result, mean if keepdim else g.put("squeeze.dims", mean, axes))


def _order(call: Call) -> float | None:
    """p of a norm of vectors; None for a norm of matrices, or one that counts elements."""
    given = call.get("ord", call.get("p"))
    p = 2.0 if given is None else given
    is_matrix = call.node.short == "linalg_norm" and given is not None and len(_spread_axes(call)) > 1
    return None if is_matrix or not isinstance(p, int | float) or p == 0 else float(p)


def _is_a_norm_of_images(call: Call) -> bool:
    dtype, own = call.get("dtype"), call.graph[call.node.arguments["self"].name].dtype
    return dtype in (None, own) and _spreads_within_images(call) and _order(call) is not None


@circuit("linalg_vector_norm", "linalg_norm", "norm", takes=_is_a_norm_of_images)
def norm(call: Call, g: Builder) -> Ref:
    """The p-norm of vectors."""
    p = _order(call)
    assert p is not None
    return p_norm(g, g.now(call.node.arguments["self"]), p, _spread_axes(call), call.get("keepdim", False))


def p_norm(g: Builder, x: Ref, p: float, axes: Sequence[int], keepdim: bool) -> Ref:
    """(sum |x|^p)^(1/p) along some axes."""
    if abs(p) == inf:
        return g.put("amax" if p > 0 else "amin", g.put("abs", x), list(axes), keepdim)
    if p == 2:
        return g.put("sqrt", g.put("sum.dim_IntList", g.put("square", x), list(axes), keepdim))
    size = g.put("abs", x)
    powers = size if p == 1 else g.put("pow.Tensor_Scalar", size, p)
    total = g.put("sum.dim_IntList", powers, list(axes), keepdim)
    return total if p == 1 else g.put("pow.Tensor_Scalar", total, 1 / p)


ROWS = (layer_norm, rms_norm, group_norm, instance_norm, spread, norm)
