"""`fit`: what it finds, what it keeps to, and what it refuses."""

import itertools
import json

import numpy as np
import pytest
import torch

import fewspikes as fs
from fewspikes.fitting import FitResult, measure
from fewspikes.fitting.fitting import even_and_seen
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.staircase import error_and_spikes
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.grid import Grid

SILU = Activation("silu")

pytestmark = pytest.mark.usefixtures("one_thread")


def test_silu_with_8_steps_has_the_published_quality_from_nothing():
    result = fs.fit("silu", 8, warm=False)
    assert result.mse_main <= 2.65e-3
    assert result.mse_outer <= 4.6e-3


def test_silu_with_9_steps_is_better_than_the_published_table_of_16():
    result, published = fs.fit("silu", 9, warm=False), fs.fit("silu", method="closed")
    assert result.mse_main < published.mse_main
    assert result.mse_outer < published.mse_outer


def test_silu_with_16_steps_has_a_tenth_of_the_published_error_from_nothing():
    result = fs.fit("silu", 16, warm=False)
    assert result.mse_main <= 2.5e-4
    assert result.mse_outer <= 5e-4


def test_a_limit_of_spikes_is_kept_and_costs_little():
    result = fs.fit("silu", 16, max_spikes=2.27, warm=False)
    assert result.mean_spikes <= 2.27 * 1.0001
    assert result.mse_main <= 6e-4
    assert result.mse_outer <= 1.2e-3


@pytest.mark.parametrize("limit", [0.0, 0.1, 0.5])
def test_a_tight_limit_of_spikes_is_kept_too(limit):
    assert fs.fit("silu", 4, max_spikes=limit, warm=False).mean_spikes <= limit * 1.001 + 1e-9


def test_a_price_on_spikes_saves_spikes():
    assert fs.fit("silu", 6, spike_price=0.01).mean_spikes < fs.fit("silu", 6).mean_spikes - 0.2


@pytest.mark.parametrize("price", [0.0, 0.3, 0.9, 1.5, 2.4])
def test_the_price_is_in_shares_of_the_outputs_variance(price):
    # f(x) = x on [-1, 1], all inputs alike: Var(f) = 1/3. One step with threshold T fires for a share (1 - T) / 2, and
    # the best two outputs are the means of both sides, so E = ((1 + T)^3 + (1 - T)^3) / 24 = (1 + 3 T^2) / 12 and
    # E / Var(f) + price S = (1 + 3 T^2) / 4 + price (1 - T) / 2: least at T = price / 3.
    result = fs.fit(lambda x: x, 1, domain=(-1, 1), inputs="uniform", spike_price=price)
    assert result.mean_spikes == pytest.approx((1 - price / 3) / 2, abs=0.003)  # of which 0.001 is the preference's
    assert result.mse == pytest.approx((1 + price**2 / 3) / 12, abs=0.002)


@pytest.mark.parametrize("effort", ["quick", "normal"])
def test_silence_is_the_best_code_where_a_spike_costs_more_than_it_saves(effort):
    # The line of the test above at T = price / 3: 1/4 + price / 2 - price^2 / 12 reaches silence's 1 at price 3.
    result = fs.fit(lambda x: x, 4, domain=(-1, 1), inputs="uniform", spike_price=3.5, effort=effort)
    assert (result.mean_spikes, result.parameters.offset) == (0.0, pytest.approx(0.0, abs=1e-9))


def test_the_best_code_of_two_steps_is_found_at_every_price():
    # All codes of two steps on a grid of 25 thresholds and resets, each with its best weights on 401 inputs.
    x = np.linspace(-1, 1, 401)
    f = np.tanh(3 * x)
    least = dict.fromkeys((0.01, 0.1, 0.4), np.inf)
    steps = np.linspace(-1.5, 1.5, 25)
    for T1, h1, T2 in itertools.product(steps, steps, steps):
        first = x >= T1
        second = (x - h1 * first) >= T2
        columns = np.stack([first, second, np.ones(401)], axis=1)
        error = ((columns @ np.linalg.lstsq(columns, f, rcond=None)[0] - f) ** 2).mean()
        for price in least:
            least[price] = min(least[price], error / f.var() + price * (first.mean() + second.mean()))
    for price, best in least.items():
        p = fs.fit(lambda x: torch.tanh(3 * x), 2, domain=(-1, 1), inputs="uniform", spike_price=price).parameters
        y, fired = fs.apply(torch.from_numpy(x), p)
        found = float(((y - torch.from_numpy(f)) ** 2).mean()) / f.var() + price * float(fired.double().mean())
        assert found <= 1.01 * best


