"""Run ANN and spiking network side by side, layer by layer, so that each site can be set before the next one runs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from fewspikes.graph.interpreter import Place, Step, execute
from fewspikes.network.spiking import SpikingNetwork


def walk(
    snn: SpikingNetwork, batches: Sequence[tuple[Tensor, ...]]
) -> Iterator[tuple[str, list[Tensor], list[Tensor], "Setter"]]:
    """Yield (site name, the ANN's gate inputs, the spiking network's gate inputs, set) at each site, in order.

    `set(neuron)` says what runs at this site from now on; without it the network's own neuron runs. What the site
    yields is one tensor per batch. Values are freed after their last use.

    Args:
        snn: the spiking network.
        batches: the inputs of each batch.
    """
    sites = {site.node: site for site in snn.sites}
    neurons, tensors = snn.neurons, snn.tensors
    program = snn.running_graph.program
    ann, got = ([program.values(batch, tensors.__getitem__) for batch in batches] for _ in range(2))
    for step in program.steps:
        if step.node in sites:
            site, at = sites[step.node], step.slots[0][1].at
            setter = Setter(neurons[site.name])
            yield site.name, [values[at] for values in ann], [values[at] for values in got], setter
            for exact, own in zip(ann, got, strict=True):
                exact[step.at], own[step.at] = site.activation(exact[at]), setter.neuron(own[at])
        else:
            for exact, own in zip(ann, got, strict=True):
                _run(step, exact, own)
        for values in (*ann, *got):
            for done in step.done:
                values[done] = None


def _run(step: Step, exact: list[Any], own: list[Any]) -> None:
    """One operator in both networks; once where both give it the same."""
    alone = (step._replace(done=()),)
    execute(alone, exact, {})
    if all(exact[at] is own[at] for at in _read(step.slots)):
        own[step.at] = exact[step.at]
    else:
        execute(alone, own, {})


def _read(pattern: Any) -> Iterator[int]:
    """The places that a step reads."""
    if isinstance(pattern, Place):
        yield pattern.at
    elif isinstance(pattern, list | tuple):
        yield from (at for item in pattern for at in _read(item))
    elif isinstance(pattern, dict):
        yield from (at for item in pattern.values() for at in _read(item))


class Setter:
    """Holds the neuron that runs at a site."""

    def __init__(self, neuron: Callable[[Tensor], Tensor]) -> None:
        self.neuron = neuron

    def __call__(self, neuron: Callable[[Tensor], Tensor]) -> None:
        """Let `neuron` run there."""
        self.neuron = neuron
