"""What reaches what along an axis, where the operator itself tells it best: asked with one position at a time."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

from fewspikes.graph.functions import function, in_order
from fewspikes.graph.graph import Ref
from fewspikes.operators.call import Call
from fewspikes.reach.boxes import Box, contract

_AT_ONCE = 64  # positions that are asked for in one call


def along(call: Call, axes: Iterable[int]) -> list[Box]:
    """The relation of an operator that treats each of some axes by itself, and the others not at all.

    Args:
        call: of one signal, its first argument; weights along an axis do not cancel each other.
        axes: never that of the batch.
    """
    axes, name = list(axes), next(iter(call.node.arguments))
    relation = list(call.boxes(name))
    for axis in axes:
        matrix = _matrix(call, name, axis, axes)
        relation = [contract(box, axis, matrix) for box in relation]
    return relation


def factors(call: Call) -> dict[str, float] | None:
    """By node, the factor that an operator that adds up takes its tensor with; None where it adds anything else.

    Asked of the operator itself, with one term 1 and the others 0.
    """
    given = {key: value for key, value in call.node.arguments.items() if isinstance(value, Ref)}
    names = [ref.name for ref in given.values()]
    if not set(names) <= call.carriers or len(set(names)) < len(names):
        return None
    found = {}
    for ref in given.values():
        terms = {key: torch.tensor(float(other == ref), dtype=torch.float64) for key, other in given.items()}
        args, kwargs = in_order(call.node.operator, {name: call[name] for name in call.node.arguments} | terms)
        found[ref.name] = float(function(call.node.operator)(*args, **kwargs))
    args, kwargs = in_order(
        call.node.operator,
        {name: call[name] for name in call.node.arguments} | {key: torch.zeros(()) for key in given},
    )
    return None if float(function(call.node.operator)(*args, **kwargs)) else found


def _matrix(call: Call, name: str, axis: int, axes: list[int]) -> Bool[Tensor, "inputs outputs"]:
    """Which outputs along an axis each input along it reaches."""
    shape = [size if at in axes else 1 for at, size in enumerate(call.shape_of(name))]
    found = []
    for places in torch.arange(shape[axis]).split(_AT_ONCE):
        one_hot = torch.zeros(len(places), *shape[1:], dtype=torch.float64)
        one_hot.movedim(axis, 1)[torch.arange(len(places)), places] = 1.0
        given = {argument: call[argument] for argument in call.node.arguments} | {name: one_hot}
        args, kwargs = in_order(call.node.operator, given)
        reached = function(call.node.operator)(*args, **kwargs).movedim(axis, 1) != 0
        found.append(reached.reshape(*reached.shape[:2], -1).any(2))
    return torch.cat(found)
