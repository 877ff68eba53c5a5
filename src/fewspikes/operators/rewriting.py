"""A captured graph becomes that of a spiking network: circuits expanded, scales folded, a site where a neuron goes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.graph.builder import Builder, rebuilt, with_constants_folded
from fewspikes.graph.capture import Captured
from fewspikes.graph.functions import is_aten
from fewspikes.graph.graph import CONSTANT, INPUT, SITE, Graph, Node, Ref, short_name
from fewspikes.graph.inputs import InputSpec, check_finite
from fewspikes.graph.shapes import with_shapes
from fewspikes.neuron.activation import Activation
from fewspikes.operators import rule
from fewspikes.operators.batch import batch_problems
from fewspikes.operators.call import Call
from fewspikes.operators.choices import Choices
from fewspikes.operators.expressions import Elementwise, Found
from fewspikes.operators.folding import with_pads_folded
from fewspikes.operators.fourier import with_real_pairs
from fewspikes.operators.gating import with_gated_products
from fewspikes.operators.given import Tested
from fewspikes.operators.grouping import with_constants_grouped
from fewspikes.operators.identities import Entry, with_input_spikes, with_linear_parts
from fewspikes.operators.indexing import picks_by_masks
from fewspikes.operators.measured import Measured, constants_of
from fewspikes.operators.multiplying import PRODUCT
from fewspikes.operators.quarter_squares import with_quarter_squares
from fewspikes.operators.quotients import with_products_for_quotients
from fewspikes.operators.rule import Digital, Linear, Rules, Shapes
from fewspikes.operators.rules import RULES, carriers, fates
from fewspikes.operators.rules import choices as kinds_of
from fewspikes.operators.squares import with_squares


@dataclass(frozen=True)
class Site:
    """One layer of neurons: its name in reports, its node in the graph, and what it imitates.

    `part`: the operator whose circuit it is part of and, behind "@", the call that it stands for; "input" or "linear"
    for an identity; "" for the model's own.
    """

    name: str
    node: str
    activation: Activation
    part: str = ""


@dataclass(frozen=True)
class Prepared:
    """A spiking network's graph, its constants, its sites in the order of the graph, and notes for the report.

    `entries`: by site name, where inputs become spikes. `measured`: the constants whose values images tell.
    """

    graph: Graph
    tensors: dict[str, Tensor]
    sites: tuple[Site, ...]
    notes: tuple[str, ...] = ()
    entries: Mapping[str, Entry] = field(default_factory=dict)
    measured: tuple[Measured, ...] = ()


def prepared(captured: Captured, circuits: Mapping[str, str] | None = None, rules: Rules = RULES) -> Prepared:
    """The spiking network's graph, neurons still without parameters. What was captured stays as it is.

    Args:
        captured: the model.
        circuits: what becomes of each kind of operator, see `rules.choices`; without, all that may be is left digital.
        rules: the rows.

    Raises:
        FewSpikesError: operators without a row, or nothing to convert.
    """
    tensors, notes, choices = dict(captured.tensors), list[str](), Choices(kinds_of(rules), circuits)
    _check_patterns(choices, captured.graph)
    own = _own_rules(captured, rules)
    graph = _folded(captured.graph, tensors, rules)
    masked = picks_by_masks(graph, tensors)
    graph = _folded(_plain(graph, captured.inputs, tensors, rules, own), tensors, rules)
    graph = with_sizes(graph, captured.inputs, tensors, rules) if masked else graph
    graph = with_real_pairs(graph, tensors, rules, _dtype(captured))
    graph = _expanded(graph, captured.inputs, tensors, choices, rules, notes, own)
    graph = with_products_for_quotients(graph, tensors, rules, carriers(graph, rules))
    graph = with_pads_folded(graph, tensors, rules, carriers(graph, rules))
    graph = _folded(graph, tensors, rules)
    _test_neurons(own, graph, tensors, rules)
    graph = with_constants_grouped(graph, tensors, rules, carriers(graph, rules))
    graph = with_squares(graph, tensors, choices, _layers(graph, tensors, rules))
    entries: tuple[Entry, ...] = ()
    if choices.departs("input"):
        graph, entries = with_input_spikes(graph, tensors, choices, _dtype(captured), carriers(graph, rules))
    if choices.departs(PRODUCT):
        layers = [nodes for _, nodes in _layers(graph, tensors, rules)]
        graph = with_quarter_squares(graph, tensors, choices, rules, carriers(graph, rules), layers)
        layers = [nodes for _, nodes in _layers(graph, tensors, rules)]
        graph = with_gated_products(graph, tensors, choices, rules, carriers(graph, rules), layers)
    if choices.departs("linear"):
        signals = carriers(graph, rules)
        ends = frozenset(nodes[-1].name for _, nodes in _layers(graph, tensors, rules))
        graph = with_linear_parts(graph, tensors, choices, rules, signals, ends)
    for pattern, value in choices.idle.items():
        warn(f"circuits: {pattern!r}: {value!r} changes nothing: no operator there has this choice")
    graph, sites = _with_sites(graph, tensors, rules)
    graph = _tested(own, graph, captured, tensors, rules) if rules.own else graph
    shaped = _shaped(graph, captured.inputs, tensors, rules)
    fates(graph, tensors, rules, batch_problems(shaped or graph, tensors, rules))
    _bound_masks(graph, tensors, rules)
    check_finite(tensors.values(), "a constant of the network, after batch norms were folded,")
    if not sites:
        raise FewSpikesError(
            "nothing to convert: the network has no activation (relu, silu, gelu, ...) that depends on its input"
        )
    names = {site.node: site.name for site in sites}
    found = {names[entry.node]: entry for entry in entries}
    graph = shaped or with_sizes(graph, captured.inputs, tensors, rules)
    return Prepared(graph, tensors, sites, tuple(notes), found, constants_of(graph))


def _bound_masks(graph: Graph, tensors: dict[str, Tensor], rules: Rules) -> None:
    """Put the lowest number that is finite in the place of -inf in constants that meet no signal: what masks add."""
    signals = carriers(graph, rules)
    met = {name for node in graph if not signals.isdisjoint((node.name, *node.reads)) for name in node.reads}
    for name in (node.arguments["tensor"] for node in graph.of(CONSTANT) if node.name not in met):
        if tensors[name].is_floating_point():
            tensors[name] = tensors[name].clamp(min=torch.finfo(tensors[name].dtype).min)


def _layers(graph: Graph, tensors: Mapping[str, Tensor], rules: Rules) -> Iterator[tuple[str, list[Node]]]:
    """What is to become neurons: what each layer reads, and the nodes that it is made of."""
    return Elementwise(graph, tensors, rules, carriers(graph, rules)).parts()


def _dtype(captured: Captured) -> torch.dtype:
    """The floating dtype that a model computes in."""
    dtypes = [*(t.dtype for t in captured.tensors.values()), *(spec.dtype for spec in captured.inputs)]
    return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)


def _check_patterns(choices: Choices, graph: Graph) -> None:
    """Raise where a pattern fits no module and no input: a kind that there is none of, perhaps."""
    paths = {node.name if node.operator == INPUT else node.path for node in graph}
    pattern = choices.without_a_place(paths)
    if pattern is not None:
        raise FewSpikesError(
            f"circuits: {said(pattern)} is no kind ({', '.join(choices.kinds)}) and fits the path of no module that "
            "computes something; give a kind, or a module's whole path, in which * stands for anything: 'layer1.*'"
        )


def _own_rules(captured: Captured, rules: Rules) -> Tested:
    """The user's rules, to be tested."""
    names = (node.name for node in captured.graph.of(INPUT))
    return Tested(rules, {name: spec.dtype for name, spec in zip(names, captured.inputs, strict=True)})


