"""Images in Parquet files of the Hugging Face layout, read in place: no copy, no cache, no network.

Row groups are read one at a time by pyarrow, the reader that Hugging Face `datasets` uses itself; its own
`Dataset.from_parquet` would first copy every byte into its cache.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.extras import require
from fewspikes.base.files import reason_of, shown
from fewspikes.base.seals import TRIPS
from fewspikes.images.classes import MOST_CLASSES, check_numbers
from fewspikes.images.reading import decode_image

if TYPE_CHECKING:
    from PIL.Image import Image

_NAME = re.compile(r"(?P<split>.+?)(-(?P<shard>\d+)-of-(?P<shards>\d+).*|-\d+)?\.parquet")


def parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files in `folder`, or else in `folder`/data, by the split that their names start with."""
    files = sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_parts(file)["split"], []).append(file)
    return found


class ParquetImages:
    """The images in the Parquet files of one split, in the files' order.

    The image column is a struct with a field `bytes` (an encoded image), named img or image, or the only such column;
    the label column is `label`, or the only integer column whose name contains "label". `classes` as for `open_images`.

    Raises:
        FewSpikesError: a broken file, no image or label column, no rows, or a label out of range.
    """

    def __init__(self, files: list[Path], classes: int | None) -> None:
        _warn_if_shards_miss(files)
        self._groups: list[tuple[Path, int]] = []
        self._starts = [0]  # the first row of each row group, and the number of rows at the end
        labels = [self._open(file) for file in files]
        self.labels = np.concatenate(labels)
        if not len(self.labels):
            raise FewSpikesError(f"{files[0]} has no rows; fetch the data again")
        for file, numbers in zip(files, labels, strict=True):
            check_numbers(numbers, classes, file)
        self._held: tuple[int, Any] = (-1, None)

    def image(self, index: int) -> "Image":
        """Decode image `index`; raises FewSpikesError where its bytes are no image."""
        group = bisect_right(self._starts, index) - 1
        if group != self._held[0]:
            self._held = (group, self._read_group(group))
        with _reading(self._groups[group][0], "is damaged"):
            content = self._held[1][index - self._starts[group]].as_py()
        if content is None:
            raise FewSpikesError(f"{self.describe(index)} holds no image bytes; embed the images in the file")
        return decode_image(content, lambda: self.describe(index))

    def describe(self, index: int) -> str:
        """The file and row of image `index`."""
        group = bisect_right(self._starts, index) - 1
        file = self._groups[group][0]
        first = next(start for start, (path, _) in zip(self._starts, self._groups, strict=False) if path == file)
        return f"{file} row {index - first}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": (-1, None)}  # each worker process reads its own row groups

    def _open(self, file: Path) -> NDArray[np.int64]:
        reader = _reader(file)
        image, label = _columns(reader.schema_arrow, file)
        self._column = image
        for group in range(reader.num_row_groups):
            self._groups.append((file, group))
            self._starts.append(self._starts[-1] + reader.metadata.row_group(group).num_rows)
        with _reading(file, "is damaged"):
            labels = reader.read(columns=[label], use_threads=False).column(0)
            if labels.null_count:
                raise FewSpikesError(f"{file} has {labels.null_count} rows without a label; remove them")
            numbers = labels.to_numpy()
            if len(numbers) != reader.metadata.num_rows or (numbers > MOST_CLASSES).any():
                raise ValueError(f"{len(numbers)} labels, the largest {max(numbers, default=0)}")
        return np.asarray(numbers, dtype=np.int64)

    def _read_group(self, group: int) -> Any:
        file, number = self._groups[group]
        with _reading(file, "is damaged"):
            table = _reader(file).read_row_group(number, columns=[f"{self._column}.bytes"], use_threads=False)
        return table.flatten().column(0)


def _parts(file: Path) -> dict[str, Any]:
    match = _NAME.fullmatch(file.name)
    return match.groupdict() if match else {"split": file.stem, "shards": None}


def _warn_if_shards_miss(files: list[Path]) -> None:
    stated = max((int(_parts(file)["shards"] or 0) for file in files), default=0)
    if stated > len(files):
        warn(
            f"{files[0].parent} holds {len(files)} of the {stated} files of split {_parts(files[0])['split']!r}; "
            "only they are used"
        )


def _reader(file: Path) -> Any:
    parquet = require("pyarrow.parquet", "reading Parquet files")
    with _reading(file, "is no readable Parquet file"):
        return parquet.ParquetFile(file)


@contextmanager
def _reading(file: Path, wrong: str) -> Iterator[None]:
    try:
        yield
    except FewSpikesError:
        raise
    except (OSError, *TRIPS) as error:
        raise FewSpikesError(f"{shown(file)} {wrong} ({reason_of(error)}); fetch it again") from None


def _columns(schema: Any, file: Path) -> tuple[str, str]:
    """The names of the image column and of the label column."""
    types = require("pyarrow", "reading Parquet files").types
    images = [f.name for f in schema if types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    labels = [f.name for f in schema if types.is_integer(f.type) and "label" in f.name.lower()]
    wanted = (
        ("image", images, ("img", "image"), "wanted one struct with a field 'bytes', named img or image"),
        ("label", labels, ("label",), "wanted one of integers, named label"),
    )
    chosen = []
    for kind, found, usual, wish in wanted:
        named = [name for name in usual if name in found] or found
        if len(named) != 1 and named is found:
            raise FewSpikesError(f"{file} has {len(found)} {kind} columns among {', '.join(schema.names)}; {wish}")
        chosen.append(str(named[0]))
    return chosen[0], chosen[1]