@pytest.mark.parametrize("offset", [True, False])
def test_a_higher_price_never_has_more_spikes_and_never_less_error(offset):
    problem = even_and_seen(SILU, SILU.domain, SILU.typical_inputs, SILU.main_region, offset=offset)
    prices = (0.0, 0.001, 0.01, 0.1, 1.0, 5.0)
    codes = [fs.fit("silu", 5, spike_price=price, offset=offset).parameters for price in prices]
    errors, spikes = zip(*(error_and_spikes(p, problem) for p in codes), strict=True)
    assert list(spikes) == sorted(spikes, reverse=True)
    assert list(errors) == sorted(errors)
    assert spikes[-1] < 0.01  # those far out, where few inputs and much of the even weight lie
    for price, error, fired in zip(prices[1:], errors[1:], spikes[1:], strict=True):
        every = [e / problem.variance + price * s for e, s in zip(errors, spikes, strict=True)]
        assert error / problem.variance + price * fired <= min(every) * 1.001


@pytest.mark.parametrize("method", ["search", "bptt"])
def test_a_price_acts_with_either_way_of_searching(method):
    free, priced = (fs.fit("silu", 4, method=method, effort="quick", spike_price=price) for price in (0.0, 1.0))
    assert priced.mean_spikes < free.mean_spikes - 0.1


def test_without_an_offset_silence_is_0():
    assert fs.fit("sigmoid", 5, offset=False).parameters.offset == 0.0
    assert fs.fit("sigmoid", 5, offset=False).mse > fs.fit("sigmoid", 5).mse


def test_a_seed_gives_the_same_parameters_again():
    a, b = (fs.fit("tanh", 6, seed=3, warm=False).parameters for _ in range(2))
    assert a == b


def test_a_function_of_ones_own_is_fitted_as_the_named_one():
    own = fs.fit(torch.tanh, 5, domain=(-5, 5), inputs="uniform")
    named = fs.fit("tanh", 5)
    assert own.parameters.T.tolist() == named.parameters.T.tolist()
    assert own.max_error == pytest.approx(named.max_error, rel=1e-3)
    assert (own.max_error_proven, named.max_error_proven) == (False, True)


@pytest.mark.parametrize("name", ["exp", "reciprocal", "rsqrt", "square", "softplus", "hardswish", "leaky_relu", "elu"])
def test_more_steps_have_less_error(name):
    errors = [fs.fit(name, K, effort=effort).mse for K, effort in ((2, "normal"), (6, "normal"))]
    assert errors[1] < errors[0] / 10


def test_relu_by_search_is_no_worse_than_the_binary_code():
    found = fs.fit("relu6", 5, method="search", domain=(-6, 6), inputs="uniform")
    binary = fs.fit("relu6", 5, rounding="nearest", domain=(-6, 6), inputs="uniform")
    assert found.mse <= binary.mse * 1.001


def test_relu_with_inputs_gets_the_range_of_least_error():
    least = fs.fit("relu", 5, inputs=(-0.4, 2.2))
    for alpha in (3.0, 10.0):
        other = fs.relu_parameters(5, alpha, "nearest")
        x = torch.randn(400_000, dtype=torch.float64) * 2.2**0.5 - 0.4
        errors = [float(((fs.apply(x, p)[0] - x.relu()) ** 2).mean()) for p in (least.parameters, other)]
        assert errors[0] < errors[1]