def _calls(graph: Graph, tensors: Mapping[str, Tensor], rules: Rules) -> list[Call]:
    """The calls of operators of a graph."""
    signals = carriers(graph, rules)
    return [Call(node, graph, rules, signals, tensors=tensors) for node in graph if "." in node.operator]


def _test_neurons(own: Tested, graph: Graph, tensors: Mapping[str, Tensor], rules: Rules) -> None:
    """Test the user's rules of activations and elementwise operators."""
    for call in _calls(graph, tensors, rules) if rules.own else ():
        for kind in (rule.Neurons, rule.Elementwise):
            own.test(rules.find(kind, call) if call.signals else None, call, tensors)


def _tested(own: Tested, graph: Graph, captured: Captured, tensors: Mapping[str, Tensor], rules: Rules) -> Graph:
    """The graph with shapes (not by the user's word), the user's rules of what is no neuron or circuit tested."""
    graph = with_sizes(graph, captured.inputs, tensors)
    for call in _calls(graph, tensors, rules):
        if call.signals:
            kinds = (Shapes, Linear, Digital)
            own.test(next((row for kind in kinds if (row := rules.find(kind, call))), None), call, tensors)
    own.warn_of_unused(_calls(captured.graph, captured.tensors, rules))
    return graph


def _folded(graph: Graph, tensors: dict[str, Tensor], rules: Rules) -> Graph:
    """The graph with what is constant computed; operators outside of ATen are called only if a row covers them."""
    return with_constants_folded(graph, tensors, lambda operator: is_aten(operator) or rules.covers(operator))


