"""Elementwise expressions: any elementwise part of a graph with one signal in and one out is one layer of neurons.

It begins and ends at operators that are not linear: sums and scalings by constants before and behind it stay in the
weighted sums. Where it is made of named activations and sums alone, each activation is a layer by itself. What it
computes is kept as a small graph, in plain text, which is all that a file holds of it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import reason_of
from fewspikes.base.seals import TRIPS, parsed
from fewspikes.graph.builder import Builder
from fewspikes.graph.encoding import graph_from_json, graph_to_json
from fewspikes.graph.functions import in_order, named, tensor_parameters
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, Graph, Node, Ref, refs, replaced
from fewspikes.graph.interpreter import execute, filled, lowered
from fewspikes.neuron.activation import Activation
from fewspikes.operators.call import Call
from fewspikes.operators.constants import Number, number
from fewspikes.operators.homogeneity import degree
from fewspikes.operators.rule import Elementwise as ElementwiseRow
from fewspikes.operators.rule import Linear, Neurons, Rules, Written
from fewspikes.operators.rules import RULES, is_elementwise_call, is_function

_X = Node("x", INPUT, {})
_FILLED = "aten.full_like.default"  # how a number stands where torch wants a tensor
_LONGEST = 60  # characters of a name


class Found:
    """A layer of neurons in a graph: what it reads, what it replaces, and what it computes."""

    def __init__(self, source: str, end: Node, activation: Activation) -> None:
        self.source, self.end, self.activation = source, end, activation


class Elementwise:
    """The elementwise parts of a graph.

    Args:
        graph: with the shapes of its tensors.
        tensors: its constants.
        rules: the rows.
        carriers: the nodes that carry a signal.
        by_place: whether a constant may have another value at each place; otherwise it is one number.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, Tensor],
        rules: Rules,
        carriers: frozenset[str],
        by_place: bool = False,
    ) -> None:
        self.graph, self.tensors, self.rules, self.carriers, self.by_place = graph, tensors, rules, carriers, by_place
        self.root: dict[str, str] = {}  # by node: the signal that it is an elementwise function of, itself if of none
        self.curved: set[str] = set()  # not a linear function of its root
        self.linear: set[str] = set()  # linear in what they read, and to be left in the weighted sums
        self.odd: set[str] = set()  # no function of its root by named activations and sums alone
        self._order = {node.name: at for at, node in enumerate(graph)}
        for node in graph:
            self._place(node)

    def found(self) -> Iterator[Found]:
        """Every layer of neurons, in the order of the graph; constants are numbers."""
        for source, cone in self.parts():
            yield Found(source, cone[-1], self._activation(source, cone))

    def parts(self) -> Iterator[tuple[str, list[Node]]]:
        """Every layer of neurons, as what it reads and the nodes that it is made of, in order."""
        leaving = self._leaving()
        for node in self.graph:
            if node.name in self.curved and node.name not in self.linear and node.name in leaving:
                source = self._source(node)
                yield source, self._cone(node, source)

    def _call(self, node: Node) -> Call:
        return Call(node, self.graph, self.rules, self.carriers, tensors=self.tensors)

    def _place(self, node: Node) -> None:
        call = self._call(node)
        self.root[node.name] = node.name
        signals = [name for name in node.reads if name in self.carriers]
        if node.name not in self.carriers or not signals or not self._is_elementwise(call):
            return
        roots = {self.root[name] for name in signals}
        if len(roots) > 1:
            return
        self.root[node.name] = roots.pop()
        curves, odd = self.curved.intersection(signals), not self.odd.isdisjoint(signals)
        if self.rules.find(Linear, call) is None:
            odd = odd or self.rules.find(Neurons, call) is None
        elif not odd or len(curves) < 2:  # a sum of several curves is one curve
            self.linear.add(node.name)
        if odd:
            self.odd.add(node.name)
        if curves or node.name not in self.linear:
            self.curved.add(node.name)

    def _is_elementwise(self, call: Call) -> bool:
        """Whether it is, all but the signal are numbers, and they do not spread the signal over a larger shape."""
        node = call.node
        if not is_elementwise_call(call):
            return False
        signals, others = (
            [ref.name for ref in refs(node.arguments) if (ref.name in self.carriers) is wanted]
            for wanted in (True, False)
        )
        row = self.rules.find(ElementwiseRow, call)
        if row is not None and not row.alone and self.curved.isdisjoint(signals):
            return False
        spread = any(self.graph[name].shape for name in others) and node.shape != self.graph[signals[0]].shape
        return not spread and all(self._number(name) is not None or self._has_places(name) for name in others)

    def _has_places(self, name: str) -> bool:
        return self.by_place and self.graph[name].operator == CONSTANT

    def _number(self, name: str) -> Number | None:
        """The value of a constant that is one number."""
        return number(name, self.graph, self.tensors, self.rules)

    def _leaving(self) -> set[str]:
        """Nodes whose values go, perhaps through linear calls, to something that does not take them in."""
        found: set[str] = set()
        for node in reversed(self.graph.nodes):
            for user in self.graph.users(node.name):
                inside = self.root[user.name] == self.root[node.name] and user.name != self.root[user.name]
                whole = user.name in self.odd and user.name not in self.linear  # one neuron with all before it
                if not inside or (user.name in found and not whole):
                    found.add(node.name)
        return found

    def _cone(self, end: Node, stop: str) -> list[Node]:
        """The nodes of the part from `stop` (left out) to `end`, in order."""
        found, waiting = {end.name}, [end]
        while waiting:
            for name in waiting.pop().reads:
                if name in self.carriers and name not in (stop, self.root[end.name]) and name not in found:
                    found.add(name)
                    waiting.append(self.graph[name])
        return sorted((self.graph[name] for name in found), key=lambda node: self._order[node.name])

    def _source(self, end: Node) -> str:
        """What it reads: the last node that is linear in the root and through which all of it goes."""
        if end.name not in self.odd:
            return next(name for name in end.reads if name in self.carriers)
        root = self.root[end.name]
        cone = self._cone(end, root)
        straight = {name for node in cone if node.name in self.curved for name in node.reads}
        chains = [self._chain(name, root) for name in straight if name in self.carriers and name not in self.curved]
        return next(name for name in chains[0] if all(name in chain for chain in chains))

    def _chain(self, name: str, root: str) -> list[str]:
        """The node and what it is made of, back to the root, as long as that is one thing."""
        chain = [name]
        while chain[-1] != root:
            signals = [read for read in self.graph[chain[-1]].reads if read in self.carriers]
            chain.append(signals[0] if len(signals) == 1 else root)
        return chain

    def _activation(self, source: str, cone: Sequence[Node]) -> Activation:
        end = cone[-1]
        row = self.rules.find(Neurons, self._call(end)) if len(cone) == 1 else None
        if row is not None:
            return row.activation(self._call(end))
        text = _text(self._small(source, cone))
        return _expressed(text, self.rules)

    def _small(self, source: str, cone: Sequence[Node]) -> Graph:
        """The cone as a graph of its own, with numbers in place of constants."""
        names = {source: Ref("x")}
        made = [_X]

        def add(operator: str, arguments: Mapping[str, Any]) -> Ref:
            made.append(Node(f"e{len(made)}", operator, arguments))
            return Ref(made[-1].name)

        def ours(ref: Ref) -> Any:
            return names[ref.name] if ref.name in names else self._number(ref.name)

        for node in cone:
            arguments = {key: replaced(value, ours) for key, value in node.arguments.items()}
            if self.rules.find(Linear, self._call(node)) is None:  # torch takes numbers for tensors in sums alone
                arguments |= {key: add(_FILLED, _filled(arguments[key])) for key in self._as_tensors(node, arguments)}
            names[node.name] = add(node.operator, arguments)
        return Graph((*made, Node(OUTPUT, OUTPUT, {"value": names[cone[-1].name]})))

    def _as_tensors(self, node: Node, arguments: Mapping[str, Any]) -> list[str]:
        """The arguments that must be tensors and are numbers here."""
        return [key for key in tensor_parameters(node.operator) if isinstance(arguments[key], int | float)]


