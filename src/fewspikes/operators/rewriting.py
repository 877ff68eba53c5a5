"""Rewrite a captured graph in place: fold batch norms, settle max pools, and put a site where a neuron goes."""

import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.graph.capture import Captured, fold_constants, op_name
from fewspikes.graph.inputs import check_finite
from fewspikes.neuron.activation import Activation
from fewspikes.operators.classes import SHAPES, activation_of, classify, describe
from fewspikes.operators.padding import fold_pads

_NO_TRAINING = "aten._native_batch_norm_legit_no_training.default"
_BATCH_NORMS = frozenset((_NO_TRAINING, "aten.native_batch_norm.default", "aten.batch_norm.default"))
_FOLDABLE = frozenset(
    ("aten.conv1d.default", "aten.conv1d.padding", "aten.conv2d.default", "aten.conv2d.padding", "aten.linear.default")
)


@dataclass(frozen=True)
class Site:
    """One layer of neurons: its name in reports, its module in the graph, and what it imitates."""

    name: str
    target: str
    activation: Activation


def rewrite(captured: Captured, max_pool: str) -> tuple[list[Site], list[str]]:
    """Turn the graph into the spiking network's graph, neurons still without parameters.

    Args:
        captured: changed in place; its tensors stay as they are (folding adds new ones).
        max_pool: "digital", or "average" to put an average pool in place of each max pool.

    Returns:
        The sites in the order of the graph, and notes for the report.

    Raises:
        FewSpikesError: an operator without a rule, or nothing to convert.
    """
    notes: list[str] = []
    _fold_batch_norms(captured, notes)
    fold_pads(captured)
    _settle_max_pools(captured, max_pool, notes)
    _fuse_silu(captured)
    fold_constants(captured)
    sites = _place_sites(captured)
    mark(captured.graph)
    check_finite(captured.tensors.values(), "a constant of the network, after batch norms were folded,")
    if not sites:
        raise FewSpikesError(
            "nothing to convert: the network has no activation (relu, silu, gelu, ...) that depends on its input"
        )
    return sites, notes


def mark(graph: fx.Graph) -> None:
    """Set each node's `meta["signal"]`, `["kind"]` and `["reason"]`; raise on an operator without a rule."""
    _mark_signals(graph)
    for node in graph.nodes:
        if node.op in ("call_function", "call_module"):
            node.meta["kind"], node.meta["reason"] = classify(node)


def _mark_signals(graph: fx.Graph) -> None:
    """Set each node's `meta["signal"]`: whether it depends on the values of the inputs."""
    for node in graph.nodes:
        depends = node.op == "placeholder" or any(n.meta["signal"] for n in node.all_input_nodes)
        node.meta["signal"] = depends and op_name(node) not in SHAPES  # these read the shape alone


def _fold_batch_norms(captured: Captured, notes: list[str]) -> None:
    for node in list(captured.graph.nodes):
        if op_name(node) not in _BATCH_NORMS:
            continue
        _check_eval(node)
        scale, shift = _scale_and_shift(captured, node)
        source = node.args[0]
        if _is_foldable(source):
            replaced = _fold_into(captured, source, scale, shift)
        else:
            replaced = _as_scale_and_shift(captured, node, scale, shift)
            notes.append(f"batch norm at {node.meta['path']} stands alone: kept as a scale and a shift per channel")
        for result in _results(node):
            result.replace_all_uses_with(replaced)
    captured.graph.eliminate_dead_code()


def _check_eval(node: fx.Node) -> None:
    training = op_name(node) != _NO_TRAINING and node.args[5]
    if training or node.args[3] is None:
        raise FewSpikesError(
            f"{describe(node)} uses the batch's own statistics; only running statistics can be converted"
        )


def _results(node: fx.Node) -> list[fx.Node]:
    """Where the normalised value is read: the node itself, or its first item."""
    if op_name(node) == "aten.batch_norm.default":
        return [node]
    return [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]


def _scale_and_shift(captured: Captured, node: fx.Node) -> tuple[Tensor, Tensor]:
    """y = scale x + shift per channel, in float64."""
    weight, bias, mean, variance = (captured.value(n) for n in node.args[1:5])
    assert mean is not None
    assert variance is not None
    epsilon = node.args[6 if op_name(node) == _NO_TRAINING else 7]
    scale = (variance.double() + float(epsilon)).rsqrt()  # type: ignore[arg-type]
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    return scale, shift if bias is None else shift + bias.double()


def _is_foldable(node: fx.Node) -> bool:
    """Whether the batch norm's channels are this map's outputs, read by nobody else, and its weights are constant."""
    if op_name(node) not in _FOLDABLE or len(node.users) != 1:
        return False
    if op_name(node) == "aten.linear.default" and _ndim(node) != 2:
        return False  # its outputs are the last axis, the batch norm's channels are axis 1
    return all(n is None or n.op == "get_attr" for n in node.args[1:3])  # type: ignore[union-attr]


