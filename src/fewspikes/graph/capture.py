"""A trained model becomes a graph of ATen operators, its weights beside it. torch.fx is known here and in in_place."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind, OutputSpec
from torch.utils import _pytree as pytree

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.functions import named as by_name
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, Graph, Node, Ref, Shape, replaced, shape_between
from fewspikes.graph.in_place import size_at, without_changes
from fewspikes.graph.inputs import InputSpec, as_named, check_autocast, check_elements, check_finite, specs_of
from fewspikes.graph.model import check_model, check_together, in_order, inner, misplaced
from fewspikes.graph.nested import alike, held
from fewspikes.graph.reasons import is_interruption, reason_of
from fewspikes.graph.watching import Watch, check_stateless

Exported = tuple[torch.export.ExportedProgram, fx.Graph, Any]  # and what holds the tensors that it returns

_NO_FACTORS = ("cond", "ind", "mask", "repeats", "offsets")  # in names of arguments that are no floats: indices


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
    model, keywords = inner(model), isinstance(example_inputs, Mapping)
    check_model(model)
    named = in_order(model, as_named(example_inputs), keywords)
    check_finite(named.values(), "example_inputs")
    check_elements(named)
    behind = misplaced(model, named) if keywords else ()
    inputs = tuple(replace(spec, by_name=spec.name in behind) for spec in specs_of(named))
    check_together(model, named, inputs)
    exported, watch = _export(model, named, keywords)
    check_stateless(model, named, keywords, watch.assigned)
    device = next(iter(named.values())).device
    return _translated(*exported, inputs, keywords, device)


def _pair(value: Tensor) -> Tensor:
    """At least two examples: torch.export takes a batch of one for a constant."""
    return torch.cat([value, value]) if len(value) == 1 else value.clone()  # torch.export merges equal objects


def _export(model: nn.Module, named: dict[str, Tensor], keywords: bool) -> tuple[Exported, Watch]:
    watch = Watch(model)
    try:
        return _exported(model, {name: _pair(value) for name, value in named.items()}, keywords, watch), watch
    except FewSpikesError:
        raise
    except (Exception, SystemExit) as error:  # torch.export raises nearly every class there is
        if is_interruption(error):
            raise KeyboardInterrupt from error
        batched = {name: torch.stack([value, value]) for name, value in named.items()}
        reason = reason_of(error, model, named, lambda: _runs(model, batched, keywords))
        where = f" (it stopped at {watch.path})" if watch.path else ""
        raise FewSpikesError(f"torch.export could not capture {type(model).__name__}: {reason}{where}") from error


def _runs(model: nn.Module, named: dict[str, Tensor], keywords: bool) -> bool:
    try:
        _exported(model, named, keywords, Watch(model))
    except Exception:
        return False
    return True


def _exported(model: nn.Module, named: dict[str, Tensor], keywords: bool, watch: Watch) -> Exported:
    """The model, its graph, which returns its tensors in a row, and its output with a `Ref` to its place for each."""
    args, kwargs = ((), named) if keywords else (tuple(named.values()), {})
    shapes, batch = torch.export.ShapesCollection(), torch.export.Dim("batch")
    for value in named.values():
        shapes[value] = {0: batch}
    with torch.no_grad(), _quiet(), _tensors_alone(model) as outputs:
        with watch.watching():
            whole = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
        graph = without_changes(whole.graph)
        if graph is None:
            whole = whole.run_decompositions({})
        return whole, graph or whole.graph, outputs[-1]


@contextmanager
def _tensors_alone(model: nn.Module) -> Iterator[list[Any]]:
    """Inside the block the model returns its tensors in a row, and what held them is added to the list.

    So torch need not know the classes that its output is made of.
    """
    outputs: list[Any] = []

    def in_a_row(module: nn.Module, args: Any, output: Any) -> list[Tensor]:
        tensors: list[Tensor] = []

        def place(value: Any, where: str) -> Ref | None:
            if value is None:
                return None
            if not isinstance(value, Tensor):
                raise FewSpikesError(
                    f"the model returns a {type(value).__name__}{f' at {where}' if where else ''}; only tensors, and "
                    "tuples, lists, dicts, named tuples and dataclasses of these, convert: leave it out"
                )
            tensors.append(value)
            return Ref(str(len(tensors) - 1))

        outputs.append(held(output, place))
        if not tensors:
            raise FewSpikesError("the model returns no tensor; its forward must return at least one")
        return tensors

    hook = model.register_forward_hook(in_a_row)
    try:
        yield outputs
    finally:
        hook.remove()


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


def _translated(
    exported: torch.export.ExportedProgram,
    graph: fx.Graph,
    returned: Any,
    inputs: tuple[InputSpec, ...],
    keywords: bool,
    device: torch.device,
) -> Captured:
    """The exported graph in our own nodes, with its weights as constants; `returned` as from `_exported`."""
    signature = exported.graph_signature
    free = (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION)  # an input is the caller's copy
    changed = [str(spec.target) for spec in signature.output_specs if spec.kind not in free]
    if changed:
        raise FewSpikesError(
            f"the model changes {', '.join(changed)} in its forward; only models without state convert: give the state "
            "to forward as an input and return it"
        )
    sources = {spec.arg.name: spec for spec in signature.input_specs}
    names = [name for name, spec in sources.items() if spec.kind is InputKind.USER_INPUT]
    _check_sizes(graph, names)
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}  # one node for each weight, however many names it has in the model
    instead: dict[str, str] = {}

    def ours(value: Any) -> Any:
        return _ours(value, instead)

    nodes: list[Node] = []
    for node in graph.nodes:
        value = node.meta.get("val")
        shape, dtype = _shape(value), value.dtype if isinstance(value, Tensor) else None
        if node.op == "placeholder" and sources[node.name].kind is InputKind.USER_INPUT:
            nodes.append(Node(node.name, INPUT, {}, "", shape, dtype=dtype))
        elif node.op == "placeholder":
            target = str(sources[node.name].target)
            tensor = _weight(exported, target, device)
            kept = first.setdefault(id(tensor), node.name)
            if kept != node.name:
                instead[node.name] = kept
                continue
            name = "weights." + re.sub(r"[^A-Za-z0-9_.]", "_", target)
            tensors[name] = tensor.detach()
            nodes.append(Node(node.name, CONSTANT, {"tensor": name}, target.rpartition(".")[0], shape, dtype=dtype))
        elif node.op == "output":
            specs = signature.output_specs
            row = [ours(value) for value, spec in zip(node.args[0], specs, strict=True) if _asked(spec)]
            nodes.append(Node(node.name, OUTPUT, {"value": replaced(returned, _at_place(row))}))
        else:
            _check_dtypes(node)
            arguments = _arguments(_operator(node), ours(node.args), ours(node.kwargs))
            nodes.append(Node(node.name, _operator(node), arguments, _path(node), shape, dtype=dtype))
    return Captured(Graph(tuple(nodes)), tensors, _named(inputs, names, keywords), keywords)


def _check_dtypes(node: fx.Node) -> None:
    """A product of tensors needs one dtype when it runs, though torch.export takes any."""
    if not isinstance(node.target, torch._ops.OpOverload) or torch.Tag.pointwise in node.target.tags:
        return
    given = _arguments(_operator(node), node.args, node.kwargs)
    values = {name: value.meta.get("val") for name, value in given.items() if isinstance(value, fx.Node)}
    dtypes = {
        str(value.dtype): value.is_floating_point()
        for name, value in values.items()
        if isinstance(value, Tensor) and not any(word in name for word in _NO_FACTORS)
    }
    if len(set(dtypes.values())) > 1 and not _runs_on_zeros(node):
        raise FewSpikesError(
            f"operator {_operator(node)} at {_path(node) or 'the top of the model'} takes {' and '.join(dtypes)}, "
            "which torch does not multiply; give an example in the weights' dtype, as by x.float()"
        )


def _check_sizes(graph: fx.Graph, inputs: list[str]) -> None:
    """Sizes and numbers may depend on the batch's size and on constants, never on the values of what goes in."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols  # loads sympy, as torch.export has by now

    unknown, depending, first = set[fx.Node](), set[fx.Node](), list[str]()
    for node in graph.nodes:
        if node.name in inputs or not depending.isdisjoint(node.all_input_nodes):
            depending.add(node)
        values = pytree.tree_leaves(node.meta.get("val"))
        sized = (value for value in values if isinstance(value, Tensor | torch.SymInt | torch.SymFloat))
        if any(free_unbacked_symbols(value) for value in sized):
            unknown.add(node)
            deciding = node.all_input_nodes[1:] or node.all_input_nodes  # what picks, or all that there is
            if unknown.isdisjoint(node.all_input_nodes) and not depending.isdisjoint(deciding):
                first.append(f"operator {_operator(node)} at {_path(node) or 'the top of the model'}")
    if first:
        raise FewSpikesError(
            f"shapes or numbers depend on the values of a tensor: {', '.join(dict.fromkeys(first))}; a spiking network "
            "has one shape for all images: use masks and torch.where in place of picking, or compute it outside"
        )


