"""A graph made anew from another: nodes copied, calls put in their place, constants added."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewspikes.graph.functions import function, is_aten, is_pure, named
from fewspikes.graph.graph import (
    CONSTANT,
    INPUT,
    NEXT,
    OUTPUT,
    SITE,
    Graph,
    Node,
    Ref,
    Shape,
    replaced,
    shape_between,
    sizes,
)
from fewspikes.graph.interpreter import execute, lowered

_FEW, _MORE = 97, 98  # images for which shapes are worked out: unlikely to be the size of any axis


class Builder:
    """Collects the nodes of a new graph.

    Args:
        graph: the old one; its names are not given again.
        tensors: the constants by name; new ones are added here.

    Attributes:
        path: of the module that new nodes belong to.
        part: the operator whose circuit new nodes are part of.
        loop: that new nodes are part of.
        notes: lines for the report, by whoever changes something worth one.
    """

    def __init__(self, graph: Graph, tensors: dict[str, Tensor]) -> None:
        self.old, self.tensors = graph, tensors
        self.path, self.part, self.loop, self.nodes, self.notes = "", "", "", list[Node](), list[str]()
        self._instead: dict[str, Any] = {}  # old name -> what stands for it now: a Ref, or one for each of its outputs
        self._names: Counter[str] = Counter()
        self._taken = {node.name for node in graph}
        self._made: dict[str, Node] = {}

    def copy(self, node: Node) -> Ref:
        """The node as it is, reading what stands for its arguments now; what a state will be stays with the state."""
        arguments = self.now(node.arguments)
        if node.operator == NEXT:
            arguments["state"] = node.arguments["state"]
        return self._add(replace(node, arguments=arguments))

    def now(self, argument: Any) -> Any:
        """An argument of the old graph in the new one."""
        return replaced(argument, lambda ref: self._instead.get(ref.name, ref))

    def value(self, ref: Any) -> Tensor | None:
        """The tensor behind a constant of the old graph; None for anything else."""
        node = self.old[ref.name] if isinstance(ref, Ref) else None
        return self.tensors[node.arguments["tensor"]] if node is not None and node.operator == CONSTANT else None

    def stands_for(self, node: Node, instead: Any) -> None:
        """Whoever reads `node` from now on gets `instead`: a Ref, or for a list of results one Ref for each."""
        self._instead[node.name] = instead

    def piece(self, node: Node) -> Ref | None:
        """What stands for an item of a replaced list; None where the list still is one."""
        whole = self._instead.get(node.arguments["self"].name)
        return whole[node.arguments["index"]] if isinstance(whole, tuple) else None

    def call(self, operator: str, *args: Any, like: Shape | None = None, **kwargs: Any) -> Ref:
        """A new node for a call of an operator; `like`: the shape of its result.

        Args:
            operator: of ATen as in "mul.Tensor", of another library as in "mylib::roll"; ".default" may be left out.
            args, kwargs: as the operator takes them, results of other nodes as `Ref`s.
            like: an image's shape with the batch's in front, as a node has it; without, it is worked out later.
        """
        library, _, own = operator.partition("::")
        name = f"{library}.{own}" if own else operator if operator.startswith("aten.") else f"aten.{operator}"
        name = name if name.count(".") > 1 else f"{name}.default"
        return self.append(name, named(name, args, kwargs), like)

    def put(self, operator: str, *args: Any, **kwargs: Any) -> Ref:
        """The same of tensors of known shapes and plain arguments; torch tells the shape of the result."""
        name = self.call(operator, *args, **kwargs).name
        node = self.nodes.pop()
        few, more = (self._size(node.operator, args, kwargs, images) for images in (_FEW, _MORE))
        return self._add(replace(self._made[name], shape=shape_between(few, more, _FEW, _MORE)))

    def node(self, ref: Ref) -> Node:
        """A node of the new graph."""
        return self._made[ref.name]

    def shape(self, ref: Ref) -> Shape:
        """The shape of a tensor of the new graph."""
        return self.node(ref).shape or ()

    def _size(self, operator: str, args: Any, kwargs: Any, images: int) -> torch.Size:
        def empty(ref: Ref) -> Tensor:
            node = self._made[ref.name]
            dtype = self.tensors[node.arguments["tensor"]].dtype if node.operator == CONSTANT else torch.float32
            dtype = torch.float32 if dtype.is_floating_point else dtype  # as if all weights and signals had one
            return torch.empty(sizes(self.shape(ref), images), dtype=dtype, device="meta")

        result: Tensor = function(operator)(*replaced(args, empty), **replaced(kwargs, empty))
        return result.shape

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype of the weights."""
        dtypes = (tensor.dtype for tensor in self.tensors.values())
        return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)

    def constant(self, value: Tensor, name: str = "") -> Ref:
        """A new constant, on the device of the weights; without a name it gets a number."""
        device = next((tensor.device for tensor in self.tensors.values() if not tensor.is_meta), value.device)
        number = sum(name.startswith("constants.") for name in self.tensors)
        while not name or name in self.tensors:
            name = f"constants.{number}"
            number += 1
        self.tensors[name] = value.detach().to(device)
        return self.append(CONSTANT, {"tensor": name}, tuple(value.shape), value.dtype)

    def site(self, source: Ref, shape: Shape | None) -> Ref:
        """A new layer of neurons."""
        return self.append(SITE, {"input": source}, shape)

    def append(
        self, operator: str, arguments: Mapping[str, Any], shape: Shape | None = None, dtype: torch.dtype | None = None
    ) -> Ref:
        """A new node under a new name."""
        word = re.sub(r"\W", "_", operator.split(".")[1] if "." in operator else operator)
        while (name := f"{word}_{self._names[word]}") in self._taken:
            self._names[word] += 1
        self._names[word] += 1
        loop = "" if operator == CONSTANT else self.loop
        return self._add(Node(name, operator, arguments, self.path, shape, self.part, dtype, loop))

    def _add(self, node: Node) -> Ref:
        self.nodes.append(node)
        self._made[node.name] = node
        return Ref(node.name)

    def graph(self) -> Graph:
        """The new graph, without what nobody reads and with the constants that are used."""
        return trimmed(Graph(tuple(self.nodes)), self.tensors)


