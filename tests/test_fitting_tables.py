"""The shipped tables: each as good as it says, and the best of them as good as the README says."""

import numpy as np
import pytest
import torch

import fewspikes as fs
from fewspikes.fitting import largest_error, shipped
from fewspikes.fitting.descent import objective
from fewspikes.fitting.fitting import even_and_seen
from fewspikes.fitting.staircase import workspace
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.known_codes import SHIPPED, VARIANTS, all_shipped

STEPS = range(3, 17)

pytestmark = pytest.mark.usefixtures("one_thread")


def gaussian_mean(spikes, x, mean, variance):
    weight = torch.exp(-((x - mean) ** 2) / (2 * variance))
    return float(weight @ spikes.double() / weight.sum())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_table_has_the_errors_and_spikes_that_it_states(name):
    activation = Activation(name)
    x = torch.linspace(*activation.domain, 200_001, dtype=torch.float64)
    f = activation(x)
    for variant in VARIANTS:
        for K in STEPS:
            p = shipped(name, K, variant)
            y, spikes = fs.apply(x, p)
            stated, square = p.provenance, (y - f) ** 2
            assert float(square.mean()) == pytest.approx(stated["mse"], rel=1e-6)
            assert largest_error(p, activation) == pytest.approx(stated["max_error"], rel=1e-6)
            if activation.main_region:
                inside = (x >= activation.main_region[0]) & (x <= activation.main_region[1])
                assert float(square[inside].mean()) == pytest.approx(stated["mse_main"], rel=1e-6)
                assert float(square[~inside].mean()) == pytest.approx(stated["mse_outer"], rel=1e-6)
            mean = (
                gaussian_mean(spikes, x, *activation.typical_inputs)
                if activation.typical_inputs
                else float(spikes.double().mean())
            )
            assert mean == pytest.approx(stated["mean_spikes"], rel=1e-3)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_activation_has_every_number_of_steps_in_both_variants_with_provenance(name):
    tables = all_shipped(name)
    assert set(tables) == {(K, variant) for K in STEPS for variant in VARIANTS}
    for p in tables.values():
        assert p.domain == Activation(name).domain
        assert p.activation == name
        assert {"method", "command", "seed", "date", "versions", "objective", "inputs"} <= set(p.provenance)


@pytest.mark.parametrize("name", SHIPPED)
def test_more_steps_are_no_worse_and_low_spikes_fire_less(name):
    errors = [shipped(name, K).provenance["mse"] for K in STEPS]
    assert all(errors[i + 2] < 1.02 * errors[i] for i in range(len(errors) - 2))
    activation = Activation(name)
    made = even_and_seen(activation, activation.domain, activation.typical_inputs or "uniform", activation.main_region)
    for K in STEPS:
        low_error, low_spikes = (shipped(name, K, variant) for variant in VARIANTS)
        codes = [np.concatenate([p.T, p.h]) for p in (low_error, low_spikes)]
        least, other = (objective(code, made, workspace(K)) for code in codes)
        assert least <= other + 1e-4  # log of the weighted error
        assert low_spikes.provenance["mean_spikes"] <= (1 + 1e-4) * low_error.provenance["mean_spikes"]


def test_silu_with_8_steps_has_the_published_quality_at_fewer_spikes():
    stated = shipped("silu", 8, "low-spikes").provenance
    assert stated["mse_main"] <= 2.5e-3
    assert stated["mse_outer"] <= 4.15e-3
    assert stated["mean_spikes"] <= 1.85


def test_silu_with_16_steps_has_a_tenth_of_the_published_error():
    stated = shipped("silu", 16).provenance
    assert stated["mse_main"] <= 2.0e-4
    assert stated["mse_outer"] <= 4.0e-4


def test_silu_with_16_steps_has_a_fifth_of_the_published_error_at_its_spikes():
    stated = shipped("silu", 16, "low-spikes").provenance
    assert stated["mean_spikes"] <= 2.27
    assert stated["mse_main"] <= 6e-4
    assert stated["mse_outer"] <= 1.2e-3


def test_sigmoid_with_12_steps_has_a_tenth_of_the_published_error():
    assert shipped("sigmoid", 12).provenance["mse"] <= 1.2e-5
    assert fs.fit("sigmoid", method="closed", inputs="uniform").mse == pytest.approx(1.44e-4, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("silu", 17), "no shipped table of silu with K=17; there are K = 3 to 16"),
        (("exp", 8), "no shipped tables for 'exp'; there are silu, sigmoid"),
        (("silu", 8, "best"), "the variant must be 'low-error' or 'low-spikes'"),
    ],
)
def test_a_table_that_is_not_there_raises(arguments, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        shipped(*arguments)
