"""A folder of results: one run at a time, rows kept as they come, so that a run that was cut goes on."""

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fewspikes
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import write_aside, write_json
from fewspikes.base.seals import Kind
from fewspikes.bench import conditions

Row = dict[str, Any]
_LOCK = ".lock"
_ROWS = Kind("fewspikes-rows", 1, "file of rows", "they are measured again")


@dataclass
class Found:
    """What one table or figure came to.

    Attributes:
        name: such as "table2".
        rows: `row` says "paper", "measured" or "calibrated"; what could not be had says why under "unavailable".
        series: of a figure: its curves, by name, as plain numbers.
        notes: what a reader must know.
    """

    name: str
    rows: list[Row] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Folder:
    """Where results are written: NAME.json, NAME.csv, a figure's NAME.curves.json, and pictures.

    Args:
        path: made if it is not there.
        again: measure rows anew that are there already.
        say: takes a line about what is being done.
    """

    def __init__(self, path: Path, again: bool = False, say: Callable[[str], None] = lambda line: None) -> None:
        self.path, self.again, self.say = path, again, say
        if path.is_file():
            raise FewSpikesError(f"{path} is a file; give a folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FewSpikesError(f"cannot make the folder {path}: {error.strerror or error}") from None
        self._done: dict[str, dict[str, Row]] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out of this folder.

        Raises:
            FewSpikesError: another run writes here.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise FewSpikesError(
                f"another run writes to {self.path}; wait for it, or give another folder with -o"
            ) from None
        except OSError as error:
            raise FewSpikesError(f"cannot write to {self.path}: {error.strerror or error}") from None
        try:
            yield
        finally:
            lock.release()

    def row(self, name: str, what: str, settings: Mapping[str, Any], make: Callable[[], Row]) -> Row:
        """A row as an earlier run left it, if its settings and this library's version were the same; else made now."""
        key = json.dumps({"what": what, "version": fewspikes.__version__, **settings}, sort_keys=True, default=str)
        kept = self._kept(name)
        is_there = key in kept and not self.again
        self.say(f"{name}: {what}{', kept' if is_there else ' ...'}")
        if not is_there:
            started = time.perf_counter()
            kept[key] = make()
            _ROWS.write(self.path / f".{name}.rows.json", {"rows": kept})
            self.say(f"{name}: {what}{_in_short(kept[key])}, {time.perf_counter() - started:.0f} s")
        return dict(kept[key])

    def write(self, found: Found, settings: Mapping[str, Any], options: str = "") -> None:
        """NAME.json, for a figure NAME.curves.json, and, where there are rows, NAME.csv."""
        content = {
            "name": found.name,
            "command": f"fewspikes reproduce {found.name}{options}",
            "settings": dict(settings),
            "rows": found.rows,
            "notes": found.notes,
            "conditions": conditions(),
        }
        write_json(self.path / f"{found.name}.json", content)
        if found.series:
            write_json(self.path / f"{found.name}.curves.json", _short(found.series), indent=None)
        if found.rows:
            write_aside(self.path / f"{found.name}.csv", as_csv(found.rows).encode())

    def _kept(self, name: str) -> dict[str, Row]:
        if name not in self._done:
            file = self.path / f".{name}.rows.json"
            try:
                content = _ROWS.read(file)["rows"] if file.exists() else {}
            except (FewSpikesError, KeyError):  # damaged: measured anew
                content = {}
            self._done[name] = content if isinstance(content, dict) else {}
        return self._done[name]


def _in_short(row: Row) -> str:
    if row.get("snn_top1") is None:
        return ""
    return f": ANN {row['ann_top1']:.2f}%, SNN {row['snn_top1']:.2f}%, {row['spikes_per_neuron']:.2f} spikes per neuron"


def _short(value: Any) -> Any:
    """Numbers of a curve to 7 digits: no picture shows more, and the files stay small."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    return [_short(inner) for inner in value] if isinstance(value, list) else value


def as_csv(rows: Sequence[Row]) -> str:
    """The rows under the union of their keys; nested values as JSON."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: json.dumps(v) if isinstance(v, dict | list | tuple) else v for key, v in row.items()})
    return text.getvalue()
