"""The least-error range of a ReLU code, and what a fit reports."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewspikes as fs
from fewspikes.activations import Activation
from fewspikes.fitting import least_error_relu, measure
from fewspikes.fitting.closed_form import squared_error
from fewspikes.histogram import Histogram

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


def test_fit_reports_the_published_errors_of_silu():
    result = fs.fit("silu")
    assert result.mse_main == pytest.approx(2.394e-3, rel=5e-4)
    assert result.mse_outer == pytest.approx(3.708e-3, rel=5e-4)
    assert result.mean_spikes == pytest.approx(2.266, abs=5e-4)  # Gaussian of the paper's Fig. 7


def test_fit_relu_error_is_the_uniform_rounding_error():
    # On [-8, 8] half the points are negative and exact; the others are rounded to a step of 8 / 1024: step^2 / 12.
    result = fs.fit("relu", K=10, alpha=8.0, rounding="nearest")
    assert result.mse == pytest.approx((8 / 1024) ** 2 / 12 / 2, rel=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fs.fit("gelu"), "no fit for 'gelu'"),
        (lambda: fs.fit("silu", K=8), "K=16 only"),
        (lambda: fs.fit("relu6", alpha=3.0), "range of relu6 is its cap"),
        (lambda: fs.fit("relu", method="magic"), "method must be"),
        (lambda: measure(fs.published("silu"), Activation("silu"), domain=(0.0, float("inf"))), "must be finite"),
        (lambda: measure(fs.published("silu"), Activation("silu"), inputs=(0.0, 0.0)), "variance must be > 0"),
        (lambda: measure(fs.published("silu"), Activation("silu"), inputs="normal"), "'uniform' or"),
        (lambda: Activation("gelu"), "unknown activation"),
        (lambda: Activation("silu", cap=3.0), "a cap must be"),
    ],
)
def test_what_there_is_nothing_for_raises(call, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        call()
