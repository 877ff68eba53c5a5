"""Zeros around a map that only convolutions read, folded into their own padding: the same sums without a copy."""

from collections.abc import Sequence
from typing import Any

from torch import fx

from fewspikes.graph.capture import Captured, op_name
from fewspikes.graph.shapes import CONVOLUTIONS, spread

_PADS = ("aten.pad.default", "aten.constant_pad_nd.default")
_PADDING = 4  # its place among a convolution's arguments: input, weight, bias, stride, padding


def fold_pads(captured: Captured) -> None:
    """Fold each padding with zeros that has as many on both sides of an axis; the graph changes in place."""
    for node in list(captured.graph.nodes):
        if op_name(node) in _PADS and (sides := _zeros(node)) is not None:
            users = list(node.users)
            if all(op_name(user) in CONVOLUTIONS and user.args[0] is node for user in users) and all(
                CONVOLUTIONS[op_name(user)] >= len(sides) and not user.kwargs for user in users
            ):
                for user in users:
                    _pad(user, node.args[0], sides)
    captured.graph.eliminate_dead_code()


def _zeros(node: fx.Node) -> list[int] | None:
    """How many zeros each of the last axes gets on both sides; None if they are no zeros, or not as many."""
    names = ("mode", "value") if op_name(node) == _PADS[0] else ("value",)
    given = dict(zip(names, node.args[2:], strict=False)) | node.kwargs
    amounts: Any = node.args[1]
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]  # given from the last axis backwards
    if given.get("mode", "constant") != "constant" or given.get("value"):
        return None
    even = all(isinstance(before, int) and before == after and before >= 0 for before, after in pairs)
    return [before for before, _ in pairs] if even else None


def _pad(convolution: fx.Node, source: Any, zeros: Sequence[int]) -> None:
    axes = CONVOLUTIONS[op_name(convolution)]
    given: list[Any] = list(convolution.args)
    given += [None, [1] * axes, [0] * axes][len(given) - 2 :]  # bias, stride, padding
    own = spread(given[_PADDING], axes)
    more = [0] * (axes - len(zeros)) + list(zeros)
    given[_PADDING] = [a + b for a, b in zip(own, more, strict=True)]
    convolution.args = (source, *given[1:])
