"""A layer's own fit: to what it sees, with care for the tail, and kept for the next time."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

import fewspikes as fs
from fewspikes.fitting import cache, fit_site
from fewspikes.fitting.histogram import Histogram
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


def test_a_few_inputs_far_out_do_not_come_out_wild():
    x = torch.cat([inputs(1_000_000), torch.tensor([-30.0, 25.0, 40.0], dtype=torch.float64)])
    p = fit_site(SILU, 8, Histogram.of(x))
    whole = torch.linspace(-30, 40, 1001, dtype=torch.float64)
    assert float((fs.apply(whole, p)[0] - SILU(whole)).abs().max()) < 12
    assert float((fs.apply(whole, fit_site(SILU, 8, Histogram.of(x), floor=0.0))[0] - SILU(whole)).abs().max()) > 12


def test_a_price_on_spikes_saves_spikes():
    x, seen = inputs(), Histogram.of(inputs())
    assert spikes(fit_site(SILU, 8, seen, spike_weight=1.0), x) < spikes(fit_site(SILU, 8, seen), x) - 0.1


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


@pytest.mark.parametrize("K", [3, 5, 8])
def test_a_price_on_spikes_moves_a_relus_thresholds_where_that_costs_least(K):
    relu, x = Activation("relu"), inputs()
    seen = Histogram.of(x)
    found = [fit_site(relu, K, seen, spike_weight=weight) for weight in (0.0, 1.0, 3.0, 8.0)]
    errors, fired = [error(p, x, relu) for p in found], [spikes(p, x) for p in found]
    assert errors == sorted(errors)
    assert fired == sorted(fired, reverse=True)
    alphas = found[0].provenance["alpha"] * np.linspace(0.7, 1.5, 33)
    plain = [fs.relu_parameters(K, float(alpha), "nearest") for alpha in alphas]
    for weight, e, f in zip((1.0, 3.0, 8.0), errors[1:], fired[1:], strict=True):  # no range by itself does as well
        assert np.log(e) + weight * f < min(np.log(error(p, x, relu)) + weight * spikes(p, x) for p in plain)


def test_a_capped_relu_spends_a_step_on_its_cap_when_that_pays():
    x = inputs(scale=6.0)
    seen = Histogram.of(x)
    binary, forced = fit_site(RELU6, 6, seen), fit_site(RELU6, 6, seen, cap_step=True)
    assert binary == fs.fitting.least_error_relu(6, seen, "nearest", 6.0)
    priced = fit_site(RELU6, 6, seen, spike_weight=8.0)
    assert priced == fit_site(RELU6, 6, seen, spike_weight=8.0, cap_step=True)
    assert priced.h[0] > 6.0
    assert spikes(forced, x) < 0.8 * spikes(binary, x)
    assert forced.domain == (-np.inf, np.inf)


def test_a_capped_relu_that_never_reaches_its_cap_spends_no_step_on_it():
    seen = Histogram.of(inputs().clamp(max=3.0))
    assert fit_site(RELU6, 6, seen, cap_step=True) == fit_site(RELU6, 6, seen, cap_step=False)


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


def test_the_disk_is_what_is_read_and_a_damaged_file_is_not(own_cache):
    seen = Histogram.of(inputs())
    first = fit_site(SILU, 4, seen)
    (file,) = own_cache.iterdir()
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"offset": 123.0}))
    cache.forget()
    assert fit_site(SILU, 4, seen).offset == 123.0
    for damaged in ('{"format": ', "[]", "{}", '{"version": 1}', "\xff"):
        file.write_text(damaged, encoding="latin-1")
        cache.forget()
        assert fit_site(SILU, 4, seen) == first


def test_every_setting_and_every_count_has_a_fit_of_its_own(own_cache):
    seen, fewer = Histogram.of(inputs()), Histogram.of(inputs()[1:])
    for arguments in ({}, {"seed": 1}, {"spike_weight": 0.5}, {"offset": False}, {"floor": 0.1}, {"effort": "quick"}):
        fit_site(SILU, 3, seen, **arguments)
    fit_site(SILU, 3, fewer)
    fit_site(SILU, 2, seen)
    fit_site(Activation("gelu"), 3, seen)
    assert len(list(own_cache.iterdir())) == 9


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
        ({"spike_weight": -1}, "spike_weight must be a number >= 0"),
        ({"floor": 2.0}, "floor must be from 0 to 1"),
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
