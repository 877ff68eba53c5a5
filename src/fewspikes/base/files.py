"""Paths that the system takes, and files that are never half written."""

import hashlib
import json
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from fewspikes.base.errors import FewSpikesError

_MARK = re.compile("[0-9a-f]{32}")  # machine, process, chance
_QUIET = 3600  # seconds; who writes a file touches it at least every few
_MOST_NAME, _MOST_SHOWN = 200, 200  # bytes of a name that another is made of; characters of a path in messages


def as_path(path: Any) -> Path:
    """The path, if the system can look at it, whether or not something is there.

    Raises:
        FewSpikesError: no text or Path, a name that no file can have, or a folder on the way that is closed.
    """
    if not isinstance(path, str | os.PathLike):
        raise FewSpikesError(f"a path must be text or a Path; got {path!r:.100}")
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a zero byte or half a surrogate in the name is a ValueError
        raise FewSpikesError(f"no file can be at {shown(path)}: {reason_of(error)}; give another path") from None
    return Path(path)


def shown(path: Any) -> str:
    """A path as messages show it: on one line, of bounded length."""
    text = os.fspath(path)
    text = text if isinstance(text, str) else os.fsdecode(text)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN // 2]}...{text[-_MOST_SHOWN // 4 :]}"


def reason_of(error: BaseException) -> str:
    """What an exception says, on one line of bounded length."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = " ".join((said or type(error).__name__).split())
    return line if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."


def check_place(given: Any) -> Path:
    """The path of a file to write, so that long work does not begin for one that cannot be.

    Raises:
        FewSpikesError: it is a folder, or lies in none.
    """
    path = as_path(given)
    if not path.parent.is_dir():
        raise FewSpikesError(
            f"cannot write {shown(path)}: the folder {shown(path.parent)} does not exist; make it first"
        )
    if path.is_dir():
        raise FewSpikesError(f"cannot write {shown(path)}: it is a folder; give a file name")
    return path


def write_aside(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` beside `path` and rename it into place, so a crash leaves no half-written file.

    What a process that was killed has left beside this very file is removed.

    Raises:
        FewSpikesError: it cannot be written there.
    """
    path = check_place(path)
    aside = path.with_name(f"{_prefix(path)}{_machine()}{os.getpid():08x}{secrets.token_hex(8)}")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    except OSError as error:
        raise FewSpikesError(f"cannot write {shown(path)}: {reason_of(error)}") from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    with suppress(OSError):
        for file in _abandoned(path):
            file.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 1) -> None:
    """Write `content` as strict JSON (no NaN or Infinity), aside and renamed; indent None puts it on one line."""
    try:
        text = json.dumps(content, indent=indent, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FewSpikesError(f"cannot write {shown(path)}: its content is no plain JSON data: {error}") from None
    write_aside(path, (text + "\n").encode())


def _prefix(path: Path) -> str:
    """How files beside `path` begin: with its name, or in place of a long one its hash."""
    name = os.fsencode(path.name)
    return f".{path.name if len(name) <= _MOST_NAME else hashlib.sha256(name).hexdigest()[:32]}."


@cache
def _machine() -> str:
    """Eight digits for this machine, or this container: process numbers mean nothing in another."""
    space = "/proc/self/ns/pid"
    seen = os.readlink(space) if os.path.exists(space) else ""
    return hashlib.sha256(f"{platform.node()} {seen}".encode()).hexdigest()[:8]


def _abandoned(path: Path) -> Iterator[Path]:
    """Files that processes have left beside `path`: those of dead ones here, and of others that nobody has touched.

    The name says machine and process. A process here is asked for; of another machine that shares the folder only the
    file's age tells, by the clock of the file system, which has just dated `path`.
    """
    now, prefix = path.stat().st_mtime, _prefix(path)
    with os.scandir(path.parent) as entries:
        left = [file for file in entries if file.name.startswith(prefix) and _MARK.fullmatch(file.name[len(prefix) :])]
    for file in left:
        mark = file.name[len(prefix) :]
        dead = mark.startswith(_machine()) and not _lives(int(mark[8:16], 16))
        if file.is_file(follow_symlinks=False) and (dead or now - file.stat().st_mtime > _QUIET):
            yield Path(file.path)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's, or no number of a process
        return True
    return True
