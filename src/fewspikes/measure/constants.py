"""Constants whose best value is found in what the ANN sees, see `operators.measured`."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from fewspikes.graph.interpreter import Step, execute, result_of
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
    program, tensors = snn.running_graph.program, snn.tensors
    layers = {site.node: ExactActivation(site.activation) for site in snn.sites}
    readers = {node: (one, name) for one in wanted for node, name in zip(one.nodes, one.constants, strict=True)}
    found: dict[str, list[Tensor]] = {name: [] for one in wanted for name in one.constants}

    def call(step: Step, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if step.node in readers:
            one, name = readers[step.node]
            found[name].append(one.statistic(args[0], tensors[name].shape))
        return result_of(step, args, kwargs)

    with torch.inference_mode():
        for inputs, _ in islice(dealt(batches, _IMAGES), _BATCHES):
            execute(program.steps, program.values(inputs, tensors.__getitem__), layers, call)
    made: dict[str, Tensor] = {}
    for one in wanted:
        statistics = [one.merged(found[name]) for name in one.constants]
        made |= dict(zip(one.constants, one.values(statistics), strict=True))
    return made
