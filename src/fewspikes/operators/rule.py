"""A row: what the project knows of an operator. Everything else that anybody asks about it is derived from its row.

A row is a function under a decorator that says what class it makes:

    @linear("conv1d", "conv2d", weight="weight", without=("bias",), outputs=(0, 1))
    def convolved(call): ...          # which outputs each element of its inputs reaches

An operator goes by its name in torch's schema ("conv2d" for aten.conv2d.default and aten.conv2d.padding), outside of
ATen with the library in front ("mylib::roll"). It may have a row of several classes: `mul` is a weighted sum where one
factor is constant, and left digital where both are signals.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import Any, TypeVar

import torch

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref, short_name
from fewspikes.neuron.activation import Activation
from fewspikes.operators.call import Call
from fewspikes.operators.choices import Choices
from fewspikes.reach.boxes import Box


class Kind(StrEnum):
    """What becomes of an operator in the spiking network."""

    SYNAPTIC = "synaptic"  # a linear map (with constants), part of the weighted sums between neurons
    NEURON = "neuron"  # replaced by FS-neurons
    LOOKUP = "lookup"  # of whole numbers alone, looked up or computed digitally: where an analog signal begins
    DIGITAL = "digital"  # left to a digital processor, with the reason
    BOOKKEEPING = "bookkeeping"  # shapes and constants; carries no value from neuron to neuron


R = TypeVar("R", bound="Rule")
Reach = Callable[[Call], Iterable[Box]]
Pieces = Callable[[Call], Iterable[Iterable[Box]]]
Sizes = Callable[[Mapping[str, Any]], Sequence[int] | None]


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", "")).rpartition(".")[2]


def _row(module: str, name: str) -> "Rule":
    """The row at the top of a module."""
    found: Rule = getattr(import_module(module), name)
    return found


def _zero(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, torch.Tensor) else 0


def always(call: Call) -> bool:
    """Any call."""
    return True


def no_multiplications(call: Call) -> int:
    """None, of any call."""
    return 0


def told_apart_nowhere(call: Call, axis: int) -> bool:
    """False, of any call and axis."""
    return False


@dataclass(frozen=True, eq=False)
class Rule:
    """A row.

    Attributes:
        operators: names in torch's schema, or one of them.
        takes: whether the row is true of a call; it is asked after the class's own conditions.
        replaces: of a user's rule: it stands before the library's own row of its class, which is a clash otherwise.
    """

    operators: tuple[str, ...]
    takes: Callable[[Call], bool] = field(default=always, kw_only=True)
    replaces: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        given = (self.operators,) if isinstance(self.operators, str) else self.operators
        object.__setattr__(self, "operators", tuple(str(name).removeprefix("aten::") for name in given))

    def __reduce__(self) -> Any:
        """What pickle takes: the name of a row that stands at the top of a module, as its function no longer does."""
        function = self.function
        if getattr(sys.modules.get(getattr(function, "__module__", "")), str(_name(function)), None) is self:
            return _row, (function.__module__, _name(function))
        return super().__reduce__()

    @property
    def function(self) -> Any:
        """The function that the row was made of; None for a row without."""
        own = (getattr(self, name, None) for name in ("reach", "activation", "expand", "expressions"))
        return next((value for value in own if callable(value) and not isinstance(value, Activation)), None)

    @property
    def label(self) -> str:
        """How messages call it: its function's name, its class and its operators."""
        name, kind = _name(self.function), f"{type(self).__name__} of {', '.join(self.operators)}"
        return f"rule {name} ({kind})" if name else f"rule {kind}"

    def applies(self, call: Call) -> bool:
        """Whether the row is true of this call."""
        return self.takes(call)


