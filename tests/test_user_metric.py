"""A metric of the user's own: outputs of any structure meet their targets, and both networks are scored."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fewspikes as fs
from fewspikes.measure.metric import Meter, together
from networks import small

X = torch.randn(150, 3, 8, 8, generator=torch.Generator().manual_seed(0))
N = len(X)


@dataclass
class Answer:
    out: Tensor
    aux: Tensor | None = None


class Net(nn.Module):
    """A convolution, then a head."""

    def __init__(self, head):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.wide, self.flat, self.head = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 5, 1),
            nn.Linear(6, 4),
            head,
        )

    def forward(self, x):
        y = F.relu(self.conv(x))
        return self.head(self, y)


def converted(head):
    model = Net(head).eval()
    return model, fs.convert(model, X[:1], X, K=3, effort="quick", repair=None)


@pytest.fixture(scope="module")
def segmentation():
    return converted(lambda net, y: {"out": net.wide(y), "aux": net.wide(y.flip(-1))})


@pytest.fixture(scope="module")
def regression():
    return converted(lambda net, y: net.flat(y.mean((2, 3))))


def outputs(network, key=None):
    """Of all images, by plain calls."""
    with torch.no_grad():
        found = [network(batch) for batch in X.split(30)]
    return torch.cat([one if key is None else one[key] for one in found])


def pixel_accuracy(out, target):
    return float((out["out"].argmax(1) == target).double().mean())


def mean_iou(out, target):
    """The intersections over the unions of all images: no mean over images."""
    classes = out["out"].argmax(1)
    pairs = [((classes == c) & (target == c), (classes == c) | (target == c)) for c in range(5)]
    return {
        "miou": float(np.mean([int(both.sum()) / int(one.sum()) for both, one in pairs])),
        "pixels": classes.numel(),
    }


MASKS = torch.randint(0, 5, (N, 8, 8), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [1, 7, 64, 150])
def test_a_metric_of_all_pixels_is_that_of_plain_calls_whatever_the_loaders_batches(segmentation, size):
    model, snn = segmentation
    loader = DataLoader(TensorDataset(X, MASKS), batch_size=size)
    report = fs.evaluate(snn, loader, model, metric=mean_iou)
    wanted = {which: mean_iou({"out": outputs(net, "out")}, MASKS) for which, net in (("ann", model), ("snn", snn))}
    assert report.metric["miou"] == {which: score["miou"] for which, score in wanted.items()}
    assert report.metric["pixels"] == {"ann": N * 64, "snn": N * 64}
    assert wanted["ann"] != wanted["snn"]
    assert report.ann_top1 is None


def test_a_function_that_returns_a_number_goes_by_its_own_name(segmentation):
    model, snn = segmentation
    report = fs.evaluate(snn, [(X, MASKS)], model, metric=pixel_accuracy)
    assert report.metric == {
        "pixel_accuracy": {
            "ann": pixel_accuracy({"out": outputs(model, "out")}, MASKS),
            "snn": pixel_accuracy({"out": outputs(snn, "out")}, MASKS),
        }
    }
    assert "pixel_accuracy ANN / SNN" in str(report)
    assert json.loads(json.dumps(report.to_json()))["metric"] == report.metric


class Updating(nn.Module):
    """A metric as torchmetrics has them: a state, update, compute, reset; called, it would do something else."""

    def __init__(self):
        super().__init__()
        self.register_buffer("wrong", torch.zeros((), dtype=torch.int64))
        self.batches = []

    def update(self, outputs, targets):
        self.wrong += (outputs["out"].argmax(1) != targets).sum()
        self.batches = [*self.batches, len(targets)]

    def compute(self):
        return {"wrong": self.wrong, "batches": torch.tensor(self.batches)}

    def reset(self):
        self.wrong.zero_()
        self.batches = []

    def forward(self, *anything):
        raise AssertionError


def test_an_object_gets_the_loaders_own_batches_and_is_left_as_it_was(segmentation):
    model, snn = segmentation
    metric = Updating()
    metric.wrong += 1000
    report = fs.evaluate(snn, DataLoader(TensorDataset(X, MASKS), batch_size=70), model, metric=metric)
    assert int(metric.wrong) == 1000
    wrong = {name: int((outputs(net, "out").argmax(1) != MASKS).sum()) for name, net in (("ann", model), ("snn", snn))}
    assert report.metric == {"wrong": wrong} | {
        f"batches[{i}]": {"ann": size, "snn": size} for i, size in enumerate((70, 70, 10))
    }


def test_boxes_of_each_image_stay_lists_and_meet_their_image(segmentation):
    model, snn = converted(lambda net, y: [Answer(net.flat(y.mean((2, 3)))), (net.wide(y), None)])
    counts = [i % 3 for i in range(N)]
    boxes = [{"boxes": torch.full((count, 4), float(i)), "id": i} for i, count in enumerate(counts)]
    batches = [(X[i : i + 40], boxes[i : i + 40]) for i in range(0, N, 40)]

    def found(out, targets):
        assert type(out[0]) is Answer
        assert out[0].aux is None
        assert [target["id"] for target in targets] == list(range(N))
        return {"sum": out[0].out.double().sum(), "boxes": sum(len(target["boxes"]) for target in targets)}

    report = fs.evaluate(snn, batches, model, metric=found)
    assert report.metric["boxes"] == {"ann": sum(counts), "snn": sum(counts)}
    with torch.no_grad():
        assert report.metric["sum"]["ann"] == pytest.approx(float(model(X)[0].out.double().sum()))


def test_regression_has_targets_that_are_no_labels(regression):
    model, snn = regression
    wanted = outputs(model) + 0.5

    def errors(out, target):
        return {"mse": (out - target).square().mean(), "mae": (out - target).abs().mean()}

    report = fs.evaluate(snn, [(X, wanted)], model, metric=errors)
    assert report.metric["mse"]["ann"] == pytest.approx(0.25, abs=1e-5)
    assert report.metric["mae"]["snn"] == pytest.approx(float((outputs(snn) - wanted).abs().mean()))
    assert (report.ann_top1, report.drop, report.drop_ci95) == (None, None, None)
    with pytest.raises(fs.FewSpikesError, match="for targets that are no classes give evaluate a metric"):
        fs.evaluate(snn, [(X, wanted)], model)


def test_identities_beyond_the_outputs_width_are_no_labels_of_an_embedding(regression):
    model, snn = regression
    report = fs.evaluate(
        snn, [(X[i : i + 50], torch.arange(i, i + 50)) for i in (0, 50, 100)], model, metric=identities
    )
    assert report.metric == {"identities": {"ann": N, "snn": N}}
    assert report.ann_top1 is None


def identities(out, identity):
    assert out.shape == (N, 4)
    return len(identity.unique())


def test_super_resolution_is_scored_by_its_signal_to_noise():
    model, snn = converted(lambda net, y: net.wide(F.interpolate(y, scale_factor=2)))
    wanted = outputs(model) + 0.01

    def psnr(out, target):
        return -10 * (out - target).square().mean().log10()

    report = fs.evaluate(snn, [(X, wanted)], model, metric=psnr)
    assert report.metric["psnr"]["ann"] == pytest.approx(40, abs=0.01)  # -10 log10(0.01^2)
    assert report.metric["psnr"]["snn"] < 40


def test_a_classifier_with_a_metric_keeps_every_number_that_it_has_without():
    model, labels = small(), torch.arange(N) % 10
    snn = fs.convert(model, X[:1], X, K=2, effort="quick")
    loader = DataLoader(TensorDataset(X, labels), batch_size=32)
    with_it = fs.evaluate(snn, loader, model, metric=lambda out, target: (out.argmax(1) == target).double().mean())
    without = fs.evaluate(snn, loader, model)
    speeds = ("ann_images_per_second", "snn_images_per_second")
    plain = [
        {k: v for k, v in report.to_json().items() if k not in (*speeds, "metric")} for report in (with_it, without)
    ]
    assert plain[0] == plain[1]
    assert 100 * with_it.metric["<lambda>"]["snn"] == pytest.approx(without.snn_top1)
    assert without.metric is None


def test_targets_by_name_and_several_targets_come_together(regression):
    model, snn = regression
    weight = torch.rand(N)

    def mean(out, target):
        return {"weight": target["weight"].sum(), "rows": len(target["value"][0]), "second": target["value"][1].sum()}

    class Named(nn.Module):
        def forward(self, image):
            return model(image)

    named = fs.convert(Named().eval(), {"image": X[:1]})
    batches = [
        {"image": X[i : i + 60], "weight": weight[i : i + 60], "value": (X[i : i + 60], np.ones(len(X[i : i + 60])))}
        for i in range(0, N, 60)
    ]
    report = fs.evaluate(named, batches, metric=mean)
    assert report.metric["weight"]["ann"] == pytest.approx(float(weight.sum()))
    assert (report.metric["rows"]["snn"], report.metric["second"]["snn"]) == (N, N)
    several = fs.evaluate(snn, [(X, weight, weight)], metric=lambda out, target: len(target))
    assert several.metric["<lambda>"]["ann"] == 2


def test_a_score_that_is_not_finite_is_none_in_json(regression):
    _, snn = regression
    report = fs.evaluate(snn, [(X, X)], metric=lambda out, target: math.nan)
    assert math.isnan(report.metric["<lambda>"]["ann"])
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["metric"] == {
        "<lambda>": {"ann": None, "snn": None}
    }


@pytest.mark.parametrize(
    ("loader", "metric", "message"),
    [
        ([X], pixel_accuracy, r"a metric needs targets, .* give \(inputs, targets\)"),
        ([(X, X)], Updating, "metric is the class Updating; give an instance of it"),
        ([(X, X)], 3, r"metric must be a function of outputs and targets, or an object .*; got 3"),
        ([(X, X)], lambda out, target: "good", "returns a number or a dict of numbers; got <lambda> = 'good'"),
        ([(X, X)], lambda out, target: {"a": None}, "got a = None"),
        ([(X[:4], ["a"]), (X[:4], "bcde")], lambda out, target: 0, "targets of list and str cannot be joined"),
    ],
)
def test_metrics_and_targets_that_do_not_fit_are_named(regression, loader, metric, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.evaluate(regression[1], loader, metric=metric)


def test_an_output_without_a_row_for_each_image_is_named():
    meter = Meter(lambda out, target: 0)
    with pytest.raises(fs.FewSpikesError, match=r"for each of the 3 images; the network also returns .* shape \(\)"):
        meter.add({"logits": torch.zeros(3, 2), "loss": torch.tensor(1.0)}, 3)


def test_targets_of_batches_are_joined_by_their_kind():
    a, b = torch.arange(3), torch.arange(2)
    assert together([a, b], [3, 2]).tolist() == [0, 1, 2, 0, 1]
    assert together([a.numpy(), b.numpy()], [3, 2]).tolist() == [0, 1, 2, 0, 1]
    columns = together([[a, a + 1], [b, b + 1]], [3, 2])  # as DataLoader makes them of tuples
    assert [column.tolist() for column in columns] == [[0, 1, 2, 0, 1], [1, 2, 3, 1, 2]]
    assert together([["x", "y", "z"], ["u", "v"]], [3, 2]) == ["x", "y", "z", "u", "v"]
    ragged = together([[torch.zeros(2), torch.zeros(5)], [torch.zeros(1)]], [2, 1])
    assert [len(row) for row in ragged] == [2, 5, 1]
    assert together([({"k": a},), ({"k": b},)], [3, 2])[0]["k"].tolist() == [0, 1, 2, 0, 1]
