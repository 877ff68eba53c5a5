"""A call of an operator, as its row sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from fewspikes.graph.functions import PYTHON, function
from fewspikes.graph.graph import Graph, Node, Ref, refs, replaced
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import Unknown

if TYPE_CHECKING:
    from fewspikes.operators.rule import Rules

Relation = tuple[Box, ...]  # the connections of one tensor to a source: a union of boxes
Known = Mapping[str, Any]  # by node, the Relation of its result, or a tuple of one for each of several

IMAGES = 2  # for which sizes are computed: a batch can be told from a single image


@dataclass(frozen=True, eq=False)
class Call:
    """A node of a graph, and what is known before it.

    Attributes:
        node, graph: what is called, and where.
        rules: the rows.
        carriers: the nodes that carry a signal: their values depend on the inputs' values.
        known: connections to a source, by node.
    """

    node: Node
    graph: Graph
    rules: "Rules"
    carriers: frozenset[str] = frozenset()
    known: Known = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """An argument; nodes that compute a size are replaced by the size, tensors stay `Ref`s."""
        return replaced(self.node.arguments[name], self._number)

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the default where the operator has none of this name."""
        return self[name] if name in self.node.arguments else default

    @cached_property
    def signals(self) -> frozenset[str]:
        """The names of the arguments that hold a signal."""
        found = ((name, {ref.name for ref in refs(value)}) for name, value in self.node.arguments.items())
        return frozenset(name for name, names in found if names & self.carriers)

    def is_single(self, name: str) -> bool:
        """Whether an argument is one tensor."""
        return isinstance(self.node.arguments[name], Ref)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return tuple(self.graph.sizes(self.node.name, IMAGES))

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor argument."""
        return tuple(self.graph.sizes(self.node.arguments[name].name, IMAGES))

    def boxes(self, name: str = "self") -> Relation:
        """The connections of a tensor argument."""
        ref = self.node.arguments[name]
        if not isinstance(ref, Ref) or ref.name not in self.known:
            raise Unknown(f"its operand {name!r} does not carry the signal")
        found: Relation = self.known[ref.name]
        return found

    def connected(self, ref: Any) -> Relation:
        """The connections of a tensor, none where it does not come from the source."""
        return self.known.get(ref.name, ()) if isinstance(ref, Ref) else ()

    def axis(self, name: str = "dim") -> int:
        """An axis argument, counted from the front."""
        return int(self[name]) % len(self.shape_of("self"))

    def silenced(self, name: str, value: Any) -> Any:
        """The value of one term (or list of terms) of a sum, with 0 in place of what is no signal."""
        given = self.node.arguments[name]
        if isinstance(given, list | tuple):
            return [self._silenced(term, kept) for term, kept in zip(given, value, strict=True)]
        return self._silenced(given, value)

    def _silenced(self, given: Any, value: Any) -> Any:
        if isinstance(given, Ref) and given.name in self.carriers:
            return value
        return torch.zeros_like(value) if isinstance(value, torch.Tensor) else 0

    def _number(self, ref: Ref) -> Any:
        node = self.graph[ref.name]
        if node.shape is not None:
            return ref
        if node.short == "sym_size":
            return self.graph.sizes(node.arguments["self"].name, IMAGES)[node.arguments["dim"]]
        if node.operator in PYTHON and node.operator != "getitem":
            operands = replaced(tuple(node.arguments.values()), self._number)
            return function(node.operator)(*operands)
        if node.operator == "getitem" or self.graph[ref.name].shape is None:
            return ref
        raise Unknown(f"the value of {node.where} is not known beforehand")
