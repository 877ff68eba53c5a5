"""Constants whose best value is found in what the ANN sees, see `operators.measured`."""

from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor

from fewspikes.graph.graph import HISTORY, OUTPUT, Graph, Node, Ref
from fewspikes.graph.interpreter import Running
from fewspikes.measure.deal import dealt
from fewspikes.measure.source import Labelled
from fewspikes.network.spiking import ExactActivation, SpikingNetwork
from fewspikes.operators.measured import Measured

_BATCHES, _IMAGES = 8, 16  # that are looked at, and images in each


def measured_constants(
    snn: SpikingNetwork, wanted: Sequence[Measured], batches: Iterable[Labelled]
) -> dict[str, Tensor]:
    """Run the ANN over the first images and tell each constant's value.

    Args:
        snn: any network of the ANN in question; its neurons are not used.
        wanted: the constants.
        batches: inputs and (ignored) labels.
    """
    names = list(dict.fromkeys(name for one in wanted for name in one.nodes))
    graph = _returning(snn.graph, names)
    ann = Running(graph, snn.tensors, {site.node: ExactActivation(site.activation) for site in snn.sites})
    shapes = {name: snn.tensors[name].shape for one in wanted for name in one.constants}
    found: dict[str, list[Tensor]] = {name: [] for name in shapes}
    with torch.inference_mode():
        for inputs, _ in islice(dealt(batches, _IMAGES), _BATCHES):
            values = dict(zip(names, ann(*inputs), strict=True))
            for one in wanted:
                for name, node in zip(one.constants, one.nodes, strict=True):
                    found[name].append(one.statistic(values[node], shapes[name]))
    made: dict[str, Tensor] = {}
    for one in wanted:
        statistics = [one.merged(found[name]) for name in one.constants]
        made |= dict(zip(one.constants, one.values(statistics), strict=True))
    return made


def _returning(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with the values of some nodes as its output; of those in a loop at all time steps, in front."""
    inside = [name for name in names if graph[name].loop]
    every = {name: f"{name}_of_all_steps" for name in inside}
    along = {"dim": 0, "reversed": False}
    histories = [Node(every[name], HISTORY, {"self": Ref(name), **along}) for name in inside]
    end = Node(OUTPUT, OUTPUT, {"value": [Ref(every.get(name, name)) for name in names]})
    return Graph((*graph.nodes[:-1], *histories, end))
