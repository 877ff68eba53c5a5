"""Neurons for f(x) = x: where the network's inputs come as spikes, and between weighted maps without a neuron."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder, rebuilt
from fewspikes.graph.graph import INPUT, PASSING, STATE, Graph, Node, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.choices import Choices
from fewspikes.operators.rule import Digital, Linear, Rules

INPUT_PART, LINEAR_PART = "input", "linear"  # what the report calls these circuits

relayed = Digital(
    ("alias",),
    kind="linear",
    reach=lambda call: call.boxes(),
    reason="an analog value between two weighted maps, as circuits={'linear': 'relay'} asks for",
)


class Entry(NamedTuple):
    """Where an input becomes spikes.

    The value that silence stands for is taken off before the neurons and added behind them, by channel; it is 0 until
    somebody knows it.

    Attributes:
        node: of the site.
        input: the input's name.
        lowest: the name of the constant that is taken off, and of that which is added.
        axis: of the channels.
    """

    node: str
    input: str
    lowest: tuple[str, str]
    axis: int


def with_input_spikes(
    graph: Graph, tensors: dict[str, Tensor], choices: Choices, dtype: torch.dtype, carriers: frozenset[str]
) -> tuple[Graph, tuple[Entry, ...]]:
    """The graph with neurons behind each input, or table looked up, that is to come as spikes.

    `tensors` gets what they need.
    """
    entries: list[Entry] = []

    def change(node: Node, made: Builder) -> Ref | None:
        begins = node.name in carriers and carriers.isdisjoint(node.reads) and node.operator != STATE
        is_read = bool(graph.users(node.name))
        path = node.path or node.name
        if not (begins and is_read) or node.shape is None or choices.of("input", path) != "spikes":
            return None
        made.path, made.part, shape = path, INPUT_PART, node.shape
        axis = _channels(shape)
        sizes = [size if at == axis else 1 for at, size in enumerate(shape)]
        lowest = [made.constant(torch.zeros(sizes, dtype=dtype)) for _ in range(2)]  # type: ignore[arg-type]
        site = made.site(made.call("sub.Tensor", made.copy(node), lowest[0], like=shape), shape)
        names = [str(made.node(ref).arguments["tensor"]) for ref in lowest]
        entries.append(Entry(site.name, node.name, (names[0], names[1]), axis))
        return made.call("add.Tensor", site, lowest[1], like=shape)

    return rebuilt(graph, tensors, change), tuple(entries)


def _channels(shape: tuple[object, ...]) -> int:
    """The axis of the channels of an input: the shortest one of the image's."""
    sizes = [(size, axis) for axis, size in enumerate(shape) if axis and isinstance(size, int)]
    return min(sizes)[1] if sizes else 0


def with_linear_parts(
    graph: Graph,
    tensors: dict[str, Tensor],
    choices: Choices,
    rules: Rules,
    carriers: frozenset[str],
    ends: frozenset[str],
) -> Graph:
    """The graph with neurons, or an analog relay, before each weighted map that another one reaches without a neuron.

    Args:
        graph, rules, carriers: as everywhere.
        tensors: the constants.
        choices: what was chosen for "linear".
        ends: the nodes that are to become neurons.
    """
    weighted = _weighted(graph, tensors, rules, carriers, ends)
    made_for: dict[str, Ref] = {}

    def change(node: Node, made: Builder) -> Ref | None:
        call = Call(node, graph, rules, carriers, tensors=tensors)
        rule = rules.find(Linear, call) if node.name in carriers else None
        if rule is None or rule.weight is None:
            return None
        (name,) = call.signals
        source = node.arguments[name].name
        choice = choices.of("linear", node.path) if weighted[source] else "collapsed"
        if choice == "collapsed":
            return None
        if source not in made_for:
            shape, operand = graph[source].shape, made.now(Ref(source))
            made.part = LINEAR_PART
            as_neurons = choice == "neurons"
            made_for[source] = made.site(operand, shape) if as_neurons else made.call("alias", operand, like=shape)
            made.part = node.part
        return made.append(node.operator, made.now(node.arguments) | {name: made_for[source]}, node.shape)

    return rebuilt(graph, tensors, change)


def _weighted(
    graph: Graph, tensors: Mapping[str, Tensor], rules: Rules, carriers: frozenset[str], ends: frozenset[str]
) -> Mapping[str, bool]:
    """By node, whether a weighted map reaches it without a neuron between."""
    found: dict[str, bool] = {}

    def is_reached(node: Node) -> bool:
        rule = None
        if node.name in carriers and node.name not in ends and node.operator != INPUT:
            rule = rules.find(Linear, Call(node, graph, rules, carriers, tensors=tensors)) if node.arguments else None
        passes = node.operator in ("getitem", *PASSING) or rule is not None
        carried = rule is not None and rule.held is not None  # by neurons of its own where weights follow
        before = passes and not carried and any(found.get(name) for name in (*node.reads, str(graph.after(node.name))))
        return before or (rule is not None and rule.weight is not None)

    for _ in range(2 if graph.loops else 1):  # a state is what stands behind it will be
        for node in graph:
            found[node.name] = is_reached(node)
    return found


ROWS = (relayed,)
