"""The paper's tables of networks: its numbers, its setting measured here, and a calibrated network beside it."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from fewspikes.convert import calibrate_model, convert
from fewspikes.errors import FewSpikesError, FewSpikesWarning
from fewspikes.evaluation import evaluate
from fewspikes.models import LITE0_PREPROCESSING, efficientnet_lite0, load_model
from fewspikes.network import SpikingNetwork
from fewspikes.paper import published
from fewspikes.paper.results import Folder, Found, Row
from fewspikes.paper.sources import CALIBRATION_IMAGES, DISTILLING_IMAGES, Sources, Unavailable, Weighted, check_labels
from fewspikes.tuning.distil import distil

CALIBRATED_STEPS = 5  # half of the paper's K
_DISTILLING_STEPS = 200
_TABLE_2 = ("resnet50", "resnet20", "resnet14", "resnet8")
_STAND_IN = "resnet44"  # for a ResNet50 without weights: the deepest whose weights are at hand
_FIG_8A = ("resnet50", "resnet44", "resnet20", "resnet14", "resnet8")
FIG_8A_STEPS = (3, 4, 5, 6, 7, 8, 9, 10)
_TENTH = 10  # of a sample without a training split, the images that calibrate
_LITE0 = {"K": 6, "spike_weight": 1.0}
_EVALUATION = (
    "model",
    "images",
    "ann_top1",
    "ann_top5",
    "snn_top1",
    "snn_top5",
    "drop",
    "drop_ci95",
    "agreement",
    "neurons",
    "layers",
    "k",
    "spikes_per_image",
    "spikes_per_neuron",
    "latency_steps",
    "interval_steps",
)


def table1(folder: Folder, sources: Sources) -> Found:
    """ImageNet: neurons and layers of the paper's networks counted exactly; accuracy as far as data and weights go."""
    found = Found("table1")
    b7, resnet50 = published.TABLE_1
    for stated, spec, options in (
        (b7, "timm:tf_efficientnet_b7", {}),
        (resnet50, "torchvision:resnet50", {"max_pool": "average"}),
    ):
        found.rows.append(_stated(stated))
        found.rows.append(_imagenet(folder, sources, spec, options))
    found.rows.append(_imagenet(folder, sources, "torchvision:resnet50", {}))
    found.rows += _lite0(folder, sources)
    found.notes += [
        "The paper's 259M neurons of EfficientNet-B7 are its SiLU neurons alone; layers and neurons here follow from "
        "the network's shapes",
        "The paper trained its ResNet50 with average pools in place of max pools; torchvision's weights belong to max "
        "pools, which the other row leaves digital",
    ]
    return found


def table2(folder: Folder, sources: Sources) -> Found:
    """CIFAR-10: ResNets of the 6n+2 family at K=10, alpha=25, and calibrated at half the steps."""
    found = Found("table2")
    stated = {row.model.lower(): row for row in published.TABLE_2}
    for name in _TABLE_2:
        found.rows.append(_stated(stated[name]))
        found.rows += _cifar_rows(folder, sources, name)
        if "unavailable" in found.rows[-1] and name == _TABLE_2[0]:
            found.rows += _cifar_rows(folder, sources, _STAND_IN)
    found.notes.append(
        f"calibrated: K={CALIBRATED_STEPS} on {CALIBRATION_IMAGES} unlabelled training images, then "
        f"{_DISTILLING_STEPS} steps of distilling on {DISTILLING_IMAGES:,}; weights untouched"
    )
    return found


def table3(folder: Folder, sources: Sources) -> Found:
    """Other conversions as the paper quotes them, and our rows with both ways of counting steps."""
    found = Found("table3")
    for method in published.TABLE_3:
        found.rows.append({"row": "paper", "weights": "none", **asdict(method), "steps_counted": "by its authors"})
    for row in (*table2(folder, sources).rows, *table1(folder, sources).rows):
        if row["row"] != "paper" and row.get("snn_top1") is not None:
            found.rows.append(
                {
                    **{key: row.get(key) for key in ("row", "weights", *_EVALUATION)},
                    "data": row.get("data"),
                    "network": row["model"],
                    "source": "fewspikes",
                    "steps": row["paper_latency_steps"],
                    "steps_counted": "layers x K, as the paper does",
                }
            )
    found.notes.append(published.HYSTERESIS)
    found.notes.append("latency_steps: the sum of K over the longest chain of neurons; steps: the paper's layers x K")
    return found


