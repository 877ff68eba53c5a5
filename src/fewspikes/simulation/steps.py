"""Time step by time step: what each neuron holds, who fires, and where the spikes go."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping

from torch import Tensor

from fewspikes.neuron.firing import Firing
from fewspikes.simulation.plan import Gate, Layer, Plan
from fewspikes.simulation.run import Batch

Forced = Mapping[tuple[str, int], Tensor]  # spikes by site and time step of its loop


def fired(plan: Plan, batch: Batch, forced: Forced | None = None) -> Iterator[tuple[int, Layer, int, Tensor]]:
    """Run a batch to its end, and tell who fires when.

    Args:
        plan: of the network.
        batch: what runs.
        forced: the spikes that layers send on in place of their own, which are told all the same.

    Yields:
        The global step, the layer, the step of its code (from 0), and its spikes.
    """
    waiting = defaultdict[int, list[tuple[Gate, Tensor]]](list)
    active: dict[str, Firing] = {}
    for now, working in plan.steps():
        for layer, t in working:
            firing = active[layer.node] = active[layer.node] if t else batch.firing(layer)
            z = firing.fire(t)
            yield now, layer, t, z
            sent = firing.value(t, firing.heard(t, z if forced is None else forced[layer.site, layer.time][t]))
            if sent is not None:
                for gate, value in batch.bring(batch.shaken.at(now, plan.ways[layer.node]), sent):
                    waiting[now + max(gate.opens - layer.start, 0)].append((gate, value))
            if t + 1 == layer.K:
                del active[layer.node]
        for gate, value in waiting.pop(now, ()):
            deque(batch.bring(plan.ways[gate.node], batch.product(gate, value)), 0)
