"""Content that knows its own checksum: JSON files, and whatever goes along with JSON, refused where it was changed."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from typing import Any, NoReturn

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path, reason_of, shown, write_json

SEAL = "sha256"
_MOST_BYTES = 128 << 20  # of JSON; a calibration of 1,000 sites has 64 MiB, and what is read takes many times as much
_MOST_DIGITS = 19  # of a whole number: 64 bits

# What code that interprets a file's content trips over where the content is not what it takes it for.
TRIPS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


class Kind:
    """A kind of file.

    Args:
        format: what files of this kind say they are.
        version: that this library reads.
        name: in messages, "calibration".
        again: what to do about one that cannot be used, "calibrate again".
    """

    def __init__(self, format: str, version: int, name: str, again: str) -> None:
        self.format, self.version, self.name, self.again = format, version, name, again

    def seal(self, content: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """The content with format, version and checksum.

        Raises:
            FewSpikesError: it is no plain JSON data.
        """
        whole = {"format": self.format, "version": self.version, **content}
        try:
            return whole | {SEAL: digest(whole, tensors)}
        except (TypeError, ValueError, RecursionError) as error:
            raise FewSpikesError(f"a {self.name} must be plain JSON data: {reason_of(error)}") from None

    def opened(
        self,
        content: Any,
        path: str | os.PathLike[str],
        tensors: Mapping[str, Tensor] | None = None,
        by_hand: bool = False,
    ) -> dict[str, Any]:
        """What was sealed.

        Args:
            content: as it was read.
            path: of the file, for messages.
            tensors: that go along with it.
            by_hand: whether a file without a checksum is welcome.

        Raises:
            FewSpikesError: another format or version, no checksum, or one that differs.
        """
        found = content.get("format") if isinstance(content, dict) else None
        if not isinstance(content, dict) or found != self.format:
            raise FewSpikesError(f"{shown(path)} has format {found!r:.50}; wanted {self.format!r}")
        if content.get("version") != self.version:
            version = content.get("version")
            raise FewSpikesError(
                f"{shown(path)} has version {version!r:.50}, this library reads {self.version}: {self.again}"
            )
        inside = {name: value for name, value in content.items() if name != SEAL}
        if SEAL not in content and by_hand:
            return inside
        if SEAL not in content:
            raise FewSpikesError(f"{shown(path)} has no checksum; it was made by an older version: {self.again}")
        if content[SEAL] != digest(inside, tensors):
            raise FewSpikesError(
                f"{shown(path)} was changed or damaged after it was written: its checksum differs; {self.again}"
            )
        return inside

    def write(self, path: str | os.PathLike[str], content: Mapping[str, Any], indent: int | None = 1) -> None:
        """Write as sealed JSON; `indent` as for `write_json`."""
        write_json(path, self.seal(content), indent)

    def read(self, path: str | os.PathLike[str], by_hand: bool = False) -> dict[str, Any]:
        """Read what `write` wrote; `by_hand` as for `opened`.

        Raises:
            FewSpikesError: no such file, no JSON, or anything that `opened` refuses.
        """
        path = as_path(path)
        try:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1)
            if len(text) > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES >> 20} MiB")
            return self.opened(parsed(text.decode()), path, by_hand=by_hand)
        except FewSpikesError:
            raise
        except (OSError, *TRIPS) as error:
            wanted = f"wanted a JSON file of format {self.format!r}"
            raise FewSpikesError(f"cannot read {shown(path)}: {reason_of(error)}; {wanted}") from None

    @contextmanager
    def reading(self, path: str | os.PathLike[str]) -> Iterator[None]:
        """Inside the block, whatever the content of the file trips over is one line that names the file."""
        try:
            yield
        except TRIPS as error:
            said = f"no {error}" if isinstance(error, KeyError) else reason_of(error)
            raise FewSpikesError(f"{shown(path)} is no valid {self.name}: {said}; {self.again}") from error


def digest(content: Any, tensors: Mapping[str, Tensor] | None = None) -> str:
    """SHA-256 of plain JSON data, however they are laid out, and of every bit of the tensors with their names."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted((tensors or {}).items()):
        found.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def parsed(text: str) -> Any:
    """JSON to plain data: each key once, finite numbers, whole ones of 64 bits.

    Raises:
        ValueError, RecursionError: it is something else.
    """
    return json.loads(
        text, object_pairs_hook=_once, parse_constant=_refused, parse_float=_finite, parse_int=_of_64_bits
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refused(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _of_64_bits(text: str) -> int:
    number = int(text) if len(text) <= _MOST_DIGITS + 1 else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"the number {text[:20]}... is too large")
    return number