def claims(folder: Folder, sources: Sources) -> Found:
    """What the paper says of itself in numbers: the arithmetic, and what it is with our networks."""
    found = Found("claims")
    rows = table2(folder, sources).rows
    stated = {row.model: row for row in published.TABLE_2}

    def ours(name: str, kind: str, key: str) -> float | None:
        return next((row.get(key) for row in rows if row["row"] == kind and row.get("model") == name), None)

    def add(claim: str, arithmetic: str, paper: float, measured: float | None, calibrated: float | None) -> None:
        found.rows.append(
            {
                "row": "measured" if measured is not None else "paper",
                "weights": "none",
                "claim": claim,
                "arithmetic": arithmetic,
                "paper": paper,
                "measured": measured,
                "calibrated": calibrated,
            }
        )

    half = 2.0 * CALIBRATED_STEPS
    fourteen = stated["ResNet14"].spikes

    def fewer(spikes: float, kind: str) -> float | None:
        per_image = ours("resnet14", kind, "spikes_per_image")
        return None if per_image is None else spikes / per_image

    add("25 times the throughput of Inception-V3, rate-coded", "550 steps / 2K steps", 550 / 20, 550 / 20, 550 / half)
    add("125 times the throughput of ResNet34, rate-coded", "2,500 steps / 2K steps", 125.0, 125.0, 2500 / half)
    add(
        "40 times fewer spikes than a converted ResNet11",
        "8 million / spikes of ResNet14",
        8e6 / fourteen,
        fewer(8e6, "measured"),
        fewer(8e6, "calibrated"),
    )
    add(
        "7 times fewer spikes than a directly trained ResNet11",
        "7 x the paper's ResNet14 (the paper gives the ratio alone) / spikes of ResNet14",
        7.0,
        fewer(7 * fourteen, "measured"),
        fewer(7 * fourteen, "calibrated"),
    )
    silu, relu = published.TABLE_1
    add("about 2 spikes per SiLU neuron", "554.9M / 259M", silu.spikes / silu.neurons, None, None)
    add("about 1.5 spikes per ReLU neuron, ImageNet", "14.045M / 9.6M", relu.spikes / relu.neurons, None, None)
    for name in ("ResNet20", "ResNet14", "ResNet8"):
        row = stated[name]
        add(
            f"about 1.5 spikes per ReLU neuron, {name} on CIFAR-10",
            f"{row.spikes:,.0f} / {row.neurons:,}",
            row.spikes / row.neurons,
            ours(name.lower(), "measured", "spikes_per_neuron"),
            ours(name.lower(), "calibrated", "spikes_per_neuron"),
        )
    values = [float(_outputs(K)) for K in (10, CALIBRATED_STEPS)]
    add("log2 N steps for N values of a ReLU", "different outputs of K=10 (ours: K=5), counted", 1024.0, *values)
    return found


def fig8a(folder: Folder, sources: Sources) -> list[Row]:
    """Accuracy against K on the deepest network at hand, in the paper's setting and calibrated.

    Raises:
        Unavailable: no CIFAR-10, or no weights.
    """
    name, weighted = next(_available(sources, _FIG_8A), (None, None))
    if name is None or weighted is None:
        weighted = sources.network(_FIG_8A[-1])  # raises, and says what is missing
    images = _images(sources, weighted, sources.cifar())
    rows = []
    for K in FIG_8A_STEPS:
        for kind in ("measured", "calibrated"):
            settings = {**sources.settings, "network": name, "K": K, "weights": weighted.weights}
            make = _maker(images, kind, K)
            rows.append(folder.row("fig8", f"a: {name}, {kind}, K={K}", settings, make))
    return rows


def gate_inputs(folder: Folder, sources: Sources, name: str, activation: str) -> dict[str, list[float]]:
    """The density of a CIFAR network's gate inputs on training images, over all sites of an activation.

    Raises:
        Unavailable: no CIFAR-10, or no weights.
    """
    weighted = sources.network(name)
    data = sources.cifar()

    def make() -> Row:
        like = weighted.preprocessing
        train = sources.train_images(data, like, 10, CALIBRATION_IMAGES)
        seen = calibrate_model(weighted.model, torch.zeros(1, 3, 32, 32), train)
        snn = convert(weighted.model, torch.zeros(1, 3, 32, 32))
        sites = [site.name for site in snn.sites if site.activation.name == activation]
        edges = np.linspace(-10.0, 14.0, 481)
        density = np.zeros(len(edges) - 1)
        total = mean = square = 0.0
        for site in sites:
            h = seen.sites[site]
            centres = (h.first + np.arange(len(h.counts)) + 0.5) * 2.0**h.exponent
            density += np.histogram(centres, edges, weights=h.counts)[0]
            total += float(h.counts.sum())
            mean += float((centres * h.counts).sum())
            square += float((centres**2 * h.counts).sum())
        mean, square = mean / total, square / total
        width = edges[1] - edges[0]
        return {
            "x": ((edges[1:] + edges[:-1]) / 2).tolist(),
            "density": (density / total / width).tolist(),
            "mean": mean,
            "variance": square - mean**2,
        }

    settings = {"network": name, "activation": activation, **sources.settings}
    return folder.row("fig7", f"gate inputs of {name}", settings, make)


