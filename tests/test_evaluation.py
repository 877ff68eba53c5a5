"""Evaluation: the report's numbers against plain arithmetic, and data that do not fit."""

import copy
import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import fewspikes as fs
from fewspikes.graph.nested import tensors_of
from fewspikes.measure import evaluation, speed
from fewspikes.measure.measurement import paired_interval
from networks import ByName, Pair, small, squeeze_excite, torn

IMAGES = torch.zeros(1, 3, 8, 8)


def labelled(n=50):
    return torch.randn(n, 3, 8, 8), torch.randint(0, 10, (n,))


def test_accuracies_agreement_and_spikes_are_those_of_the_outputs():
    model = small()
    snn = fs.convert(model, IMAGES, calibration=torch.randn(32, 3, 8, 8), K=3)
    x, labels = labelled()
    report = fs.evaluate(snn, DataLoader(TensorDataset(x, labels), batch_size=16), model)
    with torch.no_grad(), fs.count(snn) as counts:
        batches = list(zip(x.split(16), labels.split(16), strict=True))
        ann, got = (torch.cat([net(b) for b, _ in batches]) for net in (model, snn))
    assert report.images == 50
    assert report.ann_top1 == pytest.approx(100 * (ann.argmax(1) == labels).double().mean().item())
    assert report.snn_top1 == pytest.approx(100 * (got.argmax(1) == labels).double().mean().item())
    assert report.snn_top5 == pytest.approx(
        100 * (got.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    )
    assert report.agreement == pytest.approx(100 * (ann.argmax(1) == got.argmax(1)).double().mean().item())
    assert report.drop == pytest.approx(report.ann_top1 - report.snn_top1)
    assert report.spikes_per_image == counts.total / 50
    assert report.spikes_per_neuron == counts.total / 50 / 1024
    assert (report.k, report.neurons, report.layers) == (3, 1024, 2)


def test_the_interval_of_the_drop_is_agresti_and_mins():
    # n = 100, 6 images only the ANN gets right, 2 only the SNN: b = 6.5, c = 2.5, N = 102, difference 4 / 102;
    # standard error sqrt(9 - 16 / 102) / 102 = 0.029154: 3.9216% -+ 1.959964 * 2.9154% = -1.7924% to 9.6355%.
    assert paired_interval(100, 6, 2) == pytest.approx((-1.7924, 9.6355), abs=1e-3)


def test_the_drop_and_its_interval_come_from_the_paired_outcomes():
    model = small()
    snn = fs.convert(model, IMAGES, calibration=torch.randn(32, 3, 8, 8), K=1)  # coarse, so that both sides differ
    x, labels = labelled(200)
    with torch.no_grad():
        ann_right, snn_right = (net(x).argmax(1) == labels for net in (model, snn))
    only_ann, only_snn = int((ann_right & ~snn_right).sum()), int((snn_right & ~ann_right).sum())
    report = fs.evaluate(snn, [(x, labels)], model)
    assert only_ann > 0
    assert only_snn > 0
    assert report.drop == pytest.approx(100 * (only_ann - only_snn) / 200)
    assert report.drop_ci95 == paired_interval(200, only_ann, only_snn)


def test_without_labels_there_is_agreement_and_no_accuracy():
    report = fs.evaluate(fs.convert(small(), IMAGES), torch.randn(20, 3, 8, 8))
    assert (report.ann_top1, report.snn_top5, report.drop, report.drop_ci95) == (None, None, None, None)
    assert 0 <= report.agreement <= 100


def test_the_default_reference_is_the_networks_own_ann():
    model = small()
    snn, x = fs.convert(model, IMAGES), torch.randn(64, 3, 8, 8)
    assert fs.evaluate(snn, x).agreement == fs.evaluate(snn, x, model).agreement


def test_few_classes_have_no_top5():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    x = torch.randn(8, 3, 8, 8)
    report = fs.evaluate(fs.convert(model, IMAGES), [(x, torch.zeros(8, dtype=torch.int64))])
    assert report.snn_top5 is None
    assert report.snn_top1 is not None


def test_synapses_that_the_graph_does_not_tell_are_named_with_the_reason():
    snn = fs.convert(torn(), torch.zeros(1, 4), K=4, alpha=4.0)
    report = fs.evaluate(snn, torch.randn(8, 4))
    reason = "operator site at the top of the model: no axis has the images of a batch in a known order"
    assert report.synops_per_image is None
    assert json.loads(json.dumps(report.to_json()))["unknown_synops"] == report.unknown_synops == {"relu#1": reason}
    assert f"unknown: 1 of 2 layers with an unknown fan-out, the first relu#1 ({reason}); fs.count" in str(report)
    without = fs.evaluate(snn, torch.randn(8, 4), synops=False)
    assert without.unknown_synops == {}
    assert re.search("synaptic operations +not counted", str(without))


def test_the_report_is_json():
    report = fs.evaluate(fs.convert(squeeze_excite(), IMAGES), [labelled(8)], name="se")
    content = json.loads(json.dumps(report.to_json()))
    assert content["model"] == "se"
    assert content["k"] == {"act": 16, "silu": 16, "sigmoid": 12}
    assert (content["latency_steps"], content["interval_steps"]) == (44, 32)
    assert content["synops_per_image"] > 0
    assert content["macs_per_image"] < content["ann_macs_per_image"]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "evaluation data is empty"),
        (iter([]), "one-shot iterator"),
        (torch.randn(2, 3, 9, 9), r"converted for \[batch, 3, 8, 8\]; resize the images, or convert again"),
        (torch.full((2, 3, 8, 8), float("inf")), "evaluation data holds NaN or inf"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([0, 10]))], "label 10 is outside the network's classes 0 to 9"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([-1, 0]))], "label -1 is outside"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([1]))], "labels must be 2 whole numbers"),
        ([(torch.zeros(2, 3, 8, 8), torch.tensor([1.0, 2.0]))], "labels must be 2 whole numbers"),
        ([labelled(2), torch.zeros(2, 3, 8, 8)], "some batches of the evaluation data have labels and others not"),
    ],
)
def test_data_that_do_not_fit_raise(loader, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.evaluate(fs.convert(small(), IMAGES), loader)


def test_a_reference_that_does_not_fit_raises():
    snn, x = fs.convert(small(), IMAGES), torch.zeros(2, 3, 8, 8)
    with pytest.raises(fs.FewSpikesError, match="reference is in training mode"):
        fs.evaluate(snn, x, small().train())
    with pytest.raises(fs.FewSpikesError, match=r"the reference returns \(2, 192\)"):
        fs.evaluate(snn, x, nn.Flatten().eval())


def test_what_is_no_converted_network_raises():
    with pytest.raises(fs.FewSpikesError, match="evaluate needs a converted network; got Sequential"):
        fs.evaluate(nn.Sequential(nn.ReLU()).eval(), torch.zeros(2, 3, 8, 8))


class Two(nn.Module):
    """Two tensors of different size, in a dict."""

    def __init__(self):
        super().__init__()
        self.linear, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x):
        y = torch.relu(self.linear(x))
        return {"a": self.a(y), "b": [100 * self.b(y)]}


