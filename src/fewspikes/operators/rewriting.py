"""A captured graph becomes that of a spiking network: circuits expanded, scales folded, a site where a neuron goes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.graph.builder import Builder, rebuilt, with_constants_folded
from fewspikes.graph.capture import Captured
from fewspikes.graph.functions import is_aten
from fewspikes.graph.graph import INPUT, Graph, Node, Ref
from fewspikes.graph.inputs import InputSpec, check_finite
from fewspikes.graph.shapes import with_shapes
from fewspikes.neuron.activation import Activation
from fewspikes.operators import rule
from fewspikes.operators.call import Call
from fewspikes.operators.expressions import Elementwise, Found
from fewspikes.operators.folding import with_pads_folded
from fewspikes.operators.given import Tested
from fewspikes.operators.rule import Linear, Rules, Shapes
from fewspikes.operators.rules import RULES, carriers, fates


@dataclass(frozen=True)
class Site:
    """One layer of neurons: its name in reports, its node in the graph, and what it imitates."""

    name: str
    node: str
    activation: Activation


@dataclass(frozen=True)
class Prepared:
    """A spiking network's graph, its constants, its sites in the order of the graph, and notes for the report."""

    graph: Graph
    tensors: dict[str, Tensor]
    sites: tuple[Site, ...]
    notes: tuple[str, ...] = ()


def prepared(captured: Captured, circuits: Mapping[str, str] | None = None, rules: Rules = RULES) -> Prepared:
    """The spiking network's graph, neurons still without parameters. What was captured stays as it is.

    Args:
        captured: the model.
        circuits: what becomes of each kind of operator, see `rules.choices`; without, all that may be is left digital.
        rules: the rows.

    Raises:
        FewSpikesError: operators without a row, or nothing to convert.
    """
    tensors, notes = dict(captured.tensors), list[str]()
    own = _own_rules(captured, rules)
    graph = _folded(_plain(captured, tensors, rules, own), tensors, rules)
    graph = _expanded(graph, captured.inputs, tensors, circuits or {}, rules, notes, own)
    graph = with_pads_folded(graph, tensors, rules, carriers(graph, rules))
    graph = _folded(graph, tensors, rules)
    graph, sites = _with_sites(graph, tensors, rules, own)
    decided = fates(graph, rules)
    check_finite(tensors.values(), "a constant of the network, after batch norms were folded,")
    if not sites:
        raise FewSpikesError(
            "nothing to convert: the network has no activation (relu, silu, gelu, ...) that depends on its input"
        )
    graph = with_sizes(graph, captured.inputs, tensors, rules)
    for call in _calls(graph, rules) if rules.own else ():
        fate = decided.get(call.node.name)
        sizes = next(iter(rules.of(Shapes, call.node.short)), None)
        own.test(sizes or (None if fate is None else fate.rule), call, tensors)
    own.warn_of_unused(_calls(captured.graph, rules))
    return Prepared(graph, tensors, sites, tuple(notes))


def _own_rules(captured: Captured, rules: Rules) -> Tested:
    """The user's rules, to be tested."""
    names = (node.name for node in captured.graph.of(INPUT))
    return Tested(rules, {name: spec.dtype for name, spec in zip(names, captured.inputs, strict=True)})


def _calls(graph: Graph, rules: Rules) -> list[Call]:
    """The calls of operators of a graph."""
    signals = carriers(graph, rules)
    return [Call(node, graph, rules, signals) for node in graph if "." in node.operator]


def _folded(graph: Graph, tensors: dict[str, Tensor], rules: Rules) -> Graph:
    """The graph with what is constant computed; operators outside of ATen are called only if a row covers them."""
    return with_constants_folded(graph, tensors, lambda operator: is_aten(operator) or rules.covers(operator))


def with_sizes(graph: Graph, inputs: Sequence[InputSpec], tensors: Mapping[str, Tensor], rules: Rules = RULES) -> Graph:
    """The graph with each node's shape, worked out anew."""
    return with_shapes(graph, inputs, tensors, lambda name, given: _sizes(rules, name, given))


