"""Rows of operators that weigh: convolutions, linear maps, matrix products with a constant."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.operators.call import Call
from fewspikes.operators.rule import linear
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box, contracted
from fewspikes.reach.windows import conv_windows, groups_matrix, spread


def _size_of_convolution(given: Mapping[str, Any]) -> Sequence[int] | None:
    x, weight, bias, groups = (given.get(name) for name in ("input", "weight", "bias", "groups"))
    axes, groups = weight.ndim - 2, groups or 1  # type: ignore[union-attr]
    settings = [given.get(name) for name in ("stride", "padding", "dilation")]
    if x.ndim != axes + 2 or x.shape[1] != weight.shape[1] * groups or isinstance(settings[1], str):  # type: ignore[union-attr]
        return None
    _check_weights(x, weight, bias)  # type: ignore[arg-type]
    strides, paddings, dilations = (
        spread(value if value is not None else usual, axes) for value, usual in zip(settings, (1, 0, 1), strict=True)
    )
    if min(groups, *strides, *dilations) < 1 or min(paddings) < 0:
        raise FewSpikesError(f"a convolution of stride {strides}, padding {paddings}, dilation {dilations} in {groups}")
    given_sizes = zip(x.shape[2:], weight.shape[2:], strides, paddings, dilations, strict=True)  # type: ignore[union-attr]
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in given_sizes]
    fits = min(sizes) > 0 and len(weight) % groups == 0  # type: ignore[arg-type]
    return (x.shape[0], weight.shape[0], *sizes) if fits else None  # type: ignore[union-attr]


def _size_of_linear(given: Mapping[str, Tensor | None]) -> Sequence[int] | None:
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    assert x is not None
    assert weight is not None
    fits = x.ndim and weight.ndim == 2 and x.shape[-1] == weight.shape[1]
    if fits:
        _check_weights(x, weight, bias)
    return (*x.shape[:-1], weight.shape[0]) if fits else None


def _check_weights(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """What torch itself notices when the network runs, and not on the meta device."""
    if weight.dtype != x.dtype or (bias is not None and (bias.dtype, tuple(bias.shape)) != (x.dtype, weight.shape[:1])):
        shapes = " and ".join(f"{t.dtype} {tuple(t.shape)}" for t in (weight, bias) if t is not None)
        raise FewSpikesError(f"weights of {shapes} for inputs of {x.dtype}")


@linear(
    "conv1d",
    "conv2d",
    "conv3d",
    weight="weight",
    without=("bias",),
    outputs=(0, 1),
    pads="padding",
    sizes=_size_of_convolution,
)
def convolved(call: Call) -> Iterable[Box]:
    """Convolution: the channels of the group, times a window along each spatial axis."""
    x, weight = call.shape_of("input"), call.shape_of("weight")
    windows = conv_windows(call["stride"], call["padding"], call["dilation"], x, weight, call.shape)
    return contracted(call.boxes("input"), 1, [groups_matrix(x[1], weight[0], call["groups"]), *windows])


@linear("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", weight="weight", without=("bias",), outputs=(1, 1))
def transposed(call: Call) -> Iterable[Box]:
    """Transposed convolution: the windows of a convolution from its outputs to its inputs."""
    x, weight = call.shape_of("input"), call.shape_of("weight")
    windows = conv_windows(call["stride"], call["padding"], call["dilation"], call.shape, weight, x)
    channels = groups_matrix(x[1], call.shape[1], call["groups"])
    return contracted(call.boxes("input"), 1, [channels, *(matrix.T for matrix in windows)])


@linear("linear", weight="weight", without=("bias",), outputs=(0, -1), sizes=_size_of_linear)
def mapped(call: Call) -> Iterable[Box]:
    """Linear map: all features of the last axis."""
    axis = len(call.shape_of("input")) - 1
    return [boxes.dense(box, axis, call.shape[-1]) for box in call.boxes("input")]


@linear("matmul", weight="other", outputs=(-1, -1))
def multiplied(call: Call) -> Iterable[Box]:
    """Matrix product with a constant on the right: all positions of the last axis."""
    other, axis = call.shape_of("other"), len(call.shape_of("self")) - 1
    if len(other) == 1:
        return [boxes.drop(boxes.dense(box, axis, 1), axis) for box in call.boxes()]
    return [boxes.broadcast(boxes.dense(box, axis, other[-1]), call.shape) for box in call.boxes()]


ROWS = (convolved, transposed, mapped, multiplied)
