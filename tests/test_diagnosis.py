"""Where accuracy goes: every number of a diagnosis against one worked out by hand or measured in another way."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import fewspikes as fs
from fewspikes.measure.deal import Images
from fewspikes.measure.diagnosis import diagnose
from fewspikes.network.sites import SiteDiagnosis
from networks import small, squeeze_excite


def layered(*weights, biases=None):
    """Linear layers with ReLUs between them, of the weights given."""
    layers = []
    for i, weight in enumerate(weights):
        layer = nn.Linear(len(weight[0]), len(weight))
        layer.weight.data = torch.tensor(weight, dtype=torch.float32)
        layer.bias.data = torch.zeros(len(weight)) if biases is None else torch.tensor(biases[i], dtype=torch.float32)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval().requires_grad_(False)


def converted(model, example, *tables):
    """The network with these parameters, site by site."""
    snn = fs.convert(model, example, K=4, alpha=4.0)
    neurons = {site.name: fs.FSNeuron(table) for site, table in zip(snn.sites, tables, strict=True)}
    return snn.with_neurons(neurons)


def report_with(snn, found):
    sites = (replace(site, diagnosis=found[site.name]) for site in snn.report.sites)
    return replace(snn.report, sites=tuple(sites))


def relu(K, alpha, rounding="nearest"):
    return fs.relu_parameters(K, alpha, rounding)


def relative(got, wanted):
    return float((got - wanted).square().mean() / wanted.var(unbiased=False))


def from_image_to_image(got, wanted):
    return float((got - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


def test_the_only_site_has_its_own_error_and_inherits_nothing():
    model, x = layered([[1.0, -1.0], [0.5, 2.0]], [[1.0, 1.0]]), torch.randn(64, 2)
    found = diagnose(converted(model, x, relu(3, 4.0)), Images((x,)))["1"]
    gates = model[0](x)
    y = fs.apply(gates, relu(3, 4.0))[0]
    assert found.own_error == found.error == pytest.approx(relative(y, torch.relu(gates)), rel=1e-4)
    assert found.inherited_error == 0
    cosine = torch.nn.functional.cosine_similarity(y.flatten(), torch.relu(gates).flatten(), dim=0)
    assert found.cosine == pytest.approx(float(cosine), rel=1e-5)
    assert found.images == 64


def test_a_perfect_site_has_no_error_and_cosine_1():
    x = torch.randint(-8, 8, (32, 1)).float()  # multiples of the step, within the range
    found = diagnose(converted(layered([[1.0]], [[1.0]]), x, relu(3, 8.0, "down")), Images((x,)))["1"]
    assert (found.own_error, found.error, found.output_error) == (0, 0, 0)
    assert found.cosine == pytest.approx(1)


def test_with_one_output_the_first_sites_share_is_the_outputs_error_itself():
    # One output and one site: the first-order estimate has nothing left to estimate, random signs are 1 or -1.
    model, x = layered([[1.0, -1.0], [0.5, 2.0]], [[2.0, -1.0]]), torch.randn(64, 2)
    snn = converted(model, x, relu(3, 4.0))
    found = diagnose(snn, Images((x,), size=40))["1"]
    assert found.output_error == pytest.approx(from_image_to_image(snn(x), model(x)), rel=1e-4)


def test_what_a_site_adds_to_the_output_is_what_it_does_there_alone():
    snn, x = fs.convert(small(), torch.zeros(1, 3, 8, 8), K=8, alpha=8.0), torch.randn(128, 3, 8, 8)
    found = diagnose(snn, Images((x,)))
    wanted = snn.as_ann()(x)
    for site in snn.sites:
        alone = snn.running({site.name: snn.neurons[site.name]})
        assert found[site.name].output_error == pytest.approx(from_image_to_image(alone(x), wanted), rel=0.2)


def test_a_coarse_first_site_is_the_worst_and_the_second_only_inherits():
    model, x = layered([[1.0, -1.0], [0.5, 2.0]], [[1.0, -0.5], [1.0, 2.0]], [[1.0, 1.0]]), torch.randn(96, 2)
    snn = converted(model, x, relu(2, 6.0), relu(14, 24.0))
    found = diagnose(snn, Images((x,)))
    assert found["3"].own_error < 1e-6
    assert found["3"].inherited_error == pytest.approx(found["3"].error, rel=1e-2)
    (line,) = report_with(snn, found).worst()
    assert line.startswith("1: 100% of the output's error; K=2 is few here (its own error is ")
    assert line.endswith("Try K=3 or 4 here, or calibrating with repair=True")


def test_a_site_that_inherits_most_of_its_error_says_so():
    model, x = layered([[1.0, -1.0], [0.5, 2.0]], [[1.0, -0.5], [1.0, 2.0]], [[1.0, 1.0]]), torch.randn(96, 2)
    snn = converted(model, x, relu(2, 6.0), relu(4, 10.0))
    found = diagnose(snn, Images((x,)))
    lines = report_with(snn, found).worst()
    assert [line.partition(":")[0] for line in lines] == ["1", "3"]
    assert "it passes on more error than it adds" in lines[1]
    assert "passes on" not in lines[0]


def test_sites_that_err_for_one_reason_share_a_line():
    model, x = layered([[1.0, -1.0], [0.5, 2.0]], [[1.0, -0.5], [1.0, 2.0]], [[1.0, 1.0]]), torch.randn(96, 2)
    snn = converted(model, x, relu(2, 6.0), relu(2, 10.0))
    report = report_with(snn, diagnose(snn, Images((x,))))
    alike = [replace(site, diagnosis=replace(site.diagnosis, inherited_error=0.0)) for site in report.sites]
    (line,) = replace(report, sites=tuple(alike)).worst()
    assert re.fullmatch(
        r"\d: \d+%, \d: \d+% of the output's error; K=2 is few here \(their own errors are \S+%, \S+% of "
        r"their variances\)\. Try K=3 or 4 here, or calibrating with repair=True",
        line,
    )
    passing = [replace(site, diagnosis=replace(site.diagnosis, inherited_error=9.0)) for site in report.sites]
    (line,) = replace(report, sites=tuple(passing)).worst()
    assert "; they pass on more error than they add. Try" in line


def test_inputs_outside_the_range_are_counted_and_blamed():
    x = torch.tensor([[-1.0], [0.5], [1.0], [3.0], [5.0], [7.0], [9.0], [2.0]])
    snn = converted(layered([[1.0]], [[1.0]]), x, relu(6, 2.0))
    found = diagnose(snn, Images((x,)))
    assert found["1"].clipped_fraction == 4 / 8  # 3, 5, 7 and 9 lie above 2
    assert found["1"].clipped_error > 0.99
    (line,) = report_with(snn, found).worst(1)
    assert "50% of its inputs lie outside its range [-inf, 2] and make 100% of its own error" in line
    assert "calibrating on more images" in line


def test_steps_that_never_fire_are_counted_and_a_wide_range_is_blamed():
    x = torch.rand(64, 1)  # below 1: of the steps 12.5, 6.25, 3.125, 1.5625, 0.78, ... four are too large
    snn = converted(layered([[1.0]], [[1.0]]), x, relu(6, 25.0, "down"))
    found = diagnose(snn, Images((x,)))
    assert found["1"].idle_steps == 4
    assert "4 of its 6 steps never fire: its range is too wide" in report_with(snn, found).worst(1)[0]


def test_dead_and_always_firing_neurons_and_silent_channels():
    # Four neurons: one always above its lowest threshold, one never, two that go with the input's sign.
    model = layered([[0.0], [0.0], [1.0], [-1.0]], [[1.0, 1.0, 1.0, 1.0]], biases=[[3.0, -3.0, 0.0, 0.0], [0.0]])
    x = torch.tensor([[1.0], [2.0], [-2.0]])
    snn = converted(model, x, relu(3, 4.0))
    found = diagnose(snn, Images((x,), size=2))
    assert found["1"].always_fraction == 1 / 4
    assert found["1"].dead_fraction == 1 / 4
    assert (found["1"].channels, found["1"].silent_channels) == (4, 1)
    # With steps of 0.5: 3 is 2 + 1 in each image, 1 and 2 and 2 are one spike each.
    assert found["1"].spikes_per_neuron == (3 * 2 + 1 + 1 + 1) / 12
    assert "note: 1 channel never fires in 3 images, so it stays at its offset" in str(report_with(snn, found))


def test_a_constant_activation_is_named_and_its_errors_stay_finite():
    model = layered([[0.0]], [[1.0]], biases=[[1.3], [0.0]])
    x = torch.randn(16, 1)
    snn = converted(model, x, relu(3, 4.0))
    found = diagnose(snn, Images((x,)))
    assert found["1"].constant
    assert found["1"].own_error == pytest.approx((0.2 / 1.3) ** 2, rel=1e-4)  # 1.3 becomes 1.5, over 1.3 squared
    assert "note: 1: constant, the ANN's output here is one number everywhere" in str(report_with(snn, found))


def test_an_activation_that_is_zero_everywhere_has_an_absolute_error():
    model, x = layered([[0.0]], [[1.0]], biases=[[-2.0], [0.0]]), torch.randn(8, 1)
    found = diagnose(converted(model, x, relu(3, 4.0)), Images((x,)))["1"]
    assert (found.own_error, found.cosine, found.idle_steps, found.spikes_per_neuron) == (0, 1, 0, 0)


def test_the_largest_error_is_the_staircases_and_grows_with_a_channels_range():
    model, x = layered([[1.0], [1.0]], [[1.0, 1.0]]), torch.randn(8, 1)
    snn = converted(model, x, relu(3, 8.0, "down"))
    assert diagnose(snn, Images((x,)))["1"].max_error == 1  # rounded down to multiples of 1; 7 at the end, 8
    wide = snn.with_neurons({"1": fs.FSNeuron(relu(3, 8.0, "down"), scale=torch.tensor([1.0, 3.0]))})
    assert diagnose(wide, Images((x,)))["1"].max_error == 3


def test_a_largest_error_without_a_bound_is_none():
    model, x = nn.Sequential(nn.Linear(2, 2), nn.SiLU()).eval(), torch.randn(8, 2)
    table = fs.published("silu")
    open_ended = fs.FSParameters(table.T, table.h, table.d, activation="silu")
    snn = fs.convert(model, x)
    assert diagnose(snn, Images((x,)))["1"].max_error < 0.5
    assert diagnose(snn.with_neurons({"1": fs.FSNeuron(open_ended)}), Images((x,)))["1"].max_error is None


def test_a_shift_that_makes_up_for_what_came_before_is_no_error_of_the_sites_own():
    model, x = layered([[1.0]], [[1.0]]), torch.rand(64, 1) * 3
    snn = converted(model, x, relu(6, 4.0))
    shifted = snn.with_neurons({"1": fs.FSNeuron(relu(6, 4.0), shift=torch.tensor([0.5]))})
    assert diagnose(shifted, Images((x,)))["1"].own_error == diagnose(snn, Images((x,)))["1"].own_error
    assert diagnose(shifted, Images((x,)))["1"].error > 10 * diagnose(snn, Images((x,)))["1"].error


def test_every_site_of_a_network_with_gates_is_diagnosed_and_the_network_left_alone():
    model, x = squeeze_excite(), torch.randn(8, 3, 8, 8)
    snn = fs.convert(model, x[:1])
    before = snn(x)
    found = diagnose(snn, Images((x,)))
    assert list(found) == [site.name for site in snn.sites]
    assert all(0 < entry.error < 1 and entry.cosine > 0.8 for entry in found.values())
    assert torch.equal(snn(x), before)
    assert not any(neuron.spike_hooks for neuron in snn.neurons.values())


def test_at_most_128_images_are_looked_at():
    x = torch.randn(200, 2)
    snn = converted(layered([[1.0, 1.0]], [[1.0]]), x, relu(3, 4.0))
    assert diagnose(snn, Images((x,), size=100))["1"].images == 128


def test_a_diagnosis_needs_images():
    snn = converted(layered([[1.0]], [[1.0]]), torch.randn(2, 1), relu(3, 4.0))
    with pytest.raises(fs.FewSpikesError, match="needs one image"):
        diagnose(snn, Images(()))


def test_a_diagnosis_survives_json():
    x = torch.randn(16, 2)
    snn = converted(layered([[1.0, 1.0]], [[1.0]]), x, relu(3, 4.0))
    found = diagnose(snn, Images((x,)))["1"]
    assert SiteDiagnosis.from_json(found.to_json()) == found
    assert report_with(snn, {"1": found}).to_json()["sites"][0]["diagnosis"] == found.to_json()
    with pytest.raises(fs.FewSpikesError, match="incomplete"):
        SiteDiagnosis.from_json({"images": 3})
    with pytest.raises(fs.FewSpikesError, match="error is nan"):
        replace(found, error=float("nan"))


def test_worst_lists_no_more_than_it_is_asked_for_and_says_if_nothing_was_measured():
    model = layered([[1.0]], [[1.0]], [[1.0]])
    x = torch.rand(16, 1)
    snn = converted(model, x, relu(2, 1.0), relu(2, 1.0))
    report = report_with(snn, diagnose(snn, Images((x,))))
    assert len(report.worst(1)) == 1
    assert report.worst(0) == []
    assert "not diagnosed" in snn.report.worst()[0]
    assert "worst: " in str(report)
    assert "worst: " not in str(snn.report)


def test_a_repaired_network_is_sent_on_to_distilling():
    x = torch.rand(16, 1)
    snn = converted(layered([[1.0]], [[1.0]]), x, relu(2, 1.0))
    report = report_with(snn, diagnose(snn, Images((x,))))
    repaired = replace(report, sites=(replace(report.sites[0], shifted=1),))
    assert "distilling" in repaired.worst()[0]
    assert "distilling" in replace(report, notes=("repair: none was kept",)).worst()[0]
    assert "repair=True" in report.worst()[0]


class Root(nn.Module):
    """A root of a sum that is above 0."""

    def forward(self, x):
        return (torch.relu(x).sum(1) - 0.1).sqrt()


def test_a_root_of_what_spikes_left_below_0_is_diagnosed():
    x = torch.linspace(0.15, 0.9, 32)[:, None] * torch.tensor([0.5, 0.5])
    snn = fs.convert(Root().eval(), x, x, K=6, effort="quick", repair=False)
    first, second = (site.name for site in snn.sites)
    found = diagnose(snn.with_neurons({first: fs.FSNeuron(relu(1, 0.5))}), Images((x,)))  # 0 below 0.125
    assert found[second].error > 0.1
    assert found[second].inherited_error > 0.1
