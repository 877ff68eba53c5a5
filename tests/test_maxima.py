"""Maxima as neurons: values, spikes and steps by hand, exactness on a grid, and every window against torch's own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewspikes as fs
from captured import Net
from fewspikes.base.errors import FewSpikesError
from fewspikes.images.images import loader, open_images
from vgg import PREPROCESSING, trained_vgg

NEURONS = {"max": "neurons"}


def made(forward: Any, *layers: nn.Module) -> Net:
    return Net(forward, *layers).eval()


def converted(net: nn.Module, *given: Any, **settings: Any) -> fs.SpikingNetwork:
    return fs.convert(net, *given, circuits=NEURONS, **settings)


def test_a_maximum_of_two_by_hand() -> None:
    # relu with K=2, alpha=4: levels 0, 1, 2, 3. max(3, 1) = 1 + relu(2): the circuit's neuron fires once, for 2.
    net = made(lambda x: torch.maximum(*torch.relu(x).split(1, 1)))
    x = torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [-1.0, 0.0]])
    snn = converted(net, x, K=2, alpha=4.0)
    assert snn(x).flatten().tolist() == [3.0, 3.0, 2.0, 0.0]
    with fs.count(snn) as counts:
        snn(x)
    circuit = snn.report.circuits[0]
    assert (circuit.operator, circuit.sites, circuit.neurons, circuit.steps) == ("maximum", ("maximum",), 1, 2)
    assert circuit.exact
    assert counts.by_site[circuit.sites[0]] == 1  # 3 - 1 = 2 = (1, 0); 1 - 3, 2 - 2 and 0 - 0 are silent
    assert snn.report.latency_steps == 2 * 2  # the source, then the circuit


def test_a_pool_of_four_by_hand() -> None:
    # rows first: max(a, c) and max(b, d), then the larger of the two: 3 neurons a window in 2 layers.
    net = made(lambda x: F.max_pool2d(torch.relu(x), 2))
    x = torch.tensor([[[[1.0, 7.0], [6.0, 2.0]]]])
    snn = converted(net, x, K=3, alpha=8.0)
    assert snn(x).item() == 7.0
    with fs.count(snn) as counts:
        snn(x)
    first, second = snn.report.circuits[0].sites
    # down the columns: 6 = 6 + relu(1 - 6), 7 = 2 + relu(7 - 2): 5 = 101, two spikes; then 7 = 7 + relu(6 - 7)
    assert (counts.by_site[first], counts.by_site[second]) == (2, 0)
    assert [snn.report.sites[i].neurons for i in range(3)] == [4, 2, 1]
    assert snn.report.latency_steps == 3 * 3


POOLS: dict[str, Any] = {
    "2 x 2": lambda x: F.max_pool2d(x, 2),
    "3, stride 2, padding": lambda x: F.max_pool2d(x, 3, 2, 1),
    "dilated": lambda x: F.max_pool2d(x, 3, 2, 1, dilation=2),
    "ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "ceil with padding": lambda x: F.max_pool2d(x, (2, 3), (3, 2), (1, 1), ceil_mode=True),
    "sliding by one": lambda x: F.max_pool2d(x, 5, 1, 2),
    "sliding over 4": lambda x: F.max_pool2d(x, (4, 1), 1),
    "not all is covered": lambda x: F.max_pool2d(x, 2, 3),
    "of one": lambda x: F.max_pool2d(x, 1, 2),
    "1-D": lambda x: F.max_pool1d(x.flatten(1, 2), 3, 2, 1),
    "3-D": lambda x: F.max_pool3d(
        x[:, :, None].expand(-1, -1, 3, -1, -1) * torch.tensor([1.0, 2.0, 0.5])[:, None, None], 2
    ),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    "adaptive 1-D": lambda x: F.adaptive_max_pool1d(x.flatten(2), 5),
    "adaptive 3-D": lambda x: F.adaptive_max_pool3d(x[:, None], 2),
    "global": lambda x: F.adaptive_max_pool2d(x, 1),
    "amax": lambda x: x.amax((2, 3)),
    "amax kept": lambda x: x.amax((1, 3), keepdim=True),
    "amin": lambda x: x.amin(2),
    "max of an axis": lambda x: x.max(3).values,
    "min of an axis": lambda x: x.min(1, keepdim=True)[0],
    "aminmax": lambda x: torch.cat(torch.aminmax(x, dim=3), 1),
    "of a stack": lambda x: torch.stack([x, x.flip(2), x.flip(3)]).amax(0),
    "of a stack and an axis": lambda x: torch.stack([x, x.flip(2)]).amin((0, 3)),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "torch.max": lambda x: torch.max(x, x.flip(2)),
    "fmin": lambda x: torch.fmin(x, x.flip(3)),
    "broadcast": lambda x: torch.minimum(x, x[:, :1]),
    "clamped by signals": lambda x: torch.clamp(x, x.flip(1), 2 * x.flip(2)),
    "clamp_min": lambda x: torch.clamp_min(x, x.flip(1)),
    "padded by -inf": lambda x: F.max_pool2d(F.pad(x, (0, 1, 2, 0), value=float("-inf")), 3, 2),
    "padded low, and by itself": lambda x: F.max_pool2d(F.pad(x, (1, 1, 0, 1), value=-1e9), 4, 2, 1),
    "indices unread": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
}


@pytest.mark.parametrize("name", POOLS)
def test_any_maximum_is_the_same_by_neurons(name: str, tmp_path: Any) -> None:
    # Behind one layer of ReLUs all are on its grid (but for the one that scales: there the ANN's form is compared).
    torch.manual_seed(0)
    net = made(lambda x, c: POOLS[name](torch.relu(c(x))), nn.Conv2d(3, 4, 3, padding=1))
    x = torch.randn(3, 3, 7, 9)
    snn = converted(net, x[:2], K=6, alpha=4.0)
    digital = fs.convert(net, x[:2], K=6, alpha=4.0)
    torch.testing.assert_close(snn.as_ann()(x), net(x))
    torch.testing.assert_close(snn.as_ann()(x.neg()), net(x.neg()))
    assert not snn.report.left_digital
    assert digital.report.left_digital or name in ("of one", "indices unread")
    if name not in ("3-D", "clamped by signals"):
        assert torch.equal(snn(x), digital(x))
        assert all(circuit.exact for circuit in snn.report.circuits)
    fs.save(snn, tmp_path / "net.fs")
    assert torch.equal(fs.load(tmp_path / "net.fs")(x), snn(x))


def test_a_window_that_slides_over_five_takes_three_layers() -> None:
    net = made(lambda x: F.max_pool1d(torch.relu(x), 5, 1))
    snn = converted(net, torch.rand(2, 1, 12), K=4, alpha=1.0)
    # 2 = 1 + 1, 4 = 2 + 2, 5 = 4 + 1 positions: 11, 9 and 8 windows
    assert [site.neurons for site in snn.report.sites] == [12, 11, 9, 8]


@pytest.mark.parametrize("repair", [True, False])
def test_calibrated_maxima_are_exact_where_ranges_differ_by_channel(repair: bool) -> None:
    torch.manual_seed(0)
    scales = torch.tensor([1.0, 0.2, 5.0, 0.05])[:, None, None]
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 5)
    net = made(lambda x, c, f: f(F.max_pool2d(torch.relu(c(x) * scales), 2).flatten(1)), *layers)
    images = torch.randn(64, 3, 8, 8)
    snn = converted(net, images, images, K=6, repair=repair)
    source, *rest = snn.report.sites
    inside = snn.running({source.name: snn.neurons[source.name]})  # the maxima without quantisation, on its outputs
    assert torch.equal(snn(images), inside(images))
    if repair:
        assert source.scaled  # or this would show nothing
        assert all(snn.neurons[site.name].scale is not None for site in rest)


IN_OTHER_ORDER: dict[str, Any] = {
    "halves of the channels": lambda y: torch.maximum(y[:, :2], y[:, 2:]),
    "over the channels": lambda y: y.amax(1),
    "next channel": lambda y: torch.maximum(y, y.roll(1, 1)),
    "picked channels": lambda y: torch.maximum(y, y[:, [3, 2, 1, 0]]),
    "other signs": lambda y: torch.maximum(y, -y.flip(2)),
    "both of other sign": lambda y: torch.maximum(-y, -y.flip(2)),
    "rows": lambda y: torch.maximum(y, y.roll(1, 2)),
}


@pytest.mark.parametrize("name", IN_OTHER_ORDER)
def test_what_is_called_exact_is_where_channels_of_other_ranges_and_other_signs_meet(name: str) -> None:
    torch.manual_seed(0)
    weights = torch.randn(5, 256)
    scales = torch.tensor([1.0, 0.2, 5.0, 0.05])[:, None, None]
    net = made(
        lambda x, c: F.linear(
            y := IN_OTHER_ORDER[name](torch.relu(c(x) * scales)).flatten(1), weights[:, : y.shape[1]]
        ),
        nn.Conv2d(3, 4, 3, padding=1),
    )
    images = torch.randn(64, 3, 8, 8)
    snn = converted(net, images, images, K=6)
    (circuit,) = snn.report.circuits
    assert circuit.exact == (name in ("rows", "both of other sign", "over the channels"))
    free = {site.name: snn.neurons[site.name] for site in snn.sites if site.name not in circuit.sites}
    same = torch.equal(snn(images), snn.running(free)(images))
    assert same or not circuit.exact
    assert (snn(images) - net(images)).norm() / (net(images) - net(images).mean(0)).norm() < 0.1


def test_a_maximum_over_sites_without_a_common_grid_is_fitted_and_measured() -> None:
    torch.manual_seed(0)
    net = made(lambda x, a, b: torch.maximum(F.silu(a(x)), torch.relu(b(x))), nn.Linear(6, 8), nn.Linear(6, 8))
    images = torch.randn(256, 6)
    snn = converted(net, images, images, K=8)
    (circuit,) = snn.report.circuits
    assert not circuit.exact
    assert circuit.output_error is not None
    assert 0 < circuit.output_error < 1e-3
    assert snn.structure.followers == {}


def test_the_steps_of_a_maximum_are_those_of_its_source() -> None:
    net = made(lambda x, c: F.max_pool2d(torch.relu(c(x)), 2), nn.Conv2d(3, 4, 3))
    images = torch.rand(32, 3, 8, 8)
    snn = converted(net, images, images, K={"relu": 5})
    assert {site.K for site in snn.report.sites} == {5}
    budget = converted(net, images, images, K=fs.Budget(steps=14))
    assert len({site.K for site in budget.report.sites}) == 1
    assert budget.report.latency_steps <= 14


def test_distilling_leaves_maxima_exact() -> None:
    torch.manual_seed(0)
    net = made(lambda x, c, f: f(F.max_pool2d(torch.relu(c(x)), 2).flatten(1)), nn.Conv2d(3, 4, 3), nn.Linear(36, 5))
    images = torch.rand(64, 3, 8, 8)
    snn = fs.distil(converted(net, images, images, K=4), images, steps=30)
    assert {"max_pool2d"} == {circuit.operator for circuit in snn.report.circuits if circuit.exact}


def test_patterns_choose_by_module() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.late = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.stem(x))

    x = torch.rand(2, 1, 8, 8)
    snn = fs.convert(Two().eval(), x, circuits={"max": "neurons", "stem.*": "digital"})
    assert [entry.path for entry in snn.report.left_digital] == ["stem.1"]
    assert [circuit.path for circuit in snn.report.circuits] == ["late.1"]
    with pytest.raises(FewSpikesError, match=r"circuits: modules 'stem.\*': 'spiking' is not built"):
        fs.convert(Two().eval(), x, circuits={"stem.*": "spiking"})


@pytest.mark.parametrize("steps", [4, 8])
def test_a_trained_vgg_is_the_same_bits_with_its_pools_as_neurons(data: Any, steps: int) -> None:
    images = {split: open_images(data / "cifar10", split, PREPROCESSING, 10, limit=256) for split in ("train", "test")}
    model, test = trained_vgg(), loader(images["test"], 64)
    neurons, digital = (
        fs.convert(model, torch.zeros(2, 3, 32, 32), loader(images["train"], 64), K=steps, circuits={"max": choice})
        for choice in ("neurons", "digital")
    )
    same = digital.with_neurons({name: neurons.neurons[name].replace() for name in digital.neurons})
    assert [circuit.exact for circuit in neurons.report.circuits] == [True] * 4
    assert any(site.scaled for site in neurons.report.sites)  # ranges of their own do not spoil it
    assert all(torch.equal(neurons(x), same(x)) for x, _ in test)
    assert fs.evaluate(neurons, test, reference=model).drop < 5


def test_a_pattern_that_changes_nothing_says_so() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)).eval()
    x = torch.rand(2, 1, 8, 8)
    with pytest.warns(fs.FewSpikesWarning, match="circuits: '0': 'neurons' changes nothing"):
        fs.convert(net, x, circuits={"0": "neurons"})


def test_every_call_of_a_module_is_a_circuit_of_its_own() -> None:
    net = made(lambda x: F.max_pool2d(F.max_pool2d(torch.relu(x), 2), 2))
    circuits = converted(net, torch.rand(2, 1, 8, 8)).report.circuits
    assert [(circuit.operator, len(circuit.sites)) for circuit in circuits] == [("max_pool2d", 2)] * 2


def test_long_chains_between_neurons_are_followed() -> None:
    def chain(x: Tensor) -> Tensor:
        for _ in range(400):
            x = x.flip(1)
        return x

    net = made(lambda x: torch.maximum(chain(torch.relu(x)), torch.relu(chain(x) + 1)))
    assert converted(net, torch.rand(2, 3)).report.layers == 3
