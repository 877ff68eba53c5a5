"""Operators that change a tensor in place become such that return a new one, in an exported graph.

torch.export does so, too, by tracing the whole model once more, which takes longer than the first trace. Known here: a
tensor that nothing else shows from then on, and slices of one, which are written back into it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor

from fewspikes.graph.functions import named

_aten: Any = torch.ops.aten
_CHANGING = (  # what leaves a tensor of the same shape and dtype; those that return one have the name without "_"
    *(_aten.relu_, _aten.silu_, _aten.mish_, _aten.gelu_, _aten.elu_, _aten.leaky_relu_, _aten.hardtanh_),
    *(_aten.hardswish_, _aten.hardsigmoid_, _aten.threshold_, _aten.sigmoid_, _aten.tanh_, _aten.exp_, _aten.log_),
    *(_aten.sqrt_, _aten.rsqrt_, _aten.reciprocal_, _aten.square_, _aten.neg_, _aten.abs_, _aten.sin_, _aten.cos_),
    *(_aten.erf_, _aten.clamp_, _aten.clamp_min_, _aten.clamp_max_, _aten.add_, _aten.sub_, _aten.mul_, _aten.div_),
    *(_aten.addcmul_, _aten.addcdiv_, _aten.lerp_, _aten.fill_, _aten.copy_, _aten.masked_fill_, _aten.dropout_),
    *(_aten.feature_dropout_, _aten.alpha_dropout_),
)
_BACK: dict[Any, Any] = {  # a view's operator -> what writes the view back into what it shows
    _aten.slice.Tensor: _aten.slice_scatter.default,
    _aten.select.int: _aten.select_scatter.default,
}
_PLAIN: set[Any] = {  # operators that torch.export would write in others, for which we have rows
    *(_aten.reshape.default, _aten.flatten.using_ints, _aten.contiguous.default, _aten.chunk.default),
    *(_aten.batch_norm.default, _aten.dropout.default, _aten.feature_dropout.default, _aten.alpha_dropout.default),
}
_CASTS: set[Any] = {_aten.to.dtype, _aten.to.dtype_layout, _aten.to.device, _aten.to.other}
_WRITTEN: dict[Any, Any] = {  # the same, written in others here
    **dict.fromkeys(_CASTS, _aten._to_copy.default),
    _aten.unflatten.int: _aten.reshape.default,
    _aten.view_as.default: _aten.reshape.default,
    _aten.expand_as.default: _aten.expand.default,
}
_TRAINING = ("train", "training", "use_input_stats")  # arguments that are True in training, where states may change
_SIZES = ("_operator", "math")  # modules of functions that compute sizes, and take a list apart


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
        if node.op == "get_attr" or (node.op == "call_function" and not _is_known(node)) or not _is_plain(node):
            return None
        if not _changes(node):
            _share(_written(made, node), sharing)
        elif not _replaced(made, node, sharing, place):
            return None
    return made


def _changes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_known(node: fx.Node) -> bool:
    """Whether torch.export would leave the operator as it is, or it is one of those above."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__module__", "") in _SIZES or getattr(target, "__name__", "").startswith("sym_")
    if target.namespace != "aten" or target is _aten.sym_numel.default:
        return False
    given = named(str(target), node.args, node.kwargs)
    if any(given.get(name) for name in _TRAINING):
        return False
    if _changes(node):
        return target.overloadpacket in _CHANGING
    if target in _CASTS:
        return given.get("memory_format") is None
    is_composite = torch._C._dispatch_has_kernel_for_dispatch_key(
        target.name(), torch._C.DispatchKey.CompositeImplicitAutograd
    )
    aliases = any(one.alias_info is not None for one in target._schema.arguments)
    return target in _PLAIN or target in _WRITTEN or not (is_composite and (aliases or _is_taken_apart(target)))


def _is_taken_apart(target: Any) -> bool:
    from torch._decomp import _should_decompose_because_unsafe_op

    return bool(_should_decompose_because_unsafe_op(target))


def _values(node: fx.Node) -> Iterator[Tensor]:
    value = node.meta.get("val")
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, Tensor):
            yield one


def _is_plain(node: fx.Node) -> bool:
    """Whether its values lie in memory of their own or another's: no sparse ones, nor such of torch.func."""
    return all(type(value) is FakeTensor and value.layout is torch.strided for value in _values(node))


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
            found[axis] = _call(graph, _aten.sym_size.int, (x, axis), {"val": size})
    return found


def _call(graph: fx.Graph, operator: Any, args: Sequence[Any], meta: dict[str, Any], **kwargs: Any) -> fx.Node:
    made = graph.call_function(operator, tuple(args), kwargs)
    made.meta = meta
    return made


def _share(node: fx.Node, sharing: dict[int, list[fx.Node]]) -> None:
    for storage in _storages(node):
        sharing.setdefault(storage, []).append(node)


def _storages(node: fx.Node) -> Iterator[int]:
    for value in _values(node):
        yield value.untyped_storage()._cdata


def _replaced(graph: fx.Graph, node: fx.Node, sharing: dict[int, list[fx.Node]], place: dict[fx.Node, int]) -> bool:
    """Whether a node that changes its first argument could be replaced; new nodes stand in front of it."""
    chain: list[Any] = [node.args[0]]  # the tensor, what it is a view of, and so on
    while chain[-1].target in _BACK:
        chain.append(chain[-1].args[0])
    now, operator = place[node], _counterpart(node)
    shown = [one for storage in _storages(node) for one in sharing.get(storage, ())]
    if operator is None or chain[-1] not in shown or not _is_injective(chain[-1].meta["val"]):
        return False
    for one in shown:
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


def _is_injective(value: Tensor) -> bool:
    """Whether no two elements lie at the same place, as those of an expanded tensor do."""
    sizes, strides = ([size_at(number, 2) for number in numbers] for numbers in (value.shape, value.stride()))
    reach = 1
    for stride, size in sorted(zip(strides, sizes, strict=True)):
        if size > 1 and stride < reach:
            return False
        reach = max(reach, stride * size)
    return True


def size_at(size: Any, images: int) -> int:
    """A size for so many images; the batch is the only symbol there is."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, images)))


def _counterpart(node: fx.Node) -> Any:
    """The operator that returns the changed tensor as a new one of the same shape and dtype; None if there is none."""
    target: Any = node.target
    operator = getattr(getattr(_aten, target.overloadpacket.__name__.removesuffix("_")), target._overloadname, None)
    if operator is None:
        return None
    types = [[str(one.type) for one in schema.arguments] for schema in (target._schema, operator._schema)]
    dtypes = {value.dtype for one in node.all_input_nodes for value in _values(one)} - {torch.bool}
    same = dtypes == {node.meta["val"].dtype} and node.meta["val"].is_floating_point()
    return operator if same and types[0] == types[1] else None
