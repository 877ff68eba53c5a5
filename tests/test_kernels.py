"""All engines give the same bits, whatever the shape, layout, block or batch."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fewspikes as fs
from fewspikes.neuron.kernels import compiled
from fewspikes.neuron.recurrence import cast
from strategies import arguments, inputs_for


def assert_same(a, b):
    assert torch.equal(a[0].nan_to_num(12345.0), b[0].nan_to_num(12345.0))
    assert torch.equal(a[0].isnan(), b[0].isnan())
    assert torch.equal(a[1], b[1])


@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_the_compiled_engine_equals_the_reference_bit_for_bit(data, dtype):
    p = fs.FSParameters(*data.draw(arguments()))
    x = torch.tensor(data.draw(inputs_for(p)), dtype=dtype)
    assert_same(fs.apply(x, p, engine="compiled"), fs.apply(x, p, engine="reference"))


@pytest.mark.parametrize("name", ["silu", "sigmoid", "relu"])
def test_engines_agree_on_and_one_float_beside_every_breakpoint(name):
    p = fs.published(name)
    x = torch.linspace(-12, 30, 100_001)
    y, _ = fs.apply(x, p)
    jumps = x[1:][y.diff() != 0]
    near = torch.cat(
        [jumps, torch.nextafter(jumps, jumps - 1), torch.nextafter(jumps, jumps + 1), torch.tensor(p.T).float()]
    )
    assert_same(fs.apply(near, p, engine="compiled"), fs.apply(near, p, engine="reference"))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(1, 3),
        lambda x: x[:, ::2],
        lambda x: x[:, :, :0],
        lambda x: x[:1].expand(5, -1, -1, -1),
        lambda x: x[0, 0, 0, 0],
    ],
    ids=["contiguous", "channels-last", "transposed", "strided", "empty", "expanded", "scalar"],
)
def test_every_memory_layout_gives_the_same_values(change):
    x = change(torch.randn(3, 4, 5, 6) * 4)
    p = fs.published("silu")
    assert_same(fs.apply(x, p, engine="compiled"), fs.apply(x.contiguous(), p, engine="reference"))


def test_a_channels_last_input_gives_a_channels_last_output():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert fs.FSNeuron(fs.published("silu"))(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 300_001])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_blocks_and_threads_change_nothing(size, threads):
    x, p = torch.randn(size) * 4, fs.published("silu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert_same(fs.apply(x, p, engine="compiled"), fs.apply(x, p, engine="reference"))
    finally:
        torch.set_num_threads(before)


def test_many_callers_at_once_get_their_own_results():
    x, p = torch.randn(16, 200_000) * 4, fs.published("silu")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda row: fs.apply(row, p), x))
    for row, result in zip(x, results, strict=True):
        assert_same(result, fs.apply(row, p, engine="reference"))


@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_patterns_are_the_spikes_as_bits(data, dtype):
    p = fs.FSParameters(*data.draw(arguments()))
    x = torch.tensor(data.draw(inputs_for(p)), dtype=dtype)
    y, found = compiled.patterns(x, *cast(p, x))
    assert torch.equal(((found >> torch.arange(p.K).view(-1, 1)) & 1).bool(), fs.encode(x, p))
    assert torch.equal(y.nan_to_num(12345.0), fs.apply(x, p)[0].nan_to_num(12345.0))


def test_the_order_of_the_batch_changes_nothing():
    x, p = torch.randn(64, 100) * 4, fs.published("silu")
    order = torch.randperm(64)
    y, spikes = fs.apply(x, p)
    assert_same(fs.apply(x[order], p), (y[order], spikes[order]))


def test_the_input_is_left_as_it_was():
    x = torch.randn(100)
    before = x.clone()
    fs.apply(x, fs.published("silu"))
    assert torch.equal(x, before)


def test_an_unknown_engine_raises():
    with pytest.raises(fs.FewSpikesError, match="unknown engine 'magic'; there are auto, reference, compiled"):
        fs.apply(torch.zeros(1), fs.relu_parameters(), engine="magic")


def test_the_compiled_engine_refuses_gradients():
    with pytest.raises(fs.FewSpikesError, match="without gradients"):
        fs.apply(torch.zeros(1, requires_grad=True), fs.relu_parameters(), engine="compiled")


def test_observers_see_inputs_and_spikes():
    neuron, seen = fs.FSNeuron(fs.relu_parameters(3, 8.0)), []
    neuron.spike_hooks.append(lambda x, spikes: seen.append((x.tolist(), spikes.tolist())))
    neuron(torch.tensor([5.0, -1.0]))
    assert seen == [([5.0, -1.0], [2, 0])]


def test_shift_and_range_of_a_channel_act_on_the_gate_and_the_output():
    p, x = fs.relu_parameters(3, 8.0), torch.randn(5, 2, 4) * 8
    shift, range = torch.tensor([0.5, -1.0]), torch.tensor([0.25, 2.0])
    y = fs.FSNeuron(p, shift, range)(x)
    for c in (0, 1):
        assert torch.equal(y[:, c], fs.apply((x[:, c] + shift[c]) / range[c], p)[0] * range[c])


@pytest.mark.parametrize("bad", [torch.tensor(1.0), torch.tensor([float("nan")]), torch.tensor([1])])
def test_a_shift_that_is_no_vector_of_finite_numbers_raises(bad):
    with pytest.raises(fs.FewSpikesError, match="shift must be a vector"):
        fs.FSNeuron(fs.relu_parameters(), shift=bad)


def test_a_scale_that_is_not_positive_raises():
    with pytest.raises(fs.FewSpikesError, match="a scale must be > 0"):
        fs.FSNeuron(fs.relu_parameters(), scale=torch.tensor([1.0, 0.0]))


def test_a_gain_stretches_the_output_and_a_range_the_input_too():
    p, x = fs.relu_parameters(3, 4.0, "nearest"), torch.randn(5, 6, 7) * 2
    s, r, g = torch.randn(6), torch.rand(6) + 0.5, torch.rand(6) + 0.5
    wide = (1, 6, 1)
    expected = g.view(wide) * r.view(wide) * fs.apply((x + s.view(wide)) / r.view(wide), p)[0]
    assert torch.allclose(fs.FSNeuron(p, s, r, gain=g)(x), expected, rtol=1e-6)
    assert torch.equal(fs.FSNeuron(p, gain=g)(x), fs.apply(x, p)[0] * g.view(wide))


@pytest.mark.parametrize(
    "numbers", [([1e39], [1], [1]), ([1], [1e39], [1]), ([1], [1], [-1e39]), ([1, 1], [1, 1], [3e38, 3e38])]
)
def test_a_code_beyond_its_dtype_raises_and_a_wider_one_takes_it(numbers):
    neuron = fs.FSNeuron(fs.FSParameters(*numbers))
    with pytest.raises(
        fs.FewSpikesError, match="must be numbers of torch.float32, 3.4e\\+38 at most; got .* Use float64"
    ):
        neuron(torch.ones(2))
    assert neuron(torch.ones(2, dtype=torch.float64)).isfinite().all()
