"""Simulations beside independent witnesses: plain Python, neuron by neuron, and Brian2."""

from functools import cache

import pytest
import torch

from fewspikes import convert
from fewspikes.simulation.simulation import Pipeline, simulate
from witness import simulated
from written_out import NETWORKS, Pooled, written_out

IMAGES = 3


@cache
def converted(name):
    """(the network, images, what plain Python is given for each, the layers' names)."""
    torch.manual_seed(1)
    model = NETWORKS[name]().double().eval()
    x = torch.randn(48, *model.shape).double()
    given = None if name.endswith("silu") else x
    snn = convert(model, x[:1], given, K=6, circuits=model.circuits, effort="quick")
    if not isinstance(model, Pooled):  # whose maxima need one grid
        snn = snn.with_neurons({site: _by_channel(neuron, snn, site) for site, neuron in snn.neurons.items()})
    nets, names = zip(*(written_out(model, snn.neurons, image) for image in x[:IMAGES]), strict=True)
    return snn, x[:IMAGES], nets, names[0]


def _by_channel(neuron, snn, site):
    """The neurons with a shift, scale and gain of its own in each channel."""
    channels = snn.structure.shape_at(site)[1]
    shift, scale, gain = torch.rand(3, channels, dtype=torch.float64).unbind()
    return neuron.replace(shift=shift - 0.25, scale=scale + 0.5, gain=gain + 0.5)


def spikes_of(trace, names, image):
    """The set of (layer, step of its code, neuron) that fire for an image."""
    found = ((n, trace.spikes[name][:, image].flatten(1).nonzero().tolist()) for n, name in enumerate(names))
    return {(n, t, i) for n, fired in found for t, i in fired}


@pytest.mark.parametrize("engine", ["steps", "pipeline", Pipeline(membranes=2), "events"], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_each_engine_fires_the_spikes_that_plain_python_does(name, engine):
    snn, x, nets, names = converted(name)
    trace = simulate(snn, x, engine)
    assert set(names) == set(trace.spikes)
    for image, net in enumerate(nets):
        spikes, output = simulated(net)
        assert spikes_of(trace, names, image) == spikes
        assert trace.output[image].tolist() == pytest.approx(output, rel=0, abs=1e-12)
        assert trace.answer == net.answer
        for layer, site in zip(net.layers, names, strict=True):
            assert trace.times[site] == (layer.start + 1, layer.start + len(layer.T))


@pytest.mark.parametrize("name", NETWORKS)
def test_some_neurons_of_every_layer_fire_and_some_do_not(name):
    _, _, nets, _ = converted(name)
    fired = [n for net in nets for n, _, _ in simulated(net)[0]]
    for n, layer in enumerate(nets[0].layers):
        assert 0 < fired.count(n) < IMAGES * len(layer.T) * len(layer.shift)
