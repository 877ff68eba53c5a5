"""A trained model becomes a flat graph of ATen operators, its weights beside it."""

import logging
import operator
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.inputs import InputSpec, as_named, check_autocast, check_finite, specs_of

# Operators that leave their first operand as it is; `view` and `_unsafe_view` become `reshape`, which also takes
# channels-last inputs.
_IDENTITIES = frozenset(
    (
        "aten.clone.default",
        "aten.contiguous.default",
        "aten.alias.default",
        "aten.detach.default",
        "aten.lift_fresh_copy.default",
        "aten.dropout.default",
        "aten.feature_dropout.default",
        "aten.alpha_dropout.default",
    )
)
_VIEWS = frozenset(("aten.view.default", "aten._unsafe_view.default"))
_CHECKS = frozenset(("aten._assert_tensor_metadata.default", "aten._assert_scalar.default"))


@dataclass
class Captured:
    """A model as a graph; `tensors` holds its weights by the dotted names that `get_attr` nodes use.

    `keywords`: the inputs were given by name, so they may be keyword-only.

    Every node's `meta["path"]` is the path of the module that made it ("" for the model itself).
    """

    graph: fx.Graph
    tensors: dict[str, Tensor]
    inputs: tuple[InputSpec, ...]
    keywords: bool = False
    _constants: int = 0

    def add_constant(self, before: fx.Node, value: Tensor) -> fx.Node:
        """A new constant, as a node in front of `before`."""
        name = f"constants.{self._constants}"
        self._constants += 1
        self.tensors[name] = value.detach()
        with self.graph.inserting_before(before):
            node = self.graph.create_node("get_attr", name)
        node.meta["path"] = before.meta.get("path", "")
        return node

    def value(self, node: Any) -> Tensor | None:
        """The tensor behind a constant node; None stays None."""
        return None if node is None else self.tensors[node.target]


def op_name(node: fx.Node) -> str:
    """The operator's name, as in "aten.relu.default"; Python's own operators by their bare name."""
    if node.op != "call_function":
        return node.op
    module = getattr(node.target, "__module__", "")
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    return node.target.__name__ if callable(node.target) and "operator" in module else str(node.target)


def capture(model: nn.Module, example_inputs: Any) -> Captured:
    """Export `model` to ATen operators with a free batch size; the model itself stays as it is.

    Args:
        model: a trained network in eval mode, float32 or float64.
        example_inputs: a tensor, a tuple of tensors, or a dict of keyword arguments; axis 0 is the batch.

    Raises:
        FewSpikesError: training mode, NaN or inf in weights or inputs, half precision, or torch.export gave up.
    """
    check_autocast()
    model = _inner(model)
    _check_model(model)
    named = as_named(example_inputs)
    check_finite(named.values(), "example_inputs")
    inputs = specs_of(named)
    _check_dtypes(model, inputs)
    keywords = isinstance(example_inputs, Mapping)
    exported = _export(model, {name: _pair(value) for name, value in named.items()}, keywords)
    return _flatten(exported, inputs, keywords)


def _inner(model: nn.Module) -> nn.Module:
    """The network inside of torch.compile's or a data parallel wrapper, which compute the same."""
    if not isinstance(model, nn.Module):
        raise FewSpikesError(f"the model must be a torch.nn.Module; got {type(model).__name__}")
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _inner(model.module)
    compiled = getattr(model, "_orig_mod", None)
    return _inner(compiled) if isinstance(compiled, nn.Module) else model


def _check_model(model: nn.Module) -> None:
    training = next((name or "the model" for name, module in model.named_modules() if module.training), None)
    if training is not None:
        raise FewSpikesError(f"{training} is in training mode; call model.eval() before converting")
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in tensors.items():
        if nn.parameter.is_lazy(tensor):
            raise FewSpikesError(f"weight {name} has no values yet; run the model once, or load its weights, first")
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise FewSpikesError(f"weight {name} is {tensor.dtype}; convert the model with model.float() first")
        if tensor.is_floating_point() and not tensor.is_meta and not tensor.isfinite().all():
            raise FewSpikesError(f"weight {name} holds NaN or inf; a trained network with finite weights is needed")


def _check_dtypes(model: nn.Module, inputs: tuple[InputSpec, ...]) -> None:
    weight = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    for spec in inputs:
        if weight is not None and spec.dtype.is_floating_point and spec.dtype != weight:
            raise FewSpikesError(
                f"input {spec.name} is {spec.dtype}, the model's weights are {weight}; make them equal"
            )


def _pair(value: Tensor) -> Tensor:
    """At least two examples: torch.export takes a batch of one for a constant."""
    return torch.cat([value, value]) if len(value) == 1 else value.clone()  # torch.export merges equal objects


