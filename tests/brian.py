"""Networks written out, run in Brian2: one group of neurons, whose thresholds and resets follow the clock."""

import numpy as np
import pytest

brian2 = pytest.importorskip("brian2")
brian2.prefs.codegen.target = "numpy"
_STEP = brian2.ms


def simulated(nets):
    """By net (the spikes: a set of (layer, step of its code, neuron); the output); all at once, side by side.

    A membrane holds what its code sees, so that shift and scale are in what it begins with and in the synapses.
    """
    layers, steps = nets[0].layers, nets[0].answer
    places = [(n, at, i) for n, net in enumerate(nets) for at, own in enumerate(net.sums) for i in range(len(own))]
    clocked = {name: brian2.TimedArray(values, dt=_STEP) for name, values in _by_step(layers, steps).items()}
    group = brian2.NeuronGroup(
        len(places),
        "v : 1\nlayer : integer (constant)",
        threshold="v >= threshold_at(t, layer)",
        reset="v -= reset_at(t, layer)",
        namespace=clocked,
        dt=_STEP,
    )
    synapses = brian2.Synapses(
        group, group, "w : 1 (constant)", on_pre="v_post += w * worth_at(t, layer_pre)", namespace=clocked, dt=_STEP
    )
    group.layer = [min(at, len(layers)) for _, at, _ in places]
    group.v, sources, targets, weights = _wired(nets, {place: number for number, place in enumerate(places)})
    synapses.connect(i=sources, j=targets)
    synapses.w = weights
    monitor = brian2.SpikeMonitor(group)
    brian2.Network(group, synapses, monitor).run(steps * _STEP)
    fired, outputs = [set() for _ in nets], [[] for _ in nets]
    for number, now in zip(monitor.i, np.rint(monitor.t / _STEP).astype(int).tolist(), strict=True):
        n, at, i = places[number]
        fired[n].add((at, now - layers[at].start, i))
    for (n, at, _), value in zip(places, group.v[:].tolist(), strict=True):
        if at == len(nets[n].sums) - 1:
            outputs[n].append(value)
    return list(zip(fired, outputs, strict=True))


def _wired(nets, numbers):
    """What the membranes begin with; the synapses' sources, targets and weights."""
    layers = nets[0].layers
    scale = {place: layers[place[1]].scale[place[2]] if place[1] < len(layers) else 1.0 for place in numbers}
    v, synapses = np.zeros(len(numbers)), []
    for (n, at, i), number in numbers.items():
        shift = layers[at].shift[i] if at < len(layers) else 0.0
        v[number] = (nets[n].sums[at][i] + shift) / scale[n, at, i]
    for n, net in enumerate(nets):
        for layer, neuron, at, i, weight, _, held in net.synapses:
            assert held is None
            sender = layers[layer]
            own = weight * sender.scale[neuron] * sender.gain[neuron] / scale[n, at, i]
            v[numbers[n, at, i]] += sender.offset * own
            synapses.append((numbers[n, layer, neuron], numbers[n, at, i], own))
    return v, *map(list, zip(*synapses, strict=True))


def _by_step(layers, steps):
    """Thresholds, resets and what a spike is worth, [steps, layers]; the last column is of what never fires."""
    found = {"threshold_at": np.full((steps, len(layers) + 1), np.inf)}
    found |= {name: np.zeros((steps, len(layers) + 1)) for name in ("reset_at", "worth_at")}
    for at, layer in enumerate(layers):
        for by_step, values in zip(found.values(), (layer.T, layer.h, layer.d), strict=True):
            by_step[layer.start : layer.start + len(values), at] = values
    return found
