"""Multiply-adds per image, of the network and of the part of it that stays analog among spikes.

Counted: one for every weight that a weighted sum applies to an input that exists (multiplications by zero padding do
not count), and one for every pair of elements that a product of two signals multiplies, whatever the product is made of
among spikes; gating multiplies what it holds by each d. Pools, sums, biases and scales by a constant (a batch norm that
stands alone) count no multiply-adds: they go into the weights beside them. So where no chains are collapsed, no pools,
skips or digital operators stand, and every neuron spikes once, synaptic operations and analog multiply-adds together
are the network's multiply-adds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from math import prod
from typing import NamedTuple

import torch

from fewspikes.graph.graph import INPUT, STATE, Loop, Node
from fewspikes.network.segments import Segments
from fewspikes.neuron.layer import FSNeuron
from fewspikes.operators.call import IMAGES
from fewspikes.operators.rule import Digital, Kind, Linear
from fewspikes.reach.boxes import counted_identity
from fewspikes.reach.factors import Unknown


@dataclass(frozen=True)
class Macs:
    """Multiply-adds per image: all of the network's, and those with an analog input in the spiking network.

    `by_node` and `analog_by_node` split the two sums by the graph's nodes that have any. `held_by_node`: the elements
    per image that a gated product holds, and the nodes of the layers that gate it.
    """

    by_node: dict[str, int]
    analog_by_node: dict[str, int]
    held_by_node: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    @property
    def ann(self) -> int:
        """What the network without spikes computes."""
        return sum(self.by_node.values())

    @property
    def analog(self) -> int:
        """What remains in the spiking network: products, and everything from an analog value to the next neurons."""
        return sum(self.analog_by_node.values())


def multiply_adds(segments: Segments) -> Macs:
    """Count the multiply-adds per image.

    Analog are the network's inputs, what is looked up, what operators left digital return, and what linear maps make
    of these, until a neuron turns it into spikes. A map of analog values and spikes together (their sum, say) counts
    as analog. What is in a loop over time counts once for each time step, states only where they are no constant yet.
    """
    times = _times(segments)
    every, remaining, held = {}, {}, {}
    for node in segments.graph:
        holds, (runs, analog) = segments.held(node), times[node.name]
        if holds is not None:
            elements = prod(segments.graph.sizes(holds, IMAGES)) // IMAGES
            held[node.name] = (runs * elements, segments.gates(node))
        count = _count(node, segments) // IMAGES if node.name in segments.fates else 0
        if runs * count:
            every[node.name] = runs * count
        if analog * count:
            remaining[node.name] = analog * count
    return Macs(every, remaining, held)


class _Value(NamedTuple):
    """What a node's value is at a time step."""

    is_signal: bool
    is_analog: bool


def _times(segments: Segments) -> dict[str, tuple[int, int]]:
    """By node, how often its value is a signal, and how often an analog one: in a loop at some of its time steps."""
    found: dict[str, _Value] = {}
    times: dict[str, tuple[int, int]] = {}
    for node in segments.graph:
        if not node.loop:
            found[node.name] = _value(segments, node, found)
            times[node.name] = (1, int(found[node.name].is_analog))
        elif node.name not in times:
            times |= _times_in(segments, segments.graph.loops[node.loop], found)
    return times


def _times_in(segments: Segments, loop: Loop, found: dict[str, _Value]) -> dict[str, tuple[int, int]]:
    """The same of a loop; `found` gets the values of its nodes at the last time step."""
    times = {node.name: (0, 0) for node in loop.nodes}
    before: dict[str, _Value] | None = None
    for step in range(loop.time_steps):
        own: dict[str, _Value] = {}
        for node in loop.nodes:
            if node.operator == STATE and before is not None:
                own[node.name] = before[loop.after[node.name]]
            else:
                own[node.name] = _value(segments, node, found | own)
        more = 1 if own != before else loop.time_steps - step  # nothing changes any more
        for name, value in own.items():
            times[name] = (times[name][0] + more * value.is_signal, times[name][1] + more * value.is_analog)
        if own == before:
            break
        before = own
    found |= before or {}
    return times


def _value(segments: Segments, node: Node, found: Mapping[str, _Value]) -> _Value:
    """What a node makes of what it reads; a product with a constant is a weighted sum."""
    kind = segments.kind(node.name)
    factors = segments.factors(node)
    reads = node.reads if factors is None else factors
    signals = [found[name].is_signal for name in reads if name in found and name in segments.carriers]
    begins = node.operator == INPUT or kind is Kind.LOOKUP
    is_signal = begins or ((any if factors is None else all)(signals) and node.name in segments.carriers)
    passed = [found[name].is_analog for name in segments.through(node) if name in found]
    is_digital = kind is Kind.DIGITAL and is_signal
    return _Value(is_signal, begins or is_digital or (kind is Kind.SYNAPTIC and any(passed)))


def with_gating(macs: Macs, layers: Mapping[str, FSNeuron]) -> Macs:
    """The same with what gating multiplies: each element that is held by each d of the gate's code, and by its offset.

    A d that is a power of two, with its channel's range, is a shift.

    Args:
        macs: of a structure.
        layers: the neurons by their nodes.
    """
    found = {
        node: elements * max(_multiplications(layers[gate]) for gate in gates)
        for node, (elements, gates) in macs.held_by_node.items()
    }
    return replace(macs, analog_by_node=macs.analog_by_node | {node: count for node, count in found.items() if count})


def _multiplications(layer: FSNeuron) -> int:
    """How many numbers of a layer's code are no powers of two, on the channel where most are not."""
    ranges = [values.double().cpu() for values in (layer.scale, layer.gain) if values is not None]
    scale = reduce(torch.mul, ranges, torch.ones(1, dtype=torch.float64))
    values = scale[:, None] * torch.tensor([*layer.code.d.tolist(), layer.code.offset], dtype=torch.float64)
    mantissa = values.frexp().mantissa.abs()
    return int(((mantissa != 0) & (mantissa != 0.5)).sum(1).max())


def _count(node: Node, segments: Segments) -> int:
    """The multiplications of one operator on two images."""
    rule = segments.fates[node.name].rule
    if isinstance(rule, Digital):
        return rule.multiplications(segments.call(node))
    if not isinstance(rule, Linear):
        return 0
    call = segments.call(node)
    if rule.weight is None:
        return rule.multiplications(call)
    (name,) = call.signals
    ref = node.arguments[name]
    try:
        known = {ref.name: (counted_identity(call.shape_of(name)),)}
        return sum(box.pairs for box in rule.reach(segments.call(node, known)))  # type: ignore[union-attr,misc]
    except Unknown:  # a table that is too large: every output element takes one weight of each of its channel's
        weight = call.shape_of(str(rule.weighs(call)))
        channels = weight[rule.outputs[0]] if rule.outputs else 1
        return prod(call.shape) * prod(weight) // channels
