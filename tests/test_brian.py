"""Simulations beside Brian2, a simulator of spiking networks by others."""

import pytest

import brian
from fewspikes.simulation.simulation import simulate
from test_witness import spikes_of
from written_out import NETWORKS, converted

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(brian2|pyparsing)")  # in how it calls it


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("gated")])
def test_brian2_fires_the_same_spikes(name):
    snn, x, nets, names = converted(name)
    trace = simulate(snn, x)
    for image, (spikes, output) in enumerate(brian.simulated(nets)):
        assert spikes_of(trace, names, image) == spikes
        assert trace.output[image].tolist() == pytest.approx(output, rel=0, abs=1e-12)