def _shaped(graph: Graph, inputs: Sequence[InputSpec], tensors: Mapping[str, Tensor], rules: Rules) -> Graph | None:
    """The graph with its shapes; None where it has an operator, without a row perhaps, that does not tell them."""
    try:
        return with_sizes(graph, inputs, tensors, rules)
    except Exception:  # whatever an operator raises on the meta device
        return None


def with_sizes(graph: Graph, inputs: Sequence[InputSpec], tensors: Mapping[str, Tensor], rules: Rules = RULES) -> Graph:
    """The graph with each node's shape, worked out anew."""
    return with_shapes(graph, inputs, tensors, lambda name, given: _sizes(rules, name, given))


def _sizes(rules: Rules, operator: str, given: Mapping[str, Any]) -> Sequence[int] | None:
    """The shape that an operator gives where its row tells."""
    row = next((row for row in rules.of(Linear, short_name(operator)) if row.sizes is not None), None)
    return None if row is None or row.sizes is None else row.sizes(given)


def _plain(graph: Graph, inputs: Sequence[InputSpec], tensors: dict[str, Tensor], rules: Rules, own: Tested) -> Graph:
    """The graph without identities, every view a reshape."""
    signals = carriers(graph, rules)

    def change(node: Node, made: Builder) -> object:
        call = Call(node, graph, rules, signals, tensors=tensors)
        row = rules.circuits(call, Choices({}))
        if row is None or not row.early:
            return None
        own.test(row, call, tensors)
        return row.expand(call, made)

    changed = rebuilt(graph, tensors, change)
    return with_sizes(changed, inputs, tensors) if own.used else changed


def _expanded(
    graph: Graph,
    inputs: Sequence[InputSpec],
    tensors: dict[str, Tensor],
    choices: Choices,
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
            call = Call(node, before, rules, signals, tensors=tensors)  # noqa: B023
            row = rules.circuits(call, choices)
            own.test(row, call, tensors)
            made.part = node.part or f"{node.short}@{node.name}"
            instead = None if row is None else row.expand(call, made)
            made.part = node.part
            if row is not None and instead is not None:
                done += 1
                notes.extend(made.notes)
                made.notes.clear()
                if row.note:
                    changed.setdefault(f"circuits={{{row.kind!r}: {row.choice!r}}} {row.note}", []).append(node.path)
            return instead

        graph = rebuilt(graph, tensors, change)
        if not done:
            break
        graph = with_sizes(graph, inputs, tensors) if own.used else graph  # a user's circuit may leave them out
    for what, paths in changed.items():
        message = f"{what} at {', '.join(path or 'the top of the model' for path in paths)}: a changed network"
        warn(f"{message}; it is compared with the ANN changed likewise")
        notes.append(message)
    return graph


def _with_sites(graph: Graph, tensors: dict[str, Tensor], rules: Rules) -> tuple[Graph, tuple[Site, ...]]:
    """The graph with a site in the place of each elementwise part that is no weighted sum; identities are there."""
    signals = carriers(graph, rules)
    found = {layer.end.name: layer for layer in Elementwise(graph, tensors, rules, signals).found()}
    names = _names([node for node in graph if node.name in found or node.operator == SITE], found)
    sites: list[Site] = []

    def change(node: Node, made: Builder) -> Ref | None:
        layer = found.get(node.name)
        if layer is not None:
            ref = made.site(made.now(Ref(layer.source)), node.shape)
            sites.append(Site(names[node.name], ref.name, layer.activation, node.part))
            return ref
        if node.operator == SITE:
            sites.append(Site(names[node.name], node.name, Activation("identity"), node.part))
        return None

    return rebuilt(graph, tensors, change), tuple(sites)


def _place(node: Node, layer: Found | None) -> str:
    """What a layer of neurons is called if no other is: its module's path and circuit, or what it computes."""
    if node.part or layer is None:
        return ".".join(word for word in (node.path, node.part.partition("@")[0]) if word)
    return node.path or (layer.end.short if layer.activation.expression else layer.activation.name)


def _names(nodes: list[Node], found: Mapping[str, Found]) -> dict[str, str]:
    """A site's name by the node that it replaces: the module's path, numbered where a module has several."""
    places = {node.name: _place(node, found.get(node.name)) for node in nodes}
    times, seen = Counter(places.values()), Counter[str]()
    names = {}
    for node, place in places.items():
        seen[place] += 1
        names[node] = place if times[place] == 1 else f"{place}#{seen[place]}"
    return names
