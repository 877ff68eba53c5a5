"""Fits that were made before, found again by their content: in memory, and as files for the next run."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import read_json, write_json
from fewspikes.fitting.histogram import Histogram
from fewspikes.neuron.parameters import FSParameters

_FORMAT = "fewspikes-fit"
_MOST_KEPT = 4096  # fits in memory

_kept: dict[str, FSParameters] = {}
_lock = Lock()


def key(content: dict[str, Any], inputs: Histogram) -> str:
    """The name of a fit: a hash of everything that it depends on."""
    digest = hashlib.sha256(json.dumps([content, inputs.low, inputs.high, inputs.exponent, inputs.first]).encode())
    digest.update(inputs.counts.tobytes())
    return digest.hexdigest()


def look_up(name: str, label: str, K: int) -> FSParameters | None:
    """The fit of this name, or None; a file that is damaged, or holds another activation or K, counts as none."""
    if name in _kept:
        return _kept[name]
    folder = _folder()
    if folder is None:
        return None
    try:
        content = read_json(folder / f"{name}.json", _FORMAT)
        found = FSParameters.from_json(content["parameters"])  # raises where a number is not finite
        whole = content["checksum"] == _checksum(name, found)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not whole or (found.activation, found.K) != (label, K):
        return None
    _remember(name, found)
    return found


def keep(name: str, parameters: FSParameters) -> None:
    """Keep a fit; a folder that cannot be written to is no reason to stop."""
    _remember(name, parameters)
    folder = _folder()
    if folder is None:
        return
    content = {"format": _FORMAT, "checksum": _checksum(name, parameters), "parameters": parameters.to_json()}
    with suppress(OSError, FewSpikesError):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{name}.json", content)


def forget() -> None:
    """Empty the memory; files stay."""
    _kept.clear()


def _checksum(name: str, parameters: FSParameters) -> str:
    """Of the numbers and of the name, so that a file under another name counts as damaged, too."""
    return hashlib.sha256(json.dumps([name, parameters.to_json()], sort_keys=True).encode()).hexdigest()


def _remember(name: str, parameters: FSParameters) -> None:
    with _lock:  # several layers are fitted at once
        if len(_kept) >= _MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[name] = parameters


def _folder() -> Path | None:
    """$FEWSPIKES_CACHE ("off" for none), or fewspikes in the user's cache folder."""
    chosen = os.environ.get("FEWSPIKES_CACHE", "")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen) / "fits"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fewspikes" / "fits"
