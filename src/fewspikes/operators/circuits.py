"""Rows of operators that are rewritten into others: identities, views, batch norms, max pools without their indices."""

from collections.abc import Sequence
from typing import Any

import torch

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.builder import Builder
from fewspikes.graph.functions import named
from fewspikes.graph.graph import CONSTANT, Node, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.folding import scaled_and_shifted
from fewspikes.operators.rule import circuit

_CAST = "aten._to_copy.default"
_LOW = -1e4  # padding below stands for nothing in a maximum


@circuit("clone", "contiguous", "alias", "detach", "lift_fresh_copy", early=True)
def identity(call: Call, g: Builder) -> Any:
    """What leaves its operand as it is."""
    return g.now(call.node.arguments["self"])


_SAME = {  # another name of an operator -> its own, and the overload where that has another name
    **dict.fromkeys(("divide", "true_divide"), ("div", "")),
    "multiply": ("mul", ""),
    "subtract": ("sub", ""),
    "negative": ("neg", ""),
    "absolute": ("abs", ""),
    "linalg_matmul": ("matmul", ""),
    "special_expit": ("sigmoid", ""),
    "special_softmax": ("softmax", "int"),
    "special_log_softmax": ("log_softmax", "int"),
    "special_logsumexp": ("logsumexp", ""),
}


@circuit(*_SAME, early=True)
def renamed(call: Call, g: Builder) -> Any:
    """Another name of an operator."""
    name, overload = _SAME[call.node.short]
    operator = f"aten.{name}.{overload or call.node.operator.rpartition('.')[2]}"
    return g.append(operator, g.now(call.node.arguments), call.node.shape, call.node.dtype)


@circuit("dropout", "feature_dropout", "alpha_dropout", early=True)
def dropped_out(call: Call, g: Builder) -> Any:
    """Dropout of a network in eval mode."""
    if call["train"]:
        raise FewSpikesError(f"dropout at {call.node.path!r} is active; call model.eval() before converting")
    return g.now(call.node.arguments["input"])


def _dtype(call: Call, name: str) -> torch.dtype | None:
    return call.graph[call.node.arguments[name].name].dtype


@circuit("_to_copy", takes=lambda call: call["dtype"] in (None, _dtype(call, "self")), early=True)
def same_dtype(call: Call, g: Builder) -> Any:
    """A cast that changes nothing: the network computes where it is."""
    return g.now(call.node.arguments["self"])


@circuit("type_as", early=True)
def cast_like(call: Call, g: Builder) -> Any:
    """A cast to another tensor's dtype, of which nothing else is read."""
    self, dtype = g.now(call.node.arguments["self"]), _dtype(call, "other")
    if dtype == _dtype(call, "self"):
        return self
    return g.append(_CAST, named(_CAST, [self], {"dtype": dtype}), call.node.shape, dtype)


@circuit("view", "_unsafe_view", early=True)
def viewed(call: Call, g: Builder) -> Any:
    """A reshape, which also takes channels-last inputs."""
    self, size = (g.now(value) for value in call.node.arguments.values())
    return g.call("reshape", self, size, like=call.node.shape)


def takes_everything(call: Call) -> bool:
    """Whether a slice leaves nothing out."""
    given = call.node.arguments
    return given["start"] in (0, None) and given["end"] in (None, 2**63 - 1) and given["step"] == 1


@circuit("slice", takes=takes_everything, early=True)
def whole_slice(call: Call, g: Builder) -> Any:
    """A slice that takes everything."""
    return g.now(call.node.arguments["self"])


def _has_running_statistics(call: Call) -> bool:
    given = [call.node.arguments.get(name) for name in ("running_mean", "running_var")]
    constant = all(isinstance(ref, Ref) and call.graph[ref.name].operator == CONSTANT for ref in given)
    return constant and not call.get("training")


@circuit("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", takes=_has_running_statistics)
def normalised(call: Call, g: Builder) -> Any:
    """A batch norm with running statistics: a scale and a shift per channel, folded into the map before it."""
    given = call.node.arguments
    mean, variance = (g.value(given.get(name)) for name in ("running_mean", "running_var"))
    assert mean is not None
    assert variance is not None
    weight, bias = (g.value(given[name]) for name in ("weight", "bias"))
    scale = (variance.double() + float(given["eps"])).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale
    shift = shift if bias is None else shift + bias.double()
    result = scaled_and_shifted(call, g, scale, shift, mean.dtype)
    return result if call.node.short == "batch_norm" else (result, None, None)


