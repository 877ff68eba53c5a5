"""The ReLU codes: the binary code of least error, and the one that spends a step on the cap."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewspikes as fs
from fewspikes.fitting import least_error_relu
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.relu import cap_code, fewer_spikes, squared_error

SAMPLES = torch.randn(200_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.5 - 0.3


def sample_error(p, x, cap=None):
    return float(((fs.apply(x, p)[0] - x.clamp(0, cap)) ** 2).mean())


@pytest.mark.parametrize("K", [2, 4, 8, 12, 16])
@pytest.mark.parametrize("rounding", ["nearest", "down"])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_the_error_from_the_histogram_is_the_error_of_the_neuron_on_the_samples(K, rounding, cap):
    p = least_error_relu(K, Histogram.of(SAMPLES), rounding, cap)
    predicted = squared_error(K, p.provenance["alpha"], Histogram.of(SAMPLES), rounding, cap)
    # Exact for the histogram's density up to K = 12; beyond, the error inside a level is taken as uniform.
    assert predicted == pytest.approx(sample_error(p, SAMPLES, cap), rel=0.015 if K <= 12 else 0.03)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.floats(0.6, 1.6), st.sampled_from(["nearest", "down"]), st.sampled_from([None, 2.0]))
def test_no_other_range_has_a_smaller_error_on_the_samples(K, factor, rounding, cap):
    best = least_error_relu(K, Histogram.of(SAMPLES), rounding, cap)
    other = fs.relu_parameters(K, best.provenance["alpha"] * factor, rounding, cap)
    assert sample_error(best, SAMPLES, cap) <= sample_error(other, SAMPLES, cap) * 1.002


def test_a_saturated_capped_relu_comes_out_at_its_cap():
    p = least_error_relu(6, Histogram.of(SAMPLES * 10), cap=6.0)
    y, _ = fs.apply(torch.tensor([6.0, 7.0, 100.0]), p)
    assert y.tolist() == pytest.approx([6.0] * 3, rel=2**-11)


def test_fitted_ranges_have_twelve_significant_bits():
    alpha = least_error_relu(6, Histogram.of(SAMPLES)).provenance["alpha"]
    mantissa = alpha
    while mantissa != int(mantissa):
        mantissa *= 2
    assert int(mantissa).bit_length() <= 12


def test_a_site_that_never_fires_stays_silent():
    p = least_error_relu(6, Histogram.of(-SAMPLES.abs()))
    assert int(fs.apply(-SAMPLES.abs(), p)[1].sum()) == 0


def test_a_code_with_a_step_on_the_cap_fires_once_where_it_is_saturated():
    p = cap_code(6, 6.0, 6.0, 20.0)
    x = torch.linspace(-8.0, 40.0, 4801, dtype=torch.float64)
    y, spikes = fs.apply(x, p)
    saturated = x >= 6.0
    assert set(spikes[saturated].tolist()) == {1}
    assert set(y[saturated].tolist()) == {6.0}
    # Below, five bits: levels 6 / 32 apart, rounded to nearest.
    assert float((y - x.clamp(0, 6)).abs().max()) == pytest.approx(6 / 32 / 2, abs=0.01 / 2)  # of the points' spacing


@pytest.mark.parametrize("K", [1, 2, 4, 6])
def test_moved_thresholds_put_each_boundary_where_error_and_spikes_together_are_least(K):
    worth = 0.2  # in squared steps; the largest move of these codes stays within its bounds
    plain = fs.relu_parameters(K, 2.0**K, "nearest")  # the step is 1
    p = fewer_spikes(plain, worth)
    x = torch.linspace(-1.0, 2.0**K, 20_001, dtype=torch.float64)
    levels = torch.arange(2**K, dtype=torch.float64)
    fired = torch.tensor([bin(k).count("1") for k in range(2**K)])
    best = ((x[:, None] - levels) ** 2 + worth * fired).argmin(1)
    y, spikes = fs.apply(x, p)
    assert float((y == best).double().mean()) > 0.999  # but for points on a boundary
    assert torch.equal(spikes.long(), fired[y.long()])


def test_thresholds_move_at_most_as_far_as_keeps_the_outputs_in_order():
    x = torch.linspace(-1.0, 260.0, 50_001, dtype=torch.float64)
    y, _ = fs.apply(x, fewer_spikes(fs.relu_parameters(8, 256.0, "nearest"), 10.0))
    assert bool((y.diff() >= 0).all())
    assert float((y - x.clamp(0, 255)).abs().max()) <= 1.0
