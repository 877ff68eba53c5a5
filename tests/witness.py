"""A network of FS-neurons run in plain Python, neuron by neuron and synapse by synapse; imports nothing of ours."""

from collections import defaultdict
from typing import NamedTuple


class Layer(NamedTuple):
    """Neurons that fire in the global steps start + 1 to start + len(T); shift, scale and gain are one per neuron."""

    T: list[float]
    h: list[float]
    d: list[float]
    offset: float
    start: int
    shift: list[float]
    scale: list[float]
    gain: list[float]


class Synapse(NamedTuple):
    """Its spikes arrive `delay` steps later, each times the weight, and times the element of a sum that is held."""

    layer: int
    neuron: int
    sum: int
    element: int
    weight: float
    delay: int = 0
    held: tuple[int, int] | None = None


class Net(NamedTuple):
    """Layer n takes in sum n; the last sum is the output. Sums begin as what is there without spikes."""

    layers: list[Layer]
    sums: list[list[float]]
    synapses: list[Synapse]
    answer: int


def simulated(net):
    """(The spikes: a set of (layer, step of its code, neuron); the output)."""
    axons, arriving, fired = defaultdict(list), defaultdict(list), set()
    for synapse in net.synapses:
        axons[synapse.layer, synapse.neuron].append(synapse)
    sums, v = [list(own) for own in net.sums], {}
    for now in range(1, net.answer + 1):
        for n, layer in enumerate(net.layers):
            t = now - layer.start - 1
            for i in range(len(layer.shift)) if 0 <= t < len(layer.T) else ():
                if t == 0:
                    v[n, i] = (sums[n][i] + layer.shift[i]) / layer.scale[i]
                value = 0.0 if t else layer.offset
                if v[n, i] >= layer.T[t]:
                    fired.add((n, t, i))
                    v[n, i] -= layer.h[t]
                    value += layer.d[t]
                for synapse in axons[n, i] if value else ():
                    arriving[now + synapse.delay].append((synapse, value * layer.scale[i] * layer.gain[i]))
        for synapse, value in arriving.pop(now, ()):
            held = 1.0 if synapse.held is None else sums[synapse.held[0]][synapse.held[1]]
            sums[synapse.sum][synapse.element] += synapse.weight * held * value
    return fired, sums[-1]
