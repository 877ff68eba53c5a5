"""All engines give the same bits, whatever the shape, layout, block or batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fewspikes as fs
from fewspikes.kernels import blocked
from strategies import arguments, inputs_for


def assert_same(a, b):
    assert torch.equal(a[0].nan_to_num(12345.0), b[0].nan_to_num(12345.0))
    assert torch.equal(a[0].isnan(), b[0].isnan())
    assert torch.equal(a[1], b[1])


@given(st.data(), st.sampled_from([torch.float32, torch.float64]))
def test_the_blocked_engine_equals_the_reference_bit_for_bit(data, dtype):
    p = fs.FSParameters(*data.draw(arguments()))
    x = torch.tensor(data.draw(inputs_for(p)), dtype=dtype)
    assert_same(fs.apply(x, p, engine="blocked"), fs.apply(x, p, engine="reference"))


@pytest.mark.parametrize("name", ["silu", "sigmoid", "relu"])
def test_engines_agree_on_and_one_float_beside_every_breakpoint(name):
    p = fs.published(name)
    x = torch.linspace(-12, 30, 100_001)
    y, _ = fs.apply(x, p)
    jumps = x[1:][y.diff() != 0]
    near = torch.cat(
        [jumps, torch.nextafter(jumps, jumps - 1), torch.nextafter(jumps, jumps + 1), torch.tensor(p.T).float()]
    )
    assert_same(fs.apply(near, p, engine="blocked"), fs.apply(near, p, engine="reference"))


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
    assert_same(fs.apply(x, p, engine="blocked"), fs.apply(x.contiguous(), p, engine="reference"))


def test_a_channels_last_input_gives_a_channels_last_output():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert fs.FSNeuron(fs.published("silu"))(x).is_contiguous(memory_format=torch.channels_last)


def test_blocks_change_nothing(monkeypatch):
    x, p = torch.randn(1000) * 4, fs.published("silu")
    whole = fs.apply(x, p)
    for size in (1, 7, 999, 1000, 1001):
        monkeypatch.setattr(blocked, "_BLOCK", size)
        assert_same(fs.apply(x, p), whole)


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
    with pytest.raises(fs.FewSpikesError, match="unknown engine 'magic'; there are auto, reference, blocked"):
        fs.apply(torch.zeros(1), fs.relu_parameters(), engine="magic")


def test_the_blocked_engine_refuses_gradients():
    with pytest.raises(fs.FewSpikesError, match="without gradients"):
        fs.apply(torch.zeros(1, requires_grad=True), fs.relu_parameters(), engine="blocked")


def test_observers_see_inputs_and_spikes():
    neuron, seen = fs.FSNeuron(fs.relu_parameters(3, 8.0)), []
    neuron.observers.append(lambda x, spikes: seen.append((x.tolist(), spikes.tolist())))
    neuron(torch.tensor([5.0, -1.0]))
    assert seen == [([5.0, -1.0], [2, 0])]
