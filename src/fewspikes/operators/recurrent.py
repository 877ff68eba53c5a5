"""Rows of recurrent networks: one time step of all layers, written out, in a loop over time.

Layers that run forwards are one loop, so that a layer may begin its next time step while those above it end this one.
With both directions each layer is two loops, of which one runs backwards.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import HISTORY, LAST, NEXT, STATE, STEP, Ref, Shape
from fewspikes.operators.call import Call
from fewspikes.operators.rule import circuit

States = tuple[Ref, ...]
Cell = Callable[["_Weights", Ref, States], States]  # input and states -> new states, the output first


@dataclass(frozen=True)
class _Weights:
    """Of one layer in one direction; every gate has as many rows of its matrices, one below the other."""

    g: Builder
    input: Tensor
    hidden: Tensor
    biases: tuple[Tensor, Tensor] | None
    projection: Tensor | None
    gates: int

    def gate(self, number: int, x: Ref, h: Ref) -> Ref:
        """W x + U h + b of one gate."""
        bias = None if self.biases is None else self._rows(self.biases[0].double() + self.biases[1].double(), number)
        return self.put("add.Tensor", self.weighed(self.input, number, x, bias), self.weighed(self.hidden, number, h))

    def weighed(self, matrix: Tensor, number: int, x: Ref, bias: Tensor | None = None) -> Ref:
        """One gate's rows of a matrix times a vector."""
        weight = self.g.constant(self._rows(matrix, number))
        shift = None if bias is None else self.g.constant(bias.to(matrix.dtype))
        shape: Shape = (*self.g.shape(x)[:-1], len(matrix) // self.gates)
        return self.g.call("linear", x, weight, shift, like=shape)

    def bias(self, which: int, number: int) -> Tensor | None:
        """One gate's bias, of the input (0) or of the state (1)."""
        return None if self.biases is None else self._rows(self.biases[which], number)

    def projected(self, h: Ref) -> Ref:
        """The output, with fewer elements where it is projected."""
        if self.projection is None:
            return h
        shape: Shape = (*self.g.shape(h)[:-1], len(self.projection))
        return self.g.call("linear", h, self.g.constant(self.projection), like=shape)

    def put(self, operator: str, first: Ref, *others: Ref) -> Ref:
        """An elementwise operator."""
        return self.g.call(operator, first, *others, like=self.g.shape(first))

    def _rows(self, values: Tensor, number: int) -> Tensor:
        return values.chunk(self.gates)[number].contiguous()


def _long_short(w: _Weights, x: Ref, states: States) -> States:
    """c' = f c + i g, h' = o tanh(c')."""
    h, c = states
    i, f, o = (w.put("sigmoid", w.gate(number, x, h)) for number in (0, 1, 3))
    new = w.put("tanh", w.gate(2, x, h))
    c = w.put("add.Tensor", w.put("mul.Tensor", f, c), w.put("mul.Tensor", i, new))
    return w.projected(w.put("mul.Tensor", o, w.put("tanh", c))), c


def _gated(w: _Weights, x: Ref, states: States) -> States:
    """n = tanh(W x + b + r (U h + b')), h' = n + z (h - n)."""
    (h,) = states
    r, z = (w.put("sigmoid", w.gate(number, x, h)) for number in (0, 1))
    own, before = w.weighed(w.input, 2, x, w.bias(0, 2)), w.weighed(w.hidden, 2, h, w.bias(1, 2))
    n = w.put("tanh", w.put("add.Tensor", own, w.put("mul.Tensor", r, before)))
    return (w.put("add.Tensor", n, w.put("mul.Tensor", z, w.put("sub.Tensor", h, n))),)


def _simple(activation: str) -> Cell:
    """h' = f(W x + U h + b)."""

    def step(w: _Weights, x: Ref, states: States) -> States:
        return (w.put(activation, w.gate(0, x, states[0])),)

    return step


_CELLS: dict[str, tuple[Cell, int]] = {  # and how many gates they have
    "lstm": (_long_short, 4),
    "gru": (_gated, 3),
    "rnn_tanh": (_simple("tanh"), 1),
    "rnn_relu": (_simple("relu"), 1),
}


def _values(g: Builder, refs: Sequence[Ref]) -> list[Tensor] | None:
    """The weights; None where they are no constants."""
    found = [g.value(ref) for ref in refs]
    return None if any(value is None for value in found) else found  # type: ignore[return-value]


@circuit(*_CELLS, takes=lambda call: call.node.operator.endswith(".input"))
def sequences(call: Call, g: Builder) -> Any:
    """Layers over a whole sequence: all outputs, and the states at its end."""
    weights = list(_layers(call, g))
    if not weights:
        return None
    sequence, axis = g.now(call.node.arguments["input"]), 1 if call["batch_first"] else 0
    if not isinstance(g.shape(sequence)[axis], int):
        raise FewSpikesError(
            f"{call.node.where} takes the images of a batch for time steps: axis 0 of every input must be the batch; "
            "give a sequence as x[None], to a module with batch_first=True"
        )
    directions = 2 if call["bidirectional"] else 1
    starting = [tuple(_initial(call, g, i)) for i in range(len(weights))]
    ends: list[States] = []
    for i in range(0, len(weights), directions if directions > 1 else len(weights)):
        if directions == 1:
            sequence, ends = _looped(call, g, 0, sequence, axis, False, weights, starting)
        else:
            both = [
                _looped(call, g, j, sequence, axis, j % 2 == 1, weights[j : j + 1], starting[j : j + 1])
                for j in (i, i + 1)
            ]
            sequence = g.put("cat", [outputs for outputs, _ in both], 2)
            ends += [states for _, found in both for states in found]
    return (sequence, *(_together(g, states) for states in zip(*ends, strict=True)))


def _layers(call: Call, g: Builder) -> Iterator[_Weights]:
    """The weights of each layer and direction, in order; none where they are no constants."""
    count, number = call["num_layers"] * (2 if call["bidirectional"] else 1), _CELLS[call.node.short][1]
    refs: list[Ref] = call.node.arguments["params"]
    each = len(refs) // count
    values = _values(g, refs)
    for at in range(0, len(refs), each) if values is not None else ():
        own = values[at : at + each]  # type: ignore[index]
        biases = (own[2], own[3]) if call["has_biases"] else None
        projection = own[-1] if each == (5 if call["has_biases"] else 3) else None
        yield _Weights(g, own[0], own[1], biases, projection, number)


def _initial(call: Call, g: Builder, layer: int) -> Iterator[Ref]:
    """The states of a layer before the first time step."""
    given = call.node.arguments["hx"]
    for ref in given if isinstance(given, list | tuple) else [given]:
        yield g.put("select.int", g.now(ref), 0, layer)


def _looped(
    call: Call,
    g: Builder,
    number: int,
    sequence: Ref,
    axis: int,
    backwards: bool,
    layers: Sequence[_Weights],
    starting: Sequence[States],
) -> tuple[Ref, list[States]]:
    """A loop of some layers, one above the other: the outputs of the last, and all states at the end.

    Args:
        call: whose circuit it is.
        g: where it is built.
        number: of the loop within it.
        sequence: what the first layer takes.
        axis: of time.
        backwards: whether it begins at the end.
        layers: their weights.
        starting: their states before the first time step.
    """
    cell, _ = _CELLS[call.node.short]
    g.loop = f"{call.node.name}_{number}"
    shape = g.shape(sequence)
    along = {"dim": axis, "reversed": backwards}
    x = g.append(STEP, {"self": sequence, **along}, (*shape[:axis], *shape[axis + 1 :]))
    states = [tuple(g.append(STATE, {"initial": ref}, g.shape(ref)) for ref in own) for own in starting]
    after = []
    for weights, own in zip(layers, states, strict=True):
        after.append(cell(weights, x, own))
        x = after[-1][0]
    for state, value in zip(sum(states, ()), sum(after, ()), strict=True):
        g.append(NEXT, {"state": state, "self": value})
    g.loop = ""
    whole = list(g.shape(x))
    whole.insert(axis, shape[axis])
    outputs = g.append(HISTORY, {"self": x, **along}, tuple(whole))
    return outputs, [tuple(g.append(LAST, {"self": ref}, g.shape(ref)) for ref in own) for own in after]


def _together(g: Builder, states: Sequence[Ref]) -> Ref:
    """One state of all layers, along a new axis in front."""
    return g.put("stack", list(states), 0) if len(states) > 1 else g.put("unsqueeze", states[0], 0)


@circuit(*(f"{name}_cell" for name in _CELLS))
def one_step(call: Call, g: Builder) -> Any:
    """One time step."""
    given = call.node.arguments
    cell, gates = _CELLS[call.node.short.removesuffix("_cell")]
    refs = [given[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if given[name] is not None]
    values = _values(g, refs)
    if values is None:
        return None
    weights = _Weights(g, values[0], values[1], tuple(values[2:]) or None, None, gates)  # type: ignore[arg-type]
    hx = given["hx"]
    states = tuple(g.now(ref) for ref in (hx if isinstance(hx, list | tuple) else [hx]))
    found = cell(weights, g.now(given["input"]), states)
    return found if len(found) > 1 else found[0]


ROWS = (sequences, one_step)