@circuit("max_pool2d_with_indices")
def max_pool_without_indices(call: Call, g: Builder) -> Any:
    """A max pool whose indices nobody reads is a plain max pool."""
    if any(user.arguments["index"] != 0 for user in call.graph.users(call.node.name)):
        raise FewSpikesError(f"{call.node.where} hands its indices on; max unpooling cannot be converted")
    values = [g.now(value) for value in call.node.arguments.values()]
    first = next(user for user in call.graph.users(call.node.name))
    return (g.call("max_pool2d", *values, like=first.shape), None)


def is_low_padding(node: Node) -> bool:
    """Whether it puts numbers around a map that are so low that no maximum takes them."""
    value = node.arguments.get("value") if node.short in ("pad", "constant_pad_nd") else None
    return isinstance(value, int | float) and value < _LOW


def _refuse_low_padding(call: Call) -> None:
    """Raise where the operand is padded by numbers so low that no maximum takes them."""
    before = call.graph[call.node.arguments["self"].name]
    if is_low_padding(before):
        raise FewSpikesError(
            f"{call.node.where} takes a maximum beside padding by {before.arguments['value']}, of which there is no "
            "average: give the pool its own padding=, or use circuits={'max': 'digital'}"
        )


def averaged(axes: int) -> Any:
    """For max pools over so many axes: the average over the same windows.

    Padding is left out of it, as it is left out of a maximum.
    """

    @circuit(f"max_pool{axes}d", kind="max", choice="average", note="put average pools in place of the max pools")
    def average(call: Call, g: Builder) -> Any:
        if any(d != 1 for d in call["dilation"]):
            raise FewSpikesError(
                f"{call.node.where} is dilated; there is no dilated average pool: use circuits={{'max': 'digital'}}"
            )
        _refuse_low_padding(call)
        kernel = call["kernel_size"]
        settings = (kernel, call["stride"] or kernel, call["padding"], call["ceil_mode"], False)
        return g.call(f"avg_pool{axes}d", g.now(call.node.arguments["self"]), *settings, like=call.node.shape)

    return average


average_pools = tuple(averaged(axes) for axes in (1, 2))


def _regrouped(call: Call, g: Builder, sizes: Sequence[int], order: Sequence[int]) -> Any:
    """The image's axes split into `sizes`, put in another order, and joined to the shape of the result."""
    batch, shape = (call.node.shape or ())[0], call.node.shape
    split = g.call("reshape", g.now(next(iter(call.node.arguments.values()))), [-1, *sizes], like=(batch, *sizes))
    moved = g.call("permute", split, [0, *order], like=(batch, *(sizes[axis - 1] for axis in order)))
    return g.call("reshape", moved, [-1, *call.shape[1:]], like=shape)


@circuit("pixel_shuffle", takes=lambda call: len(call.shape) == 4)
def pixels_shuffled(call: Call, g: Builder) -> Any:
    """Channels become pixels: r x r of them a square."""
    r, (channels, height, width) = call["upscale_factor"], call.shape_of("self")[1:]
    return _regrouped(call, g, [channels // r**2, r, r, height, width], [1, 4, 2, 5, 3])


@circuit("pixel_unshuffle", takes=lambda call: len(call.shape) == 4)
def pixels_unshuffled(call: Call, g: Builder) -> Any:
    """Squares of r x r pixels become channels."""
    r, (channels, height, width) = call["downscale_factor"], call.shape_of("self")[1:]
    return _regrouped(call, g, [channels, height // r, r, width // r, r], [1, 3, 5, 2, 4])


@circuit("channel_shuffle", "native_channel_shuffle")
def channels_shuffled(call: Call, g: Builder) -> Any:
    """The channels of the groups in turn."""
    channels, *rest = call.shape_of("self")[1:]
    axes = range(3, 3 + len(rest))
    return _regrouped(call, g, [call["groups"], channels // call["groups"], *rest], [2, 1, *axes])


@circuit("squeeze", takes=lambda call: call.node.operator == "aten.squeeze.default")
def squeezed(call: Call, g: Builder) -> Any:
    """All axes of one position but the batch's, which torch drops where a batch holds one image."""
    return g.call("reshape", g.now(call.node.arguments["self"]), [-1, *call.shape[1:]], like=call.node.shape)


ROWS = (
    identity,
    renamed,
    dropped_out,
    same_dtype,
    cast_like,
    viewed,
    whole_slice,
    normalised,
    max_pool_without_indices,
    *average_pools,
)
ROWS += (pixels_shuffled, pixels_unshuffled, channels_shuffled, squeezed)
