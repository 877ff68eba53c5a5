"""Event by event: nothing is done for a neuron that cannot fire, nor for a synapse that no spike reaches."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.interpreter import Step
from fewspikes.network.following import Following
from fewspikes.network.image_axes import ImageAxis, axes_of_images
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.chance import case, cases, key
from fewspikes.neuron.faults import Faults
from fewspikes.neuron.firing import Firing
from fewspikes.operators.call import IMAGES
from fewspikes.reach.pairs import Pairs, pairs_of
from fewspikes.simulation.plan import Gate, Layer, Plan, Sum, Way
from fewspikes.simulation.run import Batch
from fewspikes.simulation.synapses import Synapses, weighed

_MOST_SYNAPSES = 1 << 29  # some 12 GiB while they are written out

Numbers = NDArray[np.int64]


class Gated(NamedTuple):
    """Of a gate to a sum: synapses whose weights are sums of held elements, formed when what is held is complete.

    The weight of synapse i is the sum of factor[j] * held[which[j]] for j from terms[i] to terms[i + 1].
    """

    gate: Gate
    sum: Sum
    first: Numbers
    target: NDArray[np.int32]
    terms: Numbers
    which: NDArray[np.int32]
    factor: NDArray[Any]


class Wiring:
    """All synapses of a network, written out.

    Args:
        plan: of the network.
        snn: the network.
        inputs: one image, in the network's order; it matters where the input's masks open and shut synapses.
    """

    def __init__(self, plan: Plan, snn: SpikingNetwork, inputs: Sequence[Tensor]) -> None:
        self.plan, self.snn, self.inputs = plan, snn, inputs
        self.type = np.float64 if snn.dtype == torch.float64 else np.float32
        graph, segments = plan.graph, plan.segments
        ends = {one.segment.end for sums in plan.sums.values() for one in sums}
        products = [node for node in graph if segments.held(node) is not None]
        ends |= {layer.node for layer in plan.layers} | {node.name for node in products}
        ends |= {name for node in products for name in segments.through(node)}
        self._axes = axes_of_images(graph, segments.fixed, segments.rules, [graph[name] for name in sorted(ends)])
        self._batches: dict[int, Batch] = {}
        self._written = 0  # synapses, so far
        self._met: dict[str, Synapses] = {}
        self._onwards: dict[str, tuple[tuple[Sum, Synapses], ...]] = {}
        self.sums: dict[str, tuple[tuple[Sum, Synapses], ...]] = {}
        self.gates: dict[str, tuple[Gated, ...]] = {}
        for layer in plan.layers:
            way, worth = plan.ways[layer.node], snn.neurons[layer.site].ungate
            self.sums[layer.node] = self._to_sums(layer.node, way, worth)
            gates = (self._to_gate(layer, gate, way.to(gates=[gate])) for gate in way.gates)
            self.gates[layer.node] = tuple(one for found in gates for one in found)

    @property
    def count(self) -> int:
        """How many synapses there are."""
        own = sum(len(one.target) for found in self.sums.values() for _, one in found)
        return own + sum(len(one.target) for found in self.gates.values() for one in found)

    def size(self, name: str) -> int:
        """How many elements a node's value has, per image."""
        return self.plan.graph.sizes(name, 1).numel()

    def front(self, name: str, x: Tensor) -> Tensor:
        """A node's value as [images, elements]."""
        return self._axis(name).in_front(x).flatten(1)

    def back(self, name: str, x: Tensor) -> Tensor:
        """A node's value from [images, elements]."""
        axis, sizes = self._axis(name), self.plan.graph.sizes(name, 1)
        return axis.back(x.reshape(len(x), *sizes[: axis.axis], axis.places, *sizes[axis.axis + 1 :]))

    def _axis(self, name: str) -> ImageAxis:
        if name not in self._axes:
            node = self.plan.graph[name]
            raise FewSpikesError(
                f"the synapses at {node.where} cannot be written out: it is not known where each image is; "
                'simulate with engine="steps"'
            )
        return self._axes[name]

    def _numbers(self, name: str) -> Numbers:
        """By element of a batch, its number in the first image; -1 for those of others."""
        sizes = self.plan.graph.sizes(name, IMAGES)
        first = self.front(name, torch.arange(sizes.numel()).view(sizes))[0].numpy()
        found = np.full(sizes.numel(), -1)
        found[first] = np.arange(len(first))
        return found

    def _batch(self, images: int) -> Batch:
        if images not in self._batches:
            given = [x.expand(images, *x.shape[1:]) for x in self.inputs]
            self._batches[images] = Batch(self.plan, self.snn, given)
        return self._batches[images]

    def _pairs(self, source: str, steps: Iterable[Step], end: str) -> Pairs:
        segments = self.plan.segments
        following = Following(self.plan.graph, source, segments.through, segments.passed)
        following.follow([self.plan.graph[step.node] for step in steps])
        boxes = list(following.at(end, self.plan.graph[end]))
        self._written += sum(box.pairs for box in boxes) // IMAGES
        if self._written > _MOST_SYNAPSES:
            raise FewSpikesError(
                f"engine events writes out every synapse, and there are more than {_MOST_SYNAPSES:,} up to "
                f'{self.plan.graph[end].where}; simulate with engine="steps", or a smaller image'
            )
        return pairs_of(boxes, self._numbers(source), self._numbers(end))

    def _to_sums(self, source: str, way: Way, worth: Callable[[Tensor], Tensor]) -> tuple[tuple[Sum, Synapses], ...]:
        found = []
        for _, one in way.sums:
            part, end = way.to([one]), one.segment.end

            def sent(spikes: Tensor, part: Way = part, end: str = end) -> Tensor:
                batch = self._batch(len(spikes))
                value = worth(self.back(source, spikes.to(batch.dtype)))
                return self.front(end, batch.arriving(part, value)[0][0])

            pairs = self._pairs(source, part.steps, end)
            found.append((one, weighed(pairs, self.size(source), self.size(end), sent, self.type)))
        return tuple(found)

    def _to_gate(self, layer: Layer, gate: Gate, way: Way) -> Iterator[Gated]:
        (entry,) = self.plan.segments.through(self.plan.graph[gate.node])
        if gate.node not in self._onwards:
            self._met[gate.node] = self._at_product(gate, entry)
            self._onwards[gate.node] = self._to_sums(gate.node, self.plan.ways[gate.node], lambda value: value)
        ones = torch.ones(self.plan.graph.sizes(layer.node, 1), dtype=self.snn.dtype)
        scale = self.snn.neurons[layer.site].ungate(ones).flatten().numpy()
        spread, met = self._pairs(layer.node, way.steps, entry), self._met[gate.node]
        for sum_, to in self._onwards[gate.node]:
            yield _composed(gate, sum_, spread, met, to, scale, self.size(sum_.segment.end))

    def _at_product(self, gate: Gate, entry: str) -> Synapses:
        """From the elements of a gate to a product; the weight is 1 + the number of the held element they meet."""
        holds = gate.held.segment.end
        held = torch.arange(1, self.size(holds) + 1, dtype=torch.float64)[None]

        def sent(spikes: Tensor) -> Tensor:
            held_of_each = self.back(holds, held.expand(len(spikes), -1))
            product = self._batch(len(spikes)).product(gate, self.back(entry, spikes), held_of_each)
            return self.front(gate.node, product)

        pairs = self._pairs(entry, [gate.step], gate.node)
        return weighed(pairs, self.size(entry), self.size(gate.node), sent, np.float64)


