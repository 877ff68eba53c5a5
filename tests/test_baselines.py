"""The older codes that FS-neurons are compared with are what their papers say."""

import sys
from pathlib import Path

import pytest
import torch

import fewspikes as fs
from fewspikes.conversion.building import calibrate_model
from networks import small

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks" / "baselines"))
from coding import FirstSpike, RateCoded, first_spike, rate_coded, thresholds


@pytest.mark.parametrize("steps", [1, 7, 64])
def test_a_rate_is_the_relu_rounded_to_one_of_steps_plus_one_levels(steps):
    neuron, x = RateCoded(2.0), torch.linspace(-1.0, 3.0, 401)
    mean = sum(neuron(x) for _ in range(steps)) / steps
    assert (mean - x.clamp(0, 2)).abs().max() <= 1.0 / steps + 1e-5  # half a level of 2 / steps
    assert neuron.spikes == int((mean * steps / 2).round().sum())


def test_a_first_spike_is_one_at_most_and_rounds_to_nearest():
    neuron, x = FirstSpike(2.0, 16), torch.linspace(-1.0, 3.0, 401)
    y = neuron(x)
    assert (y - x.clamp(0, 2)).abs().max() <= 1 / 16 + 1e-6
    assert neuron.spikes == int((y > 0).sum()) < len(x)


def test_with_many_steps_both_codes_are_the_network():
    torch.manual_seed(0)
    model, x = small(), torch.randn(32, 3, 8, 8)
    snn, at = fs.convert(model, x[:1]), thresholds(calibrate_model(model, x[:1], x), share=1.0)
    with torch.inference_mode():
        wanted = model(x)
        for make, steps, near in ((rate_coded, 2000, 0.02), (first_spike, 2000, 0.01)):
            logits, spikes = make(snn, at, steps)(x)
            assert (logits - wanted).abs().max() < near * wanted.abs().max()
            assert spikes > 0


def test_a_threshold_leaves_the_share_below_it():
    model, x = small(), torch.randn(64, 3, 8, 8)
    seen = calibrate_model(model, x[:1], x)
    for name, value in thresholds(seen, 0.9).items():
        h = seen.sites[name]
        centres = (h.first + torch.arange(len(h.counts)) + 0.5) * 2.0**h.exponent
        counts = torch.from_numpy(h.counts.copy()) * (centres > 0)
        assert float(counts[centres <= value].sum() / counts.sum()) == pytest.approx(0.9, abs=0.01)