def _runs_on_zeros(node: fx.Node) -> bool:
    """Whether the operator takes tensors of these dtypes and sizes when it runs."""

    def zeros(value: Any) -> Any:
        found = value.meta["val"] if isinstance(value, fx.Node) else value
        if not isinstance(found, Tensor):
            return found if isinstance(found, int | float | bool) or found is value else size_at(found, 1)
        return torch.zeros([size_at(size, 1) for size in found.shape], dtype=found.dtype)

    try:
        node.target(*fx.map_arg(node.args, zeros), **fx.map_arg(node.kwargs, zeros))  # type: ignore[operator]
    except Exception:
        return False
    return True


def _at_place(row: list[Ref]) -> Callable[[Ref], Ref]:
    return lambda place: row[int(place.name)]


def _asked(spec: OutputSpec) -> bool:
    """Whether it is what the model returns, rather than an input that it changed in place."""
    return spec.kind is OutputKind.USER_OUTPUT


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
        return {key: _ours(item, instead) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [_ours(item, instead) for item in value]
        if hasattr(value, "_fields"):
            return alike(value, items)
        return items if isinstance(value, list) else tuple(items)
    return value


def _shape(value: Any) -> Shape | None:
    """The shape of a traced value, its symbolic sizes as multiples of the batch."""
    if not isinstance(value, Tensor):
        return None
    few, more = ([size_at(size, images) for size in value.shape] for images in (97, 98))
    return shape_between(few, more, 97, 98)


def _named(inputs: tuple[InputSpec, ...], names: list[str], keywords: bool) -> tuple[InputSpec, ...]:
    """The inputs by the names of the model's own arguments."""
    if keywords:
        return inputs
    return tuple(replace(spec, name=name) for spec, name in zip(inputs, names, strict=True))


def _weight(exported: torch.export.ExportedProgram, target: str, device: torch.device) -> Tensor:
    found = exported.state_dict.get(target) if target in exported.state_dict else exported.constants.get(target)
    if not isinstance(found, Tensor):
        raise FewSpikesError(f"the model's constant {target} is a {type(found).__name__}; only tensors can be captured")
    # torch.tensor(2.0) in a forward is on the CPU wherever the model is.
    return found if device.type == "meta" else found.to(device)


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if not path.startswith("_empty")]
    return paths[-1].split("@")[0] if paths else ""