def _outputs(K: int) -> int:
    from fewspikes.kernels import apply
    from fewspikes.parameters import relu_parameters

    x = torch.arange(0.0, 2.0**K, dtype=torch.float64)
    return len(apply(x, relu_parameters(K, 2.0**K))[0].unique())


def _stated(row: published.TableRow) -> Row:
    """A row of the paper under the names of an EvaluationReport."""
    return {
        "row": "paper",
        "weights": "none",
        "model": row.model,
        "ann_top1": row.ann_top1,
        "ann_top5": row.ann_top5,
        "snn_top1": row.snn_top1,
        "snn_top5": row.snn_top5,
        "drop": round(row.ann_top1 - row.snn_top1, 2),
        "neurons": row.neurons,
        "layers": row.layers,
        "k": 10 if "ResNet" in row.model else 16,
        "spikes_per_image": row.spikes,
        "spikes_per_neuron": row.spikes / row.neurons,
        "paper_latency_steps": row.layers * (10 if "ResNet" in row.model else 16),
        "parameters": row.parameters,
    }


def _cifar_rows(folder: Folder, sources: Sources, name: str) -> list[Row]:
    """The paper's setting and the calibrated network, or why there are none, with what can be counted without."""
    try:
        weighted = sources.network(name)
        images = _images(sources, weighted, sources.cifar())
    except Unavailable as reason:
        return [_counted(folder, f"fewspikes:{name}", {}, str(reason), data="CIFAR-10", like=(3, 32, 32))]
    settings = {**sources.settings, "network": name, "weights": weighted.weights}
    found = []
    for kind, K in (("measured", 10), ("calibrated", CALIBRATED_STEPS)):
        distilling = _DISTILLING_STEPS if kind == "calibrated" else 0
        make = _maker(images, kind, K, distilling, synops=True)
        found.append(folder.row("table2", f"{name}, {kind}", {**settings, "K": K, "distilling": distilling}, make))
    return found


class _Images:
    """A CIFAR network with its images, read when they are first needed."""

    def __init__(self, sources: Sources, weighted: Weighted, data: Any) -> None:
        self.sources, self.weighted, self.data = sources, weighted, data
        self._test: list[tuple[Tensor, Any]] | None = None

    def test(self) -> list[tuple[Tensor, Any]]:
        if self._test is None:
            like = self.weighted.preprocessing
            self._test = self.sources.batches(self.sources.test_images(self.data, like, 10))
            check_labels(self.weighted.model, self._test, 10, str(self.data))
        return self._test

    def train(self, limit: int) -> Any:
        return self.sources.train_images(self.data, self.weighted.preprocessing, 10, limit)


def _images(sources: Sources, weighted: Weighted, data: Any) -> _Images:
    return _Images(sources, weighted, data)


def _maker(images: _Images, kind: str, K: int, distilling: int = 0, synops: bool = False) -> Callable[[], Row]:
    """Convert, tune and evaluate."""

    def make() -> Row:
        weighted, seed = images.weighted, images.sources.seed
        model = weighted.model.to(memory_format=torch.channels_last)
        like = torch.zeros(1, 3, 32, 32)
        if kind == "measured":
            snn = convert(model, like, **{**published.RELU_SETTING, "K": K})
        else:
            snn = convert(model, like, calibration=images.train(CALIBRATION_IMAGES), K=K, seed=seed)
        if distilling:
            snn = distil(snn, images.train(DISTILLING_IMAGES), steps=distilling, seed=seed)
        report = evaluate(snn, images.test(), model, name=weighted.loaded.name, synops=synops)
        return {
            "row": kind,
            "weights": weighted.weights,
            "data": "CIFAR-10",
            **report.to_json(),
            **_own(snn, model),
            "seed": seed,
        }

    return make


