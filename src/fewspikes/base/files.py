"""Reading and writing files so that nothing is ever half written or trusted blindly."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from fewspikes.base.errors import FewSpikesError


def write_aside(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` beside `path` and rename it into place, so a crash leaves no half-written file."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FewSpikesError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise FewSpikesError(f"cannot write {path}: it is a folder; give a file name")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    except OSError as error:
        raise FewSpikesError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Any, indent: int | None = 1) -> None:
    """Write `content` as strict JSON (no NaN or Infinity), aside and renamed; indent None puts it on one line."""
    write_aside(path, (json.dumps(content, indent=indent, allow_nan=False) + "\n").encode())


def read_json(path: str | os.PathLike[str], format: str) -> dict[str, Any]:
    """Read a JSON object whose `"format"` is `format`.

    Raises:
        FewSpikesError: no such file, not JSON, or another format.
    """
    try:
        content: Any = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FewSpikesError(f"cannot read {path}: {error}; wanted a JSON file of format {format!r}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or found != format:
        raise FewSpikesError(f"{path} has format {found!r}; wanted {format!r}")
    return content
