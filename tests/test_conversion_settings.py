"""What parameters each site gets: with and without data, K and alpha, budgets of numbers that are out of range."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewspikes as fs
from fewspikes.conversion.building import calibrate_model
from fewspikes.conversion.settings import Settings, circuits_of
from networks import small, squeeze_excite

IMAGES = torch.zeros(1, 3, 8, 8)


def test_without_data_and_k_it_is_the_papers_setting():
    class All(nn.Module):
        def forward(self, x):
            return F.silu(F.relu(x) + F.relu6(x)) + torch.sigmoid(x)

    snn = fs.convert(All().eval(), IMAGES)
    tables = [neuron.code for neuron in snn.neurons.values()]
    assert tables[0] == fs.published("relu")
    assert tables[1] == fs.relu_parameters(10, 6.0, "down", cap=6.0)
    assert tables[2:] == [fs.published("silu"), fs.published("sigmoid")]


def test_spelling_the_papers_setting_out_gives_the_same():
    snn = fs.convert(small(), IMAGES, K=10, alpha=25.0, rounding="down")
    assert all(neuron.code == fs.published("relu") for neuron in snn.neurons.values())


def test_k_without_data_warns_that_alpha_is_25():
    with pytest.warns(fs.FewSpikesWarning, match="K=6 without calibration data: alpha=25"):
        snn = fs.convert(small(), IMAGES, K=6)
    assert all(neuron.code == fs.relu_parameters(6, 25.0, "nearest") for neuron in snn.neurons.values())


def test_with_data_it_is_k_8_rounded_to_nearest_and_fitted_per_site():
    snn = fs.convert(small(), IMAGES, calibration=torch.randn(64, 3, 8, 8))
    tables = [neuron.code for neuron in snn.neurons.values()]
    assert [table.K for table in tables] == [8, 8]
    assert tables[0].provenance["rounding"] == "nearest"
    assert tables[0].provenance["alpha"] != tables[1].provenance["alpha"]
    assert snn.report.calibration_images == 64


def test_alpha_wins_over_calibration():
    snn = fs.convert(small(), IMAGES, calibration=torch.randn(8, 3, 8, 8), K=8, alpha=4.0)
    assert all(neuron.code == fs.relu_parameters(8, 4.0, "nearest") for neuron in snn.neurons.values())


def test_a_k_without_a_table_raises():
    with pytest.raises(fs.FewSpikesError, match="site act is a silu: .*K=2.*; give images to calibrate on"):
        fs.convert(squeeze_excite(), IMAGES, K=2)


def test_a_k_with_shipped_tables_needs_no_data():
    snn = fs.convert(squeeze_excite(), IMAGES, K=8)
    assert {neuron.code.K for neuron in snn.neurons.values()} == {8}


def test_with_data_every_site_is_fitted_to_what_it_sees():
    images = torch.randn(64, 3, 8, 8)
    fitted = fs.convert(squeeze_excite(), IMAGES, calibration=images, K=6, repair=False)
    shipped = fs.convert(squeeze_excite(), IMAGES, K=6)
    wanted = fitted.as_ann()(images)
    assert (fitted(images) - wanted).square().mean() < 0.25 * (shipped(images) - wanted).square().mean()
    assert len({neuron.code.domain for neuron in fitted.neurons.values()}) == 3


def test_without_offset_no_code_has_one():
    images = torch.randn(64, 3, 8, 8)
    for offset in (True, False):
        snn = fs.convert(squeeze_excite(), IMAGES, calibration=images, K=5, offset=offset, repair=False)
        assert any(neuron.code.offset for neuron in snn.neurons.values()) == offset


def test_k_by_site_is_what_each_site_gets():
    images, k = torch.randn(64, 3, 8, 8), {"relu1": 3, "relu2": 7}
    snn = fs.convert(small(), IMAGES, calibration=images, K=k)
    assert snn.report.k == k


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effort": "best"}, "effort must be 'quick', 'normal' or 'long'"),
        ({"spike_price": -0.1}, "spike_price must be a finite number >= 0"),
        ({"spike_price": float("nan")}, "spike_price must be a finite number >= 0"),
        ({"offset": 1}, "offset must be True or False"),
        ({"repair": "yes"}, "repair must be True, False or None"),
        ({"spike_price": 1e7}, "spike_price must be at most 1e"),
        ({"seed": -1}, "seed must be a whole number from 0 to"),
        ({"distil": "1"}, "distil, in minutes, must be a finite number > 0"),
    ],
)
def test_a_setting_of_the_fit_out_of_range_raises(options, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(small(), IMAGES, calibration=torch.randn(8, 3, 8, 8), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repair": True}, "repair=True cannot act: no images are given"),
        ({"repair": True, "alpha": 3.0, "images": torch.zeros(2, 3, 8, 8)}, "repair=True cannot act: alpha keeps"),
        ({"max_steps": 9}, "a budget cannot act: no images are given"),
        ({"distil": 1.0}, "distilling cannot act: no images are given"),
    ],
)
def test_a_setting_about_images_that_cannot_act_raises(options, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(small(), IMAGES, **options)


def test_a_shortcut_and_the_settings_object_give_the_same_network():
    images = torch.randn(64, 3, 8, 8)
    codes = fs.Codes(K=4, offset=False, effort="quick", spike_price=0.02)
    short = fs.convert(squeeze_excite(), IMAGES, images, K=4, offset=False, effort="quick", spike_price=0.02)
    long = fs.convert(squeeze_excite(), IMAGES, images, codes=codes)
    also = fs.convert(squeeze_excite(), IMAGES, images, K=4, codes=replace(codes, K=None))
    assert short.settings == long.settings == also.settings
    assert [n.code for n in short.neurons.values()] == [n.code for n in long.neurons.values()]
    within, given = (
        fs.convert(small(), IMAGES, images, **options)
        for options in ({"max_steps": 9, "max_spikes": 0.8}, {"K": fs.Budget(steps=9, spikes=0.8)})
    )
    assert within.settings == given.settings
    assert within.report.k == given.report.k


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": fs.Codes(), "alpha": 3.0}, "alpha: given twice, as codes say it, too"),
        ({"codes": fs.Codes(K=4), "K": 4}, "K: given twice, as codes say it, too"),
        ({"codes": fs.Codes(), "repair": False, "effort": "quick"}, "effort, repair: given twice"),
        ({"K": fs.Budget(steps=9), "max_steps": 9}, "max_steps: K is a budget already"),
        ({"K": 4, "max_drop": 1.0}, "a budget chooses K"),
        ({"K": fs.Budget(steps=9), "codes": fs.Codes(K=4)}, "K: given twice"),
        ({"K": fs.Budget(steps=9), "alpha": 2.0}, "a budget chooses K and ranges: give neither K nor alpha"),
        ({"images": IMAGES, "calibration": IMAGES}, "two names of one thing"),
    ],
)
def test_what_is_said_twice_raises(options, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(small(), IMAGES, **options)


def test_how_it_was_made_is_kept_and_comes_back_from_json():
    images = torch.randn(32, 3, 8, 8)
    snn = fs.convert(small(), IMAGES, images, K=5, seed=3, circuits={"max": "average"})
    again = Settings.from_json(json.loads(json.dumps(snn.settings)))
    chosen = {"max": "average", "product": "digital", "input": "analog", "linear": "collapsed"}
    assert again == Settings(fs.Codes(K=5), None, chosen, None, 3)
    budget = fs.Budget(drop=1.0, steps=9, minimise="spikes")
    whole = Settings(fs.Codes(spike_price=0.1), budget, circuits_of("digital"), 2.5)
    assert Settings.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    with pytest.raises(fs.FewSpikesError, match="no settings of the kind Codes"):
        fs.Codes.from_json({"K": 4, "colour": "blue"})
    with pytest.raises(fs.FewSpikesError, match="K must be a whole number"):
        fs.Codes.from_json({"K": 99})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "halved",
            "circuits: every kind: 'halved' is not built; there is max: digital or average or neurons; product",
        ),
        ("halved", "; one word for all: digital or average or neurons or gated or shifted$"),
        ({"product": "average"}, "'product': 'average' is not built"),
        (
            {"softmax": "digital"},
            r"'softmax' is no kind \(max, product, input, linear\) and fits the path of no module",
        ),
        ({"layer9.*": "neurons"}, r"'layer9.\*' is no kind .* and fits the path of no module"),
        (7, r"circuits= takes one word or a dict such as .*; got 7"),
        ([], r"circuits= takes one word or a dict such as .*; got \[\]"),
        ({"layer9.*": 3}, r"circuits: modules 'layer9.\*': 3 is not built"),
    ],
)
def test_a_circuit_that_is_not_built_raises(given, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(small(), IMAGES, circuits=given)
    usual = {"max": "digital", "product": "digital", "input": "analog", "linear": "collapsed"}
    assert circuits_of("digital") == usual
    assert circuits_of("average") == usual | {"max": "average"}
    assert circuits_of("neurons") == usual | {"max": "neurons", "product": "neurons", "input": "spikes"}
    assert circuits_of("gated") == usual | {"max": "neurons", "product": "gated", "input": "spikes"}


def test_a_warning_points_at_the_line_of_the_caller():
    with pytest.warns(fs.FewSpikesWarning) as seen:
        fs.convert(small(), IMAGES, K=6)
    assert seen[0].filename == __file__


def test_the_report_says_where_neurons_run_as_a_plain_loop():
    snn = fs.convert(small(), IMAGES)
    assert snn.report.engine == "compiled"
    assert "plain loop" not in str(snn.report)
    elsewhere = snn.to("meta")  # as on any device without a kernel
    assert elsewhere.report.engine == "reference"
    assert "neurons run as a plain loop" in str(elsewhere.report)


@pytest.mark.parametrize(
    ("K", "message"),
    [
        ({"relu1": 3, "relu2": 4, "relu9": 5}, "there is no site 'relu9'; this network's sites are relu1, relu2"),
        ({"relu1": 3}, r"site 'relu2' has no K \(1 of 2 sites lack one\)"),
        ({"relu1": 3, "relu2": 0}, "K must be a whole number from 1 to 24; got 0"),
    ],
)
def test_k_by_site_names_what_is_unknown_and_what_is_missing(K, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(small(), IMAGES, K=K, alpha=4.0)


@pytest.mark.parametrize("change", [lambda snn: snn.half(), lambda snn: snn.to(torch.bfloat16)])
def test_half_precision_is_refused_and_leaves_the_network_as_it_was(change):
    snn = fs.convert(small(), IMAGES)
    wanted = snn(IMAGES)
    with pytest.raises(fs.FewSpikesError, match=r"FS-neurons compute in float32 or float64; torch\.\w+ cannot"):
        change(snn)
    assert torch.equal(snn(IMAGES), wanted)


@pytest.mark.parametrize("K", [0, 25, True, 2.5])
def test_a_k_out_of_range_raises(K):
    with pytest.raises(fs.FewSpikesError, match="K must be a whole number from 1 to 24"):
        fs.convert(small(), IMAGES, K=K)


def test_calibrating_once_serves_several_k():
    x = torch.randn(32, 3, 8, 8)
    seen = calibrate_model(small(), IMAGES, x)
    for K in (4, 6):
        once, twice = (
            fs.convert(small(), IMAGES, calibration=seen, K=K),
            fs.convert(small(), IMAGES, calibration=x, K=K),
        )
        assert [n.code for n in once.neurons.values()] == [n.code for n in twice.neurons.values()]


def test_calibration_is_the_same_however_the_images_are_batched():
    x = torch.randn(32, 3, 8, 8)
    a = calibrate_model(small(), IMAGES, [x[:16], x[16:]])
    b = calibrate_model(small(), IMAGES, [(x[16:], torch.zeros(16)), (x[:16], torch.zeros(16))])
    assert {k: h.to_json() for k, h in a.sites.items()} == {k: h.to_json() for k, h in b.sites.items()}


def test_a_calibration_of_another_network_raises():
    seen = calibrate_model(small(), IMAGES, torch.randn(4, 3, 8, 8))
    with pytest.raises(fs.FewSpikesError, match="the calibration is for 2 other sites"):
        fs.convert(squeeze_excite(), IMAGES, calibration=seen)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (
            torch.randn(4, 3, 9, 9),
            r"calibration data: x has shape \[batch, 3, 9, 9\].*converted for \[batch, 3, 8, 8\]",
        ),
        (torch.full((4, 3, 8, 8), float("nan")), "calibration data holds NaN or inf"),
        (torch.randn(4, 3, 8, 8).half(), "calibration data: x is torch.float16, the network takes torch.float32"),
        ([], "calibration data is empty"),
        (torch.zeros(0, 3, 8, 8), "calibration data is empty"),
        (iter([torch.randn(4, 3, 8, 8)]), "one-shot iterator"),
        (5, "must be a tensor or a re-iterable"),
        (np.zeros((4, 3, 8, 8), np.float32), r"is a NumPy array; give torch.from_numpy\(array\)"),
        ([{"image": torch.zeros(1)}], "a batch lacks x"),
        ([("a", 1)], "x must be a tensor; got str"),
    ],
)
def test_calibration_data_that_do_not_fit_raise(calibration, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(small(), IMAGES, calibration=calibration)


def test_another_image_size_says_both_sizes():
    snn = fs.convert(small(), IMAGES)
    with pytest.raises(
        fs.FewSpikesError, match=r"\[batch, 3, 16, 16\], the network was converted for \[batch, 3, 8, 8\]"
    ):
        snn(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.float64])
def test_another_dtype_is_refused(dtype):
    snn = fs.convert(small(), IMAGES)
    with pytest.raises(fs.FewSpikesError, match=f"x is {dtype}, the network takes torch.float32"):
        snn(torch.zeros(1, 3, 8, 8).to(dtype))


def test_autocast_around_the_spiking_network_is_refused():
    snn = fs.convert(small(), IMAGES)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(fs.FewSpikesError, match=r"leave torch\.autocast"):
        snn(torch.zeros(1, 3, 8, 8))


def test_inputs_go_by_position_or_name():
    snn, x = fs.convert(small(), IMAGES), torch.randn(2, 3, 8, 8)
    assert torch.equal(snn(x=x), snn(x))
    with pytest.raises(fs.FewSpikesError, match="takes the inputs x; got 1 by position and y by name"):
        snn(x, y=x)


def test_a_float64_network_computes_in_float64():
    snn = fs.convert(small().double(), IMAGES.double())
    assert snn(torch.randn(2, 3, 8, 8, dtype=torch.float64)).dtype is torch.float64


def test_inference_keeps_no_record_for_backpropagation():
    assert not fs.convert(small(), IMAGES)(torch.randn(1, 3, 8, 8)).requires_grad


@pytest.mark.parametrize("alpha", [0, -1.0, "wide"])
def test_an_alpha_that_is_no_range_raises(alpha):
    with pytest.raises(fs.FewSpikesError, match="alpha must be"):
        fs.convert(small(), IMAGES, alpha=alpha)


def test_a_cap_wins_over_alpha_with_a_warning_where_alpha_has_no_effect():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU6()).eval()
    with pytest.warns(fs.FewSpikesWarning, match="alpha has no effect: the network has no uncapped ReLU"):
        snn = fs.convert(model, IMAGES, K=10, alpha=25.0, rounding="down")
    assert [neuron.code for neuron in snn.neurons.values()] == [fs.relu_parameters(10, 6.0, "down", cap=6.0)]


@pytest.mark.parametrize("rounding", ["up", ""])
def test_an_unknown_rounding_raises_even_where_no_relu_needs_it(rounding):
    with pytest.raises(fs.FewSpikesError, match="rounding must be 'down' or 'nearest'"):
        fs.convert(squeeze_excite(), IMAGES, rounding=rounding)


def test_numbers_of_numpy_and_torch_serve_as_k_and_alpha(tmp_path):
    snn = fs.convert(small(), IMAGES, K=np.int64(6), alpha=torch.tensor(4.0))
    fs.save(snn, tmp_path / "net.fs")
    assert fs.load(tmp_path / "net.fs").report == snn.report