class Logits(nn.Module):
    """Classes, as a dict holds them."""

    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return {"logits": self.head(torch.relu(self.linear(x)))}


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)),
        Two(),
    ],
)
def test_an_output_of_any_kind_has_a_relative_error_and_a_cosine(model):
    x, targets = torch.randn(70, 4), torch.rand(70, 2)  # targets that are no classes are not looked at
    x[64:] += 5  # the second batch is about another mean
    snn = fs.convert(model.eval().requires_grad_(False), x, x, K=3)
    report = fs.evaluate(snn, [(x, targets)], model)
    pairs = [(tensors_of(net(x))) for net in (snn, model)]
    errors = [float((got - y).square().sum() / (y - y.mean(0)).square().sum()) for got, y in zip(*pairs, strict=True)]
    got, wanted = (torch.cat([t.flatten() for t in tensors]) for tensors in pairs)
    assert report.relative_error == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert report.cosine == pytest.approx(float(torch.cosine_similarity(got, wanted, dim=0)), rel=1e-5)
    assert (report.agreement, report.ann_top1, report.drop) == (None, None, None)
    assert "no classes" in str(report)


def test_classes_in_a_dict_are_classes():
    model, x = Logits().eval(), torch.randn(40, 4)
    snn = fs.convert(model, x, x, K=4)
    report = fs.evaluate(snn, [(x, model(x)["logits"].argmax(1))])
    assert report.ann_top1 == 100
    assert report.snn_top1 == report.agreement


def test_a_networks_seconds_hold_no_counting(monkeypatch):
    snn, x = fs.convert(small(), IMAGES), torch.randn(8, 3, 8, 8)
    counted = []
    timed = evaluation.images_per_second

    def watched(network, batches):
        counted.append(any(n.spike_hooks or n.count_hooks for n in snn.neurons.values()))
        return timed(network, batches)

    monkeypatch.setattr(evaluation, "images_per_second", watched)
    assert fs.evaluate(snn, x).snn_images_per_second > 0
    assert counted == [False, False]


def test_a_speed_is_the_median_of_five_passes_after_two_that_warm_up(monkeypatch):
    clock, calls = [0.0], []

    def network(x):
        calls.append(len(x))
        clock[0] += 100.0 if len(calls) < 3 else 0.125

    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    assert speed.images_per_second(network, [(torch.zeros(8, 1),)]) == 64.0
    assert len(calls) == 7
    calls.clear()
    assert speed.images_per_second(network, [(torch.zeros(8, 1),)] * 9) == 64.0
    assert len(calls) == 11