def activation_from_json(content: Mapping[str, Any], rules: Rules = RULES) -> Activation:
    """An activation as a file holds it, named or an expression.

    Raises:
        FewSpikesError: an unknown name, or an expression of anything but elementwise operators.
    """
    text = content.get("expression", "")
    return _expressed(str(text), rules) if text else Activation.from_json(dict(content))


def operators_in(activation: Activation) -> list[str]:
    """The operators that an activation's expression calls."""
    function = activation.function
    return [node.operator for node in function.graph] if isinstance(function, _Function) else []


def _expressed(text: str, rules: Rules) -> Activation:
    row = _written(rules).get(text)
    if row is not None and row.activation is not None:
        return row.activation
    try:
        function = _Function(text, rules)
        if [node.name for node in function.graph.of(INPUT)] != ["x"] or function.graph.of(CONSTANT):
            raise FewSpikesError("it is no function of one x")
        if function(torch.zeros(2)).shape != (2,):
            raise FewSpikesError("it is not elementwise")
        label = _label(function.graph) if row is None else row.operators[0]
    except TRIPS as error:
        raise FewSpikesError(f"{text[:_LONGEST]!r} is no elementwise expression: {reason_of(error)}") from None
    return Activation(label, expression=text, function=function, power=degree(function.graph))