def _composed(
    gate: Gate, sum_: Sum, spread: Pairs, met: Synapses, outer: Synapses, scale: NDArray[Any], targets: int
) -> Gated:
    """From a layer to its places in a gate, to a product, and on from there, as one map: a term for each way."""
    place, at_product = _onwards(spread.target, met.first)
    way, onward = _onwards(met.target[at_product], outer.first)
    source = np.repeat(np.arange(len(scale)), np.diff(spread.first))[place][way]
    held = (met.weight[at_product].astype(np.int32) - 1)[way]
    key = source * targets + outer.target[onward]
    order = np.argsort(key, kind="stable")
    key = key[order]
    terms = np.flatnonzero(np.diff(key, prepend=-1) > 0)
    found = key[terms]
    first = np.searchsorted(found, np.arange(len(scale) + 1) * targets)
    factor = (outer.weight[onward] * scale[source])[order]
    return Gated(gate, sum_, first, (found % targets).astype(np.int32), np.append(terms, len(key)), held[order], factor)


def _onwards(reached: NDArray[Any], first: Numbers) -> tuple[Numbers, Numbers]:
    """For each element that is reached all synapses of it: the number of the former, and of the latter."""
    times = np.diff(first)[reached]
    number = np.repeat(np.arange(len(reached)), times)
    return number, np.repeat(first[reached] - np.cumsum(times) + times, times) + np.arange(len(number))


