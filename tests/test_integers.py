"""Products of whole numbers are exact, and the network made of them computes what its definition says."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import fewspikes as fs
from fewspikes.graph.graph import SITE
from fewspikes.hardware.integers.codes import is_binary, unit
from fewspikes.hardware.integers.network import _quantised
from fewspikes.hardware.integers.products import MaxPool, Product
from networks import small, squeeze_excite


class Plain(nn.Module):
    """Convolutions with stride and groups, a skip of codes, one of products, a pool and two linear maps."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, (3, 1), stride=(2, 1), padding=(1, 0), dilation=1, groups=4)
        self.skip = nn.Conv2d(8, 8, 1, stride=(2, 1), bias=False)
        self.hidden, self.head = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(x + self.second(x))
        x = F.relu(self.third(x) + self.skip(x))
        x = F.relu(self.hidden(x.mean((2, 3))))
        return self.head(x)


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return Plain().eval(), torch.randn(64, 3, 10, 12)


@given(st.integers(1, 8), st.sampled_from([1, 2, 4]), st.integers(0, 2), st.integers(1, 2), st.integers(0, 1 << 30))
def test_a_convolution_of_codes_is_exact(K, groups, padding, stride, seed):
    random = torch.Generator().manual_seed(seed)
    weight = torch.randint(-127, 128, (8, 8 // groups, 3, 3), generator=random).to(torch.int8)
    codes = torch.randint(0, 1 << K, (3, 8, 7, 6), generator=random).to(torch.uint8)
    settings = ([stride, stride], [padding, padding], [1, 1], groups)
    wanted = F.conv2d(codes.double(), weight.double(), None, *settings)
    for engine in ("auto", "reference"):
        assert torch.equal(Product(weight, (1 << K) - 1, settings, engine)(codes).double(), wanted)


def test_a_linear_map_of_codes_is_exact():
    weight, codes = torch.full((5, 40), 127, dtype=torch.int8), torch.full((3, 40), 255, dtype=torch.uint8)
    assert torch.equal(Product(weight, 255)(codes), torch.full((3, 5), 127.0 * 255 * 40))


@pytest.mark.parametrize(
    "settings", [([2, 2],), ([3, 2], []), ([3, 3], [2, 2], [1, 1], [1, 1], True), ([2, 2], [1, 3])]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_max_pool_of_codes_is_exact(settings, layout):
    codes = torch.randint(0, 256, (2, 5, 40, 37), dtype=torch.uint8).contiguous(memory_format=layout)
    wanted = torch.ops.aten.max_pool2d.default(codes.double(), *settings)
    for engine in ("auto", "reference"):
        assert torch.equal(MaxPool(settings, engine)(codes).double(), wanted)


def test_sums_that_float32_cannot_hold_do_not_fit():
    weight = torch.full((2, 600, 1, 1), 127, dtype=torch.int8)
    assert Product(weight, 63, ([1, 1], [0, 0], [1, 1], 1), "reference").fits(63)
    assert not Product(weight, 255, ([1, 1], [0, 0], [1, 1], 1), "reference").fits(255)


def test_weights_are_nearest_at_the_scale_that_holds_the_largest():
    weight = torch.tensor([[0.5, -1.0, 0.1], [0.0, 0.0, 0.0]], dtype=torch.float64)
    whole, scale = _quantised(weight)
    assert whole.tolist() == [[64, -127, 13], [0, 0, 0]]
    assert float(scale[0]) == 1 / 127


def test_only_binary_codes_are_whole_numbers():
    assert is_binary(fs.FSNeuron(fs.relu_parameters(8, 3.0, "nearest")))
    assert not is_binary(fs.FSNeuron(fs.relu_parameters(9, 3.0)))  # more than a byte
    assert not is_binary(fs.FSNeuron(fs.published("silu")))
    neuron = fs.FSNeuron(fs.relu_parameters(4, 16.0), None, torch.tensor([0.5, 2.0]), gain=torch.tensor([1.0, 3.0]))
    assert unit(neuron, 2).tolist() == [0.5, 6.0]


@pytest.mark.parametrize("options", [{"K": 4}, {"K": 8}, {"K": 3, "repair": False}], ids=str)
def test_both_engines_give_the_same_bits_and_counts(plain, options):
    model, x = plain
    snn = fs.convert(model, x, calibration=x, **options)
    fast, slow = fs.to_integer(snn), fs.to_integer(snn, engine="reference")
    with fs.count(fast) as a, fs.count(slow) as b:
        assert torch.equal(fast(x), slow(x))
    assert a.by_site == b.by_site
    assert a.clipped_by_site == b.clipped_by_site
    assert a.images == len(x)
    assert a.total > 0


def test_every_product_of_codes_is_one_of_whole_numbers(plain):
    model, x = plain
    network = fs.to_integer(fs.convert(model, x, calibration=x, K=5))
    assert len(network.engines) == 4  # second, third, skip, head; the first sees an image, hidden a pooled mean
    assert set(network.engines.values()) <= {"onednn", "reference"}


@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batch_and_layout_change_no_bit(plain, batch, layout):
    model, x = plain
    network = fs.to_integer(fs.convert(model, x, calibration=x, K=5))
    reference = fs.to_integer(fs.convert(model, x, calibration=x, K=5), engine="reference")
    part = x[:batch].contiguous(memory_format=layout)
    assert torch.equal(network(part), reference(part))


def test_the_whole_numbers_stand_for_the_spiking_network(plain):
    model, x = plain
    snn = fs.convert(model, x, calibration=x, K=8)
    difference = fs.to_integer(snn)(x) - snn(x)
    assert float(difference.square().mean() / snn(x).var()) < 1e-3  # 8-bit weights: about 2^-8 / sqrt(3) of the largest


def test_a_skip_is_joined_inside_the_neuron():
    images = torch.randn(16, 3, 8, 8)
    snn = fs.convert(small(), images, calibration=images, K=4)
    network = fs.to_integer(snn)
    assert any(node.operator == SITE and len(node.reads) == 2 for node in network.running_graph.graph)
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(network(x), fs.to_integer(snn, engine="reference")(x))


class Pooled(nn.Module):
    """The classic network: max pools and a flattening between its layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, padding=1)
        self.hidden, self.head = nn.Linear(6 * 4 * 5, 7), nn.Linear(7, 4)

    def forward(self, x):
        x = F.pad(F.max_pool2d(F.relu(self.first(x)), 2), (0, 1, 1, 0))
        x = F.max_pool2d(F.relu(self.second(x)), 3, stride=2, padding=1, ceil_mode=True)
        x = F.relu(self.hidden(x.flatten(1)))
        return self.head(x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_codes_go_through_max_pools_and_flattening(layout):
    torch.manual_seed(0)
    model, x = Pooled().eval(), torch.randn(64, 3, 14, 18).contiguous(memory_format=layout)
    snn = fs.convert(model, x, calibration=x, K=6)
    fast, slow = fs.to_integer(snn), fs.to_integer(snn, engine="reference")
    assert len(fast.engines) == 3  # all but the first
    assert torch.equal(fast(x), slow(x))
    assert float((fast(x) - snn(x)).square().mean() / snn(x).var()) < 1e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda snn: fs.to_integer(nn.ReLU()), "to_integer needs a converted network; got ReLU"),
        (lambda snn: fs.to_integer(snn, engine="magic"), "unknown engine 'magic'; there are auto and reference"),
        (lambda snn: fs.to_integer(snn.double()), "float32 on the CPU; got torch.float64"),
        (lambda snn: fs.to_integer(snn), "no convolution or linear map of this network follows ReLU codes"),
    ],
)
def test_what_cannot_be_whole_numbers_raises(call, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        call(fs.convert(squeeze_excite(), torch.zeros(1, 3, 16, 16)))


def test_an_integer_network_counts_no_synaptic_operations(plain):
    model, x = plain
    network = fs.to_integer(fs.convert(model, x, calibration=x, K=5))
    with pytest.raises(fs.FewSpikesError, match="those of the network that it came from"), fs.count(network, True):
        pass


@pytest.mark.parametrize("change", [lambda net: net.half(), lambda net: net.double(), lambda net: net.to("meta")])
def test_an_integer_network_stays_as_it_is(plain, change):
    model, x = plain
    network = fs.to_integer(fs.convert(model, x, calibration=x, K=5))
    wanted = network(x)
    with pytest.raises(fs.FewSpikesError, match="an integer network stays in float32 on the CPU"):
        change(network)
    assert torch.equal(network(x), wanted)
    with pytest.raises(fs.FewSpikesError, match="got IntegerNetwork; give the spiking network that it came from"):
        fs.evaluate(network, x)


def test_a_wrong_input_raises(plain):
    model, x = plain
    network = fs.to_integer(fs.convert(model, x, calibration=x, K=5))
    with pytest.raises(fs.FewSpikesError):
        network(x[:, :2])


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.p, self.q, self.hidden, self.head = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, *, p, q):
        return self.head(F.relu(self.hidden(F.relu(self.p(p) - self.q(q)))))


def test_inputs_by_name_reach_the_integer_network():
    p, q = torch.randn(32, 4), torch.randn(32, 4)
    snn = fs.convert(Named().eval(), {"q": q, "p": p}, (p, q), K=6)
    whole = fs.to_integer(snn)
    ways = [whole(p, q), whole(p=p, q=q), whole({"q": q, "p": p})]
    assert all(torch.equal(way, ways[0]) for way in ways)
    assert torch.allclose(ways[0], snn(p, q), atol=0.1)


def test_nan_cannot_become_a_whole_number(plain):
    model, x = plain
    with pytest.raises(fs.FewSpikesError, match="holds NaN or inf"):
        fs.to_integer(fs.convert(model, x, x, K=4))(torch.full_like(x, float("nan")))


@pytest.mark.parametrize("made", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_computes_the_same_and_counts_for_itself(plain, made):
    model, x = plain
    whole = fs.to_integer(fs.convert(model, x, x, K=4))
    with fs.count(whole) as counts:
        again = made(whole)
        assert torch.equal(again(x), whole(x))
    assert counts.images == len(x)
