"""Multiply-adds that stay, and the steps along chains of sites, by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captured import Converted, Net, between, conv, squeeze_and_excite
from fewspikes import FewSpikesError

aten = torch.ops.aten


# Multiply-adds.


def plain_network() -> Net:
    def forward(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module) -> Tensor:
        return c(torch.relu(b(torch.relu(a(x)))).flatten(1))

    return Net(forward, nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2), nn.Linear(54, 5))


def test_multiply_adds_leave_out_the_padding() -> None:
    # 3 -> 4 channels, 6x6 -> 3x3: 2 + 3 + 3 rows in the windows, the same columns: 3 4 8^2 = 768.
    # 2 channels of the group -> 6, 3x3, dilation 2: output rows take inputs {0, 2}, {1}, {0, 2}: 2 6 5^2 = 300.
    # 54 -> 5 features: 270.
    assert sorted(Converted.of(plain_network(), 3, 6, 6).macs().by_node.values()) == [270, 300, 768]


def test_only_the_image_is_analog_without_digital_operators() -> None:
    assert Converted.of(plain_network(), 3, 6, 6).macs().analog == 768


def test_synapses_and_analog_multiply_adds_are_the_networks_if_every_neuron_spikes_once() -> None:
    net = Converted.of(plain_network(), 3, 6, 6)
    synops = sum(int(net.dense(site).sum()) for site in range(2))
    # The last layer's input has no neuron behind it, so all 270 synapses are those of the second site.
    assert synops + net.macs().analog == net.macs().ann


def test_a_product_and_all_behind_it_up_to_a_neuron_is_analog() -> None:
    # First 1x1: 3 4 25 = 300, analog (the image). Squeeze 4 2 and excite 2 4 take spikes. Product: 4 25 = 100.
    # Behind the product: 1x1 to 2 channels: 4 2 25 = 200, analog.
    def forward(x: Tensor, gated: nn.Module, after: nn.Module) -> Tensor:
        return torch.relu(after(gated(x)))

    counted = Converted.of(Net(forward, squeeze_and_excite(), conv(4, 2, 1)), 3, 5, 5).macs()
    assert (counted.analog, counted.ann) == (300 + 100 + 200, 300 + 8 + 8 + 100 + 200)


def test_a_max_pool_makes_values_analog_and_multiplies_nothing() -> None:
    # 3x3 on a 4x4 map pooled to 2x2, no padding left to take: each of 2x2 outputs takes 2x2 inputs: 16 pairs.
    net = Converted.of(Net(lambda x, c: c(F.max_pool2d(torch.relu(x), 2)), conv(1, 1, 3, padding=1)), 1, 4, 4)
    assert (net.macs().analog, net.macs().ann) == (16, 16)


def test_matrix_products_count_their_inner_size() -> None:
    # [4, 6] @ [6, 5]: 4 5 6 = 120.
    weight = torch.rand(6, 5, dtype=torch.float64)
    assert Converted.of(between(lambda x: x @ weight), 4, 6).macs().ann == 120


# Steps.


def branches() -> Converted:
    """Site 0 feeds site 1; both, added, feed site 2."""
    return Converted.of(Net(lambda x: torch.relu((y := torch.relu(x)) + torch.relu(y * 2))), 3)


def test_latency_is_the_longest_chain_of_sites() -> None:
    assert branches().latency(4, 8, 3) == 15


def test_the_interval_is_the_largest_pair_of_neighbours() -> None:
    assert branches().interval(10, 1, 4) == 14


def test_one_layer_of_neurons_only_fires() -> None:
    assert Converted.of(Net(torch.relu), 3).interval(6) == 6


def test_numbers_from_digital_operators_take_no_time() -> None:
    net = Converted.of(Net(lambda x: torch.relu((y := torch.relu(x)) * torch.cat([y[:, 1:], y[:, :1]], 1))), 3)
    assert net.interval(6, 5) == 6  # the product takes in 6 steps, or 5; the last layer nothing, then fires


def test_shape_arithmetic_is_no_chain() -> None:
    relu = aten.relu.default
    net = Converted.traced(lambda x: relu(aten.reshape.default(x, [aten.sym_size.int(relu(x), 0), 6])), 2, 3)
    assert net.latency(4, 4) == 4


def test_a_site_without_k_is_named() -> None:
    with pytest.raises(FewSpikesError, match=r"no K given for the site site_1"):
        branches().latency(4)
