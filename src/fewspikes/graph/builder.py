"""A graph made anew from another: nodes copied, calls put in their place, constants added."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewspikes.graph.functions import is_pure, named
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, SITE, Graph, Node, Ref, Shape, replaced
from fewspikes.graph.interpreter import execute, lowered


class Builder:
    """Collects the nodes of a new graph.

    Args:
        graph: the old one; its names are not given again.
        tensors: the constants by name; new ones are added here.

    Attributes:
        path: of the module that new nodes belong to.
        part: the operator whose circuit new nodes are part of.
        notes: lines for the report, by whoever changes something worth one.
    """

    def __init__(self, graph: Graph, tensors: dict[str, Tensor]) -> None:
        self.old, self.tensors = graph, tensors
        self.path, self.part, self.nodes, self.notes = "", "", list[Node](), list[str]()
        self._instead: dict[str, Any] = {}  # old name -> what stands for it now: a Ref, or one for each of its outputs
        self._names: Counter[str] = Counter()
        self._taken = {node.name for node in graph}

    def copy(self, node: Node) -> Ref:
        """The node as it is, reading what stands for its arguments now."""
        self.nodes.append(replace(node, arguments=self.now(node.arguments)))
        return Ref(node.name)

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
        """A new node for a call of an ATen operator, named as in "mul.Tensor"; `like`: the shape of its result."""
        name = operator if operator.startswith("aten.") else f"aten.{operator}"
        name = name if name.count(".") > 1 else f"{name}.default"
        return self.append(name, named(name, args, kwargs), like)

    def constant(self, value: Tensor) -> Ref:
        """A new constant."""
        number = sum(name.startswith("constants.") for name in self.tensors)
        while (name := f"constants.{number}") in self.tensors:
            number += 1
        self.tensors[name] = value.detach()
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
        self.nodes.append(Node(name, operator, arguments, self.path, shape, self.part, dtype))
        return Ref(name)

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
        made.path, made.part = node.path, node.part
        instead = made.piece(node) if node.operator == "getitem" else None
        if instead is None:
            instead = change(node, made)
        made.stands_for(node, made.copy(node) if instead is None else instead)
    return made.graph()


def trimmed(graph: Graph, tensors: dict[str, Tensor]) -> Graph:
    """The graph without nodes that nothing reads (inputs stay), `tensors` without constants that nothing reads."""
    needed: set[str] = set()
    for node in reversed(graph.nodes):
        if node.operator in (INPUT, OUTPUT) or node.name in needed:
            needed.update((node.name, *node.reads))
    kept = Graph(tuple(node for node in graph if node.name in needed))
    used = {node.arguments["tensor"] for node in kept.of(CONSTANT)}
    for name in set(tensors) - used:
        del tensors[name]
    return kept


def with_constants_folded(graph: Graph, tensors: dict[str, Tensor]) -> Graph:
    """What does not depend on the inputs, computed once (weight standardisation, position tables, masks)."""
    constant = {node.name for node in graph.of(CONSTANT)}
    for node in graph:
        if constant.issuperset(node.reads) and is_pure(node.operator):
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
