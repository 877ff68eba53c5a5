"""A trained model becomes a graph of ATen operators, its weights beside it. All that is known of torch.fx is here."""

import logging
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
from fewspikes.graph.functions import named as by_name
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, Graph, Node, Ref, Shape, shape_between
from fewspikes.graph.inputs import InputSpec, as_named, check_autocast, check_finite, specs_of


@dataclass(frozen=True)
class Captured:
    """A model as a graph, its weights by the names that constants have, and what it takes.

    `keywords`: the inputs were given by name, so they may be keyword-only.
    """

    graph: Graph
    tensors: dict[str, Tensor]
    inputs: tuple[InputSpec, ...]
    keywords: bool = False


def captured_model(model: nn.Module, example_inputs: Any) -> Captured:
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
    return _translated(exported, inputs, keywords)


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


def _translated(exported: torch.export.ExportedProgram, inputs: tuple[InputSpec, ...], keywords: bool) -> Captured:
    """The exported graph in our own nodes, with its weights as constants."""
    signature = exported.graph_signature
    for spec in signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise FewSpikesError(f"the model changes {spec.target} in its forward; only models without state convert")
    sources = {spec.arg.name: spec for spec in signature.input_specs}
    names = [name for name, spec in sources.items() if spec.kind is InputKind.USER_INPUT]
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}  # one node for each weight, however many names it has in the model
    instead: dict[str, str] = {}

    def ours(value: Any) -> Any:
        return _ours(value, instead)

    nodes: list[Node] = []
    for node in exported.graph.nodes:
        shape = _shape(node.meta.get("val"))
        if node.op == "placeholder" and sources[node.name].kind is InputKind.USER_INPUT:
            nodes.append(Node(node.name, INPUT, {}, "", shape))
        elif node.op == "placeholder":
            target = str(sources[node.name].target)
            tensor = _weight(exported, target)
            kept = first.setdefault(id(tensor), node.name)
            if kept != node.name:
                instead[node.name] = kept
                continue
            name = "weights." + re.sub(r"[^A-Za-z0-9_.]", "_", target)
            tensors[name] = tensor.detach()
            nodes.append(Node(node.name, CONSTANT, {"tensor": name}, target.rpartition(".")[0], shape))
        elif node.op == "output":
            outputs = pytree.tree_unflatten(list(node.args[0]), exported.call_spec.out_spec)
            nodes.append(Node(node.name, OUTPUT, {"value": ours(_plain(outputs))}))
        else:
            arguments = _arguments(_operator(node), ours(node.args), ours(node.kwargs))
            nodes.append(Node(node.name, _operator(node), arguments, _path(node), shape))
    return Captured(Graph(tuple(nodes)), tensors, _in_order(inputs, names, keywords), keywords)


def _operator(node: fx.Node) -> str:
    """The operator's name, as in "aten.relu.default"; Python's own operators by their bare name."""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target)
    return getattr(node.target, "__name__", str(node.target))


def _arguments(operator: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """By the schema's names; by place where torch does not know the operator, which has no rule then."""
    try:
        return by_name(operator, args, kwargs)
    except FewSpikesError:
        return {str(i): value for i, value in enumerate(args)} | dict(kwargs)


def _ours(value: Any, instead: Mapping[str, str]) -> Any:
    """An argument with references to our nodes, in plain lists, tuples and dicts."""
    if isinstance(value, fx.Node):
        return Ref(instead.get(value.name, value.name))
    if isinstance(value, Mapping):
        return {str(key): _ours(item, instead) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_ours(item, instead) for item in value)
    return [_ours(item, instead) for item in value] if isinstance(value, list) else value


def _shape(value: Any) -> Shape | None:
    """The shape of a traced value, its symbolic sizes as multiples of the batch."""
    if not isinstance(value, Tensor):
        return None
    few, more = ([_at(size, images) for size in value.shape] for images in (97, 98))
    return shape_between(few, more, 97, 98)


def _at(size: Any, images: int) -> int:
    """A size for so many images; the batch is the only symbol there is."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, images)))


def _in_order(inputs: tuple[InputSpec, ...], names: list[str], keywords: bool) -> tuple[InputSpec, ...]:
    """The inputs under the names of the model's own arguments, in the graph's order."""
    specs = {spec.name: spec for spec in inputs}
    if keywords and set(specs) == set(names):
        return tuple(specs[name] for name in names)
    return tuple(replace(spec, name=name) for spec, name in zip(inputs, names, strict=True))


def _weight(exported: torch.export.ExportedProgram, target: str) -> Tensor:
    found = exported.state_dict.get(target) if target in exported.state_dict else exported.constants.get(target)
    if not isinstance(found, Tensor):
        raise FewSpikesError(f"the model's constant {target} is a {type(found).__name__}; only tensors can be captured")
    return found


def _plain(outputs: Any) -> Any:
    """Outputs as plain dicts, lists, tuples and nodes, so that they can be saved."""
    if isinstance(outputs, Mapping):
        return {str(key): _plain(value) for key, value in outputs.items()}
    if isinstance(outputs, list | tuple):
        kind = type(outputs) if type(outputs) in (list, tuple) else tuple
        return kind(_plain(value) for value in outputs)
    if outputs is not None and not isinstance(outputs, fx.Node):
        raise FewSpikesError(
            f"the model returns a {type(outputs).__name__}; only tensors in tuples, lists, dicts convert"
        )
    return outputs


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if not path.startswith("_empty")]
    return paths[-1].split("@")[0] if paths else ""
