"""Table 2, and what other figures take from CIFAR-10: accuracy against K, and the inputs that neurons really get."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from fewspikes.conversion.building import calibrate_model
from fewspikes.conversion.conversion import convert
from fewspikes.conversion.distillation import distil
from fewspikes.images import ImageLoader
from fewspikes.paper import published
from fewspikes.paper.results import Folder, Found, Row
from fewspikes.paper.rows import counted, measured, stated
from fewspikes.paper.sources import (
    CALIBRATION_IMAGES,
    DISTILLING_IMAGES,
    Sources,
    Unavailable,
    Weighted,
    check_labels,
    in_memory,
    left_out,
    spread,
)

CALIBRATED_STEPS = 5  # half of the paper's K
FIG_8A_STEPS = (3, 4, 5, 6, 7, 8, 9, 10)
_DISTILLING_STEPS = 200
_TABLE_2 = ("resnet50", "resnet20", "resnet14", "resnet8")
NETWORKS = ("resnet50", "resnet44", "resnet20", "resnet14", "resnet8")  # deepest first
_STAND_IN = "resnet44"  # for a ResNet50 without weights
_IMAGE = (3, 32, 32)
_BINS = np.linspace(-10.0, 14.0, 121)  # of gate inputs, for Fig. 7


def table2(folder: Folder, sources: Sources) -> Found:
    """CIFAR-10: ResNets of the 6n+2 family at K=10, alpha=25, and calibrated at half the steps."""
    found = Found("table2")
    by_name = {row.model.lower(): row for row in published.TABLE_2}
    for name in _TABLE_2:
        found.rows.append(stated(by_name[name]))
        found.rows += rows(folder, sources, name)
        if "unavailable" in found.rows[-1] and name == _TABLE_2[0]:
            found.rows += rows(folder, sources, _STAND_IN)
    found.notes.append("layers: the paper's count has the readout, which has no FS-neurons; ours are layers of neurons")
    if sources.calibrated:
        found.notes.append(
            f"calibrated: K={CALIBRATED_STEPS} on {CALIBRATION_IMAGES} unlabelled training images, then "
            f"{_DISTILLING_STEPS} steps of distilling on {DISTILLING_IMAGES:,}; weights untouched"
        )
    return found


def rows(folder: Folder, sources: Sources, name: str) -> list[Row]:
    """The paper's setting and the calibrated network, or why there are none, with what can be counted without."""
    try:
        versions = [_Images(sources, weighted) for weighted in sources.versions(name)]
    except Unavailable as reason:
        spec = f"fewspikes:{name}"
        row = folder.row("table2", f"{name}, counted", {}, lambda: counted(spec, {}, _IMAGE))
        return [{**row, "data": "CIFAR-10", "unavailable": str(reason)}]
    found = []
    for images in versions:
        for kind in sources.kinds:
            K = CALIBRATED_STEPS if kind == "calibrated" else published.RELU_SETTING["K"]
            distilling = _DISTILLING_STEPS if kind == "calibrated" else 0
            settings = {**images.settings, "K": K, "distilling": distilling}
            make = _maker(images, kind, K, distilling, synops=True)
            found.append(folder.row("table2", f"{name} ({images.weighted.weights}), {kind}", settings, make))
    return found


def fig8a(folder: Folder, sources: Sources) -> list[Row]:
    """Accuracy against K on the deepest network at hand, in the paper's setting and calibrated.

    Raises:
        Unavailable: no CIFAR-10, or no weights.
    """
    images = _Images(sources, _deepest(sources))
    return [
        folder.row("fig8", f"a: {kind}, K={K}", {**images.settings, "K": K}, _maker(images, kind, K))
        for K in FIG_8A_STEPS
        for kind in sources.kinds
    ]


def gate_inputs(folder: Folder, sources: Sources, name: str, activation: str) -> Row:
    """The density of a network's gate inputs on training images, over all sites of an activation; mean and variance.

    Raises:
        Unavailable: no CIFAR-10, or no weights.
    """
    images = _Images(sources, sources.network(name))

    def make() -> Row:
        model, like = sources.placed(images.weighted.model), sources.like(*_IMAGE)
        seen = calibrate_model(model, like, images.train(CALIBRATION_IMAGES))
        density, sums = np.zeros(len(_BINS) - 1), np.zeros(3)
        for site in convert(model, like).sites:
            if site.activation.name == activation:
                h = seen.sites[site.name]
                centres = (h.first + np.arange(len(h.counts)) + 0.5) * 2.0**h.exponent
                density += np.histogram(centres, _BINS, weights=h.counts)[0]
                sums += [float((centres**power * h.counts).sum()) for power in range(3)]
        total, mean, square = sums[0], sums[1] / sums[0], sums[2] / sums[0]
        return {
            "x": ((_BINS[1:] + _BINS[:-1]) / 2).tolist(),
            "density": (density / total / (_BINS[1] - _BINS[0])).tolist(),
            "mean": mean,
            "variance": square - mean**2,
        }

    settings = {**images.settings, "activation": activation, "bins": len(_BINS)}
    return folder.row("fig7", f"gate inputs of {name}", settings, make)


class _Images:
    """A CIFAR network with its images, read when they are first needed.

    Raises:
        Unavailable: no CIFAR-10.
    """

    def __init__(self, sources: Sources, weighted: Weighted) -> None:
        self.sources, self.weighted, self.data = sources, weighted, sources.cifar()
        self.left_out: Row = {}
        self.settings = {**sources.settings, "network": weighted.loaded.name, "weights": weighted.fingerprint}

    @cached_property
    def test(self) -> list[tuple[Tensor, Any]]:
        """Batches in memory, their labels looked at."""
        like, sources = self.weighted.preprocessing, self.sources
        images = sources.images(self.data, "evaluation", like, 10, sources.limit)
        model, some = sources.placed(self.weighted.model), sources.loader(spread(images), like)
        check_labels(model, some, 10, str(self.data), sources.device)
        found = sources.loader(images, like)
        batches = in_memory(found)
        self.left_out = left_out(found)
        return batches

    def train(self, limit: int) -> ImageLoader:
        """Training images."""
        like = self.weighted.preprocessing
        return self.sources.loader(self.sources.images(self.data, "train", like, 10, limit), like, 64)


def _maker(images: _Images, kind: str, K: int, distilling: int = 0, synops: bool = False) -> Callable[[], Row]:
    """Convert, tune and evaluate."""

    def make() -> Row:
        seed, like = images.sources.seed, images.sources.like(*_IMAGE)
        model = images.sources.placed(images.weighted.model)
        test = images.test  # before hours are spent
        if kind == "measured":
            snn = convert(model, like, **{**published.RELU_SETTING, "K": K})
        else:
            snn = convert(model, like, calibration=images.train(CALIBRATION_IMAGES), K=K, seed=seed)
        if distilling:
            snn = distil(snn, images.train(DISTILLING_IMAGES), steps=distilling, seed=seed)
        found = measured(kind, snn, images.weighted, test, synops=synops)
        return {**found, "data": "CIFAR-10", "seed": seed, **images.left_out}

    return make


def _deepest(sources: Sources) -> Weighted:
    for name in NETWORKS[:-1]:
        try:
            return sources.network(name)
        except Unavailable:
            continue
    return sources.network(NETWORKS[-1])
