"""A call of an operator, as its row sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fewspikes.graph.functions import PYTHON, function, in_order, is_pure
from fewspikes.graph.graph import CONSTANT, Graph, Node, Ref, refs, replaced
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
        tensors: constants by name; rows see those alone that are structure, see `fixed_of`.
    """

    node: Node
    graph: Graph
    rules: "Rules"
    carriers: frozenset[str] = frozenset()
    known: Known = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

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

    def fixed(self, name: str) -> Tensor | None:
        """The tensor behind an argument that is structure: whole numbers or truths that no input changes.

        None for anything else. An axis that has the length of the batch is as long as for `IMAGES` images.
        """
        return self.fixed_behind(self.node.arguments[name])

    def fixed_behind(self, ref: Any) -> Tensor | None:
        """The same of a tensor in a list of them."""
        if not isinstance(ref, Ref) or ref.name in self.carriers:
            return None
        node = self.graph[ref.name]
        found = self._constant(node) if node.operator == CONSTANT else self._computed(node)
        return found if found is not None and _is_structure(found) else None

    def _constant(self, node: Node) -> Tensor | None:
        found = self.tensors.get(node.arguments["tensor"])
        return None if found is None or found.is_meta else found.cpu()

    def _computed(self, node: Node) -> Tensor | None:
        """What an operator makes of fixed tensors and of sizes."""
        values = {name: self.fixed_behind(Ref(name)) for name in node.reads if self.graph[name].shape is not None}
        if node.operator in PYTHON or not is_pure(node.operator) or any(value is None for value in values.values()):
            return None
        given = replaced(node.arguments, lambda ref: values[ref.name] if ref.name in values else self._number(ref))
        args, kwargs = in_order(node.operator, given | ({"device": None} if "device" in given else {}))
        found = function(node.operator)(*args, **kwargs)
        return found if isinstance(found, Tensor) else None

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


def fixed_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The constants that are structure, on the CPU: whole numbers and truths say what reaches what, floats weigh."""
    return {name: tensor.cpu() for name, tensor in tensors.items() if _is_structure(tensor)}


def _is_structure(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta)
