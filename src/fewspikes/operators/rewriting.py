"""A captured graph becomes that of a spiking network: circuits expanded, scales folded, a site where a neuron goes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.graph.builder import Builder, rebuilt, with_constants_folded
from fewspikes.graph.capture import Captured
from fewspikes.graph.graph import Graph, Node, Ref
from fewspikes.graph.inputs import InputSpec, check_finite
from fewspikes.graph.shapes import with_shapes
from fewspikes.neuron.activation import Activation
from fewspikes.operators.call import Call
from fewspikes.operators.expressions import Elementwise, Found
from fewspikes.operators.folding import with_pads_folded
from fewspikes.operators.fourier import with_real_pairs
from fewspikes.operators.rule import Linear, Rules
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
    graph = with_constants_folded(captured.graph, tensors)
    graph = with_constants_folded(_plain(graph, tensors, rules), tensors)
    graph = with_real_pairs(graph, tensors, rules, _dtype(captured))
    graph = _expanded(graph, tensors, circuits or {}, rules, notes)
    graph = with_pads_folded(graph, tensors, rules, carriers(graph, rules))
    graph = with_constants_folded(graph, tensors)
    graph, sites = _with_sites(graph, tensors, rules)
    fates(graph, tensors, rules)
    check_finite(tensors.values(), "a constant of the network, after batch norms were folded,")
    if not sites:
        raise FewSpikesError(
            "nothing to convert: the network has no activation (relu, silu, gelu, ...) that depends on its input"
        )
    return Prepared(with_sizes(graph, captured.inputs, tensors, rules), tensors, sites, tuple(notes))


def _dtype(captured: Captured) -> torch.dtype:
    """The floating dtype that a model computes in."""
    dtypes = [*(t.dtype for t in captured.tensors.values()), *(spec.dtype for spec in captured.inputs)]
    return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)


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
        row = rules.circuits(call, {})
        return row.expand(call, made) if row is not None and row.early else None

    return rebuilt(graph, tensors, change)


def _expanded(
    graph: Graph, tensors: dict[str, Tensor], choices: Mapping[str, str], rules: Rules, notes: list[str]
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
    for what, paths in changed.items():
        message = f"{what} at {', '.join(path or 'the top of the model' for path in paths)}: a changed network"
        warn(f"{message}; it is compared with the ANN changed likewise")
        notes.append(message)
    return graph


def _with_sites(graph: Graph, tensors: dict[str, Tensor], rules: Rules) -> tuple[Graph, tuple[Site, ...]]:
    """The graph with a site in the place of each elementwise part that is no weighted sum."""
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
