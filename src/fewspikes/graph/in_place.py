"""Operators that change a tensor in place become such that return a new one, in an exported graph.

torch.export does so, too, by tracing the whole model once more, which takes longer than the first trace. Known here: a
tensor that nothing else shows from then on, and slices of one, which are written back into it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

_BACK: dict[Any, Any] = {  # a view's operator -> what writes the view back into what it shows
    torch.ops.aten.slice.Tensor: torch.ops.aten.slice_scatter.default,
    torch.ops.aten.select.int: torch.ops.aten.select_scatter.default,
}
_PLAIN: set[Any] = {  # operators that torch.export would write in others, for which we have rows
    torch.ops.aten.reshape.default,
    torch.ops.aten.flatten.using_ints,
    torch.ops.aten.contiguous.default,
    torch.ops.aten.chunk.default,
}
_CASTS: set[Any] = {getattr(torch.ops.aten.to, name) for name in ("dtype", "dtype_layout", "device", "other")}
_WRITTEN: dict[Any, Any] = {  # the same, written in others here
    **dict.fromkeys(_CASTS, torch.ops.aten._to_copy.default),
    torch.ops.aten.unflatten.int: torch.ops.aten.reshape.default,
    torch.ops.aten.view_as.default: torch.ops.aten.reshape.default,
    torch.ops.aten.expand_as.default: torch.ops.aten.expand.default,
}
_TRAINED: dict[Any, str] = {  # the same, by the name of the argument that is True in training
    torch.ops.aten.dropout.default: "train",
    torch.ops.aten.feature_dropout.default: "train",
    torch.ops.aten.alpha_dropout.default: "train",
    torch.ops.aten.batch_norm.default: "training",
}


def without_changes(graph: fx.Graph) -> fx.Graph | None:
    """The same without operators that change a tensor in place; None where one of them, or another, is not known here.

    Args:
        graph: as torch.export made it, before any decomposition; it stays as it is.
    """
    made, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    made.output(made.graph_copy(graph, copies))
    for node, copy in copies.items():
        copy.name = node.name
    made.eliminate_dead_code()
    place = {node: number for number, node in enumerate(made.nodes)}
    sharing: dict[int, list[fx.Node]] = {}  # by storage, the nodes whose values lie there
    for node in list(made.nodes):
        if node.op == "get_attr" or (node.op == "call_function" and not _is_known(node)):
            return None
        if not _changes(node):
            _share(_written(made, node), sharing)
        elif not _replaced(made, node, sharing, place):
            return None
    return made


def _changes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_known(node: fx.Node) -> bool:
    """Whether torch.export would leave the operator as it is, or we have a row for it."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return not isinstance(target, torch._ops.HigherOrderOperator)
    if target.namespace != "aten" or target is torch.ops.aten.sym_numel.default:
        return False
    if _changes(node) or target in _PLAIN or target in _WRITTEN:
        return True
    if target in _TRAINED:
        return not _argument(node, _TRAINED[target])
    is_composite = torch._C._dispatch_has_kernel_for_dispatch_key(
        target.name(), torch._C.DispatchKey.CompositeImplicitAutograd
    )
    aliases = any(one.alias_info is not None for one in target._schema.arguments)
    return not (is_composite and (aliases or _is_taken_apart(target)))


def _is_taken_apart(target: Any) -> bool:
    from torch._decomp import _should_decompose_because_unsafe_op

    return bool(_should_decompose_because_unsafe_op(target))


def _argument(node: fx.Node, name: str) -> Any:
    schema: Any = node.target
    given = dict(zip((one.name for one in schema._schema.arguments), node.args, strict=False)) | node.kwargs
    return given[name]


