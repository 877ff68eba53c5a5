"""Spikes priced by what they do for the network's output: one unit, shares of the output's variance."""

import itertools

import numpy as np
import pytest
import torch

import fewspikes as fs
from fewspikes.conversion.building import calibrate_model
from fewspikes.conversion.pricing import choose_codes, site_prices
from fewspikes.measure.deal import Images
from fewspikes.measure.sensitivity import Effects
from networks import small, squeeze_excite

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("price", [0.0, 0.05, 0.5, 8.0])
def test_the_choice_is_the_best_of_all(price):
    random = np.random.default_rng(0)
    errors = {str(i): np.sort(random.exponential(size=5)) * 10.0 ** random.integers(-3, 1) for i in range(4)}
    spikes = {name: np.sort(random.uniform(size=5))[::-1] for name in errors}
    found = choose_codes(Effects(errors, errors, spikes, 1), price)

    def worth(places):
        pairs = list(zip(errors, places, strict=True))
        return sum(errors[n][i] for n, i in pairs) + price * sum(spikes[n][i] for n, i in pairs)

    every = (worth(places) for places in itertools.product(range(5), repeat=4))
    assert worth([found[name] for name in errors]) == pytest.approx(min(every))


def test_a_sites_own_price_is_the_networks_seen_from_there():
    # One site before a linear map of gain 3 to one output: the output's relative error is the site's own, so g = 1, and
    # all neurons are here, so the price stays as it is.
    net = (
        torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1)).eval().requires_grad_(False)
    )
    torch.nn.init.ones_(net[0].weight)
    torch.nn.init.constant_(net[2].weight, 3.0)
    x = torch.rand(64, 1)
    snn = fs.convert(net, x, K=3, alpha=2.0)
    assert site_prices(snn, Images((x,)), 0.02)["1"] == pytest.approx(0.02, rel=1e-3)


def measured(model, images, fresh, price, **options):
    """Relative error of the output and spikes per neuron on other images."""
    snn = fs.convert(model, images, images, spike_price=price, **options)
    report = fs.evaluate(snn, fresh)
    return report.relative_error, report.spikes_per_neuron


def test_spikes_are_saved_where_the_output_does_not_need_them():
    images, fresh = torch.randn(128, 3, 8, 8), torch.randn(256, 3, 8, 8)
    prices = (0.0, 0.003, 0.03, 0.3)
    error, spikes = zip(*(measured(small(), images, fresh, price, K=5) for price in prices), strict=True)
    assert spikes[0] > spikes[1] > spikes[2] > spikes[3]
    assert error[0] < error[2] < error[3]
    for i, price in enumerate(prices):  # each is the best of them at its own price, or nearly
        costs = [e + price * s for e, s in zip(error, spikes, strict=True)]
        assert costs[i] < 1.05 * min(costs)


def test_a_price_means_the_same_in_a_budget_of_steps():
    images, fresh = torch.randn(128, 3, 8, 8), torch.randn(256, 3, 8, 8)
    plain, saved = (measured(small(), images, fresh, price, max_steps=10) for price in (0.0, 0.03))
    assert saved[1] < plain[1]
    assert saved[0] + 0.03 * saved[1] < plain[0] + 0.03 * plain[1]


def test_the_price_serves_searched_codes_too():
    images = torch.randn(128, 3, 8, 8)
    options = {"K": 4, "effort": "quick", "repair": False}
    _, fired = zip(
        *(measured(squeeze_excite(), images, images, price, **options) for price in (0.0, 0.05)), strict=True
    )
    assert fired[1] < fired[0] - 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "spike_price cannot act: no images are given"),
        ({"alpha": 4.0, "images": IMAGES}, "spike_price cannot act: alpha leaves no choice"),
        ({"rounding": "down", "images": IMAGES}, "spike_price cannot act: rounding='down' leaves no choice"),
    ],
)
def test_a_price_that_cannot_act_raises(options, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(small(), IMAGES, K=5, spike_price=0.01, **options)


def test_a_price_needs_images_and_not_their_histograms_alone():
    seen = calibrate_model(small(), IMAGES, IMAGES)
    with pytest.raises(fs.FewSpikesError, match="spike_price cannot act: a Calibration is given in place of images"):
        fs.convert(small(), IMAGES, seen, K=5, spike_price=0.01)
