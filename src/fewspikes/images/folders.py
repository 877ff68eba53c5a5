"""Images in class folders: DIR/<split>/<class>/*.jpg, or DIR/<class>/*.jpg."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path, reason_of, shown
from fewspikes.images.classes import class_numbers
from fewspikes.images.reading import open_image
from fewspikes.images.splits import SPLIT_NAMES

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))


def folder_splits(folder: Path) -> dict[str, Path]:
    """The folders that hold class folders, by split; class folders directly in `folder` are the split "all"."""
    below = _subfolders(folder)
    named = {place.name: place for place in below if place.name in SPLIT_NAMES and _subfolders(place)}
    if named:
        return named
    return {"all": folder} if any(True for place in below for _ in _images(place)) else {}


class FolderImages:
    """The images in the class folders of one split, or one level deeper, sorted by class folder and file name.

    Raises:
        FewSpikesError: no images, or class folders that do not fit the head.
    """

    def __init__(self, folder: Path, classes: int | None) -> None:
        numbers = class_numbers([place.name for place in _subfolders(folder)], classes, folder)
        files = [(file, number) for name, number in numbers.items() for file in _images(folder / name)]
        if not files:
            raise FewSpikesError(f"no images in the class folders of {folder}; wanted {folder}/<class>/*.jpg or *.png")
        self._files = [file for file, _ in files]
        self.labels = np.array([number for _, number in files], dtype=np.int64)

    def image(self, index: int) -> "Image":
        """Read image `index`; raises FewSpikesError where the file is no image."""
        return open_image(self._files[index])

    def describe(self, index: int) -> str:
        """The path of image `index`."""
        return str(self._files[index])


def _subfolders(folder: Path) -> list[Path]:
    names = (place for place in _inside(folder) if not place.name.startswith((".", "__")))
    return sorted(place for place in names if as_path(place).is_dir())


def _images(folder: Path) -> Iterator[Path]:
    # One level deeper as well, because some data sets keep <class>/images/*.JPEG.
    for place in (folder, *_subfolders(folder)):
        yield from sorted(file for file in _inside(place) if file.suffix.lower() in EXTENSIONS and file.is_file())


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise FewSpikesError(
            f"cannot read the folder {shown(folder)}: {reason_of(error)}; check its permissions"
        ) from None
