"""Table 1: the paper's networks for ImageNet, and one whose weights come in a package."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewspikes.base.errors import FewSpikesError
from fewspikes.conversion.conversion import convert
from fewspikes.images import ImageData, image_splits
from fewspikes.models import load_model
from fewspikes.paper import published
from fewspikes.paper.results import Folder, Found, Row
from fewspikes.paper.rows import counted, measured, stated
from fewspikes.paper.sources import CALIBRATION_IMAGES, Sources, Unavailable, Weighted, check_labels, left_out, spread

_CLASSES = 1000
_TENTH = 10  # one image in so many, or fewer, calibrates where there is no training split


@dataclass(frozen=True)
class Network:
    """A network of the table.

    Attributes:
        name: for --weights.
        spec: as for `load_model`.
        paper: its row in the paper, if it has one.
        options: of `convert`, in every row.
        calibrated: more of them in ours.
        own_weights: whether the weights that come with it belong to it as it is converted.
    """

    name: str
    spec: str
    paper: published.TableRow | None = None
    options: dict[str, Any] = field(default_factory=dict)
    calibrated: dict[str, Any] = field(default_factory=dict)
    own_weights: bool = True


NETWORKS = (
    Network("efficientnet_b7", "timm:tf_efficientnet_b7", published.TABLE_1[0], calibrated={"K": 8}),
    Network(
        "resnet50_average",
        "torchvision:resnet50",
        published.TABLE_1[1],
        options={"circuits": {"max": "average"}},
        calibrated={"K": 5},
        own_weights=False,
    ),
    Network("resnet50_max", "torchvision:resnet50", calibrated={"K": 5}),
    Network("efficientnet_lite0", "fewspikes:efficientnet_lite0", calibrated={"K": 6, "spike_price": 0.01}),
)


def table1(folder: Folder, sources: Sources) -> Found:
    """ImageNet: neurons and layers of the paper's networks counted exactly; accuracy as far as data and weights go."""
    found = Found("table1")
    for network in NETWORKS:
        if network.paper is not None:
            found.rows.append(stated(network.paper))
        found.rows += rows(folder, sources, network)
    found.notes += [
        "The paper's 259M neurons of EfficientNet-B7 are its SiLU neurons alone; layers and neurons here follow from "
        "the network's shapes",
        "The paper trained its ResNet50 with average pools in place of max pools (resnet50_average); torchvision's "
        "weights belong to max pools, which resnet50_max leaves digital",
    ]
    return found


def rows(folder: Folder, sources: Sources, network: Network) -> list[Row]:
    """The network in the paper's setting and calibrated, or what can be counted and why there is no more."""
    more = {"max_pool": network.options.get("circuits", {}).get("max", "digital")} if "resnet" in network.name else {}
    try:
        data, weighted = sources.imagenet(), _weighted(sources, network)
    except Unavailable as reason:
        what, options = f"{network.name}, counted", network.options
        row = folder.row("table1", what, {"options": options}, lambda: counted(network.spec, options))
        return [{**row, "model": network.name, "data": "ImageNet", **more, "unavailable": str(reason)}]
    where = "ImageNet sample" if sources.is_sample() else "ImageNet"
    settings: dict[str, Any] = {**sources.settings, "where": where, "options": network.options}
    settings |= {"weights": weighted.fingerprint, **network.calibrated}

    def maker(kind: str) -> Callable[[], Row]:
        def make() -> Row:
            test, size = _images(sources, data, weighted, "test"), weighted.preprocessing.size
            model, like = sources.placed(weighted.model), sources.like(3, *size)
            snn = convert(model, like, **network.options)
            some = sources.loader(spread(test), weighted.preprocessing)
            check_labels(snn.as_ann(), some, _CLASSES, str(data), sources.device)
            if kind == "calibrated":
                images = sources.loader(_images(sources, data, weighted, "calibration"), weighted.preprocessing)
                ours = {"calibration": images, "seed": sources.seed, **network.calibrated}
                snn = convert(model, like, **network.options, **ours)
            batches = sources.loader(test, weighted.preprocessing)
            row = measured(kind, snn, weighted, batches, same="circuits" not in network.options)
            return {**row, "model": network.name, "data": where, **more, **left_out(batches)}

        return make

    return [folder.row("table1", f"{network.name}, {kind}", settings, maker(kind)) for kind in sources.kinds]


def _weighted(sources: Sources, network: Network) -> Weighted:
    """The network with the weights given, or with its own if they belong to it and can be had."""
    given = sources.weights.get(network.name)
    if given is None and not network.own_weights:
        raise Unavailable(
            "needs a ResNet50 trained with average pools: give --weights resnet50_average=FILE.safetensors, made by "
            "`python -m fewspikes.paper.training resnet50_average --data IMAGENET -o FILE.safetensors`"
        )
    try:
        loaded = load_model(network.spec, given)
    except FewSpikesError as error:
        if given is not None:
            raise
        raise Unavailable(str(error).replace("--weights FILE", f"--weights {network.name}=FILE")) from None
    return Weighted(loaded, "third-party" if given is None else "given", given or network.spec)


def _images(sources: Sources, data: Path, weighted: Weighted, purpose: str) -> ImageData:
    """Images for a purpose, "calibration" or "test", never the same.

    The labels of ImageNet's own test split are secret: its validation images are the test. Without training images
    some of them calibrate.
    """
    like, splits = weighted.preprocessing, image_splits(data)
    if purpose == "calibration" and "train" in splits:
        return sources.images(data, "train", like, _CLASSES, CALIBRATION_IMAGES)
    split = next((name for name in splits if name in ("val", "validation")), "evaluation")
    images = sources.images(data, split, like, _CLASSES, sources.limit)
    if "train" in splits:
        return images
    some = np.arange(len(images)) % max(_TENTH, len(images) // CALIBRATION_IMAGES) == 0
    return images.part(np.flatnonzero(some if purpose == "calibration" else ~some))