def test_a_report_counts_in_words_of_its_inputs_and_with_commas():
    snn = fs.convert(small(), IMAGES)
    report = replace(
        fs.evaluate(snn, torch.randn(8, 3, 8, 8)), ann_images_per_second=93.3, snn_images_per_second=11400.0
    )
    assert re.search(r"  images/s ANN / SNN +93.3 / 11,400 here, forward passes alone\n", str(report))
    assert re.search(r"  sentences/s ANN / SNN +93.3 / 11,400 here", report.text("sentence"))
    assert "image" not in report.text("sentence")


def test_a_reference_gets_named_inputs_by_name():
    class KeywordOnly(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 5)

        def forward(self, *, a, b):
            return self.linear(torch.relu(a - 2 * b))

    model = KeywordOnly().eval()
    snn = fs.convert(model, {"b": torch.zeros(1, 4), "a": torch.zeros(1, 4)})
    batches = [{"a": torch.randn(50, 4), "b": torch.randn(50, 4), "labels": torch.zeros(50, dtype=torch.int64)}]
    given, own = fs.evaluate(snn, batches, model), fs.evaluate(snn, batches)
    assert (given.ann_top1, given.agreement) == (own.ann_top1, own.agreement)


def test_a_loader_without_a_length_serves():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.randn(10, 3, 8, 8))

    assert fs.evaluate(fs.convert(small(), IMAGES), DataLoader(Stream(), batch_size=4)).images == 10


def test_labels_that_are_words_raise_here_and_not_in_calibration():
    batches = [(torch.randn(2, 3, 8, 8), ["cat", "dog"])]
    snn = fs.convert(small(), IMAGES, calibration=batches)
    with pytest.raises(fs.FewSpikesError, match="labels must be 2 whole numbers; got a list"):
        fs.evaluate(snn, batches)


def test_what_is_the_same_for_every_image_hides_no_error():
    # A bias of 100 per class changes no image's answer against another's: the error must not shrink by it.
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(200, 4)
    far = copy.deepcopy(model)
    with torch.no_grad():
        far[2].bias += torch.tensor([0.0, 100.0, 200.0])
    plain, moved = (fs.evaluate(fs.convert(m, x, x, K=3), x) for m in (model, far))
    assert moved.relative_error == pytest.approx(plain.relative_error, rel=1e-3)


def test_one_image_is_measured_against_the_variance_over_its_elements():
    model, x = (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval().requires_grad_(False),
        torch.randn(1, 4),
    )
    snn = fs.convert(model, x, K=3, alpha=4.0)
    wanted = float((snn(x) - model(x)).square().mean() / model(x).var(unbiased=False))
    assert fs.evaluate(snn, x).relative_error == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("make", [Pair, ByName])
@pytest.mark.parametrize("form", ["tuple", "dict", "dict and labels", "labels in the dict"])
def test_two_inputs_reach_the_network_and_the_reference_by_name(make, form):
    model, p, q = make().eval(), torch.randn(40, 4), torch.randn(40, 4)
    snn, labels = fs.convert(model, {"q": q, "p": p}, (p, q), K=8), model(p=p, q=q).argmax(1)
    given = {
        "tuple": [(p, q, labels)],
        "dict": {"q": q, "p": p, "labels": labels},
        "dict and labels": [({"q": q, "p": p}, labels)],
        "labels in the dict": [{"q": q, "label": labels, "p": p}],
    }[form]
    report = fs.evaluate(snn, given, reference=model)
    assert report.ann_top1 == 100.0
    assert report.relative_error < 1e-3


def test_a_dict_of_inputs_counts_its_images():
    snn, p = fs.convert(Pair().eval(), (torch.zeros(1, 4), torch.zeros(1, 4))), torch.randn(7, 4)
    with fs.count(snn) as counts:
        snn({"q": p, "p": p})
    assert counts.images == 7


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (torch.zeros(4, dtype=torch.bool), "got torch.bool"),
        (torch.full((4,), 2**63, dtype=torch.uint64), "label 9223372036854775808 is outside"),
        ([2**70] * 4, "got a list"),
        (torch.zeros(4, dtype=torch.long, device="meta"), "without values, on the meta device"),
        (torch.eye(4).to_sparse(), "of layout sparse_coo"),
    ],
)
def test_labels_that_are_no_classes_raise(labels, got):
    snn = fs.convert(small(), IMAGES)
    with pytest.raises(fs.FewSpikesError, match=got):
        fs.evaluate(snn, [(torch.randn(4, 3, 8, 8), labels)])


def test_a_reference_of_other_inputs_is_named_and_a_wrapped_one_taken():
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), torch.randn(30, 4)
    snn = fs.convert(model, x, x, K=4)
    for wrong in (nn.Linear(5, 3).eval(), copy.deepcopy(model).double()):
        with pytest.raises(
            fs.FewSpikesError, match=r"the reference does not take this network's inputs \(torch.float32"
        ):
            fs.evaluate(snn, x, wrong)
    assert fs.evaluate(snn, x, nn.DataParallel(model)).images == 30  # the wrapper itself is in training mode
