"""CIFAR-10 as torchvision downloads it: DIR/cifar-10-batches-py.

Its files are pickles. torchvision opens them only after each has the checksum of the official one.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.images.classes import check_numbers

if TYPE_CHECKING:
    from PIL.Image import Image

_FOLDER = "cifar-10-batches-py"


def cifar_splits(folder: Path) -> dict[str, tuple[Path, bool]]:
    """The folder that torchvision calls root, and whether it is the training split, by split."""
    root = folder.parent if folder.name == _FOLDER else folder
    return {"train": (root, True), "test": (root, False)} if (root / _FOLDER).is_dir() else {}


class CifarBatches:
    """The images of one split, a place of `cifar_splits`, in the official order; `classes` as for `open_images`.

    Raises:
        FewSpikesError: a file is missing or is not the official one, or labels that do not fit the head.
    """

    def __init__(self, place: tuple[Path, bool], classes: int | None) -> None:
        root, train = place
        cifar10 = require("torchvision.datasets", "reading CIFAR-10 as torchvision keeps it").CIFAR10
        try:
            found = cifar10(root, train=train, download=False)
        except RuntimeError:
            raise FewSpikesError(
                f"{root / _FOLDER} is not the whole official CIFAR-10 (a file is missing or has another checksum); "
                "fetch it again: python -c "
                f"\"import torchvision; torchvision.datasets.CIFAR10('{root}', download=True)\""
            ) from None
        except OSError as error:
            raise FewSpikesError(f"cannot read {root / _FOLDER}: {error.strerror or error}") from None
        self._pixels, self._place = found.data, f"{root / _FOLDER}, {'train' if train else 'test'}"
        self.labels = np.array(found.targets, dtype=np.int64)
        check_numbers(self.labels, classes, root / _FOLDER)

    def image(self, index: int) -> "Image":
        """Image `index`."""
        image: Image = require("PIL.Image", "reading images").fromarray(self._pixels[index])
        return image

    def describe(self, index: int) -> str:
        """The split and number of image `index`."""
        return f"{self._place}, image {index}"
