"""Rows of limits by constants: maxima, minima and clamps are a (capped) ReLU, shifted and perhaps scaled.

    max(x, c) = c + relu(x - c)        min(x, c) = c - relu(c - x)        clamp(x, a, b) = a + relu[0, b - a](x - a)

So a limit has a ReLU's codes, and one code serves all channels, whatever their constants.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref
from fewspikes.operators.call import Call
from fewspikes.operators.constants import Number, number
from fewspikes.operators.rule import circuit

_FAR = 100.0  # a sum with a larger constant costs digits that the signal needs: such a limit is fitted as it stands
_BESIDE = ({"self", "other"}, {"self", "min"}, {"self", "max"})
Limit = Number | Tensor | None


def _of_one_signal(call: Call) -> bool:
    return len(call.signals) == 1 and set(call.node.arguments) in _BESIDE


@circuit("maximum", "max", "fmax", "clamp_min", takes=_of_one_signal)
def at_least(call: Call, g: Builder) -> Any:
    """The larger one of a signal and a constant."""
    x, limit = _sides(call, g)
    return _above(call, g, x, limit) if _is_near(limit) else None


@circuit("minimum", "min", "fmin", "clamp_max", takes=_of_one_signal)
def at_most(call: Call, g: Builder) -> Any:
    """The smaller one of a signal and a constant."""
    x, limit = _sides(call, g)
    return _below(call, g, x, limit) if _is_near(limit) else None


@circuit("clamp", "clip", "hardtanh", takes=lambda call: call.signals == {"self"})
def between(call: Call, g: Builder) -> Any:
    """A signal within constants; from 0 to a number it is a capped ReLU as it stands."""
    self, *limits = call.node.arguments.values()
    x, low, high = g.now(self), *(_constant(call, g, limit) for limit in limits)
    if high is None or low is None:
        limit, side = (low, _above) if high is None else (high, _below)
        return side(call, g, x, limit) if _is_near(limit) else None
    if not (_is_near(low) and _is_near(high)):
        return None
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return _scaled(call, g, x, *_alike(low, high))
    if low >= high or (low == 0 and not any(isinstance(limit, Ref) for limit in limits)):
        return None
    if low == 0:
        return g.call("hardtanh", x, 0, high, like=call.node.shape)
    shifted = g.call("sub.Tensor", x, low, like=call.node.shape)
    return _plus(call, g, g.call("hardtanh", shifted, 0, high - low, like=call.node.shape), low)


def _sides(call: Call, g: Builder) -> tuple[Ref, Limit]:
    """The signal, and the constant beside it."""
    (signal,) = call.signals
    (other,) = (name for name in call.node.arguments if name != signal)
    return g.now(call.node.arguments[signal]), _constant(call, g, call.node.arguments[other])


def _constant(call: Call, g: Builder, given: Any) -> Limit:
    """A number where it is one; NaN for what is no constant."""
    if not isinstance(given, Ref):
        return given  # type: ignore[no-any-return]
    found = number(given.name, call.graph, g.tensors, call.rules)
    value = g.value(given)
    return found if found is not None else float("nan") if value is None else value


def _is_near(limit: Limit) -> bool:
    if limit is None:
        return False
    return bool(torch.as_tensor(limit).abs().amax() <= _FAR)  # not of NaN


def _above(call: Call, g: Builder, x: Ref, limit: Limit) -> Ref:
    shape = call.node.shape
    c = _operand(g, limit)
    over = x if c == 0 else g.call("sub.Tensor", x, c, like=shape)
    return _plus(call, g, g.call("relu", over, like=shape), c)


def _below(call: Call, g: Builder, x: Ref, limit: Limit) -> Ref:
    shape = call.node.shape
    c = _operand(g, limit)
    under = (
        g.call("rsub.Scalar", x, c, like=shape) if not isinstance(c, Ref) else g.call("sub.Tensor", c, x, like=shape)
    )
    return _plus(call, g, g.call("neg", g.call("relu", under, like=shape), like=shape), c)


def _alike(*limits: Number | Tensor) -> Sequence[Tensor]:
    """Limits of which one is a tensor, all as tensors of its shape and device."""
    device = next(limit.device for limit in limits if isinstance(limit, Tensor))
    whole: Sequence[Tensor] = torch.broadcast_tensors(*(torch.as_tensor(limit, device=device) for limit in limits))
    return whole


def _scaled(call: Call, g: Builder, x: Ref, low: Tensor, high: Tensor) -> Ref:
    """One code for all: the share of the way from the lower limit to the upper one."""
    shape = call.node.shape
    width = (high - low).clamp(min=0)
    start, size = g.constant(torch.minimum(low, high)), g.constant(torch.where(width > 0, width, 1))
    shifted = g.call("sub.Tensor", x, start, like=shape)
    share = g.call("hardtanh", g.call("div.Tensor", shifted, size, like=shape), 0, 1, like=shape)
    return _plus(call, g, g.call("mul.Tensor", share, g.constant(width), like=shape), start)


def _plus(call: Call, g: Builder, y: Ref, c: Number | Ref) -> Ref:
    return y if c == 0 else g.call("add.Tensor", y, c, like=call.node.shape)


def _operand(g: Builder, limit: Limit) -> Number | Ref:
    if isinstance(limit, Tensor):
        return g.constant(limit)
    assert limit is not None
    return limit


ROWS = (at_least, at_most, between)
