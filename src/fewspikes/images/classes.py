"""From class folders to class numbers; ImageNet's folders carry WordNet numbers, which have a fixed order."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.base.files import reason_of

MOST_CLASSES = 1 << 31  # a label beyond is no class number
_WNID = re.compile(r"n\d{8}")
_IMAGENET = 1000


def class_numbers(names: Sequence[str], classes: int | None, folder: Path) -> dict[str, int]:
    """The class number of each class folder.

    Folders named by WordNet numbers (n01440764) are ImageNet's: with 1000 classes each has its own number there,
    however few of them are present. In all other cases the sorted folders are classes 0, 1, 2, ...

    Args:
        names: names of the class folders, sorted.
        classes: as for `open_images`.
        folder: where they lie; a classes.tsv (columns index, wnid) there or above it gives ImageNet's order.

    Raises:
        FewSpikesError: the folders do not fit the head, or one is not in ImageNet.

    >>> class_numbers(["cat", "dog"], 2, Path("photos"))
    {'cat': 0, 'dog': 1}
    """
    if classes == _IMAGENET and all(_WNID.fullmatch(name) for name in names):
        return _imagenet_numbers(names, folder)
    if classes is not None and classes != len(names):
        raise FewSpikesError(
            f"{folder} has {len(names)} class folders ({', '.join(names[:3])}{', ...' * (len(names) > 3)}), where the "
            f"network has {classes} classes; give data with one folder for each class, empty ones too"
        )
    return {name: number for number, name in enumerate(names)}


def check_numbers(labels: NDArray[np.int64], classes: int | None, where: Path) -> None:
    """Raise FewSpikesError for a class number that the network does not have; `classes` None checks nothing."""
    if classes is None:
        return
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong) and (labels == -1).all():
        raise FewSpikesError(f"{where} keeps its labels secret (all are -1); give another split, such as --split val")
    if len(wrong):
        raise FewSpikesError(
            f"{where} has label {wrong[0]}, where the network has classes 0 to {classes - 1}; "
            "give the data that it was trained for"
        )


def _imagenet_numbers(names: Sequence[str], folder: Path) -> dict[str, int]:
    listed = (place / "classes.tsv" for place in (folder, *folder.resolve().parents[:2]))
    path = next((path for path in listed if path.is_file()), None)
    if path is None:
        info = require("timm.data", "ImageNet's class order (no classes.tsv found)").ImageNetInfo()
        order = {name: number for number, name in enumerate(info.label_names())}
    else:
        order = _read_order(path)
    unknown = [name for name in names if name not in order]
    if unknown:
        raise FewSpikesError(
            f"{folder} has {len(unknown)} folders that are not among ImageNet's {_IMAGENET} classes "
            f"({', '.join(unknown[:3])}); remove them, or list them in a classes.tsv beside the folders"
        )
    return {name: order[name] for name in names}


def _read_order(path: Path) -> dict[str, int]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            order = {row["wnid"]: int(row["index"]) for row in csv.DictReader(file, delimiter="\t")}
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise FewSpikesError(
            f"cannot read {path}: {reason_of(error)}; wanted tab-separated columns index and wnid"
        ) from None
    if sorted(order.values()) != list(range(_IMAGENET)):
        raise FewSpikesError(
            f"{path} must give every index from 0 to {_IMAGENET - 1} once; it lists {len(order)} wnids"
        )
    return order
