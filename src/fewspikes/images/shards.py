"""Images in tar shards of the WebDataset layout: KEY.jpg beside KEY.cls, read in place, nothing extracted.

A shard is indexed once by the standard library's tarfile; after that each image is one seek and one read. The package
webdataset streams shards in order, which knows neither labels nor a random subset before all of it has been read.
"""

import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.files import reason_of, shown
from fewspikes.base.progress import track
from fewspikes.base.seals import TRIPS
from fewspikes.images.classes import MOST_CLASSES, check_numbers
from fewspikes.images.folders import EXTENSIONS
from fewspikes.images.reading import decode_image
from fewspikes.images.splits import SPLIT_NAMES

if TYPE_CHECKING:
    from PIL.Image import Image

_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_NAMES)})(?:[^a-z]|$)")
_NUMBER = re.compile(r"(\d+)(?=\D*$)")
_JSON_LABELS = ("label", "cls", "class")
_BLOCK = tarfile.BLOCKSIZE
_LONGEST_LABEL = 1 << 24  # bytes; captions and boxes lie beside some labels, but no more than that
_RECORD = 1 << 20  # bytes; the most that usual writers fill up with zeros


def shard_splits(folder: Path) -> dict[str, list[Path]]:
    """The .tar files in `folder` and in its train/, test/, val/ ... by split; a name without a split is "all"."""
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.glob("*.tar")):
        match = _SPLIT.search(file.stem.lower())
        found[match[1] if match else "all"].append(file)
    for name in SPLIT_NAMES:
        found[name] += sorted((folder / name).glob("*.tar"))
    return {name: files for name, files in found.items() if files}


class ShardImages:
    """The images in the tar shards of one split, in the shards' order.

    Files of one sample share their name up to its first dot: one image KEY.jpg (or .png, ...), and a class number in
    KEY.cls or under "label", "cls" or "class" in KEY.json. `classes` as for `open_images`.

    Raises:
        FewSpikesError: a broken shard, samples without a label, no images, or a label out of range.

    Warns:
        FewSpikesWarning: numbers are left out among the shards' names.
    """

    def __init__(self, files: list[Path], classes: int | None) -> None:
        _warn_if_shards_miss(files)
        self._files = files
        places: list[tuple[int, int, int]] = []  # shard, first byte, bytes
        labels: list[NDArray[np.int64]] = []
        for number, file in enumerate(track(files, "indexing shards", len(files))):
            found = _samples(file)
            places += [(number, offset, size) for offset, size, _ in found]
            labels.append(np.array([label for *_, label in found], dtype=np.int64))
            check_numbers(labels[-1], classes, file)
        if not places:
            raise FewSpikesError(f"{files[0]} holds no images; wanted samples such as 0001.jpg and 0001.cls")
        self._places = np.array(places, dtype=np.int64)
        self.labels = np.concatenate(labels)

    def image(self, index: int) -> "Image":
        """Decode image `index`; raises FewSpikesError where its bytes are no image."""
        number, offset, size = (int(value) for value in self._places[index])
        try:
            with self._files[number].open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise FewSpikesError(f"cannot read {self._files[number]}: {error.strerror or error}") from None
        return decode_image(content, lambda: self.describe(index))

    def describe(self, index: int) -> str:
        """The shard of image `index` and its name there."""
        number, offset, _ = (int(value) for value in self._places[index])
        try:
            with self._files[number].open("rb") as file:
                file.seek(offset - _BLOCK)
                name = tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape").name
        except (OSError, ValueError, tarfile.TarError):
            name = f"the image at byte {offset}"
        return f"{shown(self._files[number])}: {shown(name)}"


def _samples(file: Path) -> list[tuple[int, int, int]]:
    """First byte, length and class number of each image of a shard."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, dict[str, int]] = {"cls": {}, "json": {}}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in _in_order(tar):
                place, _, name = member.name.rpartition("/")
                key, _, kind = name.partition(".")
                key, kind = f"{place}/{key}", kind.lower()
                if member.isfile() and f".{kind}" in EXTENSIONS:  # KEY.seg.png is no photograph
                    images[key] = (member.offset_data, member.size)
                elif member.isfile() and kind in labels:
                    label = _label(_text(tar, member), kind, f"{shown(file)}: {shown(member.name)}")
                    if label is not None:
                        labels[kind][key] = label
            _check_end(file, tar.offset)
    except FewSpikesError:
        raise
    except (tarfile.TarError, *TRIPS) as error:
        raise FewSpikesError(f"{shown(file)} is no whole tar file ({reason_of(error)}); fetch it again") from None
    except OSError as error:
        raise FewSpikesError(f"cannot read {shown(file)}: {reason_of(error)}") from None
    known = labels["json"] | labels["cls"]
    bare = [key for key in images if key not in known]
    if bare:
        raise FewSpikesError(
            f"{shown(file)} has {len(bare)} images without a label, the first {shown(bare[0].lstrip('/'))}; wanted a "
            "class number in KEY.cls, or under 'label' in KEY.json"
        )
    return [(offset, size, known[key]) for key, (offset, size) in images.items()]


def _in_order(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members; a header of a negative length would lead back to where it stands, for ever."""
    end = -1
    for member in tar:
        if member.size < 0 or member.offset <= end:
            raise tarfile.ReadError(f"a member of {member.size:,} bytes at byte {member.offset:,}")
        if member.issparse():
            raise tarfile.ReadError("a member with holes; images are read in place")
        end = member.offset
        yield member


def _check_end(file: Path, offset: int) -> None:
    """After its last member a whole tar file holds zeros, no more than fill a record; tarfile does not look."""
    with file.open("rb") as content:
        content.seek(offset)
        rest = content.read(_RECORD + 1)
    if len(rest) < _BLOCK or len(rest) > _RECORD or any(rest):
        raise tarfile.ReadError(f"no end at byte {offset:,}")


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.size <= _LONGEST_LABEL else None
    return b"" if file is None else file.read()


def _label(text: bytes, kind: str, name: str) -> int | None:
    try:
        found: Any = int(text) if kind == "cls" else json.loads(text)
    except (ValueError, RecursionError):
        what = "class number" if kind == "cls" else "JSON"
        raise FewSpikesError(f"{name} holds no {what}; make the shard again") from None
    values = [found.get(key) for key in _JSON_LABELS] if isinstance(found, dict) else [found] * (kind == "cls")
    label = next((value for value in values if type(value) is int), None)
    if label is not None and not -MOST_CLASSES < label < MOST_CLASSES:
        raise FewSpikesError(f"{name} holds no class number but one of {len(str(label))} digits; make the shard again")
    return label


def _warn_if_shards_miss(files: list[Path]) -> None:
    """Warn where shards are missing: between the first and the last of a name, or of those that names state."""
    found: dict[str, set[int]] = defaultdict(set)
    stated: dict[str, int] = {}
    for file in files:
        name, _, of = file.stem.partition("-of-")
        match = _NUMBER.search(name)
        if match is not None:
            start = name[: match.start()]
            found[start].add(int(match[1]))
            if of.isdecimal():
                stated[start] = int(of)
    for start, numbers in found.items():
        whole = stated.get(start, max(numbers) - min(numbers) + 1)
        if len(numbers) < whole:
            warn(f"{files[0].parent} holds {len(numbers)} of {whole:,} shards {start}*.tar; only they are used")
