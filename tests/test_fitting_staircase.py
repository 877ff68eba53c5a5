"""The neuron as a map of intervals: the same neuron, its exact error, and the exact gradient of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewspikes as fs
from fewspikes.fitting import bounds
from fewspikes.fitting.bounds import largest_error, steps_of
from fewspikes.fitting.descent import descend, objective, objective_and_gradient, random_code
from fewspikes.fitting.fitting import even_and_seen
from fewspikes.fitting.staircase import (
    error_and_spikes,
    intervals,
    least_squares,
    parameters_of,
    solve,
    workspace,
)
from fewspikes.neuron.activation import Activation
from strategies import arguments

SILU = Activation("silu")


def problem(**options):
    return even_and_seen(SILU, (-8.0, 12.0), (-0.112, 1.99), (-2.0, 2.0), **options)


def code(K, seed=0):
    p = np.random.default_rng(seed).uniform(0.2, 1.0, 2 * K)
    p *= np.tile(10 * 0.6 ** np.arange(K), 2)
    return p


@settings(max_examples=60, deadline=None)
@given(arguments(), st.lists(st.floats(-25, 25), min_size=1, max_size=50))
def test_each_interval_has_the_spikes_and_the_output_of_the_neuron(drawn, values):
    p = fs.FSParameters(*drawn)
    edges, outputs, patterns = steps_of(p, (-30.0, 30.0))
    x = torch.tensor([v for v in values if np.abs(v - edges).min() > 1e-9], dtype=torch.float64)
    at = np.searchsorted(edges, x.numpy(), side="right") - 1
    spikes = fs.encode(x, p).numpy()
    assert (((patterns[at][None, :] >> np.arange(p.K)[:, None]) & 1) == spikes).all()
    assert fs.apply(x, p)[0].numpy() == pytest.approx(outputs[at], abs=1e-9)


@pytest.mark.parametrize("K", [1, 3, 8, 12])
def test_the_compiled_intervals_are_those_of_the_readable_staircase(K):
    p, made, work = code(K), problem(), workspace(K)
    n, _ = intervals(p, made, work)
    edges, _, patterns = steps_of(fs.FSParameters(p[:K], p[K:], np.zeros(K)), (-8.0, 12.0))
    found, i = [], 0
    while i != 1:  # the list ends with interval 1, the end of the domain
        found.append((work.place[i, 0], work.pattern[i]))
        i = work.next[i]
    assert n == len(found) == len(patterns)
    assert [edge for edge, _ in found] == pytest.approx(edges[:-1].tolist(), abs=1e-12)
    assert [pattern for _, pattern in found] == patterns.tolist()


@pytest.mark.parametrize("K", [2, 5, 8, 13])
@pytest.mark.parametrize("options", [{}, {"spike_price": 0.4}, {"spike_price": 0.02, "limit": 0.5}, {"offset": False}])
def test_the_gradient_is_that_of_finite_differences(K, options):
    p, made, work = code(K, seed=K), problem(**options), workspace(K)
    gradient, step = np.empty(2 * K), 1e-6
    assert objective_and_gradient(p, made, work, gradient) == objective(p, made, work)
    for k in range(2 * K):
        shift = np.zeros(2 * K)
        shift[k] = step
        slope = (objective(p + shift, made, work) - objective(p - shift, made, work)) / (2 * step)
        assert gradient[k] == pytest.approx(slope, abs=2e-5 * (1 + np.abs(gradient).max()))


@pytest.mark.parametrize("K", [4, 8, 16])
def test_the_error_and_spikes_are_those_of_the_neuron_on_samples(K):
    made = even_and_seen(SILU, (-8.0, 12.0), (-0.112, 1.99))
    p, work = code(K), workspace(K)
    descend(p, made, work, 60, np.inf)  # so that the error is small, and its own error shows
    error, spikes = least_squares(p, made, work)
    x = torch.linspace(-8, 12, 2_000_001, dtype=torch.float64)
    gauss = torch.exp(-((x + 0.112) ** 2) / (2 * 1.99))
    weight = (gauss / gauss.sum() + 1 / len(x)) / 2
    y, fired = fs.apply(x, parameters_of(p, made))
    assert error == pytest.approx(float(weight @ (y - SILU(x)) ** 2), rel=0.01)
    assert spikes == pytest.approx(float(gauss @ fired.double() / gauss.sum()), rel=0.001)


@pytest.mark.parametrize("offset", [True, False])
def test_no_other_weights_have_a_smaller_error(offset):
    made, K = problem(offset=offset), 6
    p = parameters_of(code(K), made)
    least, _ = error_and_spikes(p, made)
    random = np.random.default_rng(0)
    for _ in range(20):
        d = p.d + random.normal(size=K) * 0.01
        other = fs.FSParameters(p.T, p.h, d, p.offset + (random.normal() * 0.01 if offset else 0.0))
        assert error_and_spikes(other, made)[0] > least
    assert offset or p.offset == 0.0


def test_cholesky_solves_a_symmetric_system():
    random = np.random.default_rng(1)
    A = random.normal(size=(7, 7))
    A, b, x = A @ A.T, random.normal(size=7), np.empty(7)
    wanted = np.linalg.solve(A, b)
    solve(A.copy(), b, x)
    assert x == pytest.approx(wanted, rel=1e-8)


def test_a_descent_ends_far_lower_at_the_objective_that_it_says():
    made, p, work = problem(), code(8), workspace(8)
    before = objective(p, made, work)
    after = descend(p, made, work, 400, np.inf)
    assert after < before - 1
    assert after == pytest.approx(objective(p, made, work), abs=1e-12)


def test_a_descent_that_leads_nowhere_is_broken_off():
    made, p, q, work = problem(), code(8), code(8), workspace(8)
    low = descend(p, made, work, 400, np.inf)
    assert descend(q, made, work, 400, -100.0) > low


def test_random_codes_are_codes():
    p = np.zeros(20)
    random_code(-8.0, 12.0, p)
    assert np.isfinite(p).all()
    assert (p[10:] > 0).all()


@pytest.mark.parametrize("name", ["silu", "sigmoid", "gelu", "hardswish", "square", "softplus"])
def test_the_largest_error_bounds_every_sample_and_is_reached(name):
    activation = Activation(name)
    p = fs.fit(activation, 6, effort="quick").parameters
    x = torch.linspace(*activation.domain, 3_000_001, dtype=torch.float64)
    sampled = float((fs.apply(x, p)[0] - activation(x)).abs().max())
    bound = largest_error(p, activation, activation.domain)
    assert sampled <= bound + 1e-12
    assert bound == pytest.approx(sampled, abs=2e-5)


def test_the_largest_error_of_a_relu_code_is_known_on_its_open_domain():
    assert largest_error(fs.relu_parameters(5, 8.0, "nearest", cap=8.0), Activation("relu", 8.0)) == 0.25
    assert largest_error(fs.relu_parameters(5, 8.0), Activation("relu"), (-1.0, np.inf)) == np.inf
    with pytest.raises(fs.FewSpikesError, match="low < high"):
        largest_error(fs.relu_parameters(5, 8.0), Activation("relu"), (1.0, 1.0))


def test_a_bound_holds_after_the_cast_to_float32():
    p = fs.fit("silu", 8, effort="quick").parameters
    x = torch.linspace(-8, 12, 1_000_001)
    sampled = float((fs.apply(x, p)[0] - SILU(x.double())).abs().max())
    assert sampled <= largest_error(p, SILU) + 1e-5


def test_the_largest_error_may_lie_where_the_activation_turns():
    silent = fs.FSParameters([99.0], [0.0], [0.0])
    assert largest_error(silent, SILU, (-8.0, 0.0)) == pytest.approx(0.27846454276)  # SiLU's least value


@pytest.mark.parametrize("rounding", ["down", "nearest"])
@pytest.mark.parametrize("cap", [None, 6.0, 0.09])
@pytest.mark.parametrize("domain", [(-4.0, 8.0), (-1.0, 100.0)])
def test_a_long_binary_codes_largest_error_needs_none_of_its_steps_one_by_one(monkeypatch, rounding, cap, domain):
    p, activation = fs.relu_parameters(12, 3.137, rounding, cap), Activation("relu", cap)
    wanted = largest_error(p, activation, domain)
    monkeypatch.setattr(bounds, "_MOST", 1000)
    assert largest_error(p, activation, domain) == pytest.approx(wanted, rel=1e-9)


def test_the_largest_error_of_24_steps_is_known():
    p = fs.relu_parameters(24, 8.0, "nearest", cap=8.0)
    assert largest_error(p, Activation("relu"), (-1.0, 7.0)) == 8.0 * 2.0**-25  # half the last step
    assert largest_error(p, Activation("relu", 8.0)) == 8.0 * 2.0**-24  # the highest level lies a step below the cap


def test_a_staircase_of_more_steps_than_anybody_looks_at_has_no_bound():
    p = fs.relu_parameters(24, 16.0)
    assert largest_error(fs.FSParameters(p.T, p.h, 1.001 * p.d), Activation("relu"), (-1.0, 16.0)) is None
