"""Simulations beside an independent witness: plain Python, neuron by neuron and synapse by synapse."""

import pytest

from fewspikes.simulation.simulation import Pipeline, simulate
from witness import simulated
from written_out import NETWORKS, converted


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
        assert 0 < fired.count(n) < len(nets) * len(layer.T) * len(layer.shift)
