"""One batch on its way through a network: what is known without spikes, and what spikes have brought so far."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor

from fewspikes.base.moments import Moment
from fewspikes.graph.graph import CONSTANT, INPUT
from fewspikes.graph.interpreter import Step, execute, filled
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.firing import Firing
from fewspikes.neuron.layer import FSNeuron, count_outside
from fewspikes.operators.rule import Kind
from fewspikes.simulation.plan import Gate, Layer, Plan, Sum, Way
from fewspikes.simulation.shaking import Shaken


class Store(Protocol):
    """Where sums are formed."""

    def add(self, sum_: Sum, value: Tensor) -> None:
        """Spikes have come."""

    def take(self, sum_: Sum) -> Tensor | None:
        """What all spikes have brought; None where none came."""


class Unbounded:
    """Membranes for each sum, as many as there are."""

    def __init__(self) -> None:
        self._found: dict[int, Tensor] = {}

    def add(self, sum_: Sum, value: Tensor) -> None:
        """Spikes have come."""
        before = self._found.get(sum_.number)
        self._found[sum_.number] = value.clone() if before is None else before.add_(value)

    def take(self, sum_: Sum) -> Tensor | None:
        """What all spikes have brought; None where none came."""
        return self._found.pop(sum_.number, None)

    def peek(self, sum_: Sum) -> Tensor | None:
        """What spikes have brought so far."""
        return self._found.get(sum_.number)


class Batch:
    """The values of a batch.

    A sum is what it is without any spike, its bias and analog current, and what spikes have added. What it is without
    spikes is worked out when it is asked for; until then digital results and held values before it are complete. What a
    product kept for it, `aside`, is added then.

    Args:
        plan: of the network for these inputs.
        snn: the network.
        inputs: in its order.
        store: where sums are formed.
        first: the position of the first image among all.
        outside: by site, gate inputs outside the domain of the layer's code; counted on.
    """

    def __init__(
        self,
        plan: Plan,
        snn: SpikingNetwork,
        inputs: Sequence[Tensor],
        store: Store | None = None,
        first: int = 0,
        outside: Counter[str] | None = None,
    ) -> None:
        self.outside = Counter[str]() if outside is None else outside
        self.first, self.faults, self.shaken = first, snn.faults, Shaken(plan, snn)
        self.store = Unbounded() if store is None else store
        self.aside = Unbounded()
        self.plan, self.neurons, self.images, self.dtype = plan, snn.neurons, len(inputs[0]), snn.dtype
        given = [x.to(snn.dtype) if x.is_floating_point() else x for x in inputs]
        self.values = plan.program.values(given, self.shaken.still)
        for node in plan.graph.of(CONSTANT):
            self._keep(plan.places[node.name], self.values[plan.places[node.name]])
        self.moving = self._without_spikes()
        for step in plan.bookkeeping():  # sizes among them, of what is not there yet
            execute([step], self.moving, {})
            self._keep(step.at, self.moving[step.at])
        self._known = {node.name for node in plan.graph if node.name not in plan.segments.carriers}
        self._known |= {node.name for node in plan.graph.of(INPUT)}
        self._kept = {step.node: step.kept() for step in plan.program.steps if isinstance(step, Step)}
        self._silent = {layer.node: snn.neurons[layer.site] for layer in plan.layers}
        self._totals: dict[int, Tensor] = {}

    def _keep(self, at: int, value: Any) -> None:
        """A constant, or what bookkeeping comes to; zeros may be of the dtype that the model once had."""
        is_number = isinstance(value, Tensor) and value.is_floating_point()
        self.values[at] = value.to(self.dtype) if is_number else value

    def _without_spikes(self) -> list[Any]:
        """The values that operators find where no spike of a step has come: zeros, of one number each."""
        found = list(self.values)
        zero = torch.zeros((), dtype=self.dtype, device=self.values[0])
        for name in self.plan.segments.carriers:
            if self.plan.graph[name].shape is not None:
                found[self.plan.places[name]] = zero.expand(self.plan.graph.sizes(name, self.images))
        return found

    def total(self, sum_: Sum) -> Tensor:
        """A sum that is complete."""
        if sum_.number not in self._totals:
            self._work_out(sum_)
            found = [self.store.take(sum_), self.values[sum_.end], self.aside.take(sum_)]  # the first one's layout
            self._totals[sum_.number] = reduce(torch.add, [value for value in found if value is not None])
        return self._totals[sum_.number]

    def firing(self, layer: Layer) -> Firing:
        """A layer that begins to fire, with what it has taken in."""
        neuron, when = self.neurons[layer.site], Moment(layer.time, self.first, self.plan.structure.image_axes)
        found = Firing(neuron, self.total(layer.sum), when)
        self.release(layer.sum)
        self.outside[layer.site] += count_outside(found.v, neuron.code.domain)
        return found

    def so_far(self, step: int) -> Tensor | None:
        """The output after a step, while spikes come to it; None before and after, and where it is no plain sum."""
        shown = self.plan.shown
        if (
            shown is None
            or not self.plan.shown_from <= step <= self.plan.answer
            or not isinstance(self.store, Unbounded)
        ):
            return None
        self._work_out(shown)
        still, more = self.values[shown.end], self.store.peek(shown)
        found: Tensor = still.clone() if more is None else still + more
        return found

    def release(self, sum_: Sum) -> None:
        """A sum is needed no more."""
        self._totals.pop(sum_.number, None)

    def _work_out(self, sum_: Sum) -> None:
        """What the nodes of a sum's segment are without spikes."""
        graph, plan = self.plan.graph, self.plan
        end = sum_.segment.end
        if end in plan.still and end not in self._known:
            self._known.add(end)
            self.values[sum_.end] = plan.still[end].expand(graph.sizes(end, self.images))
        if end in self._known:
            return
        for name in (*sum_.segment.sources, *(node.name for node in sum_.segment.nodes)):
            if name in self._known:
                continue
            self._known.add(name)
            if name in self._silent:
                shape = graph.sizes(name, self.images)
                self.values[self.plan.places[name]] = _silence(self._silent[name], shape, self.dtype, self.values[0])
                continue
            if self.plan.segments.kind(name) is Kind.LOOKUP:
                execute([self._kept[name]], self.values, {})
                continue
            self._run(name)
        if end in plan.alike:
            plan.still[end] = self.values[sum_.end][:1].clone()

    def _run(self, name: str) -> None:
        """An operator, whose own sums, if it has such, are complete: a digital one, a product and what it holds."""
        own = self.plan.sums.get(name, ())
        ends = {sum_.end: self.total(sum_) for sum_ in own}
        for sum_ in own:
            self.release(sum_) if self.plan.segments.kind(name) is Kind.DIGITAL else None
        before = {at: self.values[at] for at in ends}
        for at, value in ends.items():
            self.values[at] = value
        execute([self._kept[name]], self.values, {})
        for at, value in before.items():
            self.values[at] = value

    def bring(self, way: Way, value: Tensor, store: Store | None = None) -> Iterator[tuple[Gate, Tensor]]:
        """Spikes of one step, or a product's share of it, go all their way.

        Args:
            way: from their layer, or from the product on.
            value: of the spikes, d[t] z[t] by channel.
            store: where the sums are formed, if not where the batch's own are.

        Yields:
            The products that they gate, each with what reaches it.
        """
        sums, gates = self.arriving(way, value)
        for (_, sum_), found in zip(way.sums, sums, strict=True):
            (store or self.store).add(sum_, found)
        yield from zip(way.gates, gates, strict=True)

    def arriving(self, way: Way, value: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What a value becomes on its way: for each of the way's sums, and for each of its gates."""
        moving = self.moving
        places = (way.start, *way.written)
        still = [moving[at] for at in places]
        moving[way.start] = value
        execute(way.steps, moving, {})
        found = [moving[at] for at, _ in way.sums], [moving[gate.start] for gate in way.gates]
        for at, one in zip(places, still, strict=True):
            moving[at] = one
        return found

    def product(self, gate: Gate, value: Tensor, held: Tensor | None = None) -> Tensor:
        """What spikes that gate let through of the value that is held, or of another one."""
        moving, places = self.moving, (gate.start, gate.place, gate.step.at)
        still = [moving[at] for at in places]
        moving[gate.start], moving[gate.place] = value, self.total(gate.held) if held is None else held
        execute([gate.step], moving, {})
        found: Tensor = moving[gate.step.at]
        for at, one in zip(places, still, strict=True):
            moving[at] = one
        return found

    def output(self) -> Any:
        """What the network returns."""
        places = {sum_.end: self.total(sum_) for sum_ in self.plan.sums.get(self.plan.graph.output.name, ())}
        values = list(self.values)
        for at, value in places.items():
            values[at] = value
        return filled(self.plan.program.output, values)


def _silence(neuron: FSNeuron, shape: Iterable[int], dtype: torch.dtype, device: Any) -> Tensor:
    """What a layer's synapses carry without a spike: its code's offset, with its ranges."""
    value = torch.full((), neuron.code.offset, dtype=dtype, device=device)
    still = value.expand(tuple(shape))
    return neuron.ungate(still) if neuron.code.offset else still
