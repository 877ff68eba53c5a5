"""Parameters: checked when made, never changed, the same after a file."""

import json
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given

from fewspikes import FewSpikesError, FSParameters, published, relu_parameters
from fewspikes.neuron.known_codes import round_scale
from strategies import arguments


def test_the_published_relu_is_the_papers_closed_form():
    p = published("relu")
    assert p.K == 10
    assert p.T.tolist() == p.h.tolist() == p.d.tolist() == [25.0 * 2.0**-t for t in range(1, 11)]


def test_nearest_lowers_every_threshold_by_half_a_step():
    down, nearest = relu_parameters(4, 8.0, "down"), relu_parameters(4, 8.0, "nearest")
    assert (down.T - nearest.T).tolist() == [8.0 * 2.0**-5] * 4
    assert nearest.h.tolist() == nearest.d.tolist() == down.h.tolist()


@pytest.mark.parametrize(("name", "K", "domain"), [("silu", 16, (-8.0, 12.0)), ("sigmoid", 12, (-10.0, 10.0))])
def test_published_tables_carry_steps_domain_and_provenance(name, K, domain):
    p = published(name)
    assert (p.K, p.domain, p.activation, p.offset) == (K, domain, name, 0.0)
    assert p.provenance["source"] == "10.1038/s42256-021-00311-4"


def test_published_tables_are_the_published_numbers(data):
    original = json.loads((data.parent / "published_tables.json").read_text())
    for name in ("silu", "sigmoid"):
        for vector in "Thd":
            assert getattr(published(name), vector).tolist() == original[name][vector]


def test_parameters_cannot_be_changed():
    p = relu_parameters()
    with pytest.raises(ValueError, match="read-only"):
        p.T[0] = 1.0
    with pytest.raises(AttributeError, match="cannot assign"):
        p.offset = 1.0


@pytest.mark.parametrize(
    ("T", "h", "d", "message"),
    [
        ([1.0], [1.0, 2.0], [1.0], "one length K; got 1, 2, 1"),
        ([], [], [], "from 1 to 24 numbers"),
        ([1.0] * 25, [1.0] * 25, [1.0] * 25, "from 1 to 24 numbers"),
        ([nan], [1.0], [1.0], "T must be finite"),
        ([1.0], [inf], [1.0], "h must be finite"),
    ],
)
def test_invalid_vectors_raise(T, h, d, message):
    with pytest.raises(FewSpikesError, match=message):
        FSParameters(T, h, d)


def test_an_offset_or_domain_that_is_none_raises():
    with pytest.raises(FewSpikesError, match="offset must be a finite number"):
        FSParameters([1.0], [1.0], [1.0], offset=nan)
    with pytest.raises(FewSpikesError, match="low < high"):
        FSParameters([1.0], [1.0], [1.0], domain=(2.0, 2.0))


@pytest.mark.parametrize(
    ("K", "alpha", "rounding", "message"),
    [
        (0, 1.0, "down", "K must be a whole number"),
        (25, 1.0, "down", "K must be a whole number"),
        (4, 0.0, "down", "alpha"),
        (4, 1.0, "up", "rounding"),
    ],
)
def test_relu_parameters_out_of_range_raise(K, alpha, rounding, message):
    with pytest.raises(FewSpikesError, match=message):
        relu_parameters(K, alpha, rounding)


def test_an_activation_without_published_parameters_raises():
    with pytest.raises(FewSpikesError, match="'gelu'; there are silu, sigmoid and relu"):
        published("gelu")


@given(arguments())
def test_parameters_are_the_same_after_json(drawn):
    p = FSParameters(*drawn)
    again = FSParameters.from_json(json.loads(json.dumps(p.to_json())))
    assert again == p
    assert hash(again) == hash(p)


def test_parameters_are_the_same_after_a_file(tmp_path):
    for p in (published("silu"), relu_parameters(6, 3.7, "nearest")):
        p.save(tmp_path / "p.json")
        assert FSParameters.load(tmp_path / "p.json") == p


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "cannot read"),
        ("[1]", "has format None"),
        ('{"format": "other"}', "has format 'other'"),
        ('{"format": "fewspikes-parameters", "version": 99}', "version 99"),
        ('{"format": "fewspikes-parameters", "version": 1}', "incomplete"),
    ],
)
def test_a_file_that_holds_no_parameters_raises(tmp_path, content, message):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(FewSpikesError, match=message):
        FSParameters.load(tmp_path / "p.json")


def test_one_changed_digit_in_a_file_is_refused(tmp_path):
    file = tmp_path / "p.json"
    published("silu").save(file)
    digits = str(published("silu").d[3])
    file.write_text(file.read_text().replace(digits, digits[:-1] + str((int(digits[-1]) + 5) % 10)))
    with pytest.raises(FewSpikesError, match=r'its checksum differs; save them again, or take "sha256" out'):
        FSParameters.load(file)


