"""Scales, shifts and zeros folded into the weighted maps beside them: the same sums without a pass of their own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder, rebuilt
from fewspikes.graph.graph import Graph, Node, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.rule import Linear, Rules
from fewspikes.reach.windows import spread


def scaled_and_shifted(call: Call, g: Builder, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Ref:
    """y = scale x + shift per channel of axis 1 of the call's first argument, in the map before it if that is possible.

    Args:
        call: what is replaced; its first argument is x.
        g: where the result is built.
        scale, shift: [C], float64.
        dtype: of the network.
    """
    ref = next(iter(call.node.arguments.values()))
    source, axes = call.graph[ref.name], len(call.graph[ref.name].shape or ())
    folded = _folded(call, g, source, axes, scale, shift)
    if folded is not None:
        return folded
    g.notes.append(f"batch norm at {call.node.path} stands alone: kept as a scale and a shift per channel")
    shape = (-1, *[1] * (axes - 2))
    factor, term = (g.constant(values.to(dtype).view(shape)) for values in (scale, shift))
    scaled = g.call("mul.Tensor", g.now(ref), factor, like=source.shape)
    return g.call("add.Tensor", scaled, term, like=source.shape)


def _folded(call: Call, g: Builder, source: Node, axes: int, scale: Tensor, shift: Tensor) -> Ref | None:
    """The scale in the source's weights and the shift in its bias; None where its outputs are not these channels."""
    before = Call(source, call.graph, call.rules, call.carriers, tensors=call.tensors)
    rule = call.rules.find(Linear, before)
    if rule is None or rule.outputs is None or "bias" not in source.arguments or len(call.graph.users(source.name)) > 1:
        return None
    axis, channels = rule.outputs
    name = rule.weighs(before)
    weight, bias = (g.value(source.arguments[key]) for key in (str(name), "bias"))
    if channels % axes != 1 or weight is None or (bias is None and source.arguments["bias"] is not None):
        return None
    if weight.shape[axis] != len(scale):  # the groups of a transposed convolution share their weights' axis
        return None
    shape = [1] * weight.ndim
    shape[axis] = -1
    folded = (weight.double() * scale.view(shape)).to(weight.dtype)
    shifted = (shift if bias is None else shift + bias.double() * scale).to(weight.dtype)
    arguments = g.now(source.arguments) | {str(name): g.constant(folded), "bias": g.constant(shifted)}
    path, g.path = g.path, source.path
    made = g.append(source.operator, arguments, source.shape)
    g.path = path
    return made


def with_pads_folded(graph: Graph, tensors: dict[str, Tensor], rules: Rules, carriers: frozenset[str]) -> Graph:
    """Zeros around a map that only convolutions read, with as many on both sides of an axis, as their own padding."""

    def called(node: Node) -> Call:
        return Call(node, graph, rules, carriers, tensors=tensors)

    def change(node: Node, g: Builder) -> Ref | None:
        pad = _padding_before(called(node))
        if pad is None:
            return None
        zeros = _zeros(pad)
        padded = [_padded(called(user), pad, zeros) for user in graph.users(pad.name)]
        own = _padded(called(node), pad, zeros)
        if own is None or any(found is None for found in padded):
            return None
        first = next(iter(node.arguments))
        return g.append(node.operator, g.now({**node.arguments, first: pad.arguments["self"], **own}), node.shape)

    return rebuilt(graph, tensors, change)


def _padding_before(call: Call) -> Node | None:
    """What puts zeros around the map that a call reads first."""
    ref = next(iter(call.node.arguments.values()), None)
    if not isinstance(ref, Ref):
        return None
    before = Call(call.graph[ref.name], call.graph, call.rules, call.carriers, tensors=call.tensors)
    rule = call.rules.find(Linear, before) if before.node.arguments else None
    if rule is None or rule in call.rules.own:
        return None
    is_padding = rule.moves and "value" in rule.zero and not before["value"]
    is_padding = is_padding and before.get("mode", "constant") == "constant"
    return before.node if is_padding else None


def _zeros(pad: Node) -> list[int] | None:
    """How many zeros each of the last axes gets on both sides; None if not as many."""
    amounts: Any = pad.arguments["pad"]
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]  # given from the last axis backwards
    even = all(isinstance(before, int) and before == after and before >= 0 for before, after in pairs)
    return [before for before, _ in pairs] if even else None


def _padded(call: Call, pad: Node, zeros: Sequence[int] | None) -> dict[str, list[int]] | None:
    """The padding argument of a map that reads `pad`, with its zeros added; None if it cannot take them."""
    rule = call.rules.find(Linear, call)
    own = None if rule is None or rule.pads is None else call[rule.pads]
    first = next(iter(call.node.arguments.values()))
    axes = len(call.node.shape or ()) - 2
    if zeros is None or not isinstance(own, list) or first != Ref(pad.name) or axes < len(zeros):
        return None
    more = [0] * (axes - len(zeros)) + list(zeros)
    return {str(rule.pads): [a + b for a, b in zip(spread(own, axes), more, strict=True)]}  # type: ignore[union-attr]
