"""Weights of a fit: how much an error counts by where it is made, and ranges by channel, both found at calibration."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.errors import FewSpikesError
from fewspikes.conversion.building import calibrate_model
from fewspikes.fitting import fit_site
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.weights import Weights
from fewspikes.measure import weighing
from fewspikes.measure.calibration import _CALIBRATION, Calibration
from fewspikes.neuron.activation import Activation

EXP = Activation("exp")


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("FEWSPIKES_CACHE", "off")


def drawn(n: int = 20_000, seed: int = 0) -> Tensor:
    return -torch.randn(n, generator=torch.Generator().manual_seed(seed)).abs() * 3


def weighed_error(p, x: Tensor, squares: Tensor) -> float:
    y = fs.apply(x, p)[0]
    return float(((y - x.exp()).double().square() * squares).sum() / squares.sum())


def test_weights_are_sums_by_bin_and_parts_add_up_to_the_whole():
    x, squares = drawn(), torch.randint(0, 9, (20_000,)).double()
    whole = Weights.of(x, squares)
    parts = [Weights.of(a, b) for a, b in zip(x.split(3000), squares.split(3000), strict=True)]
    for order in (parts, parts[::-1]):
        added = order[0]
        for part in order[1:]:
            added = added + part
        assert np.array_equal(added.squares, whole.squares)  # whole numbers: no rounding
        assert np.array_equal(added.inputs.counts, whole.inputs.counts)
    edges = (whole.inputs.first + np.arange(len(whole.squares) + 1)) * whole.inputs.width
    places = np.searchsorted(edges, x.double().numpy(), side="right") - 1
    assert np.array_equal(whole.squares, np.bincount(places, squares.numpy(), len(whole.squares)))


def test_the_share_of_the_weight_in_a_part_of_the_range_is_that_of_the_inputs_there():
    x, squares = drawn(), torch.rand(20_000).double()
    share = Weights.of(x, squares).shares(np.array([-8.0, -2.0, -1.0, 0.0]))
    inside = (x >= -8) & (x < 0)
    wanted = [
        float(squares[(x >= a) & (x < b)].sum() / squares[inside].sum()) for a, b in ((-8, -2), (-2, -1), (-1, 0))
    ]
    assert np.allclose(share, wanted, atol=1e-6)


def test_a_sensitivity_that_is_not_finite_counts_as_none():
    x = torch.tensor([0.0, 1.0, 2.0])
    assert Weights.of(x, torch.tensor([1.0, float("inf"), float("nan")])).total == 1.0


def test_a_fit_makes_those_errors_small_that_count():
    x = drawn()
    squares = torch.where(x < -4, 100.0, 0.01).double()  # what is small counts, as where a sum of exps is divided by
    seen = Histogram.of(x)
    plain, counted = (fit_site(EXP, 6, seen, weights=weights) for weights in (None, Weights.of(x, squares)))
    assert weighed_error(counted, x, squares) < 0.2 * weighed_error(plain, x, squares)
    assert weighed_error(plain, x, torch.ones(len(x))) < weighed_error(counted, x, torch.ones(len(x)))
    assert counted.provenance["weights"] == "measured"


def test_a_fit_with_weights_is_kept_under_a_name_of_its_own():
    x = drawn(2000)
    ways = [None, Weights.of(x, -x), Weights.of(x, x**2), None]
    codes = [fit_site(EXP, 4, Histogram.of(x), weights=one, effort="quick").numbers.tobytes() for one in ways]
    assert codes[0] == codes[3]
    assert len(set(codes)) == 3


def test_weights_of_nothing_change_nothing():
    x = drawn(2000)
    plain, same = (fit_site(EXP, 4, Histogram.of(x), weights=w, effort="quick") for w in (None, Weights.of(x, 0 * x)))
    assert np.array_equal(plain.numbers, same.numbers)


@pytest.mark.parametrize("change", [{"squares": [1.0]}, {"squares": [-1.0] * 3}, {"squares": [float("nan")] * 3}])
def test_weights_that_are_none_are_refused(change):
    content = Weights.of(torch.tensor([0.0, 1.0, 2.0]), torch.ones(3)).to_json()
    assert Weights.from_json(content).total == 3.0
    with pytest.raises(FewSpikesError, match="weight"):
        Weights.from_json(content | change)


# At calibration.


class Squares(nn.Module):
    """One number from squares of channels of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 1)
        with torch.no_grad():
            self.first.weight.mul_(2.0 ** torch.arange(8).view(-1, 1))
            self.last.weight.mul_(4.0 ** -torch.arange(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.square(self.first(x)))


SPIKES = {"circuits": {"product": "neurons"}, "progress": False}


def test_weights_are_the_squared_gradients_over_each_channels_range():
    model, x = Squares().eval(), torch.randn(48, 5)
    found = calibrate_model(model, x[:2], x, **SPIKES)
    ((name, ranges),) = found.ranges.items()
    sizes = torch.tensor(ranges)
    with torch.no_grad():
        inside = model.first(x)
    assert torch.allclose(sizes, 1.25 * inside.abs().amax(0))
    # y = sum of w x^2 = sum of w r^2 (x / r)^2: the slope of the output at a channel's code is w r^2.
    slopes = (model.last.weight[0].detach() * sizes**2).square().expand_as(inside)
    wanted, weights = Weights.of(inside / sizes, slopes), found.weights[name]
    assert np.allclose(weights.squares / weights.total, wanted.squares / wanted.total, atol=1e-5)


def test_a_calibration_with_weights_comes_back_from_its_file_and_makes_the_same_network(tmp_path):
    model, x = Squares().eval(), torch.randn(48, 5)
    found = calibrate_model(model, x[:2], x, **SPIKES)
    found.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    assert again.ranges == found.ranges
    one, other = (fs.convert(model, x[:2], seen, K=6, effort="quick", **SPIKES) for seen in (found, again))
    assert torch.equal(one(x), other(x))


def test_calibrations_of_two_halves_add_up():
    model, x = Squares().eval(), torch.randn(48, 5)
    a, b = (calibrate_model(model, half[:2], half, **SPIKES) for half in (x[:24], x[24:]))
    (name,) = a.ranges
    added = a + b
    assert added.ranges[name] == tuple(max(pair) for pair in zip(a.ranges[name], b.ranges[name], strict=True))
    assert added.weights[name].inputs.total == 48 * 8
    assert added.without_ranges().weights == {}


def test_a_calibration_with_ranges_but_without_weights_is_refused(tmp_path):
    sites = {"a": Histogram.of(torch.randn(50)).to_json()}
    _CALIBRATION.write(tmp_path / "c.json", {"images": 1, "sites": sites, "ranges": {"a": [1.0]}})
    with pytest.raises(FewSpikesError, match="ranges or weights of sites that have none"):
        Calibration.load(tmp_path / "c.json")


def relative(snn: nn.Module, model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        a = model(x)
        return float((snn(x) - a).square().mean() / a.var())


def test_ranges_by_channel_make_squares_nearer():
    model, x = Squares().eval(), torch.randn(128, 5)
    others = torch.randn(256, 5, generator=torch.Generator().manual_seed(1))
    plain, mended = (fs.convert(model, x[:2], x, K=6, repair=repair, **SPIKES) for repair in (False, None))
    (before,), (after,) = plain.neurons.values(), mended.neurons.values()
    assert before.scale is None
    assert after.scale is not None
    assert torch.allclose(after.gain, after.scale)  # r^2 f(x / r)
    assert relative(mended, model, others) < 0.2 * relative(plain, model, others)


def test_without_a_gradient_nothing_is_weighed(monkeypatch):
    monkeypatch.setattr(weighing, "without_gradient", lambda snn: ("an operator",))
    model, x = Squares().eval(), torch.randn(48, 5)
    found = calibrate_model(model, x[:2], x, **SPIKES)
    assert (found.ranges, found.weights) == ({}, {})


class Scaled(nn.Module):
    """Values of which no weighted map tells where the channels are, but a weight for each does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Linear(4, 6), nn.Parameter(torch.rand(6) + 0.5)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(x - x.mean(-1, keepdim=True))  # the sum of all channels has none
        return self.last(torch.relu(self.weight * x - 0.1))


def test_a_weight_for_each_channel_tells_their_axis():
    snn = fs.convert(Scaled().eval(), torch.randn(2, 3, 4), progress=False)
    assert [snn.channel_axis(site.name) for site in snn.sites] == [2, None, 2]
