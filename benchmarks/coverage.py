"""Which models of torchvision, timm and transformers convert, and with what error: random weights, random images.

    python benchmarks/coverage.py -o docs/results/coverage.json           the 228 library models
    python benchmarks/coverage.py --kinds -o docs/results/coverage.json   the hand-written networks of tests/kinds

Each model has a process of its own, a time limit and a memory limit. What is measured is written at once beside the
output, one line a model; the same command goes on after the last of them, and --anew measures again.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

sys.path.pop(0)  # this folder: numba would take this file for the package coverage
sys.path.insert(0, str(Path(__file__).parent / "survey"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from library import LIBRARIES, cases
from measuring import Options, measured
from processes import Limits, Row, Work, finished

from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from kinds import KINDS

TABLES = {"library": "quick", "kinds": "normal"}  # with how much effort codes are fitted
_STATES = ("ok", "wrong", "refused", "calibration refused", "capture refused", "over the limit", "crashed")


def main() -> None:
    """Measure what is wanted and not yet known, and write all that is known."""
    arguments = _parser().parse_args()
    table, limits = "kinds" if arguments.kinds else "library", Limits(arguments.limit_seconds, arguments.limit_mib)
    options = _options(arguments, table)
    aside = {name: arguments.output.with_suffix(f".{name}.lines.jsonl") for name in TABLES}
    said, known = _known(aside[table])
    if said not in ({}, asdict(options)):
        sys.exit(f"error: {aside[table]} is of other options ({said}); remove it, or give another -o")
    wanted = _named(_work(table, options), arguments.only)
    jobs = [(name, work) for name, work in wanted.items() if arguments.anew or name not in known]
    packages = [import_module(name) for name in LIBRARIES if find_spec(name) is not None]
    with aside[table].open("a") as lines:
        if not said:
            lines.write(json.dumps(asdict(options)) + "\n")
        started = time.perf_counter()
        for done, (name, row) in enumerate(finished(jobs, arguments.jobs, limits), 1):
            lines.write(json.dumps({"name": name, **row}) + "\n")
            lines.flush()
            left = (time.perf_counter() - started) / done * (len(jobs) - done) / 60
            print(f"{done}/{len(jobs)} {name} {_line(row)} ({left:.0f} min left)", file=sys.stderr, flush=True)
    parts = {name: _part(name, *_known(file)) for name, file in aside.items()}
    about = {"name": "coverage", "command": "python benchmarks/coverage.py", "limits": asdict(limits)}
    content = {**about, **parts, "conditions": conditions(*packages)}
    write_json(arguments.output, content)
    print(json.dumps(content) if arguments.json else "\n".join(_summary(parts)))


def _known(aside: Path) -> tuple[Row, dict[str, Row]]:
    """The options of an earlier run and the rows that it wrote, by name; the last of each model."""
    if not aside.is_file():
        return {}, {}
    options, *rows = [json.loads(line) for line in aside.read_text().splitlines()]
    return options, {row["name"]: row for row in rows}


def _work(table: str, options: Options) -> dict[str, Work]:
    """What is to do, by name."""
    if table == "kinds":
        return {kind.name: partial(measured, kind.build, kind.inputs, options, shake=False) for kind in KINDS}
    return {case.key: partial(measured, case.build, case.inputs, options) for case in cases()}


def _named(work: Mapping[str, Work], patterns: Sequence[str]) -> dict[str, Work]:
    found = {name: one for name, one in work.items() if any(fnmatch(name, pattern) for pattern in patterns or "*")}
    if not found:
        sys.exit(f"error: none is called {' or '.join(patterns)}; names are like {next(iter(work))}, * is anything")
    return found


def _part(table: str, options: Row, rows: Mapping[str, Row]) -> Row:
    """A table in the order of the survey."""
    names = _work(table, Options())
    counts = Counter(row["status"] for row in rows.values())
    measured = [rows[name] for name in names if name in rows]
    return {"options": options, "of": len(names), "counts": dict(counts), "rows": measured}


def _line(row: Row) -> str:
    """A row in words."""
    error = f", error {row['error']:.3g}" if row.get("error") is not None else ""
    why = ", ".join(row.get("operators", ())) or row.get("why", "")
    return f"{row['status']} {row['seconds_in_all']:.0f} s{error}{': ' if why else ''}{why[:120]}"


def _summary(parts: Mapping[str, Row]) -> list[str]:
    """How many models came to what."""
    lines = []
    for table, part in parts.items():
        counts = ", ".join(f"{part['counts'][state]} {state}" for state in _STATES if state in part["counts"])
        lines.append(f"{table}: {len(part['rows'])} of {part['of']} measured: {counts or 'nothing'}")
    return lines


def _options(arguments: argparse.Namespace, table: str) -> Options:
    given = arguments.circuits
    circuits = json.loads(given) if given.startswith("{") else given
    effort = arguments.effort or TABLES[table]
    return Options(circuits, arguments.K, arguments.images, effort, arguments.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/coverage.json"))
    parser.add_argument("--kinds", action="store_true", help="the hand-written networks, not the library models")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="timm:resnet*; may be repeated")
    parser.add_argument("--anew", action="store_true", help="measure also what is known already")
    parser.add_argument("--circuits", default="{}", help='a word, or {"max": "average"}')
    parser.add_argument("-K", type=int, default=Options.K, help="time steps of each site")
    parser.add_argument("--images", type=int, default=Options.images, help="to calibrate on, and as many to measure on")
    parser.add_argument("--effort", help="of the fits (default: quick; with --kinds normal)")
    parser.add_argument("--seed", type=int, default=Options.seed, help="of weights and images")
    parser.add_argument("--jobs", type=int, default=1, help="models at once")
    parser.add_argument("--limit-seconds", type=float, default=300.0, help="for each model")
    parser.add_argument("--limit-mib", type=int, default=8192, help="memory of each process")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


if __name__ == "__main__":
    main()
