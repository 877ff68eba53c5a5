"""A layer's own fit: to what it sees, with care for the tail, and kept for the next time."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

import fewspikes as fs
from fewspikes.fitting import cache, fit_site, layer_fit
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.relu import sparing_relu_codes
from fewspikes.fitting.weights import Weights
from fewspikes.hardware.integers.codes import is_binary
from fewspikes.neuron.activation import Activation

SILU, RELU6 = Activation("silu"), Activation("relu", 6.0)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWSPIKES_CACHE", str(tmp_path))
    cache.forget()
    yield tmp_path / "fits"
    cache.forget()


def inputs(n=200_000, scale=1.2):
    return torch.randn(n, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * scale - 0.3


def error(p, x, activation=SILU):
    return float(((fs.apply(x, p)[0] - activation(x)) ** 2).mean())


def spikes(p, x):
    return float(fs.apply(x, p)[1].double().mean())


def test_a_site_is_better_off_with_its_own_fit_than_with_the_shipped_table():
    x = inputs()
    p = fit_site(SILU, 8, Histogram.of(x))
    assert error(p, x) < error(fs.fit("silu", 8, effort="quick").parameters, x) / 2
    assert p.domain[0] < float(x.min())
    assert p.domain[1] > float(x.max())


def test_another_draw_of_the_same_inputs_has_the_same_error():
    p = fit_site(SILU, 8, Histogram.of(inputs(8192)))
    fresh = torch.randn(400_000, dtype=torch.float64) * 1.2 - 0.3
    assert error(p, fresh.clamp(*p.domain)) < 1.5 * error(fit_site(SILU, 8, Histogram.of(fresh)), fresh)


def test_a_few_inputs_far_out_do_not_come_out_wild(monkeypatch):
    x = torch.cat([inputs(1_000_000), torch.tensor([-30.0, 25.0, 40.0], dtype=torch.float64)])
    p = fit_site(SILU, 8, Histogram.of(x))
    whole = torch.linspace(-30, 40, 1001, dtype=torch.float64)
    assert float((fs.apply(whole, p)[0] - SILU(whole)).abs().max()) < 12
    monkeypatch.setattr(layer_fit, "FLOOR", 0.0)
    without = fit_site(SILU, 8, Histogram.of(x), seed=1)  # another fit than that which is kept
    assert float((fs.apply(whole, without)[0] - SILU(whole)).abs().max()) > 12


def test_a_price_on_spikes_saves_spikes():
    x, seen = inputs(), Histogram.of(inputs())
    assert spikes(fit_site(SILU, 8, seen, spike_price=0.01), x) < spikes(fit_site(SILU, 8, seen), x) - 0.1


def test_quick_normal_and_long_get_better():
    x, seen = inputs(), Histogram.of(inputs())
    quick, normal = (error(fit_site(SILU, 6, seen, effort=effort), x) for effort in ("quick", "normal"))
    assert normal < quick


def test_without_an_offset_silence_is_0():
    assert fit_site(Activation("sigmoid"), 5, Histogram.of(inputs()), offset=False).offset == 0.0


def test_a_relu_gets_the_binary_code_of_least_error_with_an_open_domain():
    p = fit_site(Activation("relu"), 5, Histogram.of(inputs()))
    assert p == fs.fitting.least_error_relu(5, Histogram.of(inputs()), "nearest")
    assert p.domain[0] == -np.inf


PRICES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)


@pytest.mark.parametrize("K", [1, 3, 5, 8, 14])
@pytest.mark.parametrize(("activation", "scale"), [(Activation("relu"), 1.2), (RELU6, 6.0)])
def test_a_relus_spikes_fall_with_their_price_from_the_binary_code_to_silence(activation, scale, K):
    x = inputs(scale=scale)
    found = [fit_site(activation, K, Histogram.of(x), spike_price=price) for price in PRICES]
    errors, fired = [error(p, x, activation) for p in found], [spikes(p, x) for p in found]
    assert all(b >= 0.999 * a for a, b in pairwise(errors))  # samples, not their histogram
    assert all(b <= 1.001 * a for a, b in pairwise(fired))
    assert found[0] == fs.fitting.least_error_relu(K, Histogram.of(x), "nearest", activation.cap)
    assert fired[-1] == 0.0


@pytest.mark.parametrize("price", [1e-5, 1e-3, 0.02, 0.2])
def test_no_binary_code_of_any_bits_and_range_is_worth_more_at_the_price(price):
    relu, x, K = Activation("relu"), inputs(), 6
    variance = float(relu(x).var())
    p = fit_site(relu, K, Histogram.of(x), spike_price=price)
    ranges = float(x.max()) * np.linspace(0.3, 1.2, 31)
    plain = [fs.relu_parameters(bits, float(alpha), "nearest") for bits in range(1, K + 1) for alpha in ranges]
    worth = [error(q, x, relu) / variance + price * spikes(q, x) for q in (p, *plain)]
    assert worth[0] <= 1.001 * min(worth[1:])


def test_a_relu_with_a_price_is_the_best_of_the_codes_offered():
    relu, x, K = Activation("relu"), inputs(), 4
    seen, variance = Histogram.of(x), float(relu(x).var())
    offered = list(sparing_relu_codes(relu, K, seen))
    for price in PRICES[1:]:
        p = fit_site(relu, K, seen, spike_price=price)
        worth = [error(q, x, relu) / variance + price * spikes(q, x) for q in (p, *offered)]
        assert worth[0] <= 1.001 * min(worth[1:])


def test_a_relu_with_a_price_keeps_the_form_that_integers_need():
    seen = Histogram.of(inputs())
    for price in PRICES:
        assert is_binary(fs.FSNeuron(fit_site(Activation("relu"), 8, seen, spike_price=price)))


def test_a_capped_relu_spends_a_step_on_its_cap_when_that_pays():
    x = inputs(scale=6.0)
    seen = Histogram.of(x)
    priced = fit_site(RELU6, 6, seen, spike_price=0.003)
    assert priced.h[0] > 6.0
    assert spikes(priced, x) < 0.8 * spikes(fit_site(RELU6, 6, seen), x)
    assert priced.domain == (-np.inf, np.inf)


def test_a_capped_relu_that_never_reaches_its_cap_spends_no_step_on_it():
    seen = Histogram.of(inputs().clamp(max=3.0))
    assert all((p.h < 6.0).all() for p in sparing_relu_codes(RELU6, 5, seen))


def test_the_unit_of_the_price_is_the_variance_of_the_output():
    seen, wide = Histogram.of(inputs()), Histogram.of(inputs() * 4)  # a ReLU scales with its inputs
    one, other = (fit_site(Activation("relu"), 6, h, spike_price=0.01) for h in (seen, wide))
    assert (other.T / one.T).tolist() == pytest.approx([4.0] * 6, rel=1e-3)


def test_an_expression_needs_no_more_than_a_label_a_json_form_and_to_be_called():
    class Softsign:
        name, cap, label, domain, turning_points = "expression", None, "softsign", (-8.0, 8.0), None

        def __call__(self, x):
            return x / (1 + x.abs())

        def to_json(self):
            return {"expression": ["div", "x", ["add", 1, ["abs", "x"]]]}

    p = fit_site(Softsign(), 6, Histogram.of(inputs()))
    assert error(p, inputs(), Softsign()) < 1e-3
    assert p.activation == "softsign"
    assert fs.fitting.largest_error(p, Softsign()) is None


@pytest.mark.parametrize("name", ["silu", "sigmoid", "gelu"])
@pytest.mark.parametrize("value", [0.0, -3.0, 0.7])
def test_a_constant_input_comes_out_right_without_a_spike(name, value):
    x = torch.full((100,), value)
    p = fit_site(Activation(name), 4, Histogram.of(x))
    y, fired = fs.apply(x, p)
    assert y.tolist() == pytest.approx(Activation(name)(x).tolist(), abs=1e-6)
    assert int(fired.sum()) == 0


@pytest.mark.parametrize("name", ["relu", "silu", "hardswish"])
def test_inputs_that_are_all_negative_are_no_trouble(name):
    x = -inputs().abs() - 4.0
    assert error(fit_site(Activation(name), 4, Histogram.of(x)), x, Activation(name)) < 1e-4


def test_a_fit_is_the_same_again_from_memory_from_disk_and_from_nothing(own_cache):
    seen = Histogram.of(inputs())
    first = fit_site(SILU, 4, seen)
    assert fit_site(SILU, 4, seen) is first
    cache.forget()
    assert fit_site(SILU, 4, seen) == first
    for file in own_cache.iterdir():
        file.unlink()
    cache.forget()
    assert fit_site(SILU, 4, seen) == first


def kept_file(own_cache):
    (file,) = own_cache.iterdir()
    return file, json.loads(file.read_text())


def test_the_disk_is_what_is_read(own_cache):
    seen = Histogram.of(inputs())
    first = fit_site(SILU, 4, seen)
    file, _ = kept_file(own_cache)
    other = fs.FSParameters(first.T, first.h, first.d, 123.0, "silu", first.domain, first.provenance)
    cache.keep(file.stem, other)
    cache.forget()
    assert fit_site(SILU, 4, seen).offset == 123.0


def test_a_damaged_file_counts_as_none(own_cache):
    seen = Histogram.of(inputs())
    first = fit_site(SILU, 4, seen)
    file, content = kept_file(own_cache)
    changed = content | {"parameters": content["parameters"] | {"offset": 123.0}}
    endless = json.dumps(content).replace(str(content["parameters"]["T"][0]), "Infinity", 1)
    whole = json.dumps(content)
    for damaged in (json.dumps(changed), endless, whole[:-9], "[]", "{}", '{"format": "fewspikes-fit"}', "\xff"):
        file.write_text(damaged, encoding="latin-1")
        cache.forget()
        assert fit_site(SILU, 4, seen) == first


@pytest.mark.parametrize(("name", "K"), [("silu", 3), ("gelu", 4)])
def test_a_whole_file_of_another_activation_or_k_counts_as_none(own_cache, name, K):
    seen = Histogram.of(inputs())
    first = fit_site(SILU, 4, seen)
    file, _ = kept_file(own_cache)
    cache.keep(file.stem, fs.fit(name, K, effort="quick").parameters)
    cache.forget()
    assert fit_site(SILU, 4, seen) == first


def test_a_file_under_another_name_counts_as_none(own_cache):
    seen = Histogram.of(inputs())
    first = fit_site(SILU, 4, seen)
    file, _ = kept_file(own_cache)
    other = fit_site(SILU, 4, seen, offset=False)
    (wrong,) = (found for found in own_cache.iterdir() if found != file)
    file.write_bytes(wrong.read_bytes())
    cache.forget()
    assert fit_site(SILU, 4, seen) == first != other


def test_every_setting_and_every_count_has_a_fit_of_its_own(own_cache):
    seen, fewer = Histogram.of(inputs()), Histogram.of(inputs()[1:])
    for arguments in ({}, {"seed": 1}, {"spike_price": 0.5}, {"offset": False}, {"effort": "quick"}):
        fit_site(SILU, 3, seen, **arguments)
    fit_site(SILU, 3, fewer)
    fit_site(SILU, 2, seen)
    fit_site(Activation("gelu"), 3, seen)
    assert len(list(own_cache.iterdir())) == 8


def test_the_cache_can_be_off_and_need_not_be_writable(own_cache, monkeypatch):
    monkeypatch.setenv("FEWSPIKES_CACHE", "off")
    fit_site(SILU, 3, Histogram.of(inputs()))
    assert not own_cache.exists()
    monkeypatch.setenv("FEWSPIKES_CACHE", "/dev/null/nowhere")
    fit_site(SILU, 2, Histogram.of(inputs()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"K": 0}, "K must be a whole number from 1 to 24"),
        ({"effort": "best"}, "effort must be"),
        ({"spike_price": -1}, "spike_price must be a finite number >= 0"),
        ({"spike_price": np.inf}, "spike_price must be a finite number >= 0; got inf"),
        (
            {"inputs": Histogram.of(torch.linspace(-1, 1.3, 257)), "activation": Activation("reciprocal")},
            "not finite at x",
        ),
        ({"activation": Activation("reciprocal")}, "reciprocal is not finite at x = 0"),
        ({"activation": Activation("rsqrt")}, "rsqrt is not finite"),
        ({"inputs": Histogram(0.0, 1.0, -12, 0, np.zeros(4097, np.int64))}, "holds no counts"),
    ],
)
def test_what_cannot_be_fitted_raises(arguments, message):
    seen = Histogram.of(torch.linspace(-1, 1, 257))
    with pytest.raises(fs.FewSpikesError, match=message):
        fit_site(**{"activation": SILU, "K": 4, "inputs": seen, **arguments})


def test_sites_fitted_at_once_come_out_as_one_after_the_other(monkeypatch):
    monkeypatch.setenv("FEWSPIKES_CACHE", "off")
    seen = [Histogram.of(inputs(scale=scale)) for scale in (0.5, 1.0, 2.0, 3.0)]
    alone = [fit_site(SILU, 5, histogram) for histogram in seen]
    cache.forget()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(partial(fit_site, SILU, 5), seen))
    assert together == alone


def test_inputs_far_smaller_than_a_bin_are_fitted():
    x = 1e-38 * torch.randn(1000)
    p = fs.fitting.fit_site(Activation("silu"), 4, Histogram.of(x))
    assert np.isfinite(p.numbers).all()
    assert np.abs(p.numbers).max() < 1e-36


def test_the_margin_stops_short_of_a_pole_that_no_input_reaches():
    x = 0.05 + torch.rand(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = fit_site(Activation("reciprocal"), 10, Histogram.of(x))
    assert 0 < p.domain[0] <= float(x.min())
    with pytest.raises(fs.FewSpikesError, match="reciprocal is not finite at x"):
        fit_site(Activation("reciprocal"), 10, Histogram.of(torch.cat([x, -x])))


RECIPROCAL, EFFORTS = Activation("reciprocal"), ("quick", "normal")


def heavy(n=20_000):
    """Sums from 1e-5 on, of which most are near 1 and the largest beyond 500."""
    generator = torch.Generator().manual_seed(3)
    return torch.cat([torch.randn(n, generator=generator, dtype=torch.float64).mul(1.5).exp(), torch.tensor([1e-5])])


def test_inputs_at_a_pole_that_count_for_nothing_do_not_spoil_a_fit():
    x = 1 + 9 * torch.rand(20_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    seen = torch.cat([x, torch.full((200,), 1e-12, dtype=torch.float64)])
    weights = Weights.of(seen, torch.where(seen < 1, 0.0, seen.square()))
    p = fit_site(RECIPROCAL, 12, Histogram.of(seen), weights=weights, effort="quick")
    assert p.domain[0] == 1e-12
    assert float((fs.apply(x, p)[0] * x - 1).square().mean().sqrt()) < 0.05


def test_a_reciprocal_of_sums_over_many_decades_is_right_for_most_of_them():
    x = heavy()
    p = fit_site(RECIPROCAL, 16, Histogram.of(x), weights=Weights.of(x, x.square()), effort="quick")
    relative = (fs.apply(x, p)[0] * x - 1).abs()
    assert float(relative.quantile(0.5)) < 0.1
    assert float(relative.square().mean().sqrt()) < 0.5


@pytest.mark.parametrize("name", ["reciprocal", "rsqrt"])
def test_a_quick_fit_of_what_no_table_is_shipped_for_makes_a_code_of_its_own(name):
    activation, x = Activation(name), inputs(20_000).square() + 0.1
    quick, normal = (error(fit_site(activation, 8, Histogram.of(x), effort=e), x, activation) for e in EFFORTS)
    assert quick < 3 * normal
