"""A captured graph becomes that of a spiking network: circuits expanded, scales folded, a site where a neuron goes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.graph.builder import Builder, rebuilt, with_constants_folded
from fewspikes.graph.capture import Captured
from fewspikes.graph.graph import SITE, Graph, Node, Ref
from fewspikes.graph.inputs import InputSpec, check_finite
from fewspikes.graph.shapes import with_shapes
from fewspikes.neuron.activation import Activation
from fewspikes.operators.batch import batch_problems
from fewspikes.operators.call import Call
from fewspikes.operators.choices import Choices
from fewspikes.operators.expressions import Elementwise, Found
from fewspikes.operators.folding import with_pads_folded
from fewspikes.operators.fourier import with_real_pairs
from fewspikes.operators.grouping import with_constants_grouped
from fewspikes.operators.identities import Entry, with_input_spikes, with_linear_parts
from fewspikes.operators.indexing import picks_by_masks
from fewspikes.operators.rule import Linear, Rules
from fewspikes.operators.rules import RULES, carriers, fates
from fewspikes.operators.rules import choices as kinds_of


@dataclass(frozen=True)
class Site:
    """One layer of neurons: its name in reports, its node in the graph, and what it imitates.

    `part`: the operator whose circuit it is part of, "input" or "linear" for an identity; "" for the model's own.
    """

    name: str
    node: str
    activation: Activation
    part: str = ""


@dataclass(frozen=True)
class Prepared:
    """A spiking network's graph, its constants, its sites in the order of the graph, and notes for the report.

    `entries`: by site name, where inputs become spikes.
    """

    graph: Graph
    tensors: dict[str, Tensor]
    sites: tuple[Site, ...]
    notes: tuple[str, ...] = ()
    entries: Mapping[str, Entry] = field(default_factory=dict)


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
    dtype = next((spec.dtype for spec in captured.inputs if spec.dtype.is_floating_point), torch.get_default_dtype())
    graph = with_constants_folded(captured.graph, tensors)
    masked = picks_by_masks(graph, tensors)
    graph = with_constants_folded(_plain(graph, tensors, rules), tensors)
    graph = with_sizes(graph, captured.inputs, tensors, rules) if masked else graph
    graph = with_real_pairs(graph, tensors, rules, dtype)
    graph = _expanded(graph, tensors, choices, rules, notes)
    graph = with_pads_folded(graph, tensors, rules, carriers(graph, rules))
    graph = with_constants_folded(graph, tensors)
    graph = with_constants_grouped(graph, tensors, rules, carriers(graph, rules))
    graph, entries = with_input_spikes(graph, tensors, choices, dtype, carriers(graph, rules))
    signals = carriers(graph, rules)
    ends = frozenset(layer.end.name for layer in Elementwise(graph, tensors, rules, signals).found())
    graph = with_linear_parts(graph, tensors, choices, rules, signals, ends)
    graph, sites = _with_sites(graph, tensors, rules)
    fates(graph, tensors, rules, batch_problems(graph, tensors, rules))
    check_finite(tensors.values(), "a constant of the network, after batch norms were folded,")
    if not sites:
        raise FewSpikesError(
            "nothing to convert: the network has no activation (relu, silu, gelu, ...) that depends on its input"
        )
    names = {site.node: site.name for site in sites}
    found = {names[entry.node]: entry for entry in entries}
    return Prepared(with_sizes(graph, captured.inputs, tensors, rules), tensors, sites, tuple(notes), found)


def with_sizes(graph: Graph, inputs: Sequence[InputSpec], tensors: Mapping[str, Tensor], rules: Rules = RULES) -> Graph:
    """The graph with each node's shape, worked out anew."""
    return with_shapes(graph, inputs, tensors, lambda name, given: _sizes(rules, name, given))


def _sizes(rules: Rules, operator: str, given: Mapping[str, Any]) -> Sequence[int] | None:
    """The shape that an operator gives where its row tells."""
    name = operator.split(".")[1] if "." in operator else operator
    row = next((row for row in rules.of(Linear, name) if row.sizes is not None), None)
    return None if row is None or row.sizes is None else row.sizes(given)


def _plain(graph: Graph, tensors: dict[str, Tensor], rules: Rules) -> Graph:
    """The graph without identities, every view a reshape."""
    signals = carriers(graph, rules)

    def change(node: Node, made: Builder) -> object:
        call = Call(node, graph, rules, signals, tensors=tensors)
        row = rules.circuits(call, Choices({}))
        return row.expand(call, made) if row is not None and row.early else None

    return rebuilt(graph, tensors, change)


def _expanded(graph: Graph, tensors: dict[str, Tensor], choices: Choices, rules: Rules, notes: list[str]) -> Graph:
    """The graph with each circuit in the place of its operator, until there is none left."""
    changed: dict[str, list[str]] = {}
    while True:
        signals, before = carriers(graph, rules), graph
        done = 0

        def change(node: Node, made: Builder) -> object:
            nonlocal done
            call = Call(node, before, rules, signals, tensors=tensors)  # noqa: B023
            row = rules.circuits(call, choices)
            made.part = node.part or node.short
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
        return ".".join(word for word in (node.path, node.part) if word)
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