def _sizes(rules: Rules, operator: str, given: Mapping[str, Any]) -> Sequence[int] | None:
    """The shape that an operator gives where its row tells."""
    name = operator.split(".")[1] if "." in operator else operator
    row = next((row for row in rules.of(Linear, name) if row.sizes is not None), None)
    return None if row is None or row.sizes is None else row.sizes(given)


def _plain(captured: Captured, tensors: dict[str, Tensor], rules: Rules, own: Tested) -> Graph:
    """The graph without identities, every view a reshape."""
    graph = captured.graph
    signals = carriers(graph, rules)

    def change(node: Node, made: Builder) -> object:
        call = Call(node, graph, rules, signals)
        row = rules.circuits(call, {})
        if row is None or not row.early:
            return None
        own.test(row, call, tensors)
        return row.expand(call, made)

    changed = rebuilt(graph, tensors, change)
    return with_sizes(changed, captured.inputs, tensors, rules) if own.used else changed


def _expanded(
    graph: Graph,
    inputs: Sequence[InputSpec],
    tensors: dict[str, Tensor],
    choices: Mapping[str, str],
    rules: Rules,
    notes: list[str],
    own: Tested,
) -> Graph:
    """The graph with each circuit in the place of its operator, until there is none left."""
    changed: dict[str, list[str]] = {}
    while True:
        signals, before = carriers(graph, rules), graph
        done = 0

        def change(node: Node, made: Builder) -> object:
            nonlocal done
            call = Call(node, before, rules, signals)  # noqa: B023
            row = rules.circuits(call, choices)
            own.test(row, call, tensors)
            instead = None if row is None else row.expand(call, made)
            if row is not None and instead is not None:
                done += 1
                notes.extend(made.notes)
                made.notes.clear()
                if row.kind is not None:
                    changed.setdefault(f"circuits={{{row.kind!r}: {row.choice!r}}} {row.note}", []).append(node.path)
            return instead

        graph = rebuilt(graph, tensors, change)
        if not done:
            break
        graph = with_sizes(graph, inputs, tensors, rules) if own.used else graph  # a user's circuit may leave them out
    for what, paths in changed.items():
        message = f"{what} at {', '.join(path or 'the top of the model' for path in paths)}: a changed network"
        warn(f"{message}; it is compared with the ANN changed likewise")
        notes.append(message)
    return graph


def _with_sites(graph: Graph, tensors: dict[str, Tensor], rules: Rules, own: Tested) -> tuple[Graph, tuple[Site, ...]]:
    """The graph with a site in the place of each elementwise part that is no weighted sum."""
    for call in _calls(graph, rules) if rules.own else ():
        for kind in (rule.Neurons, rule.Elementwise):
            own.test(rules.find(kind, call) if call.signals else None, call, tensors)
    signals = carriers(graph, rules)
    found = {layer.end.name: layer for layer in Elementwise(graph, tensors, rules, signals).found()}
    names = _names(list(found.values()))
    sites: list[Site] = []

    def change(node: Node, made: Builder) -> Ref | None:
        layer = found.get(node.name)
        if layer is None:
            return None
        ref = made.site(made.now(Ref(layer.source)), node.shape)
        sites.append(Site(names[node.name], ref.name, layer.activation))
        return ref

    return rebuilt(graph, tensors, change), tuple(sites)


def _word(layer: Found) -> str:
    return layer.end.short if layer.activation.expression else layer.activation.name


def _names(layers: list[Found]) -> dict[str, str]:
    """A site's name by the node that it replaces: the module's path, numbered where a module has several."""
    places = {layer.end.name: layer.end.path or _word(layer) for layer in layers}
    times, seen = Counter(places.values()), Counter[str]()
    names = {}
    for node, place in places.items():
        seen[place] += 1
        names[node] = place if times[place] == 1 else f"{place}#{seen[place]}"
    return names
