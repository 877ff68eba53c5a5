"""Elementwise functions with another constant at each place: places of the same constants are a layer of their own.

    where(x > c, x, 0) with c = (1, 2, 1)    ->    positions 0 and 2 with the number 1, position 1 with the number 2

So that each layer computes one function of one signal. Few different constants only: each is a layer with a code.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from fewspikes.graph.builder import Builder, rebuilt
from fewspikes.graph.graph import CONSTANT, Batch, Graph, Node, Ref, replaced
from fewspikes.operators.call import Call
from fewspikes.operators.constants import GROUPS, number
from fewspikes.operators.expressions import Elementwise
from fewspikes.operators.indexing import pick, reshaped
from fewspikes.operators.rule import Linear, Rules


class _Part(NamedTuple):
    """An elementwise part, and which group each place belongs to."""

    source: str
    cone: Sequence[Node]
    constants: Mapping[str, Tensor]  # one value for each group
    axis: int | None  # that the groups lie along; None: each element of an image has its own
    group: Int64[Tensor, " places"]


def with_constants_grouped(graph: Graph, tensors: dict[str, Tensor], rules: Rules, carriers: frozenset[str]) -> Graph:
    """The graph with each elementwise part that has few different constants split by them.

    A part that is neurons and weighted sums as it stands, or that has more than 32 groups of places, stays as it is.
    """
    several = {node.name for node in graph.of(CONSTANT) if number(node.name, graph, tensors, rules) is None}
    if not any(_is_beside(node, several, carriers) for node in graph):
        return graph
    found = {part.cone[-1].name: part for part in _parts(graph, tensors, rules, carriers, several)}

    def change(node: Node, made: Builder) -> Ref | None:
        return _split(found[node.name], graph, made) if node.name in found else None

    return rebuilt(graph, tensors, change) if found else graph


def _is_beside(node: Node, several: set[str], carriers: frozenset[str]) -> bool:
    return not (several.isdisjoint(node.reads) or carriers.isdisjoint(node.reads))


def _parts(
    graph: Graph, tensors: Mapping[str, Tensor], rules: Rules, carriers: frozenset[str], several: set[str]
) -> Iterator[_Part]:
    """The parts to split."""
    plain = Elementwise(graph, tensors, rules, carriers)

    def lost(node: Node) -> bool:
        """Whether it is neither neurons nor a weighted sum as it stands."""
        own = plain.root[node.name] == node.name
        return own and rules.find(Linear, Call(node, graph, rules, carriers, tensors=tensors)) is None

    for source, cone in Elementwise(graph, tensors, rules, carriers, by_place=True).parts():
        names = dict.fromkeys(name for node in cone for name in node.reads if name in several)
        constants = {name: tensors[graph[name].arguments["tensor"]] for name in names}
        weighs = any(value.is_floating_point() for value in constants.values())  # masks and indices are structure
        if weighs and any(lost(node) for node in cone):
            part = _grouped(source, cone, constants, graph)
            if part is not None:
                yield part


def _grouped(source: str, cone: Sequence[Node], constants: Mapping[str, Tensor], graph: Graph) -> _Part | None:
    """The part with its groups; None where they are too many, or a constant differs from image to image."""
    shape = graph[source].shape or ()
    image = [size for size in shape[1:] if isinstance(size, int)]
    if not isinstance(shape[0], Batch) or len(image) < len(shape) - 1 or any(node.shape != shape for node in cone):
        return None
    if any(value.ndim == len(shape) and len(value) > 1 for value in constants.values()):
        return None
    full = torch.stack([value.double().expand(1, *image)[0] for value in constants.values()])
    varied = [a for a in range(len(image)) if bool((full != full.narrow(a + 1, 0, 1)).any())]
    if not varied:
        return None
    axis = varied[0] if len(varied) == 1 else None
    rows = full.flatten(1) if axis is None else full.movedim(axis + 1, 1).reshape(len(full), image[axis], -1)[:, :, 0]
    kinds, group = torch.unique(rows, dim=1, return_inverse=True)
    if kinds.shape[1] > GROUPS:
        return None
    values = {name: kinds[i].to(value.dtype) for i, (name, value) in enumerate(constants.items())}
    return _Part(source, cone, values, None if axis is None else axis + 1, group)


def _split(part: _Part, graph: Graph, g: Builder) -> Ref:
    """The part with a layer for each group, its places in their old order."""
    x, shape, along = g.now(Ref(part.source)), part.cone[-1].shape or (), 1 if part.axis is None else part.axis
    if part.axis is None:
        x = reshaped(g, x, (shape[0], len(part.group)))
    places = [torch.nonzero(part.group == kind).flatten() for kind in range(int(part.group.max()) + 1)]
    pieces = [
        _copied(part, {name: value[kind] for name, value in part.constants.items()}, pick(g, x, along, chosen), g)
        for kind, chosen in enumerate(places)
    ]
    return reshaped(g, pick(g, g.put("cat", pieces, along), along, torch.cat(places).argsort()), shape)


def _copied(part: _Part, values: Mapping[str, Tensor], source: Ref, g: Builder) -> Ref:
    """The part's function of `source`, with numbers in place of constants."""
    names = {part.source: source} | {name: g.constant(value) for name, value in values.items()}
    for node in part.cone:
        arguments = replaced(node.arguments, lambda ref: names.get(ref.name, g.now(ref)))
        names[node.name] = g.append(node.operator, arguments, g.shape(source))
    return names[part.cone[-1].name]