def _fold_into(captured: Captured, node: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    """Multiply the scale into the weights of the convolution (or linear map) and the shift into its bias."""
    weight = captured.value(node.args[1])
    bias = captured.value(node.args[2] if len(node.args) > 2 else None)
    assert weight is not None
    folded = (weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))).to(weight.dtype)
    shifted = (shift if bias is None else shift + bias.double() * scale).to(weight.dtype)
    constants = (captured.add_constant(node, folded), captured.add_constant(node, shifted))
    node.args = (node.args[0], *constants, *node.args[3:])
    return node


def _as_scale_and_shift(captured: Captured, node: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    dtype = captured.value(node.args[3]).dtype  # type: ignore[union-attr]
    ndim = _ndim(node.args[0])
    shape = (-1, *[1] * (ndim - 2))
    factor = captured.add_constant(node, scale.to(dtype).view(shape))
    term = captured.add_constant(node, shift.to(dtype).view(shape))
    with captured.graph.inserting_before(node):
        scaled = captured.graph.call_function(torch.ops.aten.mul.Tensor, (node.args[0], factor))
        shifted = captured.graph.call_function(torch.ops.aten.add.Tensor, (scaled, term))
    scaled.meta = shifted.meta = {"path": node.meta["path"], "ndim": ndim}
    return shifted


def _ndim(node: Any) -> int:
    return int(node.meta["ndim"])


def _settle_max_pools(captured: Captured, max_pool: str, notes: list[str]) -> None:
    if max_pool not in ("digital", "average"):
        raise FewSpikesError(f"max_pool must be 'digital' or 'average'; got {max_pool!r}")
    changed = []
    for node in list(captured.graph.nodes):
        node = _without_indices(captured, node)
        if max_pool == "average" and op_name(node) in ("aten.max_pool1d.default", "aten.max_pool2d.default"):
            _to_average(captured, node)
            changed.append(node.meta["path"] or "the top of the model")
    if changed:
        message = (
            f"max_pool='average' put average pools in place of the max pools at {', '.join(changed)}: a changed network"
        )
        warn(f"{message}; it is compared with the ANN changed likewise")
        notes.append(message)


def _without_indices(captured: Captured, node: fx.Node) -> fx.Node:
    """A max pool whose indices nobody reads is a plain max pool."""
    if op_name(node) != "aten.max_pool2d_with_indices.default":
        return node
    if any(user.args[1] != 0 for user in node.users):
        raise FewSpikesError(f"{describe(node)} hands its indices on; max unpooling cannot be converted")
    with captured.graph.inserting_before(node):
        plain = captured.graph.call_function(torch.ops.aten.max_pool2d.default, node.args, node.kwargs)
    plain.meta = {"path": node.meta["path"]}
    for user in list(node.users):
        user.replace_all_uses_with(plain)
    captured.graph.eliminate_dead_code()
    return plain


def _to_average(captured: Captured, node: fx.Node) -> None:
    """The average over the same windows; padding is left out of it, as it is left out of a maximum."""
    x, kernel, stride, padding, dilation, ceil_mode = (tuple(node.args) + (None,) * 6)[:6]
    stride, padding = stride or kernel, padding or [0]
    if any(d != 1 for d in dilation or ()):  # type: ignore[union-attr]
        raise FewSpikesError(f"{describe(node)} is dilated; there is no dilated average pool: use max_pool='digital'")
    pool = torch.ops.aten.avg_pool1d.default if "1d" in op_name(node) else torch.ops.aten.avg_pool2d.default
    node.target, node.args = pool, (x, kernel, stride, padding, bool(ceil_mode), False)


def _fuse_silu(captured: Captured) -> None:
    """x * sigmoid(x), written out, is one SiLU neuron instead of a gate and a digital product."""
    for node in list(captured.graph.nodes):
        if op_name(node) != "aten.mul.Tensor":
            continue
        for x, gate in (node.args, node.args[::-1]):
            if (
                isinstance(gate, fx.Node)
                and op_name(gate) == "aten.sigmoid.default"
                and gate.args[0] is x
                and len(gate.users) == 1
            ):
                node.target, node.args = torch.ops.aten.silu.default, (x,)
                break
    captured.graph.eliminate_dead_code()


def _place_sites(captured: Captured) -> list[Site]:
    _mark_signals(captured.graph)
    found = [(node, activation_of(node)) for node in captured.graph.nodes if node.meta["signal"]]
    neurons = [(node, activation) for node, activation in found if activation is not None]
    times = Counter(_place(node) for node, _ in neurons)
    seen: Counter[str] = Counter()
    sites = []
    for i, (node, activation) in enumerate(neurons):
        place = _place(node)
        seen[place] += 1
        name = place if times[place] == 1 else f"{place}#{seen[place]}"
        with captured.graph.inserting_before(node):
            site = captured.graph.create_node("call_module", f"sites.{i}", (node.args[0],))
        site.meta = {"path": node.meta["path"]}
        node.replace_all_uses_with(site)
        captured.graph.erase_node(node)
        sites.append(Site(name, f"sites.{i}", activation))
    return sites


def _place(node: fx.Node) -> str:
    return node.meta["path"] or op_name(node).split(".")[1]
