"""Neurons whose images are on another axis, or folded into one with others: synapses and errors by brute force."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewspikes as fs
from captured import Converted, Net, consumed
from fewspikes.network.image_axes import ImageAxis
from fewspikes.operators.rule import Kind
from test_products import GATED, PRODUCTS, QUARTERS, values

LENGTH, WIDTH = 3, 4


def attention(**options: Any) -> Callable[[], nn.Module]:
    """MultiheadAttention on itself, whichever way its batch is; what converts has the batch in front."""
    batch_first, weights = options["batch_first"], options["need_weights"]

    def forward(x: Tensor, f: nn.Module, attend: nn.Module) -> Any:
        x = torch.tanh(f(x)) if batch_first else torch.tanh(f(x)).transpose(0, 1)
        y, shares = attend(x, x, x, need_weights=weights)
        y = y if batch_first else y.transpose(0, 1)
        return (y, shares) if weights else y

    return lambda: Net(forward, nn.Linear(WIDTH, WIDTH), nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first))


def encoder(batch_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 5, dropout=0.0, batch_first=batch_first)
    return Net(lambda x, f: f(x) if batch_first else f(x.transpose(0, 1)).transpose(0, 1), layer)


def heads_in_front(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    """[images x heads, tokens, 2], of which the first head and the first tokens reach more."""
    y = f(x).view(-1, LENGTH, 2, 2).transpose(1, 2).reshape(-1, LENGTH, 2)
    y = torch.relu(y).view(-1, 2, LENGTH, 2)
    return g(torch.cat([y[:, 0], y[:, 1, :2]], 1))


def tokens_in_front(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    """[tokens x images, channels], of which the first two tokens reach more."""
    y = torch.relu(f(x.transpose(0, 1)).flatten(0, 1)).unflatten(0, (LENGTH, -1))
    return torch.cat([g(y[:2]).transpose(0, 1).flatten(1), y[2]], 1)


def between_others(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    """[channel pairs x images x tokens, 2]: other axes on both sides; the last token of the first pair stays."""
    y = torch.relu(f(x).view(-1, LENGTH, 2, 2).permute(2, 0, 1, 3).flatten(0, 2))
    y = y.view(2, -1, LENGTH, 2).transpose(0, 1)
    return torch.cat([y[:, 0].flatten(1), y[:, 1, :2].flatten(1)], 1)


def two_views(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    """Two views of each image as a batch twice as large; the second one reaches more."""
    y = torch.relu(torch.cat([f(x), g(x)]))
    return torch.cat([y[: x.shape[0]], f(y[x.shape[0] :])], 1)


def upside_down(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    """Images in the other order, each with its tokens."""
    y = torch.relu(f(x).flip(0).flatten(0, 1)).unflatten(0, (-1, LENGTH)).flip(0)
    return torch.cat([g(y[:, :2]), y[:, 2:]], 1)


def square(forward: Callable[..., Tensor], inner: int = WIDTH) -> Callable[[], nn.Module]:
    return lambda: Net(forward, nn.Linear(WIDTH, WIDTH), nn.Linear(inner, WIDTH))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"attention, batch {'first' if first else 'second'}{', weights' if weights else ''}": attention(
            batch_first=first, need_weights=weights
        )
        for first in (True, False)
        for weights in (True, False)
    },
    "encoder": lambda: encoder(True),
    "encoder, batch second": lambda: encoder(False),
    "sequence first": square(lambda x, f, g: g(torch.relu(f(x.transpose(0, 1)))[:2]).transpose(0, 1)),
    "batch last": square(lambda x, f, g: torch.relu(f(x).permute(1, 2, 0))[:, :3].permute(2, 0, 1)),
    "heads": square(heads_in_front, 2),
    "tokens": square(tokens_in_front),
    "between": square(between_others),
    "views": square(two_views),
    "upside down": square(upside_down),
}
def converted(name: str, circuits: Any) -> tuple[nn.Module, fs.SpikingNetwork, Tensor]:
    torch.manual_seed(0)
    net = NETWORKS[name]().double().eval()
    x = torch.randn(16, LENGTH, WIDTH, dtype=torch.float64)
    snn = fs.convert(net, x[:1], x, K=4, circuits=circuits, effort="quick", repair=False, progress=False)
    return net, snn, torch.randn(2, LENGTH, WIDTH, dtype=torch.float64)


def synapses_reached(snn: fs.SpikingNetwork, x: Tensor) -> dict[str, Tensor]:
    """By site, how many sums change with what a neuron sends: for every neuron of every image of a batch."""
    segments, usual = snn.structure.segments, values(snn, x, {})
    digital = {node.name for node in snn.graph if segments.kind(node.name) is Kind.DIGITAL}
    sums = [name for name in consumed(snn.structure) if name in segments.carriers]
    sums += [node.arguments["held"].name for node in snn.graph if node.short in {f"fewspikes::{p}" for p in PRODUCTS}]
    found = {}
    for site in snn.sites:
        counts = torch.zeros(usual[site.node].shape, dtype=torch.int64)
        for position in range(counts.numel()):
            now = values(snn, x, usual, site.node, position, digital)
            counts.view(-1)[position] = sum(int((now[one] != usual[one]).sum()) for one in sums)
        found[site.name] = counts
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("circuits", [GATED, QUARTERS, None], ids=["gated", "neurons", "digital"])
def test_a_spike_reaches_the_sums_that_change_with_it_wherever_its_image_is(name: str, circuits: Any) -> None:
    _, snn, x = converted(name, circuits)
    spikes: dict[str, Tensor] = {}
    reached = synapses_reached(snn, x)
    for site, neuron in snn.neurons.items():
        neuron.spike_hooks.append(lambda _, fired, site=site: spikes.update({site: fired.to(torch.int64)}))
    with fs.count(snn, synops=True) as counts:
        snn(x)
    assert counts.unknown_synops == {}
    assert counts.synops == sum(int((spikes[site] * reached[site]).sum()) for site in reached) > 0
    for site, fan in snn.fan_out.items():
        assert fan.dense().sum() * len(x) == reached[site].sum(), site
