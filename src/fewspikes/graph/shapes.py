"""Each node's shape and dtype in a graph, without running it.

torch's meta device knows every operator, but its rules in Python load a symbolic algebra and a compiler: 80 MiB and a
second for a file that is only to be run. So the caller may know the shapes of the commonest operators itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewspikes.graph.functions import parameters
from fewspikes.graph.graph import NEXT, SITE, Graph, Shape, shape_between
from fewspikes.graph.inputs import InputSpec
from fewspikes.graph.interpreter import Step, execute, lowered

_IMAGES, _OTHERS = 97, 98  # unlikely to be the size of any axis, so that the batch can be told from it

Known = Callable[[str, Mapping[str, Any]], Sequence[int] | None]


def with_shapes(
    graph: Graph, inputs: Sequence[InputSpec], tensors: Mapping[str, Tensor], known: Known | None = None
) -> Graph:
    """The graph with each node's shape and dtype.

    Args:
        graph: of any shapes.
        inputs: what it takes.
        tensors: its constants.
        known: what shape an operator (by name) gives for arguments by name; None leaves it to torch.
    """
    few, more = (_run(graph, inputs, tensors, images, known) for images in (_IMAGES, _OTHERS))
    return Graph(
        tuple(
            replace(node, shape=_between(few[node.name], more[node.name]), dtype=few[node.name].dtype)
            if node.name in few and node.operator != NEXT
            else replace(node, shape=None, dtype=None)
            for node in graph
        )
    )


def _between(few: Tensor, more: Tensor) -> Shape:
    return shape_between(few.shape, more.shape, _IMAGES, _OTHERS)


def _run(
    graph: Graph, inputs: Sequence[InputSpec], tensors: Mapping[str, Tensor], images: int, known: Known | None
) -> dict[str, Tensor]:
    program = lowered(graph)
    steps = [step.kept() for step in program.steps]
    given = [torch.empty(images, *spec.shape, dtype=spec.dtype, device="meta") for spec in inputs]
    values = program.values(given, lambda name: tensors[name].to("meta"))
    layers = {node.name: lambda x: x for node in graph.of(SITE)}  # a neuron keeps its input's shape
    call = None if known is None else partial(_call, {node.name: node.operator for node in graph}, known)
    with torch.no_grad():
        execute(steps, values, layers, call)
    return {name: values[at] for name, at in program.places.items() if isinstance(values[at], Tensor)}


def _call(operators: Mapping[str, str], known: Known, step: Step, args: list[Any], kwargs: dict[str, Any]) -> Any:
    assert step.function is not None
    operator = operators[step.node]
    if args and isinstance(args[0], Tensor):
        given = dict(zip((p.name for p in parameters(operator)), args, strict=False)) | kwargs
        found = known(operator, given)
        if found is not None:
            return torch.empty(found, dtype=args[0].dtype, device="meta")
    return step.function(*args, **kwargs)
