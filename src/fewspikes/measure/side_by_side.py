"""Run ANN and spiking network side by side, layer by layer, so that each site can be set before the next one runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from fewspikes.graph.graph import CONSTANT, sizes
from fewspikes.graph.interpreter import Loop, Place, Step, execute
from fewspikes.measure.source import Batch
from fewspikes.network.spiking import SpikingNetwork

_AT_LEAST = 2  # batches that always take part: one that proposes and one that decides
_IMAGES = 97  # for which sizes are worked out; any number would do

Values = tuple[list[Any], list[Any]]  # the ANN's and the spiking network's, of one batch


def walk(
    snn: SpikingNetwork, batches: Sequence[Batch], room: Sequence[int] | None = None
) -> Iterator[tuple[str, list[Tensor], list[Tensor], "Setter"]]:
    """Yield (site name, the ANN's gate inputs, the spiking network's gate inputs, set) at each site, in order.

    `set(neuron)` says what runs at this site from now on; without it the network's own neuron runs. What the site
    yields is one tensor per batch, in a loop over time with all time steps along a last axis; the loop runs anew after
    each site of it that was set. Values are freed after their last use.

    Args:
        snn: the spiking network.
        batches: the inputs of each batch.
        room: how many images may take part at each step, see `images_within`; two batches always do. Batches join
            late where the maps shrink on the way: once there is room, they run up to there with what was set.
    """
    pair = _Pair(snn)
    taking_part: list[Values] = []
    images = 0
    for i, step in enumerate(pair.steps):
        for batch in batches[len(taking_part) :]:
            images += len(batch[0])
            if room is not None and len(taking_part) >= _AT_LEAST and images > room[i]:
                images -= len(batch[0])
                break
            taking_part.append(pair.begun(batch, i))
        if isinstance(step, Loop):
            yield from pair.within(step, taking_part)
        elif step.node in pair.sites:
            at = step.slots[0][1].at
            setter = Setter(pair.neurons[step.node])
            ann, own = ([values[which][at] for values in taking_part] for which in range(2))
            yield pair.sites[step.node].name, ann, own, setter
            pair.neurons[step.node] = setter.neuron
        for values in taking_part:
            pair.run(step, values)


def images_within(snn: SpikingNetwork, memory: int) -> list[int]:
    """How many images' values in both networks fit into so many bytes, by step: from there to the end of the graph."""
    program, itemsize = snn.running_graph.program, snn.dtype.itemsize
    size = [0.0] * program.size  # bytes per image, by place
    for node in snn.graph:
        if node.shape is not None and node.operator != CONSTANT:
            size[program.places[node.name]] = 2 * itemsize * sizes(node.shape, _IMAGES).numel() / _IMAGES
    held, needed = sum(size[at] for at in program.inputs), []
    for step in program.steps:
        held += sum(size[at] for at in _written(step))
        within = (snn.graph[name] for name in _sites_within(step))
        needed.append(held + sum(size[program.places[node.name]] * snn.graph.time_steps(node) for node in within))
        held -= sum(size[at] for at in step.done)
    most = list(accumulate(reversed(needed), max))
    return [int(memory / max(one, 1.0)) for one in reversed(most)]


class _Pair:
    """Both networks of one graph, run step by step.

    Attributes:
        steps: the graph's.
        sites: by node.
        neurons: what runs at each site from now on, by node.
    """

    def __init__(self, snn: SpikingNetwork) -> None:
        self.sites = {site.node: site for site in snn.sites}
        self.neurons: dict[str, Callable[[Tensor], Tensor]] = {s.node: snn.neurons[s.name] for s in snn.sites}
        self._exact = {site.node: site.activation for site in snn.sites}
        self._program, self._tensors = snn.running_graph.program, snn.tensors
        self.steps = self._program.steps

    def begun(self, batch: Batch, count: int) -> Values:
        """The values of a batch after so many steps."""
        ann, own = (self._program.values(batch, self._tensors.__getitem__) for _ in range(2))
        for step in self.steps[:count]:
            self.run(step, (ann, own))
        return ann, own

    def within(
        self, loop: Loop, batches: Sequence[Values]
    ) -> Iterator[tuple[str, list[Tensor], list[Tensor], "Setter"]]:
        """The sites of a loop, see `walk`."""
        names = [step.node for step in loop.steps if step.node in self.sites]
        wanted = [_recorded(loop, ann, names, self._exact) for ann, _ in batches]
        got: list[dict[str, Tensor]] = []
        for name in names:
            got = got or [_recorded(loop, own, names, self.neurons) for _, own in batches]
            setter = Setter(self.neurons[name])
            yield self.sites[name].name, [one.pop(name) for one in wanted], [one.pop(name) for one in got], setter
            if setter.neuron is not self.neurons[name]:
                self.neurons[name], got = setter.neuron, []

    def run(self, step: Step | Loop, values: Values) -> None:
        """One step in both networks."""
        ann, own = values
        if isinstance(step, Loop):
            execute((step,), ann, self._exact)
            execute((step,), own, self.neurons)
            return
        if step.node in self.sites:
            at = step.slots[0][1].at
            ann[step.at], own[step.at] = self.sites[step.node].activation(ann[at]), self.neurons[step.node](own[at])
        else:
            _run(step, ann, own)
        for done in step.done:
            ann[done] = own[done] = None


def _recorded(
    loop: Loop, values: list[Any], names: Sequence[str], layers: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, Tensor]:
    """The gate inputs of some sites at all time steps, along a last axis; the values stay as they are."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}

    def recording(name: str, x: Tensor) -> Tensor:
        seen[name].append(x)
        return layers[name](x)

    execute((loop,), list(values), {name: partial(recording, name) for name in names})
    return {name: torch.stack(inputs, -1) for name, inputs in seen.items()}


def _written(step: Step | Loop) -> list[int]:
    """The places of what a step leaves behind."""
    return [at for at, *_ in (*step.histories, *step.last)] if isinstance(step, Loop) else [step.at]


def _sites_within(step: Step | Loop) -> list[str]:
    """The sites of a loop."""
    return [one.node for one in step.steps if one.function is None] if isinstance(step, Loop) else []


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