@dataclass(frozen=True, eq=False)
class Linear(Rule):
    """Part of a weighted sum between neurons: f(x) = homogeneous(x) + f(0), homogeneous(x) additive.

    Attributes:
        reach: the outputs that each input element reaches; for an operator of several results, for each of them.
        weight: the argument that weighs: it multiplies, batch norms fold into it, whole numbers go through it. Two
            names: either of them, whichever is constant.
        terms: the arguments that it adds up, each of which may be a signal or not. Without, exactly one is: the first
            argument, or either of two where `weight` or `either` says so.
        either: whether self and other may change places.
        without: arguments that are left out of the homogeneous call, which must be optional.
        zero: arguments that are 0 in it, numbers or tensors.
        outputs: the axis of the weight, and of the result, that count the output channels.
        pads: the argument that says how many zeros it puts on both sides of its input's last axes.
        moves: elements are moved, not computed: whole numbers stay whole, channels keep their codes.
        adds: elements are added and subtracted as they are: whole numbers stay whole.
        several: it returns a list.
        held: an argument that may be a signal too: it holds its value, a weight that changes, and the call is linear in
            the one named "gate", whose spikes meet it.
        tells_apart: whether what is held has a value of its own for each position of an axis of the gate.
        multiplications: how many a product takes that it is, or stands for.
        factors: the nodes that such a product multiplies where they are none of its arguments.
        sizes: the shape of its result from its arguments, where that is plain; None leaves it to torch.
    """

    reach: Reach | Pieces = field(kw_only=True)
    weight: str | tuple[str, str] | None = field(default=None, kw_only=True)
    terms: tuple[str, ...] = field(default=(), kw_only=True)
    either: bool = field(default=False, kw_only=True)
    without: tuple[str, ...] = field(default=(), kw_only=True)
    zero: tuple[str, ...] = field(default=(), kw_only=True)
    outputs: tuple[int, int] | None = field(default=None, kw_only=True)
    pads: str | None = field(default=None, kw_only=True)
    moves: bool = field(default=False, kw_only=True)
    adds: bool = field(default=False, kw_only=True)
    several: bool = field(default=False, kw_only=True)
    held: str | None = field(default=None, kw_only=True)
    tells_apart: Callable[[Call, int], bool] = field(default=told_apart_nowhere, kw_only=True)
    multiplications: Callable[[Call], int] = field(default=no_multiplications, kw_only=True)
    factors: Callable[[Call], Sequence[str]] | None = field(default=None, kw_only=True)
    sizes: Sizes | None = field(default=None, kw_only=True)

    def applies(self, call: Call) -> bool:
        """Whether the call is linear in the signals that it takes."""
        if self.held is not None:
            fits = bool(call.signals)
        elif self.terms:
            fits = call.signals <= set(self.terms)
        elif self.either or isinstance(self.weight, tuple):
            fits = len(call.signals) == 1 and call.is_single(next(iter(call.signals)))
        else:
            fits = call.signals == {next(iter(call.node.arguments))}
        return fits and self.takes(call)

    def weighs(self, call: Call) -> str | None:
        """The argument that weighs in this call."""
        if not isinstance(self.weight, tuple):
            return self.weight
        return next(name for name in self.weight if name not in call.signals)

    def homogeneous(self, call: Call, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The call with f(0) = 0, through which spikes pass: `arguments` without what is added to the sum.

        Args:
            call: the call.
            arguments: its arguments by name, results of other nodes as they are or computed.
        """
        found = dict(arguments)
        found |= {name: None for name in self.without if name in found}
        found |= {name: _zero(found[name]) for name in self.zero if found.get(name) is not None}
        return found | {name: call.silenced(name, found[name]) for name in self.terms if name in found}


@dataclass(frozen=True, eq=False)
class Neurons(Rule):
    """A layer of neurons. `activation` is what they imitate."""

    activation: Callable[[Call], Activation] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Written(Rule):
    """A name for a function that is written out in other operators: `expressions` are its ways to write f(x).

    `activation` is one of the named ones; None: the expression itself, called by the row's operator.
    """

    activation: Activation | None = field(default=None, kw_only=True)
    expressions: Callable[[Builder, Ref], Iterable[Ref]] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Elementwise(Rule):
    """Elementwise, though torch does not say so of this operator.

    Attributes:
        alone: whether it is a layer of neurons by itself; if not, only as part of one that begins before it.
    """

    alone: bool = field(default=True, kw_only=True)


@dataclass(frozen=True, eq=False)
class Circuit(Rule):
    """A rewrite into operators that have rows. `expand` returns what stands for the result, or None to leave the call.

    Attributes:
        kind, choice: where the user chooses what becomes of a kind: `circuits={kind: choice}`. Without, it always is.
        note: what it did, for the report of a network that was changed.
        early: it is done before constants are computed, so that no other row sees the operator.
    """

    expand: Callable[[Call, Builder], Any] = field(kw_only=True)
    kind: str | None = field(default=None, kw_only=True)
    choice: str | None = field(default=None, kw_only=True)
    note: str = field(default="", kw_only=True)
    early: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, eq=False)
class Digital(Rule):
    """Left to a digital processor.

    Attributes:
        reason: why.
        kind: its name in `circuits=`; "" where nothing else can become of it.
        also: what may become of it beside what its kind's circuits make.
        multiplications: how many it takes.
        reach: as of `Linear`, for where channels go; None where they are lost.
    """

    reason: str = field(kw_only=True)
    kind: str = field(default="", kw_only=True)
    also: tuple[str, ...] = field(default=(), kw_only=True)
    multiplications: Callable[[Call], int] = field(default=no_multiplications, kw_only=True)
    reach: Reach | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Shapes(Rule):
    """Sizes and constants: what it returns depends on shapes alone.

    Attributes:
        fill: the number that it fills a tensor with.
        reach: which image each position belongs to, where it counts the images.
    """

    fill: Callable[[Call], Any] | None = field(default=None, kw_only=True)
    reach: Reach | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Lookup(Rule):
    """Rows of a table that whole numbers pick: an analog signal begins here, as at an input.

    Attributes:
        channels: the axis of the result that counts the table's columns.
        reach: as of `Linear`, from what picks.
        several: it returns several tensors.
    """

    channels: int = field(kw_only=True)
    reach: Reach | Pieces | None = field(default=None, kw_only=True)
    several: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, eq=False)
class Bookkeeping(Rule):
    """Computes on whole numbers, truth values and sizes alone, never on a signal; elementwise operators need no row.

    Attributes:
        reach: as of `Linear`, for which image each position belongs to; None: by the axes that it names, or its shape.
    """

    reach: Reach | None = field(default=None, kw_only=True)


class Rules:
    """Rows by the operator's name, of each class one at most (circuits: one for each choice).

    Args:
        rows: the library's.
        own: a user's, which are asked first.

    Raises:
        FewSpikesError: two rows of one class for one operator.
    """

    def __init__(self, rows: Iterable[Rule], own: Iterable[Rule] = ()) -> None:
        self.own = tuple(own)
        self.rows = (*self.own, *rows)
        self._of: dict[tuple[type[Rule], str], list[Rule]] = {}
        for row in self.rows:
            for name in row.operators:
                same = self._of.setdefault((type(row), name), [])
                if same and not isinstance(row, Circuit) and not all(other.replaces for other in same):
                    raise FewSpikesError(f"operator {name} has two rows of the class {type(row).__name__}")
                same.append(row)

    def find(self, kind: type[R], call: Call) -> R | None:
        """The row of a class that applies to a call."""
        found = (row for row in self._of.get((kind, call.node.short), ()) if row.applies(call))
        return next(found, None)  # type: ignore[return-value]

    def circuits(self, call: Call, choices: Choices) -> "Circuit | None":
        """The circuit that stands for a call, by what the user chose for its kind there."""
        rows = (row for row in self._of.get((Circuit, call.node.short), ()) if row.applies(call))
        path = call.node.path
        return next((r for r in rows if r.kind is None or choices.of(r.kind, path) == r.choice), None)  # type: ignore

    def of(self, kind: type[R], name: str) -> list[R]:
        """The rows of a class for an operator."""
        return self._of.get((kind, name), [])  # type: ignore[return-value]

    def has(self, kind: type[Rule], name: str) -> bool:
        """Whether an operator has a row of a class."""
        return (kind, name) in self._of

    def covers(self, operator: str) -> bool:
        """Whether there is a row of any class for an operator, by its full name."""
        return short_name(operator) in {name for _, name in self._of}

    def names(self, kind: type[Rule]) -> list[str]:
        """The operators with a row of a class, in order."""
        return [name for row_kind, name in self._of if row_kind is kind]


def linear(*operators: str, **settings: Any) -> Callable[[Reach], Linear]:
    """A `Linear` row; the function under it is its reach."""
    return lambda reach: Linear(operators, reach=reach, **settings)


def moves(*operators: str, **settings: Any) -> Callable[[Reach | Pieces], Linear]:
    """A `Linear` row of an operator that moves elements."""
    return lambda reach: Linear(operators, reach=reach, moves=True, **settings)


def neurons(*operators: str, **settings: Any) -> Callable[[Callable[[Call], Activation]], Neurons]:
    """A `Neurons` row; the function under it tells the activation."""
    return lambda activation: Neurons(operators, activation=activation, **settings)


def circuit(*operators: str, **settings: Any) -> Callable[[Callable[[Call, Builder], Any]], Circuit]:
    """A `Circuit` row; the function under it is its expansion."""
    return lambda expand: Circuit(operators, expand=expand, **settings)
