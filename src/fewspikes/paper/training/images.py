"""Training images, in a new order and otherwise cut and mirrored in each epoch."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.base.progress import track
from fewspikes.images import ImageData, Preprocessing, image_splits, loader, open_images

if TYPE_CHECKING:
    from PIL.Image import Image

_PADDING = 4  # pixels that a small image may be moved by


class TrainingImages(Protocol):
    """What `train` learns from: `steps` batches an epoch, the same whenever an epoch is read again."""

    steps: int
    about: dict[str, int]  # what a checkpoint must agree with

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of (inputs [B, C, H, W], class numbers [B]) of epoch `number`, 0 to ..."""


class InMemory:
    """Small images, all in memory, each moved by up to 4 pixels and mirrored at random.

    Args:
        images: normalised, [n, channels, height, width].
        labels: [n], int64, on the CPU.
        batch: images a step; what is left of an epoch is left out.
        seed: of order and augmentation.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch: int, seed: int = 0) -> None:
        self._images, self._labels, self._batch, self._seed = images, labels, batch, seed
        self.steps = len(images) // batch
        self.about = _about(labels.numpy())

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `TrainingImages`."""
        random = _generator(self._seed, number)
        order = torch.randperm(len(self._images), generator=random)
        for chosen in order[: self.steps * self._batch].view(self.steps, self._batch):
            yield augment(self._images[chosen], random), self._labels[chosen]


class OnDisk:
    """Photographs read in worker processes, each a random cut of 8 to 100% of its area, mirrored at random.

    Args:
        data: from `open_images`; class folders or tar shards, because Parquet files are slow out of their order.
        preprocessing: of the network; its size is what cuts are resized to.
        batch: images a step; what is left of an epoch is left out.
        seed: of order and augmentation.
        workers: processes, >= 1; another number of them cuts otherwise.
        skip_damaged: leave images out that cannot be decoded; False: the first one raises FewSpikesError.

    Raises:
        FewSpikesError: no worker.
    """

    def __init__(
        self,
        data: ImageData,
        preprocessing: Preprocessing,
        batch: int,
        seed: int = 0,
        workers: int = 1,
        skip_damaged: bool = False,
    ) -> None:
        if workers < 1:
            raise FewSpikesError(f"workers must be >= 1; got {workers}")
        self._data = data.through(_RandomCut(preprocessing))
        self._batch, self._seed, self._workers, self._skip_damaged = batch, seed, workers, skip_damaged
        self.steps = len(data) // batch
        self.about = {**_about(data.labels), "workers": workers}

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `TrainingImages`."""
        random = _generator(self._seed, number)
        yield from loader(self._data, self._batch, self._workers, self._skip_damaged, random)


class _RandomCut:
    """A class, so that worker processes can receive it."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        v2 = require("torchvision.transforms.v2", "training on photographs")
        mode = v2.InterpolationMode(preprocessing.interpolation)
        cut = v2.RandomResizedCrop(preprocessing.size, interpolation=mode, antialias=True)
        self._cut = v2.Compose([cut, v2.RandomHorizontalFlip()])
        self._transform = replace(preprocessing, resize=None).transform()

    def __call__(self, image: "Image") -> Tensor:
        return self._transform(self._cut(image))


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image moved by up to 4 pixels (mirrored at its borders) and turned left to right at random."""
    n, _, height, width = images.shape
    padded = F.pad(images, [_PADDING] * 4, mode="reflect")
    top, left = (torch.randint(0, 2 * _PADDING + 1, (n, 1, 1, 1), generator=random) for _ in range(2))
    flipped = torch.rand(n, 1, 1, 1, generator=random) < 0.5
    places = zip(padded, top.flatten().tolist(), left.flatten().tolist(), strict=True)
    moved = torch.stack([image[:, y : y + height, x : x + width] for image, y, x in places])
    return torch.where(flipped, moved.flip(-1), moved)


def open_split(data: Path, wanted: str, preprocessing: Preprocessing, classes: int) -> ImageData:
    """The images to train on ("train") or to test on ("evaluation"), which are never the same.

    Raises:
        FewSpikesError: as `open_images`; or only a split of the other kind is there.
    """
    splits = image_splits(data) if data.is_dir() else ()
    if splits and not any((name == "train") == (wanted == "train") for name in splits):
        missing = "train" if wanted == "train" else "test, val or validation"
        raise FewSpikesError(f"{data} has no split {missing}, only {splits[0]!r}: training and test images must differ")
    return open_images(data, wanted, preprocessing, classes)


def read_split(
    data: Path, wanted: str, preprocessing: Preprocessing, classes: int, skip_damaged: bool = False
) -> tuple[Tensor, Tensor]:
    """All images of `open_split` as one normalised tensor, and their labels."""
    found = loader(open_split(data, wanted, preprocessing, classes), 500, skip_damaged=skip_damaged)
    batches = list(track(found, f"reading {wanted}", None))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def _about(labels: NDArray[np.int64]) -> dict[str, int]:
    """What tells one set of images from another."""
    return {"images": len(labels), "checksum of labels": zlib.crc32(labels.tobytes())}


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)
