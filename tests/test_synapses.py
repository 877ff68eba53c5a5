"""Fan-out against numbers worked out by hand and against one-hot inputs pushed through the network."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from captured import Converted, Net, between, check, conv, squeeze_and_excite
from fewspikes import FewSpikesError
from fewspikes.network.synapses import FanOut
from fewspikes.reach import factors, union
from linear_chains import CASES, TRACED, case, shuffle
from networks import torn

aten = torch.ops.aten


# By hand.


def test_a_strided_grouped_convolution_counts_what_its_windows_cover() -> None:
    # 2 groups of 2 -> 3 channels; rows 0..3 lie in 1, 2, 1, 1 of the windows {0, 1} and {1, 2, 3}.
    net = Converted.of(between(lambda x, c: c(x), conv(4, 6, 3, stride=2, padding=1, groups=2)), 4, 4, 4)
    rows = torch.tensor([1, 2, 1, 1])
    assert torch.equal(net.dense(), (3 * rows[:, None] * rows).expand(4, 4, 4))


def test_a_linear_map_after_flatten_reaches_all_its_features() -> None:
    net = Converted.of(between(lambda x, f: f(x.flatten(1)), nn.Linear(2 * 3 * 3, 10)), 2, 3, 3)
    assert torch.equal(net.dense(), torch.full((2, 3, 3), 10))


def test_collapsed_convolutions_count_pairs_and_not_paths() -> None:
    # 3x3 (1 -> 2 channels), then 1x1 (2 -> 5): 2 paths to each target. Corner 4 x 5, edge 6 x 5, centre 9 x 5.
    net = Converted.of(between(lambda x, a, b: b(a(x)), conv(1, 2, 3, padding=1), conv(2, 5, 1)), 1, 3, 3)
    assert net.dense().tolist() == [[[20, 30, 20], [30, 45, 30], [20, 30, 20]]]


def test_a_skip_inside_a_convolution_adds_no_synapse() -> None:
    # 9 positions x 2 channels at the centre, the skip's own target among them.
    net = Converted.of(between(lambda x, c: x + c(x), conv(2, 2, 3, padding=1)), 2, 3, 3)
    assert net.dense()[:, 1, 1].tolist() == [18, 18]


def test_overlapping_branches_are_counted_once() -> None:
    # Depthwise 3x3: 9 positions of one channel; 1x1: 4 channels of one position; one target is in both: 9 + 4 - 1.
    net = Converted.of(between(lambda x, a, b: a(x) + b(x), conv(4, 4, 3, padding=1, groups=4), conv(4, 4, 1)), 4, 3, 3)
    assert net.dense()[:, 1, 1].tolist() == [12] * 4


def test_concatenated_branches_add_up() -> None:
    # x itself: 1; 1x1 convolution to 4 channels: 4.
    net = Converted.of(between(lambda x, c: torch.cat([x, c(x)], 1), conv(3, 4, 1)), 3, 2, 2)
    assert torch.equal(net.dense(), torch.full((3, 2, 2), 5))


def test_a_channel_shuffle_carries_a_group_to_all_groups() -> None:
    # 2 groups of 2: the first convolution reaches 2 channels, shuffled one into each group, which each have 2 outputs.
    layers = conv(4, 4, 1, groups=2), conv(4, 4, 1, groups=2)
    assert Converted.of(between(lambda x, a, b: b(shuffle(a(x), 2)), *layers), 4, 1, 1).dense().unique().tolist() == [4]
    assert Converted.of(between(lambda x, a, b: b(a(x)), *layers), 4, 1, 1).dense().unique().tolist() == [2]


def test_a_subsampled_padded_shortcut_reaches_its_even_positions_only() -> None:
    net = Converted.of(between(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))), 2, 3, 3)
    assert net.dense().tolist() == [[[1, 0, 1], [0, 0, 0], [1, 0, 1]]] * 2


def test_a_gated_signal_reaches_the_product_and_the_gate() -> None:
    # The map: 1 operand of the product + 2 squeezed neurons. Those: 4 gates each. A gate: 1 operand of size 1x1.
    net = Converted.of(squeeze_and_excite(), 3, 5, 5)
    assert [net.dense(site).unique().tolist() for site in range(3)] == [[3], [4], [1]]


def test_consumers_of_one_tensor_count_each() -> None:
    net = Converted.of(Net(lambda x, c: {"a": (y := c(torch.relu(x))), "b": torch.relu(y)}, conv(1, 2, 1)), 1, 2, 2)
    assert net.dense(0).unique().tolist() == [4]  # 2 channels, returned and taken by the second neuron
    assert net.dense(1).unique().tolist() == [1]  # returned


def test_a_tensor_returned_twice_is_there_once() -> None:
    net = Converted.of(Net(lambda x: (y := torch.relu(x), y)), 3)
    assert net.dense().tolist() == [1, 1, 1]


def test_a_product_takes_both_operands_also_where_they_are_one_neuron() -> None:
    net = Converted.of(Net(lambda x: (y := torch.relu(x)) * torch.cat([y[:, 1:], y[:, :1]], 1)), 3)
    assert net.dense().tolist() == [2, 2, 2]


def test_zero_weights_and_biases_change_nothing() -> None:
    layer = nn.Linear(3, 4)
    nn.init.zeros_(layer.weight)
    assert Converted.of(between(lambda x, f: f(x) + 1.5, layer), 3).dense().tolist() == [4, 4, 4]


def test_spikes_of_a_neuron_nobody_reads_reach_nothing() -> None:
    assert Converted.of(between(lambda x: x[:, 1:2]), 3).dense().tolist() == [0, 1, 0]


# Against brute force.


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", [*CASES, *TRACED])
def test_fan_out_equals_the_targets_that_one_hot_inputs_reach(name: str) -> None:
    check(case(name))


@st.composite
def steps(draw: st.DrawFn) -> tuple[Callable[..., Any], list[nn.Module]]:
    """A linear step that keeps four channels and makes no map larger."""
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    layer = conv(4, 4, kernel, padding="same" if kernel != 2 else 1, dilation=dilation, groups=groups)
    half = conv(2, 2, 3, padding=1)
    return draw(
        st.sampled_from(
            [
                (lambda x, c: c(x)[:, :, : x.shape[2], : x.shape[3]], [layer]),
                (lambda x, c: x + c(x)[:, :, : x.shape[2], : x.shape[3]], [layer]),
                (lambda x, c: torch.cat([x[:, ::2], c(x[:, 2:])], 1), [half]),
                (lambda x, c: torch.cat([c(x[:, :2]), x[:, 2:]], 1), [half]),
                (lambda x: F.avg_pool2d(x, 2, ceil_mode=True), []),
                (lambda x: shuffle(x, 2), []),
                (lambda x: x + 2 * F.adaptive_avg_pool2d(x, (1, x.shape[3])), []),
                (lambda x: F.pad(x[:, 1:, ::2], (0, 0, 0, 0, 0, 1)), []),
                (lambda x: x.flatten(2).transpose(1, 2).reshape(x.shape), []),
                (lambda x: x.transpose(2, 3), []),
            ]
        )
    )


def chain(parts: list[tuple[Callable[..., Any], list[nn.Module]]]) -> Net:
    layers = [layer for _, own in parts for layer in own]

    def forward(x: Tensor, *layers: nn.Module) -> Tensor:
        left = list(layers)
        for step, own in parts:
            x = step(x, *(left.pop(0) for _ in own))
        return x

    return between(forward, *layers)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps(), min_size=2, max_size=5), st.integers(2, 6), st.integers(2, 6))
def test_fan_out_of_random_chains_equals_brute_force(parts: list, height: int, width: int) -> None:
    check(Converted.of(chain(parts), 4, height, width))


# Sums over spikes, and what cannot be known.


def test_weigh_is_the_exact_sum_of_spikes_times_fan_out() -> None:
    net = case("three branches")
    spikes = torch.randint(0, 2**40, net.fan().shape, generator=torch.Generator().manual_seed(1))
    expected = sum(n * fan for n, fan in zip(spikes.flatten().tolist(), net.dense().flatten().tolist(), strict=True))
    assert net.fan().weigh(spikes) == expected


def test_weigh_takes_small_counts_without_overflow() -> None:
    net = Converted.of(between(lambda x, f: f(x), nn.Linear(300, 10)), 300)
    assert net.fan().weigh(torch.full((300,), 255, dtype=torch.uint8)) == 300 * 255 * 10


@pytest.mark.parametrize("spikes", [torch.zeros(4), torch.zeros(2, 4, dtype=torch.uint8)])
def test_weigh_refuses_what_is_no_count_per_neuron(spikes: Tensor) -> None:
    with pytest.raises(FewSpikesError, match=r"integers of shape \(4,\)"):
        FanOut((4,)).weigh(spikes)


def test_a_table_too_large_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    net = case("shuffle")
    monkeypatch.setattr(factors, "MAX_TABLE", 35)
    assert net.fan().reason == "a connection table of 6 x 6 entries is too large"


def test_too_many_overlapping_branches_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    net = case("three branches")
    monkeypatch.setattr(union, "MAX_TERMS", 2)
    assert "overlapping branches" in str(net.fan().reason)


@pytest.mark.parametrize("dims", [[0], []])
def test_mixing_the_images_of_a_batch_is_unknown(dims: list[int]) -> None:
    relu = aten.relu.default
    net = Converted.traced(lambda x: relu(aten.mean.dim(relu(x), dims, True)), 3)
    assert net.fan().reason == "the images of a batch are mixed with each other"


def test_images_that_are_told_from_each_other_by_two_axes_together_are_unknown() -> None:
    assert str(Converted.of(torn(), 4).fan().reason).endswith("no axis has the images of a batch in a known order")