def _export(model: nn.Module, named: dict[str, Tensor], keywords: bool) -> torch.export.ExportedProgram:
    args, kwargs = ((), named) if keywords else (tuple(named.values()), {})
    shapes, batch = torch.export.ShapesCollection(), torch.export.Dim("batch")
    for value in named.values():
        shapes[value] = {0: batch}
    try:
        with torch.no_grad(), _quiet():
            whole = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
            exported: torch.export.ExportedProgram = whole.run_decompositions({})
    except Exception as error:  # torch.export raises nearly every class there is
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise FewSpikesError(
            f"torch.export could not capture {type(model).__name__}: {reason}. "
            "Its forward must run on the example inputs (is their size right?), with any batch size (x.shape[0] tells "
            "it, len(x) freezes it) and no branch on tensor values"
        ) from error
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch.export's own warnings and log lines; what matters comes as an error."""
    handlers = logging.getLogger("torch").handlers
    for handler in handlers:
        handler.addFilter(_nothing)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):  # it prints graphs, too
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _flatten(exported: torch.export.ExportedProgram, inputs: tuple[InputSpec, ...], keywords: bool) -> Captured:
    """The exported graph with weights as `get_attr` nodes, identities dropped and constants computed."""
    signature = exported.graph_signature
    for spec in signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise FewSpikesError(f"the model changes {spec.target} in its forward; only models without state convert")
    sources = {spec.arg.name: spec for spec in signature.input_specs}
    names = [name for name, spec in sources.items() if spec.kind is InputKind.USER_INPUT]
    captured = Captured(fx.Graph(), {}, _in_order(inputs, names, keywords), keywords)
    replaced: dict[fx.Node, Any] = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder" and sources[node.name].kind is InputKind.USER_INPUT:
            replaced[node] = captured.graph.placeholder(node.name)
            replaced[node].meta = {"path": "", "ndim": node.meta["val"].ndim}
        elif node.op == "placeholder":
            replaced[node] = _weight(captured, exported, sources[node.name].target)
        elif node.op == "output":
            outputs = pytree.tree_unflatten(list(node.args[0]), exported.call_spec.out_spec)
            captured.graph.output(fx.node.map_arg(_plain(outputs), lambda n: replaced[n]))
        elif op_name(node) in _IDENTITIES:
            replaced[node] = _identity(node, replaced)
        elif op_name(node) not in _CHECKS:
            replaced[node] = captured.graph.node_copy(node, lambda n: replaced[n])
            replaced[node].meta = {"path": _path(node), "ndim": getattr(node.meta.get("val"), "ndim", None)}
    _tidy(captured)
    return captured


def _in_order(inputs: tuple[InputSpec, ...], names: list[str], keywords: bool) -> tuple[InputSpec, ...]:
    """The inputs under the names of the model's own arguments, in the graph's order."""
    by_name = {spec.name: spec for spec in inputs}
    if keywords and set(by_name) == set(names):
        return tuple(by_name[name] for name in names)
    return tuple(replace(spec, name=name) for spec, name in zip(inputs, names, strict=True))


def _weight(captured: Captured, exported: torch.export.ExportedProgram, target: str | None) -> fx.Node:
    name = "weights." + re.sub(r"[^A-Za-z0-9_.]", "_", str(target))
    tensor = exported.state_dict.get(target) if target in exported.state_dict else exported.constants.get(target)
    if not isinstance(tensor, Tensor):
        raise FewSpikesError(
            f"the model's constant {target} is a {type(tensor).__name__}; only tensors can be captured"
        )
    captured.tensors[name] = tensor.detach()
    node = captured.graph.create_node("get_attr", name)
    node.meta["path"] = str(target).rpartition(".")[0]
    return node


def _plain(outputs: Any) -> Any:
    """Outputs as plain dicts, lists, tuples and nodes, so that they can be saved."""
    if isinstance(outputs, Mapping):
        return {str(key): _plain(value) for key, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        return (
            type(outputs)(_plain(value) for value in outputs)
            if type(outputs) in (list, tuple)
            else tuple(_plain(value) for value in outputs)
        )
    if outputs is not None and not isinstance(outputs, fx.Node):
        raise FewSpikesError(
            f"the model returns a {type(outputs).__name__}; only tensors in tuples, lists, dicts convert"
        )
    return outputs


def _identity(node: fx.Node, replaced: dict[fx.Node, Any]) -> Any:
    if "dropout" in op_name(node) and node.args[2:] and node.args[2]:
        raise FewSpikesError(f"dropout at {_path(node)!r} is active; call model.eval() before converting")
    return replaced[node.args[0]]  # type: ignore[index]


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if not path.startswith("_empty")]
    return paths[-1].split("@")[0] if paths else ""


def _tidy(captured: Captured) -> None:
    _unshare(captured)
    for node in list(captured.graph.nodes):
        if op_name(node) in _VIEWS:
            node.target = torch.ops.aten.reshape.default
        elif op_name(node) == "aten.slice.Tensor" and _is_whole_slice(node):
            node.replace_all_uses_with(node.args[0])
    captured.graph.eliminate_dead_code()
    fold_constants(captured)


def _unshare(captured: Captured) -> None:
    """One node for each weight, however many names it has in the model."""
    first: dict[int, fx.Node] = {}
    for node in captured.graph.nodes:
        if node.op == "get_attr":
            kept = first.setdefault(id(captured.tensors[node.target]), node)
            if kept is not node:
                node.replace_all_uses_with(kept)


def _is_whole_slice(node: fx.Node) -> bool:
    dim, start, stop, step = (tuple(node.args[1:]) + (0, None, None, 1)[len(node.args) - 1 :])[:4]
    return bool(start in (0, None) and stop in (None, 2**63 - 1) and step == 1 and isinstance(dim, int))


def fold_constants(captured: Captured) -> None:
    """Compute once what does not depend on the inputs (weight standardisation, position tables, masks)."""
    constant: dict[fx.Node, Any] = {}
    for node in list(captured.graph.nodes):
        if node.op == "get_attr":
            constant[node] = captured.tensors[node.target]
        elif node.op == "call_function" and _is_foldable(node) and all(n in constant for n in node.all_input_nodes):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: constant[n])
            with torch.no_grad():
                constant[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    for node in list(captured.graph.nodes):
        computed = constant.get(node) if node.op == "call_function" else None
        if isinstance(computed, Tensor) and any(user not in constant for user in node.users):
            node.replace_all_uses_with(captured.add_constant(node, computed))
    captured.graph.eliminate_dead_code()
    used = {node.target for node in captured.graph.nodes if node.op == "get_attr"}
    for name in set(captured.tensors) - used:
        del captured.tensors[name]


def _is_foldable(node: fx.Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return node.target is operator.getitem or (
        isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded not in tags
    )