def test_samples_their_histogram_and_their_gaussian_give_like_fits():
    samples = torch.randn(1_000_000, dtype=torch.float64) * 1.3 + 0.2
    every = ((0.2, 1.69), samples, samples.numpy(), Histogram.of(samples))
    fits = [fs.fit("silu", 5, (-5, 6), inputs=inputs) for inputs in every]
    assert [result.mse for result in fits] == pytest.approx([fits[0].mse] * 4, rel=0.05)
    assert [result.mean_spikes for result in fits] == pytest.approx([fits[0].mean_spikes] * 4, rel=0.05)


def test_a_constant_function_needs_no_spike():
    for value in (0.0, 2.5):
        result = fs.fit(lambda x, value=value: torch.full_like(x, value), 4, domain=(-1, 1), inputs="uniform")
        assert (result.mean_spikes, result.mse) == (0.0, 0.0)
    without = fs.fit(lambda x: torch.full_like(x, 2.5), 4, domain=(-1, 1), inputs="uniform", offset=False)
    assert (without.mean_spikes, without.mse) == (
        pytest.approx(1.0, rel=1e-12),
        0.0,
    )  # a mean over weights that are rounded


def test_quick_takes_the_nearest_table_with_its_weights_solved_again():
    quick = fs.fit("silu", 8, domain=(-10, 14), effort="quick")
    assert quick.mse_main < 4e-3
    assert quick.seconds < fs.fit("silu", 8, domain=(-10, 14)).seconds


def test_one_step_and_more_than_the_tables_have_are_fitted_too():
    assert fs.fit("sigmoid", 1).mse < 0.05
    assert fs.fit("sigmoid", 17, effort="quick").parameters.K == 17


def test_a_result_is_the_same_after_json():
    result = fs.fit("silu", 3)
    assert FitResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_provenance_says_how_the_parameters_were_made():
    made = fs.fit("silu", 3, seed=5, spike_price=0.01, inputs="uniform").parameters.provenance
    assert (made["method"], made["seed"], made["spike_price"], made["inputs"]) == ("search", 5, 0.01, "uniform")


def test_fit_reports_the_published_errors_of_silu():
    result = fs.fit("silu", method="closed")
    assert result.mse_main == pytest.approx(2.394e-3, rel=5e-4)
    assert result.mse_outer == pytest.approx(3.708e-3, rel=5e-4)
    assert result.mean_spikes == pytest.approx(2.266, abs=5e-4)  # Gaussian of the paper's Fig. 7


def test_fit_relu_error_is_the_uniform_rounding_error():
    # On [-8, 8] half the points are negative and exact; the others are rounded to a step of 8 / 1024: step^2 / 12.
    result = fs.fit("relu", K=10, alpha=8.0, rounding="nearest")
    assert result.mse == pytest.approx((8 / 1024) ** 2 / 12 / 2, rel=0.01)
    assert result.max_error == 8 / 1024  # at 8, which is one step above the highest level


def not_elementwise(x):
    return x - x.mean()


