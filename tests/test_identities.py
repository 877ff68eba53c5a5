"""Neurons for f(x) = x: inputs as spikes, and between weighted maps; values, spikes and steps by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewspikes as fs
from captured import Net
from fewspikes.base.errors import FewSpikesError
from fewspikes.conversion.building import calibrate_model
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.identity import least_error_identity, least_error_powers_of_two
from fewspikes.measure.levels import Levels
from fewspikes.neuron.kernels import apply
from fewspikes.neuron.known_codes import identity_parameters

MEAN, SPREAD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def pictures(count: int, *shape: int, seed: int = 0) -> Tensor:
    """Images of 8 bits as torchvision normalises them."""
    whole = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed))
    mean, spread = (v[: shape[0]].view(-1, 1, 1) for v in (MEAN, SPREAD))
    return (whole.float() / 255 - mean) / spread


def small() -> Net:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 5)
    return Net(lambda x, c, f: f(torch.relu(c(x)).flatten(1)), *layers).eval()


def test_the_identity_by_hand() -> None:
    # -1, 0, 1, 2 in two steps: 2 above -1 is the first bit, 1 the second.
    code = identity_parameters(2, -1.0, 2.0)
    y, spikes = apply(torch.tensor([-5.0, -1.0, -0.4, 0.6, 1.4, 1.6, 9.0], dtype=torch.float64), code)
    assert y.tolist() == [-1.0, -1.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    assert spikes.tolist() == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 12, 16])
def test_the_identitys_range_has_nearly_the_least_error_of_all(steps: int) -> None:
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, _ = apply(x, least_error_identity(steps, Histogram.of(x)))
    error = float((y - x).square().mean())
    ends = np.linspace(0.3, 1.0, 57) * float(x.abs().max())  # by brute force, symmetric ranges
    best = min(float((apply(x, identity_parameters(steps, -e, e))[0] - x).square().mean()) for e in ends)
    room = 1.65 if steps > 12 else 1.03  # a quarter more range from there on, for what was not seen
    assert error <= room * best


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.1, 3.0), (-0.3, 5.0), (-6.0, -0.2)])
def test_powers_of_two_have_the_least_error_that_they_can(low: float, high: float) -> None:
    x = low + (high - low) * torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    code = least_error_powers_of_two(6, Histogram.of(x))
    values = np.array([*code.d, abs(code.offset) or 1.0])
    assert (np.frexp(values)[0] == 0.5).all()

    def error(first: float, step: float) -> float:
        return float((apply(x, identity_parameters(6, first, first + 63 * step))[0] - x).square().mean())

    best = min(error(first, 2.0**n) for n in range(-12, 4) for first in (0.0, *(-(2.0**m) for m in range(-8, 5))))
    assert float((apply(x, code)[0] - x).square().mean()) <= 1.01 * best  # offsets below a step hardly matter


def test_dear_spikes_of_powers_of_two_become_few() -> None:
    seen = Histogram.of(torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    fair, dear = (least_error_powers_of_two(8, seen, price) for price in (0.0, 0.1))
    x = torch.randn(5_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert apply(x, dear)[1].double().mean() < 0.8 * apply(x, fair)[1].double().mean()


def test_images_of_8_bits_are_exact_in_8_steps_and_cost_no_multiplications(tmp_path) -> None:
    net, images, others = small(), pictures(64, 3, 8, 8), pictures(16, 3, 8, 8, seed=1)
    spiking = fs.convert(net, images, images, K=6, circuits={"input": "spikes"})
    analog = fs.convert(net, images, images, K=6)
    entry = spiking.report.circuits[0]
    assert (entry.operator, entry.path, entry.neurons, entry.steps, entry.exact) == ("input", "x", 192, 8, True)
    torch.testing.assert_close(spiking(others), analog(others), rtol=1e-5, atol=1e-5)
    assert (spiking.macs.analog, analog.macs.analog) == (0, 4 * 3 * (3 * 8 - 2) ** 2)
    assert spiking.report.latency_steps == analog.report.latency_steps + 8
    with fs.count(spiking) as counts:
        spiking(others)
    whole = (others * SPREAD.view(-1, 1, 1) + MEAN.view(-1, 1, 1)).mul(255).round().to(torch.int64)
    ones = sum(int((whole >> bit & 1).sum()) for bit in range(8))
    assert counts.by_site["x.input"] == ones  # the bits of the pixels
    fs.save(spiking, tmp_path / "net.fs")
    assert torch.equal(fs.load(tmp_path / "net.fs")(others), spiking(others))


@pytest.mark.parametrize("change", [lambda x: x + 1e-4 * torch.randn_like(x), lambda x: x.square()])
def test_other_inputs_are_fitted_and_the_report_says_so(change) -> None:
    net, images = small(), change(pictures(64, 3, 8, 8))
    snn = fs.convert(net, images, images, K=6, circuits={"input": "spikes"})
    assert not snn.report.circuits[0].exact
    assert snn.neurons["x.input"].code.K == 6
    assert any("not those of 8 bits" in note for note in snn.report.notes)
    assert snn.macs.analog == 0


def test_an_input_without_images_has_no_code() -> None:
    with pytest.raises(FewSpikesError, match=r"no tables for 1 of 2 sites: x\.input is identity; give images"):
        fs.convert(small(), pictures(2, 3, 8, 8), circuits={"input": "spikes"})


def test_a_calibration_keeps_levels_and_adds_them(tmp_path) -> None:
    net, images = small(), pictures(64, 3, 8, 8)
    halves = [calibrate_model(net, images, half, circuits={"input": "spikes"}) for half in images.split(32)]
    both = halves[0] + halves[1]
    both.save(tmp_path / "both.json")
    again = fs.Calibration.load(tmp_path / "both.json")
    made = [fs.convert(net, images, one, K=5, circuits={"input": "spikes"}) for one in (both, again)]
    assert torch.equal(made[0](images), made[1](images))
    assert made[0].report.circuits[0].exact


def test_a_budget_keeps_the_inputs_steps() -> None:
    net, images = small(), pictures(64, 3, 8, 8)
    snn = fs.convert(net, images, images, K=fs.Budget(steps=12), circuits={"input": "spikes"})
    assert {site.name: site.K for site in snn.report.sites} == {"x.input": 8, "relu": 4}
    priced = fs.convert(net, images, images, K=4, spike_price=0.01, circuits={"input": "spikes"})
    assert priced.report.circuits[0].exact
    assert fs.distil(snn, images, steps=5).report.circuits[0].exact
    with pytest.raises(FewSpikesError, match="steps=8 cannot be met"):
        fs.convert(net, images, images, K=fs.Budget(steps=8), circuits={"input": "spikes"})


def spacing(*values: float) -> tuple[list[float], list[float]] | None:
    found = Levels.of(torch.tensor([values * 2], dtype=torch.float64), 0).spacing
    return None if found is None else (found.lowest.tolist(), found.step.tolist())


class Unread(nn.Module):
    """A layer that takes no notice of its second input."""

    def __init__(self, rectified: bool) -> None:
        super().__init__()
        self.layer, self.rectified = nn.Linear(4, 4), rectified

    def forward(self, x: Tensor, _y: Tensor) -> Tensor:
        return torch.relu(self.layer(x)) if self.rectified else self.layer(x)


@pytest.mark.parametrize("circuits", [{"input": "spikes"}, "gated"])
@pytest.mark.parametrize(("rectified", "sites"), [(True, ["x.input", "relu"]), (False, ["x.input"])])
def test_an_input_that_nothing_reads_sends_no_spikes(circuits, rectified, sites) -> None:
    x = torch.rand(8, 4)
    snn = fs.convert(Unread(rectified).eval(), (x, x), (x, x), K=4, circuits=circuits)
    assert list(snn.neurons) == sites
    assert torch.equal(snn(x, x), snn(x, 1 - x))


def test_the_spacing_of_levels() -> None:
    assert spacing(0.0, 2.0, 5.0, 255.0) == ([0.0], [1.0])  # 2 and 3 apart: 1 apart
    assert spacing(0.0, 6.0, 9.0, 3 * 255.0) == ([0.0], [3.0])
    assert spacing(10.0, 11.0, 13.0) == ([10.0], [1.0])  # silence is for the lowest that was seen
    assert spacing(0.0, 1.0, 2.5, 256.0) is None
    assert spacing(7.0) is None
    assert Levels.of(torch.arange(257.0)[None], 0).values is None
    more = Levels.of(torch.arange(256.0)[None], 0) + Levels.of(torch.tensor([[300.0]]), 0)
    assert more.values is None


def test_a_channel_of_one_value_is_spaced_as_the_others_are() -> None:
    found = Levels.of(torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.5, 127.5], [4.0, 5.0, 4.0]]), 0).spacing
    assert found is None  # of the second channel each value was seen once: any two or three values are spaced somehow
    twice = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.5, 127.5], [4.0, 5.0, 4.0]]).repeat(1, 2)
    found = Levels.of(twice[:, 3:], 0, Levels.of(twice[:, :3], 0)).spacing
    assert found is not None
    assert found.step.tolist() == [0.5, 0.5, 1.0]
    assert found.lowest.tolist() == [1.0 - 127 * 0.5, 0.0, 4.0]


def test_two_vectors_of_floats_are_no_8_bit_values() -> None:
    torch.manual_seed(0)
    net, images = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), torch.randn(2, 6)
    snn = fs.convert(net, images, images, circuits={"input": "spikes"})
    assert not snn.report.circuits[0].exact


def test_values_between_weighted_maps_go_by_neurons_or_are_relayed() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4), nn.Linear(4, 2)).eval()
    images = torch.randn(256, 6)
    collapsed, relay, neurons = (
        fs.convert(net, images, images, K=10, circuits={"linear": c}) for c in ("collapsed", "relay", "neurons")
    )
    assert [len(one.sites) for one in (collapsed, relay, neurons)] == [1, 1, 3]
    # A spike of the ReLU reaches 2 outputs through both maps at once, or 4 values that are multiplied by 2 x 4 weights.
    assert [int(one.fan_out["2"].dense().unique()) for one in (collapsed, relay, neurons)] == [2, 4, 4]
    assert [one.macs.analog for one in (collapsed, relay, neurons)] == [48 + 64, 48 + 64 + 8, 48]
    assert [entry.operator for entry in relay.report.left_digital] == ["aten.alias.default"] * 2
    assert [circuit.path for circuit in neurons.report.circuits] == ["1", "4"]
    assert [one.report.latency_steps for one in (collapsed, relay, neurons)] == [10, 10, 30]
    assert torch.equal(relay(images), collapsed(images))
    torch.testing.assert_close(neurons(images), net(images), rtol=0.01, atol=0.02)
