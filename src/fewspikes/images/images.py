"""`open_images`: a folder of labelled photographs as a data set of (input, class number), whatever its layout."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.files import as_path
from fewspikes.images.cifar_batches import CifarBatches, cifar_splits
from fewspikes.images.folders import FolderImages, folder_splits
from fewspikes.images.parquet import ParquetImages, parquet_splits
from fewspikes.images.preprocessing import Preprocessing
from fewspikes.images.reading import DamagedImageError
from fewspikes.images.shards import ShardImages, shard_splits
from fewspikes.images.splits import choose_split

if TYPE_CHECKING:
    from PIL.Image import Image

DATA_VARIABLE = "FEWSPIKES_DATA"
MOST_IMAGES = 1 << 31  # a batch
MOST_WORKERS = 1024  # processes; a larger number is a slip, and they would all be started


class LabelledImages(Protocol):
    """What a layout offers: labels at once, images one by one."""

    labels: NDArray[np.int64]

    def image(self, index: int) -> "Image":
        """Image `index`, decoded."""

    def describe(self, index: int) -> str:
        """Where image `index` lies, for messages."""


class ImageData(Dataset[tuple[Tensor, int]]):
    """Labelled images, through a transform, as a network sees them; item i is (input [C, H, W] float32, class number).

    Attributes:
        labels: the class numbers, int64 [len].
        split: the split's name.
    """

    def __init__(
        self, images: LabelledImages, transform: Callable[["Image"], Tensor], chosen: NDArray[np.int64], split: str
    ) -> None:
        self.labels = images.labels[chosen]
        self.split = split
        self._images, self._transform, self._chosen = images, transform, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.image(index)
        try:
            return self._transform(image), int(self.labels[index])
        except FewSpikesError as error:  # a damaged image stays one, so that it may be left out
            raise type(error)(f"{self._images.describe(int(self._chosen[index]))}: {error}") from None

    def image(self, index: int) -> "Image":
        """The photograph itself; raises FewSpikesError where it cannot be read."""
        return self._images.image(int(self._chosen[index]))

    def part(self, positions: NDArray[np.int64]) -> "ImageData":
        """The images at these positions of the data set."""
        return ImageData(self._images, self._transform, self._chosen[positions], self.split)

    def through(self, transform: Callable[["Image"], Tensor]) -> "ImageData":
        """The same images, made into inputs by another transform."""
        return ImageData(self._images, transform, self._chosen, self.split)


def open_images(
    folder: str | os.PathLike[str],
    split: str,
    preprocessing: Preprocessing,
    classes: int | None,
    limit: int | None = None,
    seed: int = 0,
) -> ImageData:
    """Open labelled images: class folders, Parquet files (Hugging Face), tar shards, torchvision's CIFAR-10.

    Class folders: DIR/<split>/<class>/*.jpg with splits train, test, val, validation, or DIR/<class>/*.jpg, whose one
    split is named "all". Parquet: DIR/train-*.parquet or DIR/data/train-*.parquet, and so on. Shards: DIR/*train*.tar
    or DIR/train/*.tar, and so on, with KEY.jpg and KEY.cls in them. torchvision's CIFAR-10: DIR/cifar-10-batches-py.

    Args:
        folder: DIR.
        split: "train" (to calibrate), "evaluation" (test, else val or validation), or a split's name. The first two
            fall back on another split, with a warning.
        preprocessing: how an image becomes an input.
        classes: the number of outputs of the network's head, checked against the data; None: not checked, for
            images whose labels do not matter (calibration).
        limit: at most so many images, a random subset drawn with `seed`, in the data's order.
        seed: of the subset; equal seeds give equal subsets.

    Raises:
        FewSpikesError: no such folder, no known layout, no such split, data that do not fit the head. Files that are
            no images raise when they are read.

    Warns:
        FewSpikesWarning: another split stands in, or files of the split are missing.
    """
    folder = as_path(folder)
    if folder.is_file():
        raise FewSpikesError(f"{folder} is a file; give the folder that it lies in")
    if not folder.is_dir():
        raise FewSpikesError(f"no folder {folder}; give the folder that holds the images")
    limit = None if limit is None else checks.whole("limit", limit, 1)
    checks.whole("seed", seed, 0)
    images, name = _open_split(folder, split, classes)
    return ImageData(images, preprocessing.transform(), _subset(len(images.labels), limit, seed), name)


class ImageLoader(DataLoader[Any]):
    """Batches of images, made by `loader`; a bad image in a worker process is one line, as in this process.

    Attributes:
        left_out: what the last pass over the data left out, one line for each damaged image.
    """

    left_out: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.left_out = lines = ()
        try:
            for batch in super().__iter__():
                content, damaged = batch if isinstance(batch, _Batch) else (batch, ())
                self.left_out = lines = (*lines, *damaged)
                if content is not None:
                    yield _own(content) if self.num_workers else content
        except FewSpikesError as error:
            kind = type(error)
            raise kind(str(error).rpartition(f"{kind.__name__}: ")[2].strip()) from None
        if lines:
            more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
            total = len(self.dataset)  # type: ignore[arg-type]
            warn(f"{len(lines)} of {total:,} images were left out: {'; '.join(lines[:3])}{more}")


def _own(content: Any) -> Any:
    """Copies of what another process sent: each tensor of those holds a file descriptor, and callers keep batches."""
    return content.clone() if isinstance(content, Tensor) else [_own(value) for value in content]


class _Batch(NamedTuple):
    """What could be read of a batch, None if nothing, and a line for each damaged image."""

    content: Any
    damaged: list[str]


class _Forgiving(Dataset[Any]):
    """A data set that gives a line of text in place of a damaged image."""

    def __init__(self, images: Dataset[Any]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        try:
            return self._images[index]
        except DamagedImageError as error:
            return str(error)


def _sorted_out(items: list[Any]) -> _Batch:
    read = [item for item in items if not isinstance(item, str)]
    return _Batch(default_collate(read) if read else None, [item for item in items if isinstance(item, str)])


def loader(
    dataset: Dataset[Any],
    batch_size: int,
    workers: int = 0,
    skip_damaged: bool = False,
    shuffle: torch.Generator | None = None,
) -> ImageLoader:
    """Batches of (inputs [B, C, H, W], class numbers int64 [B]) in the data set's order, the last one perhaps smaller.

    Args:
        dataset: as from `open_images`.
        batch_size: images a batch, >= 1.
        workers: processes that read images, at most 1,024; 0 reads them in this process. The batches are the same.
        skip_damaged: leave images out that cannot be decoded, and warn of their number and names when all is read;
            False: the first one raises FewSpikesError.
        shuffle: draws another order in each pass and seeds the worker processes; a last batch that is smaller is left
            out. None: the data set's order.

    Raises:
        FewSpikesError: a number out of range.
    """
    checks.whole("batch_size", batch_size, 1, MOST_IMAGES)
    checks.whole("workers", workers, 0, MOST_WORKERS)
    order: dict[str, Any] = {} if shuffle is None else {"shuffle": True, "generator": shuffle, "drop_last": True}
    if skip_damaged:
        return ImageLoader(_Forgiving(dataset), batch_size, num_workers=workers, collate_fn=_sorted_out, **order)
    return ImageLoader(dataset, batch_size, num_workers=workers, **order)


def data_folder(argument: str | os.PathLike[str] | None) -> Path:
    """The data folder that is meant: the argument, or else the environment variable FEWSPIKES_DATA.

    Raises:
        FewSpikesError: neither is given.
    """
    place = argument or os.environ.get(DATA_VARIABLE)
    if not place:
        raise FewSpikesError(f"no data folder; give --data DIR, or set the environment variable {DATA_VARIABLE}")
    return Path(place)


_LAYOUTS: tuple[tuple[Callable[[Path], Mapping[str, Any]], Callable[[Any, int | None], LabelledImages]], ...] = (
    (parquet_splits, ParquetImages),
    (cifar_splits, CifarBatches),
    (folder_splits, FolderImages),
    (shard_splits, ShardImages),  # last: archives often lie beside the folders that came out of them
)


def image_splits(folder: Path) -> tuple[str, ...]:
    """The names of the splits in a folder of images; none where it has no known layout."""
    return next((tuple(found) for find, _ in _LAYOUTS if (found := find(folder))), ())


def _open_split(folder: Path, split: str, classes: int | None) -> tuple[LabelledImages, str]:
    for find, opened in _LAYOUTS:
        if found := find(folder):
            name = choose_split(found, split, folder)
            return opened(found[name], classes), name
    raise FewSpikesError(
        f"{folder} holds no images in a known layout; wanted {folder}/<split>/<class>/*.jpg, {folder}/<class>/*.jpg, "
        f"{folder}/<split>-*.parquet or {folder}/*<split>*.tar{_better_folders(folder)}"
    )


def _better_folders(folder: Path) -> str:
    below = sorted(place for place in folder.iterdir() if place.is_dir())
    better = [str(place) for place in below if image_splits(place)]
    return f"; did you mean {' or '.join(better[:3])}?" if better else ""


def _subset(count: int, limit: int | None, seed: int) -> NDArray[np.int64]:
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size=limit, replace=False))