def by_place(x):
    return x + torch.arange(x.numel(), dtype=x.dtype).reshape(x.shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fs.fit("geluu"), "unknown activation 'geluu'; did you mean 'gelu'"),
        (lambda: fs.fit(3), "must be an activation's name or a function"),
        (lambda: fs.fit("silu", 0), "K must be a whole number from 1 to 24; got 0"),
        (lambda: fs.fit("silu", 25), "K must be a whole number from 1 to 24; got 25"),
        (lambda: fs.fit("silu", 8.0), "K must be a whole number"),
        (lambda: fs.fit("silu", 4, (3, 3)), "finite with low < high; got 3.0, 3.0"),
        (lambda: fs.fit("silu", 4, (3, -3)), "finite with low < high"),
        (lambda: fs.fit("silu", 4, (0, np.inf)), "finite with low < high"),
        (lambda: fs.fit("silu", 4, 3), r"the domain must be \(low, high\); got 3"),
        (lambda: fs.fit("reciprocal", 4, (-1, 1)), r"reciprocal is not finite at x = 0, within -1 to 1 .*; choose"),
        (lambda: fs.fit(torch.sqrt, 4, (-1, 1)), "sqrt is not finite at x = -1"),
        (lambda: fs.fit(torch.sin, 4), r"needs a domain: fit\(sin, K, domain=\(low, high\)\)"),
        (lambda: fs.fit(not_elementwise, 4, (-1, 1)), "not_elementwise is not elementwise"),
        (lambda: fs.fit(by_place, 4, (-1, 1)), "by_place is not elementwise"),
        (lambda: fs.fit(torch.sum, 4, (-1, 1)), r"must return a float64 tensor of its input's shape \(257,\)"),
        (lambda: fs.fit(torch.Tensor.float, 4, (-1, 1)), "must return a float64 tensor .* got torch.float32"),
        (lambda: fs.fit(lambda x: 1.0, 4, (-1, 1)), "must return a float64 tensor .* got float"),
        (lambda: fs.fit(lambda x: 1 / 0, 4, (-1, 1)), "raised on a float64 tensor .* ZeroDivisionError"),
        (lambda: fs.fit("silu", 4, max_spikes=-1), "max_spikes must be a finite number >= 0; got -1"),
        (lambda: fs.fit("silu", 4, spike_price=float("nan")), "spike_price must be a finite number >= 0"),
        (lambda: fs.fit("silu", 4, spike_price=np.inf), "spike_price must be a finite number >= 0; got inf"),
        (lambda: fs.fit("silu", 4, spike_price=-0.1), "spike_price must be a finite number >= 0; got -0.1"),
        (lambda: fs.fit("silu", 4, spike_price="much"), "spike_price must be a finite number >= 0; got 'much'"),
        (lambda: fs.fit("relu", 4, spike_price=0.1), "spike_price has no effect on a closed form; use method='search'"),
        (lambda: fs.fit("silu", method="closed", spike_price=0.1), "spike_price has no effect on a closed form"),
        (lambda: fs.fit("reciprocal", 4, (-1, 1.37)), "reciprocal is not finite at x = .*e-"),
        (lambda: fs.fit("silu", method="closed", max_spikes=1), "max_spikes=1 cannot be met: the best .* fires 2.266"),
        (lambda: fs.fit("silu", 4, inputs="normal"), "inputs must be 'uniform', .*; got 'normal'"),
        (lambda: fs.fit("silu", 4, inputs=(0.0, 0.0)), "variance must be > 0"),
        (lambda: fs.fit("silu", 4, inputs=(1, 2, 3)), "inputs must be 'uniform'"),
        (lambda: fs.fit("silu", 4, inputs=torch.zeros(0)), "at least one value"),
        (lambda: fs.fit("silu", 4, inputs=Histogram(0.0, 1.0, -13, 0, np.zeros(8193, int))), "holds no counts"),
        (lambda: fs.fit("silu", 4, inputs=torch.full((9,), 50.0)), "none of the inputs lies in the domain"),
        (lambda: fs.fit("silu", 4, seed=-1), "the seed must be a whole number >= 0"),
        (lambda: fs.fit("silu", 4, effort="best"), "effort must be 'quick', 'normal' or 'long'"),
        (lambda: fs.fit("silu", method="magic"), "method must be 'search', 'bptt' or 'closed'"),
        (lambda: fs.fit("silu", K=8, method="closed"), "K=16 only"),
        (lambda: fs.fit("gelu", method="closed"), "no closed form of gelu"),
        (lambda: fs.fit("silu", alpha=3.0), "alpha and rounding are for a ReLU with method='closed'"),
        (lambda: fs.fit("relu6", alpha=3.0), "range of relu6 is its cap"),
        (lambda: fs.fit("relu", 4, method="closed", bits=8), r"use .quantize\(bits\)"),
        (lambda: fs.fit("silu", 4, bits=0), "bits must be a whole number from 1 to 24; got 0"),
        (lambda: fs.fit("silu", 4, bits=Grid(8, scale=-1.0)), "the scale must be a finite number > 0; got -1.0"),
        (lambda: measure(fs.published("silu"), SILU, domain=(0.0, float("inf"))), "must be finite"),
    ],
)
def test_what_cannot_be_done_raises_with_the_remedy(call, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        call()
