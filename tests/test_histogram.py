"""Histograms: exact counts, the same whatever the order, and moments that match the data."""

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from fewspikes import Calibration, FewSpikesError
from fewspikes.fitting.histogram import MAX_BINS, Histogram
from fewspikes.measure.calibration import _CALIBRATION

values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50)


def same(a, b):
    return (a.low, a.high, a.exponent, a.first) == (b.low, b.high, b.exponent, b.first) and np.array_equal(
        a.counts, b.counts
    )


@given(values, values, values)
def test_merging_in_any_order_equals_counting_at_once(a, b, c):
    whole = Histogram.of(torch.tensor(a + b + c))
    parts = [Histogram.of(torch.tensor(part)) for part in (a, b, c)]
    assert same(parts[0] + parts[1] + parts[2], whole)
    assert same(parts[2] + (parts[1] + parts[0]), whole)


@given(values)
@example([8191.0, -(2.0**-149)])  # the smallest float32, which vanishes beside the bins' width
def test_every_value_is_counted_in_its_bin(x):
    histogram = Histogram.of(torch.tensor(x))
    assert histogram.total == len(x)
    assert len(histogram.counts) <= MAX_BINS
    numbers = torch.tensor(x).double().numpy()
    for i in np.flatnonzero(histogram.counts):
        low = (histogram.first + i) * histogram.width
        assert ((numbers >= low) & (numbers < low + histogram.width)).sum() == histogram.counts[i]


def test_bins_are_no_wider_than_a_4000th_of_the_range():
    histogram = Histogram.of(torch.randn(10_000))
    assert histogram.width <= (histogram.high - histogram.low) / 4000


@given(values)
def test_a_histogram_is_the_same_after_json(x):
    histogram = Histogram.of(torch.tensor(x))
    assert same(Histogram.from_json(json.loads(json.dumps(histogram.to_json()))), histogram)


def test_moments_are_those_of_the_data():
    x = torch.randn(100_000, dtype=torch.float64)
    points = np.array([-1.0, 0.0, 0.7, 10.0])
    moments = Histogram.of(x).moments(points)
    for i, point in enumerate(points):
        below = x[x < point].numpy()
        for power, found in enumerate((moments.m0, moments.m1, moments.m2)):
            assert found[i] == pytest.approx((below**power).sum() / len(x), abs=2e-4)


@pytest.mark.parametrize(("x", "message"), [([], "at least one value"), ([1.0, float("inf")], "finite values")])
def test_a_histogram_of_nothing_or_infinity_raises(x, message):
    with pytest.raises(FewSpikesError, match=message):
        Histogram.of(torch.tensor(x))


def test_bins_that_do_not_cover_the_range_raise():
    content = Histogram.of(torch.randn(100)).to_json()
    content["counts"] = content["counts"][:-3]
    with pytest.raises(FewSpikesError, match="bins; got"):
        Histogram.from_json(content)


GOOD = {"low": 0.0, "high": 1.0, "exponent": -12, "first": 0, "counts": [3, -4095, 1]}


def test_a_histogram_as_a_file_has_it():
    assert Histogram.from_json(GOOD).total == 4


@pytest.mark.parametrize(
    "change",
    [
        {"low": "a"},
        {"low": True},
        {"low": 2.0},
        {"low": 10**400},
        {"high": float("nan")},
        {"low": -1e308, "high": 1e308},
        {"high": 1e-320},
        {"exponent": 10**9},
        {"first": 1.0},
        {"counts": [-(10**30)]},
        {"counts": [-(10**7)]},
        {"counts": [1 << 62] * 2 + [-4095]},
        {"counts": ["3", -4095, 1]},
        {"counts": [3.0, -4095, 1]},
        {"counts": [-4097]},
        {"counts": 5},
    ],
)
def test_a_histogram_of_other_fields_is_refused(change):
    with pytest.raises((FewSpikesError, TypeError)):
        Histogram.from_json(GOOD | change)


@pytest.mark.parametrize("high", [5e-324, 1e-310, 1e300])
def test_values_at_the_ends_of_float64_have_a_histogram(high):
    assert Histogram.of(torch.tensor([0.0, high], dtype=torch.float64)).total == 2


def test_values_beyond_those_are_refused():
    with pytest.raises(FewSpikesError, match="a histogram needs values within 1e\\+300"):
        Histogram.of(torch.tensor([-1e308, 1e308], dtype=torch.float64))


# Calibrations: a histogram for each site.


@pytest.mark.parametrize(("images", "sites"), [(-1, {}), ("1", {}), (1, 5), (1, "a"), (1, {"a": 3}), (1, None)])
def test_a_calibration_of_anything_but_histograms_is_refused(images, sites):
    with pytest.raises(FewSpikesError, match="the images of a calibration|a histogram for each site"):
        Calibration(images, sites)


def test_a_calibration_comes_back_from_its_file_and_not_where_one_digit_was_changed(tmp_path):
    file = tmp_path / "c.json"
    Calibration(7, {"a": Histogram.of(torch.randn(50)), "b": Histogram.of(torch.zeros(3))}).save(file)
    again = Calibration.load(file)
    assert again.images == 7
    assert [histogram.total for histogram in again.sites.values()] == [50, 3]
    file.write_text(file.read_text().replace('"images": 7', '"images": 8'))
    with pytest.raises(FewSpikesError, match="its checksum differs; calibrate again"):
        Calibration.load(file)


@pytest.mark.parametrize(
    "change", [{"images": "7"}, {"images": -1}, {"sites": 5}, {"sites": {"a": 5}}, {"sites": None}]
)
def test_a_calibration_sealed_around_other_fields_is_one_line(tmp_path, change):
    _CALIBRATION.write(tmp_path / "c.json", {"images": 1, "sites": {}} | change)
    with pytest.raises(FewSpikesError, match=r"c\.json is no valid calibration: .*; calibrate again") as error:
        Calibration.load(tmp_path / "c.json")
    assert len(str(error.value).splitlines()) == 1
