"""Training images, in a new order and otherwise cut and mirrored in each epoch."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

from fewspikes.data import ImageData, Preprocessing, loader, open_images
from fewspikes.data.extras import require
from fewspikes.progress import track

_PADDING = 4  # pixels that a small image may be moved by


class TrainingImages(Protocol):
    """What `train` learns from: `steps` batches an epoch, the same whenever an epoch is read again."""

    steps: int

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of (inputs [B, C, H, W], class numbers [B]) of epoch `number`, 0 to ..."""


class InMemory:
    """Small images, all in memory, each moved by up to 4 pixels and mirrored at random.

    Args:
        images: normalised, [n, channels, height, width].
        labels: [n], int64.
        batch: images a step; what is left of an epoch is left out.
        seed: of order and augmentation.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch: int, seed: int = 0) -> None:
        self._images, self._labels, self._batch, self._seed = images, labels, batch, seed
        self.steps = len(images) // batch

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `TrainingImages`."""
        random = _generator(self._seed, number)
        order = torch.randperm(len(self._images), generator=random)
        for chosen in order[: self.steps * self._batch].view(self.steps, self._batch):
            yield augment(self._images[chosen], random), self._labels[chosen]


class OnDisk:
    """Photographs read in worker processes, each a random cut of 8 to 100% of its area, mirrored at random.

    Args:
        data: from `open_images`.
        preprocessing: of the network; its size is what cuts are resized to.
        batch: images a step; what is left of an epoch is left out.
        seed: of order and augmentation.
        workers: processes, >= 1; another number of them cuts otherwise.
    """

    def __init__(
        self, data: ImageData, preprocessing: Preprocessing, batch: int, seed: int = 0, workers: int = 1
    ) -> None:
        self._cuts = _RandomCuts(data, preprocessing)
        self._batch, self._seed, self._workers = batch, seed, workers
        self.steps = len(data) // batch

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `TrainingImages`."""
        random = _generator(self._seed, number)
        sampler = RandomSampler(self._cuts, generator=random)
        yield from DataLoader(
            self._cuts, self._batch, sampler=sampler, num_workers=self._workers, drop_last=True, generator=random
        )


class _RandomCuts(Dataset[tuple[Tensor, int]]):
    def __init__(self, data: ImageData, preprocessing: Preprocessing) -> None:
        v2 = require("torchvision.transforms.v2", "training on photographs")
        mode = v2.InterpolationMode(preprocessing.interpolation)
        self._cut = v2.Compose(
            [v2.RandomResizedCrop(preprocessing.size, interpolation=mode, antialias=True), v2.RandomHorizontalFlip()]
        )
        self._data, self._transform = data, replace(preprocessing, resize=None).transform()

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._cut(self._data.image(index))), int(self._data.labels[index])


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image moved by up to 4 pixels (mirrored at its borders) and turned left to right at random."""
    n, _, height, width = images.shape
    padded = F.pad(images, [_PADDING] * 4, mode="reflect")
    top, left = (torch.randint(0, 2 * _PADDING + 1, (n, 1, 1, 1), generator=random) for _ in range(2))
    flipped = torch.rand(n, 1, 1, 1, generator=random) < 0.5
    places = zip(padded, top.flatten().tolist(), left.flatten().tolist(), strict=True)
    moved = torch.stack([image[:, y : y + height, x : x + width] for image, y, x in places])
    return torch.where(flipped, moved.flip(-1), moved)


def read_split(data: Path, split: str, preprocessing: Any, classes: int) -> tuple[Tensor, Tensor]:
    """All images of a split as one normalised tensor, and their labels."""
    batches = list(track(loader(open_images(data, split, preprocessing, classes), 500), f"reading {split}", None))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)
