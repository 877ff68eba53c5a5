"""Products of two signals in which the spikes of one factor, the gate, let the other's value through.

sum over t of z[t] (d[t] y) + c y: the gate is a layer of neurons reached by moves only, the held factor any weighted
sum, complete before gating starts; it is a weight that changes. What comes out is a sum in a membrane: it may be added
up, averaged, and go into neurons or be held by another product. Where a gated spike would meet a weight, which would
have to be multiplied with what is held, or where it would gate, neurons for f(x) = x carry it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder, rebuilt
from fewspikes.graph.graph import (
    HISTORY,
    INPUT,
    LAST,
    NEXT,
    OUTPUT,
    SITE,
    STATE,
    STEP,
    Batch,
    Graph,
    Node,
    Ref,
    replaced,
)
from fewspikes.neuron.activation import POWERS_OF_TWO, Activation
from fewspikes.operators.call import IMAGES, Call
from fewspikes.operators.choices import Choices
from fewspikes.operators.multiplying import GATED, SHIFTED, matrices, matrix_product, one_for_each, product_to_be
from fewspikes.operators.rule import Digital, Linear, Rules, linear, neurons
from fewspikes.operators.summing import adaptively_pooled, broadcast, divided, pooled, scaled, summed
from fewspikes.reach.boxes import Box

_LIBRARY = torch.library.Library("fewspikes", "FRAGMENT")
_LIBRARY.define("gated(Tensor gate, Tensor held) -> Tensor")
_LIBRARY.define("gated_rows(Tensor gate, Tensor held) -> Tensor")
_LIBRARY.define("gated_columns(Tensor held, Tensor gate) -> Tensor")
_LIBRARY.impl("gated", torch.mul, "CompositeImplicitAutograd")
_LIBRARY.impl("gated_rows", torch.matmul, "CompositeImplicitAutograd")
_LIBRARY.impl("gated_columns", torch.matmul, "CompositeImplicitAutograd")

_LIBRARY.define("powers_of_two(Tensor self) -> Tensor")
_LIBRARY.impl("powers_of_two", torch.clone, "CompositeImplicitAutograd")

_ELEMENTS, _ROWS, _COLUMNS = (f"fewspikes.{name}.default" for name in ("gated", "gated_rows", "gated_columns"))


def _products(call: Call) -> int:
    return prod(call.shape) * call.shape_of("held" if call.node.operator == _COLUMNS else "gate")[-1]


def _has_axis(call: Call, axis: int) -> bool:
    """Whether the held factor has the gate's axis, counted from the end as broadcasting does, at its full length."""
    gate, held = call.shape_of("gate"), call.shape_of("held")
    from_end = len(gate) - axis
    return from_end <= len(held) and held[-from_end] == gate[axis]


def _is_summed(place: int) -> Callable[[Call, int], bool]:
    """Whether an axis of the gate is the one that the product sums over, or one of the stack."""

    def told(call: Call, axis: int) -> bool:
        count = len(call.shape_of("gate"))
        return axis == count + place or (axis < count - 2 and _has_axis(call, axis))

    return told


@linear("fewspikes::gated", held="held", multiplications=one_for_each, tells_apart=_has_axis)
def elements(call: Call) -> Iterable[Box]:
    """Either factor, broadcast to the shape of the product."""
    return broadcast(call, "gate", "held")


@linear("fewspikes::gated_rows", held="held", multiplications=_products, tells_apart=_is_summed(-1))
def rows(call: Call) -> Iterable[Box]:
    """gate @ held: the gate's rows with all columns of the held matrix."""
    return matrices(call, "gate", "held")


@linear("fewspikes::gated_columns", held="held", multiplications=_products, tells_apart=_is_summed(-2))
def columns(call: Call) -> Iterable[Box]:
    """held @ gate: the gate's columns with all rows of the held matrix."""
    return matrices(call, "held", "gate")


@neurons("fewspikes::powers_of_two")
def powers_of_two(call: Call) -> Activation:
    """Neurons for f(x) = x whose spikes stand for powers of two: what they gate is shifted."""
    return Activation(POWERS_OF_TWO)


def with_gated_products(
    graph: Graph,
    tensors: dict[str, Tensor],
    choices: Choices,
    rules: Rules,
    carriers: frozenset[str],
    layers: Sequence[Sequence[Node]],
) -> Graph:
    """The graph with each product that is to be gated as one, and neurons for f(x) = x where it needs some.

    Args:
        graph, rules, carriers: as everywhere.
        tensors: the constants.
        choices: what was chosen.
        layers: the nodes that are to become neurons, layer by layer.
    """
    work = _Gating(graph, tensors, choices, rules, carriers, layers)
    return rebuilt(graph, tensors, work.changed)