class _Function:
    """An expression as a function of a tensor."""

    def __init__(self, text: str, rules: Rules) -> None:
        self.text, self.rules = text, rules
        self.graph = graph_from_json(parsed(text), lambda operator: is_function(operator, rules))
        self.program = lowered(self.graph)

    def __reduce__(self) -> tuple[type["_Function"], tuple[str, Rules]]:
        return _Function, (self.text, self.rules)

    def __call__(self, x: Tensor) -> Tensor:
        values = self.program.values((x,), str)
        execute(self.program.steps, values, {})
        found: Tensor = filled(self.program.output, values)
        return found if found.dtype == x.dtype else found.to(x.dtype)  # sign of a comparison, say


def _filled(value: Number) -> dict[str, Any]:
    return named(_FILLED, (Ref(_X.name), value), {"dtype": torch.bool} if isinstance(value, bool) else {})


def _text(graph: Graph) -> str:
    return json.dumps(graph_to_json(graph), separators=(",", ":"), sort_keys=True)


def _label(graph: Graph) -> str:
    """How reports call it: what calls what."""
    words: dict[str, str] = {"x": "x"}
    for node in graph:
        if node.operator == _FILLED:
            words[node.name] = f"{node.arguments['fill_value']:g}"
        elif node.operator not in (INPUT, OUTPUT):
            args, kwargs = in_order(node.operator, node.arguments)
            given = (value for value in (*args, *kwargs.values()) if isinstance(value, Ref | int | float))
            shown = [words[value.name] if isinstance(value, Ref) else f"{value:g}" for value in given]
            words[node.name] = f"{node.short}({', '.join(shown)})"
            if len(words[node.name]) > _LONGEST:
                words[node.name] = f"{node.short}(...)"
    return words[graph.output.arguments["value"].name]


@cache
def _written(rules: Rules) -> Mapping[str, Written]:
    """Rows of names by the expressions that they stand for."""
    found: dict[str, Written] = {}
    for row in rules.rows:
        if isinstance(row, Written):
            made = Builder(Graph((_X,)), {})
            found |= {_text(_ending(made.nodes, end.name)): row for end in row.expressions(made, Ref("x"))}
    return found


def _ending(nodes: Iterable[Node], end: str) -> Graph:
    """The part of some nodes that leads to one of them, named like an expression's."""
    by_name, needed = {node.name: node for node in nodes}, list[Node]()

    def take(name: str) -> None:
        if name in by_name and by_name[name] not in needed:
            for read in by_name[name].reads:
                take(read)
            needed.append(by_name[name])

    take(end)
    names = {"x": "x"} | {node.name: f"e{i}" for i, node in enumerate(needed, 1)}
    renamed = [Node(names[n.name], n.operator, replaced(n.arguments, lambda r: Ref(names[r.name]))) for n in needed]
    return Graph((_X, *renamed, Node(OUTPUT, OUTPUT, {"value": Ref(names[end])})))