def _written(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The node, or what stands in its place."""
    if node.target not in _WRITTEN:
        return node
    with graph.inserting_before(node):
        made = _cast(graph, node) if node.target in _CASTS else _shaped(graph, node)
    node.replace_all_uses_with(made)
    graph.erase_node(node)
    return made


def _cast(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What is cast, or left where it is."""
    x: Any = node.args[0]
    if list(_storages(x)) == list(_storages(node)):
        return x  # type: ignore[no-any-return]
    return _call(graph, _WRITTEN[node.target], [x], dict(node.meta), dtype=node.meta["val"].dtype)


def _shaped(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What has another tensor's sizes, or others on one of its axes."""
    x, other, *sizes = list[Any](node.args)
    new = _sizes(graph, x if sizes else other)
    if sizes:
        axis = other % len(new)
        new[axis : axis + 1] = sizes[0]
    return _call(graph, _WRITTEN[node.target], (x, new), dict(node.meta))


def _sizes(graph: fx.Graph, x: Any) -> list[Any]:
    """Of a tensor: numbers, and nodes for what depends on the batch."""
    found: list[Any] = list(x.meta["val"].shape)
    for axis, size in enumerate(found):
        if not isinstance(size, int):
            found[axis] = _call(graph, torch.ops.aten.sym_size.int, (x, axis), {"val": size})
    return found


def _call(graph: fx.Graph, operator: Any, args: Sequence[Any], meta: dict[str, Any], **kwargs: Any) -> fx.Node:
    made = graph.call_function(operator, tuple(args), kwargs)
    made.meta = meta
    return made


def _share(node: fx.Node, sharing: dict[int, list[fx.Node]]) -> None:
    for storage in _storages(node):
        sharing.setdefault(storage, []).append(node)


def _storages(node: fx.Node) -> Iterator[int]:
    value = node.meta.get("val")
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, Tensor):
            yield one.untyped_storage()._cdata


def _replaced(graph: fx.Graph, node: fx.Node, sharing: dict[int, list[fx.Node]], place: dict[fx.Node, int]) -> bool:
    """Whether a node that changes its first argument could be replaced; new nodes stand in front of it."""
    operator = _counterpart(node)
    if operator is None:
        return False
    chain: list[Any] = [node.args[0]]  # the tensor, what it is a view of, and so on
    while chain[-1].target in _BACK:
        chain.append(chain[-1].args[0])
    now = place[node]
    for one in (one for storage in _storages(node) for one in sharing[storage]):
        if one.op == "placeholder" or (one not in chain and any(place.get(user, now) > now for user in one.users)):
            return False
    with graph.inserting_before(node):
        new = _call(graph, operator, node.args, dict(node.meta), **node.kwargs)
        instead = [new]
        for view in chain[:-1]:
            args, meta = (view.args[0], instead[-1], *view.args[1:]), node.meta | {"val": view.args[0].meta["val"]}
            instead.append(_call(graph, _BACK[view.target], args, meta, **view.kwargs))
    own = {*instead, node}
    for old, made in zip(chain, instead, strict=True):
        old.replace_all_uses_with(made, lambda user: user not in own and place.get(user, -1) > now)
        place[made] = now
        _share(made, sharing)
    node.replace_all_uses_with(new)
    graph.erase_node(node)
    return True


def _counterpart(node: fx.Node) -> Any:
    """The operator that returns the changed tensor as a new one of the same shape and dtype; None if there is none."""
    target: Any = node.target
    written = [one.alias_info is not None and one.alias_info.is_write for one in target._schema.arguments]
    packet = getattr(torch.ops.aten, target._schema.name.partition("::")[2].removesuffix("_"), None)
    operator = getattr(packet, target._overloadname, None)
    if not target._schema.name.endswith("_") or written != [True, *[False] * (len(written) - 1)] or operator is None:
        return None
    names = [[one.name for one in op._schema.arguments[1:]] for op in (target, operator)]
    trains = operator in _TRAINED and _argument(node, _TRAINED[operator])
    if names[0] != names[1] or operator._schema.is_mutable or trains:
        return None
    values: list[Any] = [one.meta.get("val") for one in node.all_input_nodes]
    dtypes = {one.dtype for one in values if isinstance(one, Tensor)} - {torch.bool}
    return operator if dtypes == {values[0].dtype} and values[0].is_floating_point() else None