def _own(snn: SpikingNetwork, model: nn.Module) -> Row:
    return {
        "paper_latency_steps": snn.report.paper_latency_steps,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _counted(
    folder: Folder, spec: str, options: dict[str, Any], reason: str, data: str, like: tuple[int, int, int] | None = None
) -> Row:
    """What follows from a network's shapes alone."""

    def make() -> Row:
        loaded = load_model(spec, random=True)
        shape = like or (3, *(loaded.preprocessing.size if loaded.preprocessing else (224, 224)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewSpikesWarning)
            snn = convert(loaded.model, torch.zeros(1, *shape), **options)
        report = snn.report
        shares = {label: 100.0 * n / report.neurons for label, n in report.neurons_by_activation.items()}
        return {
            "row": "measured",
            "weights": "none",
            "model": loaded.name,
            "data": data,
            "neurons": report.neurons,
            "neurons_by_activation": report.neurons_by_activation,
            "share_by_activation": shares,
            "layers": report.layers,
            "k": report.k if isinstance(report.k, int) else sorted(set(report.k.values()), reverse=True),
            "latency_steps": report.latency_steps,
            "interval_steps": report.interval_steps,
            **_own(snn, loaded.model),
        }

    table = "table2" if data == "CIFAR-10" else "table1"
    return {**folder.row(table, f"{spec}, counted", {"options": options}, make), "unavailable": reason}


def _imagenet(folder: Folder, sources: Sources, spec: str, options: dict[str, Any]) -> Row:
    """A network of the paper on ImageNet if that is here and its weights can be fetched, else its counts."""
    name = "resnet50_average" if options.get("max_pool") == "average" else spec.partition(":")[2]
    try:
        data = sources.imagenet()
        if sources.is_sample():
            raise Unavailable(f"{data} is a sample; accuracy needs ImageNet's 50,000 images in imagenet/val/")
        given = sources.weights.get(name)
        if name == "resnet50_average" and given is None:
            raise Unavailable(
                "needs a ResNet50 trained with average pools: give --weights resnet50_average=FILE.safetensors"
            )
        try:
            loaded = load_model(spec, given)
        except FewSpikesError as error:
            raise Unavailable(str(error)) from None
    except Unavailable as reason:
        pools = {"max_pool": options.get("max_pool", "digital")} if "resnet" in spec else {}
        return {**_counted(folder, spec, options, str(reason), "ImageNet"), **pools}
    like = loaded.preprocessing
    assert like is not None

    def make() -> Row:
        images = sources.batches(sources.test_images(data, like, 1000))
        check_labels(loaded.model, images, 1000, str(data))
        snn = convert(loaded.model, torch.zeros(1, 3, *like.size), **options)
        report = evaluate(snn, images, None if options else loaded.model, name=loaded.name)
        weights = "third-party" if given is None else "given"
        own = _own(snn, loaded.model)
        return {"row": "measured", "weights": weights, "data": "ImageNet", **report.to_json(), **own}

    return folder.row("table1", f"{name}, measured", {**sources.settings, "options": options}, make)


def _lite0(folder: Folder, sources: Sources) -> list[Row]:
    """EfficientNet-Lite0, whose weights come in a package, on the ImageNet images at hand."""
    try:
        data = sources.imagenet()
    except Unavailable as reason:
        return [{"row": "measured", "weights": "none", "model": "efficientnet_lite0", "unavailable": str(reason)}]
    rows = []
    split: list[Any] = []

    def images() -> list[Any]:
        if not split:
            every = sources.test_images(data, LITE0_PREPROCESSING, 1000)
            if sources.is_sample():
                parts = ([i for i in range(len(every)) if (i % _TENTH == 0) == kept] for kept in (True, False))
                some, rest = (sources.batches(Subset(every, part)) for part in parts)
            else:
                some = list(sources.train_images(data, LITE0_PREPROCESSING, 1000, CALIBRATION_IMAGES))
                rest = sources.batches(every)
            split.extend((some, rest))
        return split

    def maker(kind: str) -> Callable[[], Row]:
        def make() -> Row:
            try:
                model = efficientnet_lite0()
            except FewSpikesError as error:
                return {"row": kind, "weights": "none", "model": "efficientnet_lite0", "unavailable": str(error)}
            some, rest = images()
            check_labels(model, rest, 1000, str(data))
            model = model.to(memory_format=torch.channels_last)
            calibrated = {"calibration": some, "seed": sources.seed, **_LITE0}
            options: dict[str, Any] = {} if kind == "measured" else calibrated
            snn = convert(model, torch.zeros(1, 3, *LITE0_PREPROCESSING.size), **options)
            report = evaluate(snn, rest, model, name="efficientnet_lite0")
            where = "ImageNet sample" if sources.is_sample() else "ImageNet"
            return {"row": kind, "weights": "third-party", "data": where, **report.to_json(), **_own(snn, model)}

        return make

    for kind in ("measured", "calibrated"):
        settings = {**sources.settings, "where": data.name}
        rows.append(folder.row("table1", f"efficientnet_lite0, {kind}", settings, maker(kind)))
    return rows


def _available(sources: Sources, names: tuple[str, ...]) -> Iterator[tuple[str, Weighted]]:
    """The networks whose weights are here, in the order given."""
    for name in names:
        try:
            yield name, sources.network(name)
        except Unavailable:
            continue
