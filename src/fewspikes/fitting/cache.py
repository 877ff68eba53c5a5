"""Fits that were made before, found again by their content: in memory, and as files for the next run."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.seals import Kind
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.weights import Weights
from fewspikes.neuron.parameters import FSParameters

_FIT = Kind("fewspikes-fit", 1, "fit", "fit again")
_MOST_KEPT = 4096  # fits in memory

_kept: dict[str, FSParameters] = {}
_lock = Lock()


def key(content: dict[str, Any], inputs: Histogram, weights: Weights | None = None) -> str:
    """The name of a fit: a hash of everything that it depends on."""
    digest = hashlib.sha256(json.dumps([content, *_place(inputs)]).encode())
    digest.update(inputs.counts.tobytes())
    if weights is not None:
        digest.update(json.dumps(_place(weights.inputs)).encode())
        digest.update(weights.squares.tobytes())
    return digest.hexdigest()


def _place(inputs: Histogram) -> list[float]:
    return [inputs.low, inputs.high, inputs.exponent, inputs.first]


def look_up(name: str, label: str, K: int) -> FSParameters | None:
    """The fit of this name, or None; a file that is damaged, or holds another activation or K, counts as none."""
    if name in _kept:
        return _kept[name]
    folder = _folder()
    if folder is None:
        return None
    file = folder / f"{name}.json"
    try:
        content = _FIT.read(file)
        with _FIT.reading(file):
            found, held = FSParameters.from_json(content["parameters"]), content["name"]
    except FewSpikesError:
        return None
    if (held, found.activation, found.K) != (name, label, K):  # a file under another's name holds another fit
        return None
    _remember(name, found)
    return found


def keep(name: str, parameters: FSParameters) -> None:
    """Keep a fit; a folder that cannot be written to is no reason to stop."""
    _remember(name, parameters)
    folder = _folder()
    if folder is None:
        return
    with suppress(OSError, FewSpikesError):
        folder.mkdir(parents=True, exist_ok=True)
        _FIT.write(folder / f"{name}.json", {"name": name, "parameters": parameters.to_json()})


def forget() -> None:
    """Empty the memory; files stay."""
    _kept.clear()


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
