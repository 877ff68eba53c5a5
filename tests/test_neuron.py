"""The recurrence: against plain Python, on ties, at the edges of floating point, and its surrogate gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fewspikes as fs
from scalar_reference import fs_neuron
from strategies import arguments, inputs_for

alphas12 = st.integers(1, 2**12).flatmap(lambda m: st.integers(-16, 8).map(lambda e: m * 2.0**e))
alphas40 = st.integers(2**39, 2**40 - 1).flatmap(lambda m: st.integers(-44, -36).map(lambda e: m * 2.0**e))


@given(st.data())
def test_every_spike_and_output_is_the_scalar_references_in_float64(data):
    p = fs.FSParameters(*data.draw(arguments()))
    x = data.draw(inputs_for(p))
    z = fs.encode(torch.tensor(x, dtype=torch.float64), p)
    y, spikes = fs.apply(torch.tensor(x, dtype=torch.float64), p)
    for i, value in enumerate(x):
        wanted_z, wanted_y = fs_neuron(value, p.T.tolist(), p.h.tolist(), p.d.tolist(), p.offset)
        assert z[:, i].tolist() == wanted_z
        assert int(spikes[i]) == sum(wanted_z)
        assert y[i].item() == wanted_y or (value != value and y[i].isnan())


@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_the_output_is_exactly_the_offset_plus_the_weighted_spikes(data, dtype):
    p = fs.FSParameters(*data.draw(arguments()))
    x = torch.tensor([v for v in data.draw(inputs_for(p)) if v == v] or [0.0], dtype=dtype)
    z = fs.encode(x, p)
    assert z.dtype is torch.bool
    assert torch.equal(fs.decode(z, p, dtype), fs.apply(x, p)[0])
    assert torch.equal(fs.decode(z, p, dtype), fs.FSNeuron(p)(x))


@given(alphas12, st.integers(1, 12), st.sampled_from(["down", "nearest"]))
def test_relu_is_exact_on_every_multiple_of_the_step_in_float32(alpha, K, rounding):
    _assert_exact_on_multiples(alpha, K, rounding, torch.float32)


@given(alphas40, st.integers(1, 12), st.sampled_from(["down", "nearest"]))
def test_relu_is_exact_on_every_multiple_of_the_step_in_float64(alpha, K, rounding):
    _assert_exact_on_multiples(alpha, K, rounding, torch.float64)


def _assert_exact_on_multiples(alpha, K, rounding, dtype):
    multiples = torch.arange(-(2**K), 2**K, dtype=dtype) * (alpha * 2.0**-K)
    y, _ = fs.apply(multiples, fs.relu_parameters(K, alpha, rounding))
    assert torch.equal(y, multiples.clamp_min(0))


@given(alphas40, st.integers(1, 12), st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_rounding_down_is_off_by_at_most_a_step_below_alpha(alpha, K, fractions):
    x = torch.tensor(fractions, dtype=torch.float64) * alpha
    x = x[x < alpha]
    y, _ = fs.apply(x, fs.relu_parameters(K, alpha, "down"))
    assert (y <= x).all()
    assert (x - y <= alpha * 2.0**-K).all()


@given(alphas40, st.integers(1, 12), st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_rounding_to_nearest_is_off_by_at_most_half_a_step_below_saturation(alpha, K, fractions):
    x = torch.tensor(fractions, dtype=torch.float64) * alpha
    x = x[x <= alpha * (1 - 2.0 ** -(K + 1))]
    y, _ = fs.apply(x, fs.relu_parameters(K, alpha, "nearest"))
    assert ((x - y).abs() <= alpha * 2.0 ** -(K + 1)).all()


def test_a_potential_equal_to_the_threshold_fires():
    p = fs.relu_parameters(K=1, alpha=2.0)  # T = 1
    below = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    assert fs.encode(torch.stack([torch.tensor(1.0), below]), p).tolist() == [[True, False]]


def test_the_reset_comes_after_the_spike_of_the_same_step():
    p = fs.FSParameters(T=[1.0, 1.0], h=[5.0, 0.0], d=[1.0, 10.0])
    assert fs.encode(torch.tensor([2.0]), p).squeeze(1).tolist() == [True, False]


def test_nan_fires_nothing_and_stays_nan():
    p = fs.FSParameters(T=[-1.0], h=[1.0], d=[1.0], offset=3.0)
    x = torch.tensor([float("nan")])
    y, spikes = fs.apply(x, p)
    assert y.isnan().all()
    assert spikes.tolist() == [0]
    assert not fs.encode(x, p).any()


def test_infinite_inputs_saturate():
    p = fs.relu_parameters(K=4, alpha=16.0)
    y, spikes = fs.apply(torch.tensor([float("inf"), -float("inf")]), p)
    assert y.tolist() == [15.0, 0.0]
    assert spikes.tolist() == [4, 0]


@pytest.mark.parametrize(
    ("name", "region", "wanted"),
    [("silu", "main", 2.394e-3), ("silu", "outer", 3.708e-3), ("sigmoid", "all", 1.438e-4)],
)
def test_the_published_tables_have_their_known_error(name, region, wanted):
    p = fs.published(name)
    x = torch.linspace(*p.domain, 200_001, dtype=torch.float64)
    error = (fs.apply(x, p)[0] - {"silu": torch.nn.functional.silu, "sigmoid": torch.sigmoid}[name](x)) ** 2
    main = (x >= -2) & (x <= 2)
    chosen = {"main": error[main], "outer": error[~main], "all": error}[region]
    assert float(f"{chosen.mean():.3e}") == wanted


def test_the_surrogate_gradient_is_the_triangle():
    # K = 1, d = 1, h = 0: y = z, so dy/dx is the pseudo-derivative max(0, 1 - |x - T|) itself.
    x = torch.tensor([-0.5, 0.25, 1.0, 1.5, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    fs.FSNeuron(fs.FSParameters(T=[1.0], h=[0.0], d=[1.0]))(x).sum().backward()
    assert x.grad.tolist() == [0.0, 0.25, 1.0, 0.5, 0.0, 0.0]


def test_the_surrogate_gradient_goes_back_through_the_resets():
    # Two steps at x = 1: v1 = 1, v2 = v1 - h1 z1 = 0.5. With s1 = 1 - |v1 - 1| = 1 and s2 = 1 - |v2 - 1| = 0.5:
    # dy/dx = d1 s1 + d2 s2 (1 - h1 s1) = 2 * 1 + 3 * 0.5 * (1 - 0.5) = 2.75
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    fs.FSNeuron(fs.FSParameters(T=[1.0, 1.0], h=[0.5, 0.0], d=[2.0, 3.0]))(x).sum().backward()
    assert x.grad.item() == 2.75


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(fs.FewSpikesError, match="float32 or float64; got torch"):
        fs.FSNeuron(fs.relu_parameters())(torch.ones(2).to(dtype))


def test_decoding_another_number_of_steps_raises():
    with pytest.raises(fs.FewSpikesError, match="spikes of 10 steps wanted"):
        fs.decode(torch.zeros(3, 5, dtype=torch.bool), fs.relu_parameters())


@pytest.mark.parametrize(
    "x",
    [torch.zeros(3).to_sparse(), torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)],
    ids=["sparse", "nested"],
)
def test_what_is_no_dense_tensor_is_refused(x):
    for call in (lambda: fs.apply(x, fs.published("silu")), lambda: fs.encode(x, fs.published("silu"))):
        with pytest.raises(fs.FewSpikesError, match="FS-neurons take a dense tensor; got"):
            call()
