"""`fewspikes reproduce`: the paper's tables and figures, ours beside them."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fewspikes.base.devices import find_device
from fewspikes.base.errors import FewSpikesError
from fewspikes.cli import options
from fewspikes.images import data_folder
from fewspikes.images.images import DATA_VARIABLE
from fewspikes.paper import NAMES, WEIGHTED, Sources
from fewspikes.paper import reproduce as make
from fewspikes.paper.reproduce import check_name
from fewspikes.paper.results import Folder, Found

EXAMPLE = "Example: fewspikes reproduce table2 --data DIR -o results"
_COLUMNS = (
    "row",
    "weights",
    "model",
    "network",
    "source",
    "steps",
    "images",
    "left_out",
    "ann_top1",
    "snn_top1",
    "drop",
    "agreement",
    "neurons",
    "k",
    "spikes_per_neuron",
)
_SHOWN = 10  # columns of a table on the screen


def reproduce(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(NAMES)}.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for numbers and pictures.")] = Path("results"),
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with cifar10/, imagenet/ (or imagenet-sample/) and weights/ in it. Default: the environment "
            "variable FEWSPIKES_DATA, else none: what needs no data is made, the rest says what it needs."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Weights of a network; may be given several times.")
    ] = None,
    limit: options.Limit = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images a batch at most; large images come in smaller ones.")
    ] = 250,
    workers: options.Workers = 2,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    again: Annotated[bool, typer.Option("--again", help="Measure anew what the folder holds already.")] = False,
    calibrated: Annotated[
        bool, typer.Option(help="Make our own rows of networks beside the paper's setting; they take most of the time.")
    ] = True,
    skip_damaged: options.SkipDamaged = False,
    pictures: Annotated[bool, typer.Option(help="Draw figures (needs matplotlib).")] = True,
    as_json: options.Json = False,
) -> None:
    """A table or figure of Stöckl and Maass 2021, with our own row beside the paper's.

    Rows that the folder holds already are kept, so a run that was cut goes on. --limit shortens the evaluations, not
    the fitting of calibrated rows.
    """
    check_name(name)
    folder = Folder(output, again, lambda line: typer.echo(line, err=True))
    given = dict(_pair(text) for text in weights or ())
    place = data_folder(data) if data or os.environ.get(DATA_VARIABLE) else None
    if place is not None and not place.is_dir():
        whence = "" if data else f" ({DATA_VARIABLE})"
        raise FewSpikesError(f"no folder {place}{whence}; give --data DIR, or neither for what needs no data")
    sources = Sources(place, given, limit, seed, batch_size, workers, find_device(device), calibrated, skip_damaged)
    made = list(make(name, folder, sources, pictures))
    if as_json:
        parts = [{"name": found.name, "rows": found.rows} for found in made]
        typer.echo(json.dumps(parts[0] if name != "all" else {"name": "all", "parts": parts}))
        return
    for found in made:
        typer.echo(_text(found, output))


def _pair(text: str) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if not name or not file:
        raise FewSpikesError(f"--weights must be NAME=FILE; got {text!r}")
    if name not in WEIGHTED:
        raise FewSpikesError(f"--weights: unknown network {name!r}; there are {', '.join(WEIGHTED)}")
    if not Path(file).is_file():
        raise FewSpikesError(f"--weights {name}: no file {file}")
    return name, file


def _text(found: Found, folder: Path) -> str:
    """The rows as tables, what is missing, the notes and where the files are."""
    rows = [row for row in found.rows if "unavailable" not in row or row.get("neurons")]
    networks = [row for row in rows if "model" in row or "network" in row]
    others = [row for row in rows if row not in networks]
    parts = [
        [row for row in others if row.get("part") == part] for part in dict.fromkeys(r.get("part") for r in others)
    ]
    missing = [
        f"  not here: {row.get('model', found.name)}: {row['unavailable']}"
        for row in found.rows
        if "unavailable" in row
    ]
    notes = [f"  note: {note}" for note in found.notes if note not in "".join(missing)]
    lines = [line for part in (networks, *parts) if part for line in _table(part)]
    return "\n".join([found.name, *lines, *missing, *notes, f"  written to {folder / found.name}.*"])


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Of networks the columns of an evaluation, of others the first that are plain."""
    keys = dict.fromkeys(key for row in rows for key in row)
    wanted = (
        _COLUMNS if "model" in keys or "network" in keys else [key for key in keys if _is_plain(rows, key)][:_SHOWN]
    )
    names = [key for key in wanted if any(row.get(key) is not None for row in rows)]
    cells = [names, *([_cell(row.get(key)) for key in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return [
        "  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]


def _is_plain(rows: list[dict[str, Any]], key: str) -> bool:
    return any(row.get(key) is not None for row in rows) and not any(
        isinstance(row.get(key), dict | list) for row in rows
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if 0.1 <= abs(value) < 1000 else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return " to ".join(map(str, (min(value), max(value))))
    if isinstance(value, dict):
        return f"{min(value.values())} to {max(value.values())}"
    return "" if value is None else str(value)
