"""Spikes priced by what they do for the network's output."""

import itertools

import numpy as np
import pytest
import torch

import fewspikes as fs
from fewspikes.conversion.prices import choose_codes
from fewspikes.measure.sensitivity import Effects
from networks import small, squeeze_excite


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0, 8.0])
def test_the_choice_is_about_the_best_of_all(weight):
    random = np.random.default_rng(0)
    errors = {str(i): np.sort(random.exponential(size=5)) * 10.0 ** random.integers(-3, 1) for i in range(4)}
    spikes = {name: np.sort(random.uniform(size=5))[::-1] for name in errors}
    found = choose_codes(Effects(errors, spikes, 1), weight)

    def worth(places):
        pairs = list(zip(errors, places, strict=True))
        return np.log(sum(errors[n][i] for n, i in pairs)) + weight * sum(spikes[n][i] for n, i in pairs)

    every = sorted(worth(places) for places in itertools.product(range(5), repeat=4))
    assert worth([found[name] for name in errors]) <= every[2]  # of 625


def test_spikes_are_saved_where_the_output_does_not_need_them():
    images = torch.randn(128, 3, 8, 8)
    model = small()
    fresh = torch.randn(256, 3, 8, 8)
    with torch.inference_mode():
        wanted = model(fresh)

    def measured(weight):
        snn = fs.convert(model, images, calibration=images, K=5, spike_weight=weight)
        with torch.inference_mode(), fs.count(snn) as counts:
            got = snn(fresh)
        return float((got - wanted).square().mean()), counts.per_neuron

    error, spikes = zip(*(measured(weight) for weight in (0.0, 2.0, 8.0)), strict=True)
    assert spikes[0] > spikes[1] > spikes[2]
    assert np.log(error[2]) + 8.0 * spikes[2] < np.log(error[0]) + 8.0 * spikes[0]


def test_the_price_serves_searched_codes_too():
    images, fired = torch.randn(128, 3, 8, 8), []
    for weight in (0.0, 2.0):
        snn = fs.convert(
            squeeze_excite(), images, calibration=images, K=4, spike_weight=weight, effort="quick", repair=False
        )
        with fs.count(snn) as counts:
            snn(images)
        fired.append(counts.per_neuron)
    assert fired[1] < fired[0] - 0.02
