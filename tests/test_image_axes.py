"""Neurons whose images are on another axis, or folded into one with others: synapses and errors by brute force."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewspikes as fs
from captured import Converted, Net, consumed
from fewspikes.conversion.repairs import repair
from fewspikes.measure.deal import Images
from fewspikes.measure.diagnosis import diagnose
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


PRODUCTS_OF = {  # neurons for products are slow here: in two of them
    name: (None, GATED, *((QUARTERS,) if name.endswith("second") else ()))
    for name in NETWORKS
    if name.startswith(("attention", "encoder"))
}


@pytest.mark.parametrize(
    ("name", "circuits"), [(name, circuits) for name in NETWORKS for circuits in PRODUCTS_OF.get(name, (None,))]
)
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


@pytest.mark.parametrize("circuits", ["gated", "shifted", "neurons"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if "batch second" in name])
def test_no_fan_out_of_attention_is_unknown_with_all_of_it_spiking(name: str, circuits: str) -> None:
    _, snn, x = converted(name, circuits)
    assert [fan.reason for fan in snn.fan_out.values()] == [None] * len(snn.sites)
    with fs.count(snn, synops=True) as one:
        snn(x[:1])
    with fs.count(snn, synops=True) as other:
        snn(x[1:])
    with fs.count(snn, synops=True) as both:
        snn(x)
    assert (one + other).synops == both.synops > 0


def test_each_place_of_an_image_has_its_own_fan_out() -> None:
    # Heads: the first one's 3 tokens reach 4 sums each, the second one's first 2 as well, its last none.
    fan = Converted.of(NETWORKS["heads"](), LENGTH, WIDTH).fan()
    assert fan.shape == (2, LENGTH, 2)
    assert fan.dense().tolist() == [[[4, 4]] * 3, [[4, 4], [4, 4], [0, 0]]]


def test_sequences_longer_than_the_examples_are_counted_with_the_batch_second() -> None:
    torch.manual_seed(1)
    net = Net(lambda x, f, g: g(f(x)[0].transpose(0, 1)).relu()[-1], nn.RNN(2, 3, batch_first=True), nn.Linear(3, 2))
    snn = fs.convert(net.eval(), torch.randn(2, 4, 2), K=4, alpha=4.0)
    spikes: dict[str, list[Tensor]] = {site: [] for site in snn.neurons}
    for site, neuron in snn.neurons.items():
        neuron.spike_hooks.append(lambda _, fired, site=site: spikes[site].append(fired))
    with fs.count(snn, synops=True) as counts:
        snn(torch.randn(5, 6, 2))
    assert not counts.unknown_synops
    *times, last = (int(fired.sum()) for fired in spikes["layers.0.rnn_tanh"])
    (fired,) = spikes["relu"]  # [tokens, images, 2], of which the last token's are returned
    assert fired[-1].sum() > 0
    assert counts.synops == sum(times) * (3 + 2) + last * 2 + int(fired[-1].sum())


PAIRS = {
    "sequence first": (
        lambda x, f, g: g(torch.relu(f(x.transpose(0, 1)))).transpose(0, 1).mean(1),
        lambda x, f, g: g(torch.relu(f(x))).mean(1),
    ),
    "tokens in front": (
        lambda x, f, g: g(torch.relu(f(x.transpose(0, 1)).flatten(0, 1)).unflatten(0, (LENGTH, -1)).mean(0)),
        lambda x, f, g: g(torch.relu(f(x)).mean(1)),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_repair_and_diagnosis_see_images_wherever_they_are(name: str) -> None:
    torch.manual_seed(0)
    x, layers = torch.randn(75, LENGTH, WIDTH), [nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)]
    images, made = Images((x,), size=16), []
    for forward in PAIRS[name]:
        snn = fs.convert(Net(forward, *layers).eval(), x[:1], x, K=4, repair=False, progress=False)
        made.append(repair(snn, images, progress=False)[0])
    (a,), (b,) = (snn.neurons.values() for snn in made)
    assert a.by_channel.keys() == b.by_channel.keys() != set()
    for kind in a.by_channel:
        torch.testing.assert_close(a.by_channel[kind], b.by_channel[kind])
    (found,), (wanted,) = (diagnose(snn, images, progress=False).values() for snn in made)
    assert asdict(found) == pytest.approx(asdict(wanted), rel=1e-5)
