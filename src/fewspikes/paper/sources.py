"""Networks with their weights, and images, as far as this machine has them."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fewspikes.base.errors import FewSpikesError
from fewspikes.images import ImageData, ImageLoader, Preprocessing, loader, open_images
from fewspikes.models import load_model
from fewspikes.models.loading import LoadedModel, trained_weights
from fewspikes.paper.results import Row

CALIBRATION_IMAGES, DISTILLING_IMAGES = 512, 8192
_PIXELS = 2_000_000  # a batch: 39 images of 224 x 224, 5 of 600 x 600
_SMALL = 64 * 64  # pixels; a process of their own is not worth it
_LOOKED_AT = 500  # images on which the labels are checked
_CLEAR = 3.0  # times chance


class Unavailable(Exception):
    """Something is not on this machine; the text says what, and how to get it."""


@dataclass(frozen=True)
class Weighted:
    """A network with weights, and whose: "ours" (shipped), "third-party", or "given" on the command line.

    `where` they came from: a file, or what `load_model` was told.
    """

    loaded: LoadedModel
    weights: str
    where: str

    @property
    def fingerprint(self) -> str:
        """Changes with the weights: the file's content, or where they came from."""
        file = Path(self.where)
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else self.where

    @property
    def model(self) -> nn.Module:
        """In eval mode."""
        return self.loaded.model

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become its inputs."""
        assert self.loaded.preprocessing is not None
        return self.loaded.preprocessing


@dataclass(frozen=True)
class Sources:
    """What is at hand.

    Args:
        data: a folder with cifar10/, imagenet/ (or imagenet-sample/) and weights/, or one of the first three; None: no
            images.
        weights: a .safetensors file by network name, such as {"resnet50": "r50.safetensors"}.
        limit: test images at most; None: all.
        seed: of the subset, and of calibration and distilling images.
        batch: images at most.
        workers: processes that read images of more than 64 x 64 pixels.
        device: where networks run.
        calibrated: whether our own rows are made, too; they take most of the time.
        skip_damaged: leave images out that cannot be decoded; False: stop at the first.
    """

    data: Path | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 0
    batch: int = 250
    workers: int = 0
    device: str | torch.device = "cpu"
    calibrated: bool = True
    skip_damaged: bool = False
    _opened: dict[Any, ImageData] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def settings(self) -> dict[str, Any]:
        """What a result depends on."""
        return {"limit": self.limit, "seed": self.seed, "skip_damaged": self.skip_damaged}

    @property
    def options(self) -> str:
        """What a command line must say to get the same rows from the same data and weights."""
        return "".join(
            (
                "" if self.limit is None else f" --limit {self.limit}",
                f" --seed {self.seed}" if self.seed else "",
                "" if self.calibrated else " --no-calibrated",
                " --skip-damaged" if self.skip_damaged else "",
            )
        )

    def cifar(self) -> Path:
        """The folder of CIFAR-10.

        Raises:
            Unavailable: none is given.
        """
        return self._folder(
            ("cifar10", "cifar-10", "cifar-10-batches-py"),
            "CIFAR-10",
            "Parquet files in the Hugging Face layout, class folders, or torchvision's cifar-10-batches-py/",
        )

    def imagenet(self) -> Path:
        """The folder of ImageNet, or of a sample of it.

        Raises:
            Unavailable: none is given.
        """
        return self._folder(("imagenet", "imagenet-sample"), "ImageNet", "val/<wnid>/*.JPEG")

    def is_sample(self) -> bool:
        """Whether the ImageNet folder is a sample of photographs and not the validation set."""
        return self.imagenet().name == "imagenet-sample"

    def _folder(self, names: tuple[str, ...], what: str, layout: str) -> Path:
        if self.data is None:
            raise Unavailable(f"needs {what}: give --data DIR with {names[0]}/ in it ({layout})")
        if self.data.name in names:
            return self.data
        for name in names:
            if (self.data / name).is_dir():
                return self.data / name
        raise Unavailable(f"{self.data} holds no {names[0]}/: put {what} there ({layout})")

    def network(self, name: str) -> Weighted:
        """A CIFAR network by name, with the weights given, ours, or those in the data folder.

        Raises:
            Unavailable: no weights.
        """
        return self._weighted(name, *self._files(name)[0])

    def versions(self, name: str) -> list[Weighted]:
        """A CIFAR network with all weights that are at hand, those that `network` takes first; never none.

        Raises:
            Unavailable: no weights.
        """
        return [self._weighted(name, whose, file) for whose, file in self._files(name)]

    def _files(self, name: str) -> list[tuple[str, Path]]:
        """Whose weights are at hand, and where; never none."""
        files = [("ours", trained_weights(name))]
        if self.data is not None:
            files.append(("third-party", self.data / "weights" / f"cifar10-{name}.safetensors"))
        files = [(whose, file) for whose, file in files if file.is_file()]
        if name in self.weights:
            files = [("given", Path(self.weights[name]))]
        if not files:
            raise Unavailable(
                f"needs trained weights of {name}: give --weights {name}=FILE.safetensors, made by "
                f"`python -m fewspikes.paper.training {name} --data DIR -o FILE.safetensors`"
            )
        return files

    def _weighted(self, name: str, whose: str, file: Path) -> Weighted:
        return Weighted(load_model(f"fewspikes:{name}", str(file)), whose, str(file))

    def images(
        self, folder: Path, split: str, like: Preprocessing, classes: int, limit: int | None = None
    ) -> ImageData:
        """Images of a split, `limit` of them at most; a folder is looked through once."""
        key = (folder, split, classes, limit)
        if key not in self._opened:
            self._opened[key] = open_images(folder, split, like, classes, limit, self.seed)
        return self._opened[key].through(like.transform())

    @property
    def kinds(self) -> tuple[str, ...]:
        """The rows to measure."""
        return ("measured", "calibrated") if self.calibrated else ("measured",)

    def placed(self, model: nn.Module) -> nn.Module:
        """The model where it shall run, in the layout that convolutions are fastest in."""
        return model.to(self.device).to(memory_format=torch.channels_last)

    def like(self, *shape: int) -> Tensor:
        """An input of a network: one image."""
        return torch.zeros(1, *shape, device=self.device)

    def loader(self, images: Dataset[Any], like: Preprocessing, most: int | None = None) -> ImageLoader:
        """The images in batches, read when they are wanted; large images in small batches, by worker processes."""
        pixels = like.size[0] * like.size[1]
        batch = max(1, min(most or self.batch, _PIXELS // pixels))
        return loader(images, batch, self.workers if pixels > _SMALL else 0, self.skip_damaged)


def in_memory(batches: ImageLoader) -> list[tuple[Tensor, Any]]:
    """All batches of small images, in the layout that convolutions are fastest in."""
    return [(x.contiguous(memory_format=torch.channels_last), labels) for x, labels in batches]


def left_out(batches: ImageLoader) -> Row:
    """How many images were damaged when they were read last, as a part of a row; nothing if none were."""
    return {"left_out": len(batches.left_out)} if batches.left_out else {}


def spread(images: ImageData) -> ImageData:
    """A few of them from first to last, because images often lie in the order of their classes."""
    return images.part(np.unique(np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).astype(np.int64)))


def check_labels(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Any]],
    classes: int,
    where: str,
    device: str | torch.device = "cpu",
) -> None:
    """Look at a few images, on the model's device, before hours are spent on all.

    Raises:
        FewSpikesError: no image, no better than chance, or far better with every label moved by one.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    with torch.inference_mode():
        for x, y in batches:
            seen.append((model(x.to(device)).argmax(1).cpu(), torch.as_tensor(y)))
    if not seen:
        raise FewSpikesError(f"{where} leaves no image to measure on; give more, or a higher --limit")
    named, labels = (torch.cat(tensors) for tensors in zip(*seen, strict=True))
    if len(labels) < 50:
        return
    right = {by: float((named == (labels + by) % classes).double().mean()) for by in (0, 1, -1)}
    for by in (1, -1):
        if right[by] > _CLEAR * max(right[0], 1 / classes):
            raise FewSpikesError(
                f"the labels of {where} look moved by {-by}: the network is right on {100 * right[0]:.1f}% of "
                f"{len(labels)} images, and on {100 * right[by]:.1f}% with every label moved by {by}; number the "
                "classes from 0"
            )
    if right[0] < _CLEAR / classes:
        raise FewSpikesError(
            f"the network is right on {100 * right[0]:.1f}% of {len(labels)} images of {where}, no better than chance: "
            "do the labels, the weights and the preprocessing belong together?"
        )