class _Gating:
    """The state of `with_gated_products`: which values lie in a product's membrane, and what carries them."""

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, Tensor],
        choices: Choices,
        rules: Rules,
        carriers: frozenset[str],
        layers: Sequence[Sequence[Node]],
    ) -> None:
        self.graph, self.tensors, self.choices, self.rules = graph, tensors, choices, rules
        self.carriers = carriers
        self.ends = {nodes[-1].name for nodes in layers}
        self.inside = {node.name for nodes in layers for node in nodes}
        self.fired: set[str] = set()  # outputs of neurons, moved at most
        self.open: dict[str, tuple[str, str]] = {}  # by node, the module and circuit whose product it is a sum of
        self.carried: dict[str, Ref] = {}  # by node of the old graph, the neurons that carry it
        self.shifting: dict[str, Ref] = {}  # by node of the old graph, the neurons of powers of two that carry it
        self.depths: dict[str, int] = {}  # by node of the new graph, the layers that fire before its value is complete

    def changed(self, node: Node, g: Builder) -> Ref | None:
        """What stands for a node."""
        if node.operator == NEXT:
            return self._next(node, g)
        if node.name not in self.carriers or node.operator in (INPUT, OUTPUT):
            return None
        if node.name in self.ends or node.operator == SITE:
            self.fired.add(node.name)
            return None
        found = self._to_be(node)
        if found is not None:
            self.open[node.name] = node.path, node.part or f"{node.short}@{node.name}"
            return self._product(node, g, found[0], found[1] == SHIFTED)
        return self._passed(node, g)

    def _call(self, node: Node) -> Call:
        return Call(node, self.graph, self.rules, self.carriers, tensors=self.tensors)

    def _to_be(self, node: Node) -> tuple[Digital, str] | None:
        """The row of a product that is to be gated, and by what."""
        found = None if node.name in self.inside else product_to_be(self._call(node), self.choices)
        return found if found is not None and found[1] in (GATED, SHIFTED) else None

    def _product(self, node: Node, g: Builder, row: Digital, shifts: bool) -> Ref:
        """The product. Neurons gate before what is none, then the smaller factor, then the later, then the first."""
        names = [value.name for value in node.arguments.values() if isinstance(value, Ref)]
        first, second = names[0], names[-1]  # the same of a square
        other = first != second and self._cost(second, shifts, g) < self._cost(first, shifts, g)
        gate, held = (second, first) if other else (first, second)
        g.part = self.open[node.name][1]
        if shifts:
            spikes = self._shifting(gate, g)
        else:
            spikes = g.now(Ref(gate)) if gate in self.fired else self._carried(gate, g)
        value = g.now(Ref(held))
        if row is not matrix_product:
            operator, arguments = _ELEMENTS, {"gate": spikes, "held": value}
        elif other:
            operator, arguments = _COLUMNS, {"held": value, "gate": spikes}
        else:
            operator, arguments = _ROWS, {"gate": spikes, "held": value}
        return g.append(operator, arguments, node.shape)

    def _cost(self, name: str, shifts: bool, g: Builder) -> tuple[bool, int, int]:
        return not shifts and name not in self.fired, prod(self.graph.sizes(name, IMAGES)), -self._depth(name, g)

    def _depth(self, name: str, g: Builder) -> int:
        """How many layers fire, one after the other, before a value is complete."""
        for node in g.nodes[len(self.depths) :]:
            before = [self.depths[read] for read in node.reads]
            if node.operator == STATE:  # complete when the loop can start
                steps = self.graph.loops[node.loop].of(STEP)
                before += [self.depths[g.now(step.arguments["self"]).name] for step in steps]
            if node.operator in (_ELEMENTS, _ROWS, _COLUMNS):  # the gate's spikes wait for what is held
                before.append(self.depths[node.arguments["held"].name] + 1)
            fires = node.name in self.ends or node.operator == SITE
            self.depths[node.name] = max(before, default=0) + fires
        return self.depths[g.now(Ref(name)).name]

    def _carried(self, name: str, g: Builder) -> Ref:
        """Neurons for f(x) = x that carry a value, in front of moves that took the images from axis 0."""
        if name not in self.carried:
            node, before = self.graph[name], self._moved_from(name)
            if before is None:
                self.carried[name] = g.site(g.now(Ref(name)), node.shape)
            else:
                carried = self._carried(before, g)
                arguments = replaced(node.arguments, lambda ref: carried if ref.name == before else g.now(ref))
                self.carried[name] = g.append(node.operator, arguments, node.shape, node.dtype)
        return self.carried[name]

    def _moved_from(self, name: str) -> str | None:
        """What a value was moved from, if all moves back to one of images in front keep all elements; else None."""
        found = None
        while not self._has_images_in_front(name):
            node = self.graph[name]
            rule = self.rules.find(Linear, self._call(node)) if node.name in self.open else None
            signals = self.carriers.intersection(node.reads)
            if rule is None or not rule.moves or len(signals) != 1:
                return None
            (name,) = signals
            if prod(self.graph.sizes(name, IMAGES)) != prod(self.graph.sizes(node.name, IMAGES)):
                return None
            found = found or name
        return found

    def _has_images_in_front(self, name: str) -> bool:
        return (self.graph[name].shape or ())[:1] == (Batch(1),)

    def _shifting(self, name: str, g: Builder) -> Ref:
        """Neurons of powers of two that carry a value."""
        if name not in self.shifting:
            apart = g.call("fewspikes::apart", g.now(Ref(name)), like=self.graph[name].shape)
            self.shifting[name] = g.call("fewspikes::powers_of_two", apart, like=self.graph[name].shape)
        return self.shifting[name]

    def _passed(self, node: Node, g: Builder) -> Ref | None:
        """An operator that is no product: sums in a membrane go through it, or are carried to it by neurons."""
        weighed = node.operator in (HISTORY, LAST) and self._meets_weights(node.name)
        if weighed and node.reads[0] in self.carried:
            self.fired.add(node.name)
            return g.append(node.operator, {**node.arguments, "self": self.carried[node.reads[0]]}, node.shape)
        rule = self.rules.find(Linear, self._call(node)) if node.operator != "getitem" else None
        signals = [name for name in node.reads if name in self.carriers]
        moved = node.operator in ("getitem", HISTORY, LAST) or (rule is not None and rule.moves)
        if moved and self.fired.issuperset(signals):
            self.fired.add(node.name)
        waiting = [name for name in signals if name in self.open]
        if not waiting or (rule is None and not moved):
            return None
        if moved or node.name in self.inside or self._adds(node, rule):
            self.open[node.name] = self.open[waiting[0]]
            return None
        return self._weighed(node, g, waiting)

    def _next(self, node: Node, g: Builder) -> Ref | None:
        """What a state will be; neurons carry a sum in a membrane to what weighs the state at the next time step."""
        state, value = (node.arguments[name].name for name in ("state", "self"))
        if value not in self.open or not self._meets_weights(state):
            return None
        g.path, g.part = self.open[value]
        carried = self._carried(value, g)
        g.path, g.part = node.path, node.part
        return g.append(NEXT, {"state": g.now(Ref(state)), "self": carried})

    def _meets_weights(self, name: str) -> bool:
        """Whether a weighted map takes a state, perhaps in a sum; neurons and products that hold it need nothing."""
        for user in self.graph.users(name):
            if user.operator in (NEXT, HISTORY, LAST, SITE) or user.name in self.inside or self._to_be(user):
                continue
            rule = self.rules.find(Linear, self._call(user)) if user.operator != "getitem" else None
            passes = user.operator == "getitem" or (rule is not None and (rule.moves or self._adds(user, rule)))
            if self._meets_weights(user.name) if passes else rule is not None:
                return True
        return False

    def _adds(self, node: Node, rule: Linear | None) -> bool:
        """Whether it only adds, all with one weight, or scales by one number: then each spike adds d[t] y as before."""
        if rule in (summed, pooled, adaptively_pooled) or (rule is not None and (rule.adds or rule.held is not None)):
            return True
        factors = [name for name in node.reads if name not in self.carriers]
        return rule in (scaled, divided) and all(prod(self.graph.sizes(name, IMAGES)) == 1 for name in factors)

    def _weighed(self, node: Node, g: Builder, waiting: list[str]) -> Ref:
        """The operator, reading what carries the sums that lie in a membrane."""
        instead = {}
        for name in waiting:
            g.path, g.part = self.open[name]
            relayed = self.choices.of("linear", node.path) == "relay"
            value = g.now(Ref(name))
            instead[name] = g.call("alias", value, like=self.graph[name].shape) if relayed else self._carried(name, g)
        g.path, g.part = node.path, node.part
        arguments = replaced(node.arguments, lambda ref: instead.get(ref.name) or g.now(ref))
        return g.append(node.operator, arguments, node.shape, node.dtype)


ROWS = (elements, rows, columns, powers_of_two)
