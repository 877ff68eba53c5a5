"""The arguments of an ATen call by name, with defaults filled in and sizes computed."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from fewspikes.graph.capture import op_name
from fewspikes.operators.classes import PYTHON, describe
from fewspikes.reach.factors import Unknown

Shapes = Mapping[fx.Node, torch.Size]


def arguments(node: fx.Node, shapes: Shapes) -> dict[str, Any]:
    """What the operator was called with; nodes that compute a size are replaced by the size."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | node.kwargs
    defaults = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return dict(resolve(defaults | given, shapes))


def resolve(value: Any, shapes: Shapes) -> Any:
    """A value or nest of values with sizes computed; tensors stay nodes."""
    return fx.node.map_arg(value, lambda node: _resolve(node, shapes))


def _resolve(node: fx.Node, shapes: Shapes) -> Any:
    if node in shapes:
        return node
    if op_name(node) == "aten.sym_size.int":
        tensor, dim = node.args
        return shapes[tensor][dim]  # type: ignore[index]
    if op_name(node) in PYTHON:
        target: Callable[..., Any] = node.target  # type: ignore[assignment]
        return target(*resolve(node.args, shapes))
    raise Unknown(f"the value of {describe(node)} is not known beforehand")