class Flat:
    """Sums as flat arrays, of one image."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring, self._found = wiring, dict[int, NDArray[Any]]()

    def array(self, one: Sum) -> NDArray[Any]:
        """What spikes have brought to a sum so far, to be added to."""
        if one.number not in self._found:
            self._found[one.number] = np.zeros(self._wiring.size(one.segment.end), self._wiring.type)
        return self._found[one.number]

    def add(self, one: Sum, value: Tensor) -> None:
        """Add to a sum."""
        self.array(one)[:] += value.flatten().numpy()

    def take(self, one: Sum) -> Tensor | None:
        """What all spikes have brought; None where none came."""
        found = self._found.pop(one.number, None)
        return (
            None if found is None else torch.from_numpy(found).view(self._wiring.plan.graph.sizes(one.segment.end, 1))
        )


class Shooting:
    """A layer of one image while it fires."""

    def __init__(self, layer: Layer, firing: Firing) -> None:
        self.layer, self.v = layer, firing.v.flatten().numpy()
        self.T, self.h, self.d = (value.numpy() for value in (firing.T, firing.h, firing.d))
        self.least = np.append(np.minimum.accumulate(self.T[::-1])[::-1], np.inf).astype(self.T.dtype)
        self.able = np.flatnonzero(self.v >= self.least[0])
        self.fired = np.empty_like(self.able)

    def fire(self, t: int) -> Numbers:
        """The neurons that fire."""
        fired, able = _fire(self.v, self.T[t], self.h[t], self.least[t + 1], self.able, self.fired)
        self.able = self.able[:able]
        return self.fired[:fired].copy()

    def heard(self, t: int, fired: Numbers) -> tuple[Numbers, ...]:
        """The neurons that the receivers hear, those heard twice once more."""
        return (fired,) if len(fired) else ()


class Failing:
    """A layer with faults of one image while it fires: all its neurons are looked at in each step."""

    def __init__(self, layer: Layer, firing: Firing) -> None:
        self.layer, self._firing, self.d = layer, firing, firing.d.numpy()

    def fire(self, t: int) -> Numbers:
        """The neurons that fire."""
        self._z = self._firing.fire(t)
        return np.flatnonzero(self._z.numpy())

    def heard(self, t: int, fired: Numbers) -> tuple[Numbers, ...]:
        """The neurons that the receivers hear, those heard twice once more."""
        heard = self._firing.heard(t, self._z).flatten().numpy()
        found = (np.flatnonzero(heard >= 1), np.flatnonzero(heard >= 2))
        return tuple(one for one in found if len(one))


class Loss(NamedTuple):
    """Where synapses lose spikes: the faults, and what they are drawn for."""

    faults: Faults | None
    layer: Layer
    image: int
    t: int
    again: int

    def at(self, one: Sum, gate: str = "") -> tuple[np.uint64, np.uint64]:
        """For the synapses to a sum, directly or through a gate: a key, and how many of the cases are a loss."""
        if self.faults is None or not self.faults.lost_at_synapses:
            return np.uint64(0), np.uint64(0)
        end = f"{one.unit[0]} {one.unit[1]} {one.segment.end} {gate}"
        start = key(self.faults.seed, "synapse", self.layer.site, self.layer.time, self.t, self.again, self.image, end)
        return np.uint64(start), np.uint64(cases(self.faults.lost))


def shot(wiring: Wiring, batch: Batch, store: Flat) -> Iterator[tuple[int, Layer, int, Numbers, int]]:
    """Run one image to its end, and tell who fires when.

    Args:
        wiring: of the network.
        batch: of one image.
        store: where its sums are formed.

    Yields:
        The global step, the layer, the step of its code (from 0), the neurons that fire, and the synaptic operations
        that their spikes have taken at sums; those at gates come with an empty array when they are taken.
    """
    plan = wiring.plan
    waiting = defaultdict[int, list[tuple[Layer, Gated, Any, Numbers, Loss]]](list)
    active: dict[str, Shooting | Failing] = {}
    weights: dict[tuple[str, int], NDArray[Any]] = {}
    for now, working in plan.steps():
        for layer, t in working:
            name = layer.node
            if t == 0:
                active[name] = (Shooting if batch.faults is None else Failing)(layer, batch.firing(layer))
            one = active[name]
            fired, done = one.fire(t), 0
            for again, heard in enumerate(one.heard(t, fired)):
                loss = Loss(batch.faults, layer, batch.first, t, again)
                for sum_, to in wiring.sums[name]:
                    lost = loss.at(sum_)
                    done += _deliver(heard, one.d[t], to.first, to.target, to.weight, store.array(sum_), *lost)
                for gated in wiring.gates[name]:
                    brought = layer, gated, one.d[t], heard, loss
                    waiting[now + max(gated.gate.opens - layer.start, 0)].append(brought)
            yield now, layer, t, fired, done
            if t + 1 == layer.K:
                del active[name]
        for layer, gated, d, heard, loss in waiting.pop(now, ()):
            weight = weights.get((layer.node, id(gated)))
            if weight is None:
                held = batch.total(gated.gate.held).flatten().numpy()
                weight = weights[layer.node, id(gated)] = _weights(gated.terms, gated.which, gated.factor, held)
            lost = loss.at(gated.sum, gated.gate.node)
            done = _deliver(heard, d, gated.first, gated.target, weight, store.array(gated.sum), *lost)
            yield now, layer, -1, heard[:0], done


@numba.njit(cache=True, nogil=True)
def _fire(v: Any, T: Any, h: Any, least: Any, able: Numbers, fired: Numbers) -> tuple[int, int]:
    """Let all fire that can, and keep those that still may: whatever is below all thresholds to come never will."""
    count, left = 0, 0
    for n in able:
        x = v[n]
        if x >= T:
            fired[count] = n
            count += 1
            x -= h
            v[n] = x
        if x >= least:
            able[left] = n
            left += 1
    return count, left


@numba.njit(cache=True, nogil=True)
def _deliver(
    heard: Numbers, d: Any, first: Numbers, target: Any, weight: Any, sums: Any, start: np.uint64, lost: np.uint64
) -> int:
    """Add what spikes bring, but for the share `lost` of the synapses, drawn with the key `start`."""
    done = 0
    for s in heard:
        for i in range(first[s], first[s + 1]):
            if lost == 0 or case(start, s * len(sums) + target[i]) >= lost:
                sums[target[i]] += d * weight[i]
                done += 1
    return done


@numba.njit(cache=True, nogil=True)
def _weights(terms: Numbers, which: Any, factor: Any, held: Any) -> Any:
    found = np.zeros(len(terms) - 1, factor.dtype)
    for i in range(len(found)):
        for j in range(terms[i], terms[i + 1]):
            found[i] += factor[j] * held[which[j]]
    return found
