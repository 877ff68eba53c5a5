"""Which models of torchvision, timm and transformers convert, and with what error: random weights, random images.

    python benchmarks/coverage.py -o docs/results/coverage.json           the 228 library models
    python benchmarks/coverage.py --kinds -o docs/results/coverage.json   the hand-written networks of tests/kinds

Each model has a process of its own, a time limit and a memory limit. What is measured is written at once beside the
output, one line a model; the same command goes on after the last of them, and with --anew begins again.
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

_STATES = ("ok", "wrong", "refused", "calibration refused", "capture refused", "over the limit", "crashed")


def main() -> None:
    """Measure what is wanted and not yet known, and write all that is known."""
    arguments = _parser().parse_args()
    options, limits = _options(arguments), Limits(arguments.limit_seconds, arguments.limit_mib)
    aside = arguments.output.with_suffix(".lines.jsonl")
    table, known = "kinds" if arguments.kinds else "library", _known(aside, asdict(options))
    wanted = _named(_work(table, options), arguments.only)
    jobs = [(name, work) for name, work in wanted.items() if arguments.anew or name not in known[table]]
    packages = [import_module(name) for name in LIBRARIES if find_spec(name) is not None]
    with aside.open("a") as lines:
        if not lines.tell():
            lines.write(json.dumps({"options": asdict(options)}) + "\n")
        started = time.perf_counter()
        for done, (name, row) in enumerate(finished(jobs, arguments.jobs, limits), 1):
            known[table][name] = {"name": name, **row}
            lines.write(json.dumps({"table": table, **known[table][name]}) + "\n")
            lines.flush()
            left = (time.perf_counter() - started) / done * (len(jobs) - done) / 60
            print(f"{done}/{len(jobs)} {_line(known[table][name])} ({left:.0f} min left)", file=sys.stderr, flush=True)
    about = {"name": "coverage", "command": "python benchmarks/coverage.py", "options": asdict(options)}
    parts = {table: _part(table, options, rows) for table, rows in known.items()}
    content = {**about, "limits": asdict(limits), **parts, "conditions": conditions(*packages)}
    write_json(arguments.output, content)
    print(json.dumps(content) if arguments.json else "\n".join(_summary(parts)))


def _known(aside: Path, options: Row) -> dict[str, dict[str, Row]]:
    """The rows that an earlier run wrote, by table and name; the last of each model."""
    known: dict[str, dict[str, Row]] = {"library": {}, "kinds": {}}
    if aside.is_file():
        first, *rows = [json.loads(line) for line in aside.read_text().splitlines()]
        if first["options"] != options:
            sys.exit(f"error: {aside} is of other options ({first['options']}); remove it, or give another -o")
        for row in rows:
            known[row.pop("table")][row["name"]] = row
    return known


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


def _part(table: str, options: Options, rows: Mapping[str, Row]) -> Row:
    """A table in the order of the survey."""
    work = _work(table, options)
    counts = Counter(row["status"] for row in rows.values())
    return {"of": len(work), "counts": dict(counts), "rows": [rows[name] for name in work if name in rows]}


def _line(row: Row) -> str:
    """A row in words."""
    error = f", error {row['error']:.3g}" if row.get("error") is not None else ""
    why = ", ".join(row.get("operators", ())) or row.get("why", "")
    return f"{row['name']} {row['status']} {row['seconds_in_all']:.0f} s{error}{': ' if why else ''}{why[:120]}"


def _summary(parts: Mapping[str, Row]) -> list[str]:
    """How many models came to what."""
    lines = []
    for table, part in parts.items():
        counts = ", ".join(f"{part['counts'][state]} {state}" for state in _STATES if state in part["counts"])
        lines.append(f"{table}: {len(part['rows'])} of {part['of']} measured: {counts or 'nothing'}")
    return lines


def _options(arguments: argparse.Namespace) -> Options:
    given = arguments.circuits
    circuits = json.loads(given) if given.startswith("{") else given
    return Options(circuits, arguments.K, arguments.images, arguments.effort, arguments.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/coverage.json"))
    parser.add_argument("--kinds", action="store_true", help="the hand-written networks, not the library models")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="timm:resnet*; may be repeated")
    parser.add_argument("--anew", action="store_true", help="measure also what is known already")
    parser.add_argument("--circuits", default="{}", help='a word, or {"max": "average"}')
    parser.add_argument("-K", type=int, default=Options.K, help="time steps of each site")
    parser.add_argument("--images", type=int, default=Options.images, help="to calibrate on, and as many to measure on")
    parser.add_argument("--effort", default=Options.effort, help="of the fits")
    parser.add_argument("--seed", type=int, default=Options.seed, help="of weights and images")
    parser.add_argument("--jobs", type=int, default=1, help="models at once")
    parser.add_argument("--limit-seconds", type=float, default=300.0, help="for each model")
    parser.add_argument("--limit-mib", type=int, default=8192, help="memory of each process")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


if __name__ == "__main__":
    main()
