"""A call of a linear operator, as the rules see it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx

from fewspikes.graph.capture import op_name
from fewspikes.operators.arguments import Shapes, arguments
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import Unknown

Relation = tuple[Box, ...]  # the connections of one tensor to the source: a union of boxes
Known = dict[fx.Node, Relation]  # the nodes that are connected; a list of tensors has the connections of what was split


@dataclass(frozen=True)
class Call:
    """An operator's node, its arguments by name, and what is known about the graph before it."""

    node: fx.Node
    given: dict[str, Any]
    known: Known
    shapes: Shapes

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return tuple(self.shapes[self.node])

    @property
    def spatial(self) -> int:
        """The number of spatial axes that the operator's name speaks of."""
        return 2 if "2d" in op_name(self.node) else 1

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor argument."""
        return tuple(self.shapes[self.given[name]])

    def boxes(self, name: str = "self") -> Relation:
        """The connections of the tensor argument that carries the signal."""
        if self.given[name] not in self.known:
            raise Unknown(f"its operand {name!r} does not carry the signal")
        return self.known[self.given[name]]

    def axis(self, name: str = "dim") -> int:
        """An axis argument, counted from the front."""
        return int(self.given[name]) % len(self.shape_of("self"))


Rule = Callable[[Call], Iterable[Box]]


def call_of(node: fx.Node, known: Known, shapes: Shapes) -> Call:
    """The call that an ATen node makes."""
    return Call(node, arguments(node, shapes), known, shapes)