def rebuilt(graph: Graph, tensors: dict[str, Tensor], change: Callable[[Node, Builder], Any]) -> Graph:
    """The graph with some nodes replaced.

    Args:
        graph: stays as it is.
        tensors: its constants; new ones are added, and those that nobody reads any more leave.
        change: is given each node and the builder; what it returns (a Ref, or a tuple with one for each of several
            results) stands for the node; None keeps it.
    """
    made = Builder(graph, tensors)
    for node in graph:
        made.path, made.part, made.loop = node.path, node.part, node.loop
        instead = made.piece(node) if node.operator == "getitem" else None
        if instead is None:
            instead = change(node, made)
        made.stands_for(node, made.copy(node) if instead is None else instead)
    return made.graph()


def trimmed(graph: Graph, tensors: dict[str, Tensor]) -> Graph:
    """The graph without nodes that nothing reads (inputs stay), `tensors` without constants that nothing reads."""
    needed: set[str] = set()
    before = -1
    while before < len(needed):  # what a state will be stands behind it
        before = len(needed)
        for node in reversed(graph.nodes):
            read = node.operator == NEXT and node.arguments["state"].name in needed
            if node.operator in (INPUT, OUTPUT) or node.name in needed or read:
                needed.update((node.name, *node.reads))
    kept = Graph(tuple(node for node in graph if node.name in needed))
    used = {node.arguments["tensor"] for node in kept.of(CONSTANT)}
    for name in set(tensors) - used:
        del tensors[name]
    return kept


def with_constants_folded(graph: Graph, tensors: dict[str, Tensor], computes: Callable[[str], bool] = is_aten) -> Graph:
    """What does not depend on the inputs, computed once (weight standardisation, position tables, masks).

    Args:
        graph: stays as it is.
        tensors: its constants, as for `rebuilt`.
        computes: which operators may be called for it.
    """
    constant = {node.name for node in graph.of(CONSTANT)}
    for node in graph:
        if constant.issuperset(node.reads) and computes(node.operator) and is_pure(node.operator):
            constant.add(node.name)
    ends = {
        name
        for node in graph
        if node.name not in constant
        for name in node.reads
        if name in constant and graph[name].operator != CONSTANT
    }
    if not ends:
        return trimmed(graph, tensors)
    values = _computed(graph, tensors, constant, ends)
    return rebuilt(
        graph,
        tensors,
        lambda node, made: made.constant(values[node.name]) if isinstance(values.get(node.name), Tensor) else None,
    )


def _computed(graph: Graph, tensors: Mapping[str, Tensor], constant: set[str], ends: set[str]) -> dict[str, Any]:
    """The values of `ends`."""
    part = [node for node in graph if node.name in constant]
    whole = Graph((*part, Node(OUTPUT, OUTPUT, {"value": [Ref(name) for name in ends]})))
    program = lowered(whole)
    values = program.values((), tensors.__getitem__)
    values[0] = next((tensor.device for tensor in tensors.values()), values[0])
    with torch.no_grad():
        execute(program.steps, values, {})
    return {name: values[program.places[name]] for name in ends}
