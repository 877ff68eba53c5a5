"""A network as a list of calls of operators: frozen, in the order in which they run.

Beside the operators of ATen (named as in "aten.conv2d.default"), those of other libraries ("mylib.roll.default") and
Python's own on sizes ("add", "getitem"), a node can be one of four things: INPUT, CONSTANT (a weight or a fixed
tensor), SITE (a layer of neurons) and OUTPUT, the last.

A loop over time is a row of nodes that have its name, written once and run once for each time step:

    STEP   what a sequence holds at this time step        NEXT     what a state will be at the next one
    STATE  what the last time step left, first "initial"  HISTORY, LAST   outside of it: all values of a node of it
                                                          along a new axis, and the one of the last time step
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch

from fewspikes.graph.nested import alike, parts

INPUT, CONSTANT, SITE, OUTPUT = "input", "constant", "site", "output"
STEP, STATE, NEXT, HISTORY, LAST = "time_step", "state", "next_state", "history", "last_step"
PASSING = (STEP, STATE, HISTORY, LAST)  # values into a loop, through it and out of it


@dataclass(frozen=True)
class Ref:
    """Another node's result, as an argument."""

    name: str


class Batch(NamedTuple):
    """A size that depends on the number of images: times x images + plus."""

    times: int
    plus: int = 0


Size = int | Batch
Shape = tuple[Size, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One call.

    Attributes:
        name: unique in its graph.
        operator: what is called.
        arguments: by the schema's names, defaults filled in; plain data, `Ref`s, and lists, tuples or dicts of these. A
            CONSTANT has the name of its "tensor", a SITE its "input", OUTPUT what it returns as "value". STEP and
            HISTORY have a "dim", the axis of time, and are "reversed" where time runs backwards.
        path: of the module that made it, "" for the model itself.
        shape: of the tensor that comes out; None where it is none.
        part: the circuit that it is part of, as operator and call, "max_pool2d@max_pool2d_1"; "" for the model's own.
        dtype: of its elements; None where nobody has told.
        loop: that it is part of; "" for none.
    """

    name: str
    operator: str
    arguments: Mapping[str, Any]
    path: str = ""
    shape: Shape | None = None
    part: str = ""
    dtype: torch.dtype | None = None
    loop: str = ""

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """The names of the nodes whose results it takes, in order, each once."""
        return tuple(dict.fromkeys(ref.name for ref in refs(self.arguments)))

    @property
    def short(self) -> str:
        """What its operator goes by, see `short_name`."""
        return short_name(self.operator)

    @property
    def is_whole(self) -> bool:
        """Whether its elements are known to be whole numbers or truth values."""
        return self.dtype is not None and not (self.dtype.is_floating_point or self.dtype.is_complex)

    @property
    def where(self) -> str:
        """Operator and module path, for messages."""
        return f"operator {self.operator} at {self.path or 'the top of the model'}"


@dataclass(frozen=True, eq=False)
class Loop:
    """A loop over time.

    Attributes:
        name: unique in its graph.
        nodes: all of it, in order.
        after: by state, the node whose value it has at the next time step.
        time_steps: in sequences as long as the example's; 0 where nobody has told.
    """

    name: str
    nodes: tuple[Node, ...]
    after: Mapping[str, str]
    time_steps: int

    def of(self, operator: str) -> tuple[Node, ...]:
        """All its nodes of an operator."""
        return tuple(node for node in self.nodes if node.operator == operator)


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes of a network; each reads only such as stand before it, and the last is the output."""

    nodes: tuple[Node, ...]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    def users(self, name: str) -> tuple[Node, ...]:
        """The nodes that take a node's result."""
        return self._users[name]

    def of(self, operator: str) -> tuple[Node, ...]:
        """All nodes of an operator."""
        return tuple(node for node in self.nodes if node.operator == operator)

    @property
    def output(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    def sizes(self, name: str, images: int) -> torch.Size:
        """The shape of a node's tensor for so many images."""
        return sizes(self[name].shape or (), images)

    @cached_property
    def loops(self) -> dict[str, Loop]:
        """The loops over time by their names."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.loop:
                found.setdefault(node.loop, []).append(node)
        return {name: self._loop(name, nodes) for name, nodes in found.items()}

    def after(self, state: str) -> str | None:
        """The node whose value a state has at the next time step; None for what is no state."""
        node = self[state]
        return self.loops[node.loop].after.get(state) if node.operator == STATE else None

    def time_steps(self, node: Node) -> int:
        """How often a node runs: once, or once for each time step of its loop."""
        return self.loops[node.loop].time_steps if node.loop else 1

    def _loop(self, name: str, nodes: list[Node]) -> Loop:
        after = {n.arguments["state"].name: n.arguments["self"].name for n in nodes if n.operator == NEXT}
        sequences = [(self[n.arguments["self"].name], n.arguments["dim"]) for n in nodes if n.operator == STEP]
        lengths = (node.shape[dim] for node, dim in sequences if node.shape)
        return Loop(name, tuple(nodes), after, next((size for size in lengths if isinstance(size, int)), 0))

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _users(self) -> dict[str, tuple[Node, ...]]:
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.reads:
                found[name].append(node)
        return {name: tuple(users) for name, users in found.items()}


def short_name(operator: str) -> str:
    """What an operator goes by, whatever its overload: as in its schema, with the library in front outside of ATen.

    >>> short_name("aten.conv2d.default"), short_name("mylib.roll.default"), short_name("getitem")
    ('conv2d', 'mylib::roll', 'getitem')
    """
    library, _, rest = operator.partition(".")
    name = rest.partition(".")[0]
    return name if library == "aten" and name else f"{library}::{name}" if name else operator


def refs(value: Any) -> Iterator[Ref]:
    """All references in an argument, however deep."""
    if isinstance(value, Ref):
        yield value
    else:
        yield from (ref for item in parts(value) or () for ref in refs(item))


def replaced(value: Any, by: Callable[[Ref], Any]) -> Any:
    """An argument with every reference replaced."""
    if isinstance(value, Ref):
        return by(value)
    held = parts(value)
    return value if held is None else alike(value, (replaced(item, by) for item in held))


def sizes(shape: Iterable[Size], images: int) -> torch.Size:
    """A shape in numbers for so many images."""
    return torch.Size([size if isinstance(size, int) else size.times * images + size.plus for size in shape])


def shape_between(few: Iterable[int], more: Iterable[int], images: int, others: int) -> Shape:
    """The shape that has the sizes `few` for `images` images and `more` for `others`."""
    found: list[Size] = []
    for a, b in zip(few, more, strict=True):
        times = (b - a) // (others - images)
        found.append(a if a == b else Batch(times, a - times * images))
    return tuple(found)