def test_parameters_written_by_hand_are_welcome_without_a_checksum(tmp_path):
    file, content = tmp_path / "p.json", published("silu").to_json()
    del content["K"]
    file.write_text(json.dumps(content))
    assert FSParameters.load(file) == published("silu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"T": ["1"] * 10}, "hold numbers"),
        ({"T": [True] * 10}, "hold numbers"),
        ({"T": {"1": 1}}, "hold numbers"),
        ({"K": 9}, "K = 9, 10 T"),
        ({"activation": 5}, "activation 5"),
        ({"domain": [3]}, "incomplete or malformed"),
        ({"domain": "ab"}, "hold numbers"),
        ({"offset": None}, "hold numbers"),
        ({"provenance": 5}, "provenance must be plain JSON data"),
    ],
)
def test_a_field_of_another_type_raises(tmp_path, change, message):
    (tmp_path / "p.json").write_text(json.dumps(published("relu").to_json() | change))
    with pytest.raises(FewSpikesError, match=message):
        FSParameters.load(tmp_path / "p.json")


@pytest.mark.parametrize("value", [10**400, 10**5000, "1", True, 1j, object()], ids=lambda value: type(value).__name__)
def test_numbers_beyond_a_float_and_what_is_none_are_refused_in_one_line(value):
    for one in ({"offset": value}, {"domain": (0, value)}, {"T": [value]}):
        with pytest.raises(FewSpikesError) as error:
            FSParameters(**{"T": [1.0], "h": [1.0], "d": [1.0], **one})
        assert len(str(error.value).splitlines()) == 1
        assert len(str(error.value)) < 300


def test_saving_leaves_nothing_behind_when_it_fails(tmp_path):
    with pytest.raises(FewSpikesError, match="the folder .* does not exist"):
        relu_parameters().save(tmp_path / "missing" / "p.json")
    with pytest.raises(FewSpikesError, match="it is a folder"):
        relu_parameters().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rounded_scale_keeps_every_multiple_in_float32():
    alpha = round_scale(3.14159265)
    multiples = np.arange(2**12) * alpha * 2.0**-12
    assert abs(alpha / 3.14159265 - 1) < 2**-12
    assert (multiples.astype(np.float32).astype(np.float64) == multiples).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": "x"}, "offset must be a finite number; got 'x'"),
        ({"domain": None}, r"the domain must be \(low, high\); got None"),
        ({"domain": ("a",)}, r"the domain must be \(low, high\)"),
        ({"provenance": {"alpha": np.float32(1)}}, "provenance must be plain JSON data"),
    ],
)
def test_what_cannot_be_saved_later_raises_at_once(options, message):
    with pytest.raises(FewSpikesError, match=message):
        FSParameters([1.0], [1.0], [1.0], **options)


@pytest.mark.parametrize("K", [4.5, "4", True, None])
def test_a_k_that_is_no_whole_number_raises(K):
    with pytest.raises(FewSpikesError, match="K must be a whole number"):
        relu_parameters(K)


def test_equal_parameters_have_equal_hashes():
    a, b = FSParameters([0.0], [0.0], [1.0]), FSParameters([-0.0], [-0.0], [1.0])
    assert a == b
    assert hash(a) == hash(b)


def test_quantised_parameters_are_the_nearest_of_the_grids_values():
    p = published("silu").quantize(8)
    for vector in "Thd":
        values, rounded = getattr(published("silu"), vector), getattr(p, vector)
        inside = np.abs(values) < 7.9
        assert (rounded * 16 == np.round(rounded * 16)).all()  # the step is 16 / 2^8
        assert np.abs(rounded - values)[inside].max() <= 1 / 32
        assert rounded.min() >= -8
        assert rounded.max() < 8
    assert p.provenance["grid"]["bits"] == 8
    assert (p.domain, p.activation) == (published("silu").domain, "silu")


def test_more_bits_are_nearer():
    p = published("sigmoid")
    far = [np.abs(p.quantize(bits).d - p.d).max() for bits in (4, 8, 12, 20)]
    assert far == sorted(far, reverse=True)
    assert far[-1] <= 2.0**-17


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "bits must be a whole number from 1 to 24; got 0"),
        ((8.0,), "bits must be a whole number"),
        ((8, 1.0, 1.0), "low < high"),
        ((8, -inf, 8.0), "low must be a finite number"),
    ],
)
def test_a_grid_out_of_range_raises(arguments, message):
    with pytest.raises(FewSpikesError, match=message):
        relu_parameters().quantize(*arguments)


@pytest.mark.parametrize("endpoint", ["1", 1, np.array([]), {"a": 1}], ids=repr)
def test_an_endpoint_is_true_or_false(endpoint):
    with pytest.raises(FewSpikesError, match="endpoint must be True or False"):
        relu_parameters().quantize(8, endpoint=endpoint)


@pytest.mark.parametrize("name", [["silu"], {}, np.array([]), "x" * 5000], ids=lambda name: repr(name)[:9])
def test_what_is_no_name_of_published_parameters_is_refused_in_one_short_line(name):
    with pytest.raises(FewSpikesError, match="no published parameters for") as error:
        published(name)
    assert len(str(error.value)) < 300


def test_a_scale_is_positive_and_chosen_around_0_only():
    with pytest.raises(FewSpikesError, match="the scale must be a finite number > 0; got 0.0"):
        relu_parameters().quantize(8, scale=0.0)
    with pytest.raises(FewSpikesError, match="range around 0 only"):
        relu_parameters().quantize(8, 1.0, 2.0, scale=None)
