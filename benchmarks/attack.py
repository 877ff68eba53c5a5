"""Thousands of damaged files and of calls with extreme arguments: each must end in a result or in one line.

Part A damages or forges files of every kind that the library reads; what loads must be what was saved, bit for bit,
unless the file was sealed again or has no checksum of ours (images, shards, parameters written by hand). Part B calls
the public functions and the command line. Each case runs in a child process, has 10 seconds of the processor and 2 GiB,
and is repeated by its number: `--only 1234`.

    python benchmarks/attack.py --files 20000 --calls 1000 -o docs/results/attack.json        (about 15 minutes)
"""

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import write_json

PARTS = ("files", "calls")
SECONDS, MIB = 10.0, 2048
_WALL = 60.0  # seconds after which a case counts as hanging, however little of the processor it had
_DATA = 8 << 30  # bytes that a child may ask for, so that the machine lives on
_AT_ONCE = 2500  # cases of one child
_LONGEST = 1000  # characters of a message


def judged(attacker: Any, random: np.random.Generator) -> dict[str, Any]:
    """Run one case: what was done, and "equal", "loaded", "result", "refused" or "violation"."""
    started = time.process_time()
    try:
        found = {"outcome": attacker.once(random)}
    except FewSpikesError as error:
        said = str(error)
        is_one = len(said.splitlines()) == 1 and len(said) <= _LONGEST
        found = {"outcome": "refused" if is_one else "violation", "said": said[:_LONGEST]}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever leaks is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        at = next((f for f in reversed(frames) if "fewspikes/" in f.filename), frames[-1])
        said = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {error}"
        found = {"outcome": "violation", "said": " ".join(said.split())[:300]}
    return found | {"kind": attacker.name, "how": attacker.how, "seconds": time.process_time() - started}


def run_case(attackers: Sequence[Any], part: str, seed: int, number: int) -> dict[str, Any]:
    """The case of this number, which is the same whatever ran before it."""
    attacker = attackers[number % len(attackers)]
    random = np.random.default_rng([seed, number, PARTS.index(part)])
    return {"number": number, **judged(attacker, random)}


def opened(part: str, folder: Path) -> AbstractContextManager[Sequence[Any]]:
    """The attackers of a part, which take turns."""
    if part == "files":
        from attacks.files import attackers
    else:
        from attacks.calls import attackers
    return attackers(folder)


def child(part: str, seed: int, numbers: Sequence[int], folder: Path, say: IO[str]) -> None:
    """Run some cases, a line of JSON before and after each."""
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA, _DATA))
    warnings.simplefilter("ignore")
    os.chdir(folder)  # a name without a folder may be written to
    with opened(part, folder) as attackers:
        for number in numbers:
            print(json.dumps({"begins": number, "kind": attackers[number % len(attackers)].name}), file=say, flush=True)
            _forget_peak()
            found = run_case(attackers, part, seed, number) | {"mib": _peak()}
            if found["outcome"] != "violation" and found["seconds"] > SECONDS:
                found |= {"outcome": "violation", "said": f"{found['seconds']:.0f} s"}
            if found["outcome"] != "violation" and found["mib"] > MIB:
                found |= {"outcome": "violation", "said": f"{found['mib']:.0f} MiB"}
            print(json.dumps(found), file=say, flush=True)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """MiB that the process has held at most since the last call of `_forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def results(part: str, seed: int, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Every case's result; a child that dies or hangs is one, and the next goes on behind it."""
    left = list(numbers)
    while left:
        now, left = left[:_AT_ONCE], left[_AT_ONCE:]
        done = 0
        for found in _of_a_child(part, seed, now):
            done += 1
            yield found
        left = now[done:] + left


def _of_a_child(part: str, seed: int, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        words = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--child",
            part,
            "--seed",
            str(seed),
            "--only",
            *map(str, numbers),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen([*words, "--folder", folder], stdout=subprocess.PIPE, text=True, env=environment) as run:
            begun = None
            for line in _lines(run):
                found = json.loads(line)
                if "begins" in found:
                    begun = {"number": found["begins"], "kind": found["kind"]}
                else:
                    begun = None
                    yield found
            run.kill()
            code = run.wait()
        if begun is not None:
            yield {**begun, "outcome": "violation", "said": f"it hung or died ({code})", "seconds": _WALL, "mib": 0.0}
        elif code not in (0, -9):
            raise SystemExit(f"the child ended with {code} before its first case")


def _lines(run: subprocess.Popen[str]) -> Iterator[str]:
    """What the child says, until it ends or says nothing for too long; the first case waits for its imports."""
    assert run.stdout is not None
    while select.select([run.stdout], [], [], _WALL)[0]:
        line = run.stdout.readline()
        if not line:
            return
        yield line


def summary(found: Iterable[dict[str, Any]], total: int) -> dict[str, Any]:
    """Counts by kind, the longest and largest case, and every violation; how far it is, on stderr."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    violations, seconds, mib, count = [], 0.0, 0.0, 0
    for case in found:
        rows[case["kind"]][case["outcome"]] += 1
        seconds, mib, count = max(seconds, case["seconds"]), max(mib, case["mib"]), count + 1
        if case["outcome"] == "violation":
            violations.append({key: case.get(key) for key in ("number", "kind", "how", "said")})
            print(f"violation: {violations[-1]}", file=sys.stderr, flush=True)
        if count % 500 == 0:
            print(f"{count:,} of {total:,}, {len(violations)} violations", file=sys.stderr, flush=True)
    counts = {kind: {"cases": outcomes.total(), **outcomes} for kind, outcomes in sorted(rows.items())}
    return {"cases": count, "kinds": counts, "most_seconds": seconds, "most_mib": mib, "violations": violations}


def main() -> None:
    """Attack, print, write; exit code 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="damaged files (part A)")
    parser.add_argument("--calls", type=int, default=200, help="calls (part B)")
    parser.add_argument("--seed", type=int, default=0, help="of all of it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("-o", "--output", type=Path, help="write it, too")
    parser.add_argument("--only", type=int, nargs="*", help="the cases of these numbers alone, of both parts")
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        say = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever the library prints is no result
        child(arguments.child, arguments.seed, arguments.only, arguments.folder, say)
        return
    wanted = {"files": arguments.files, "calls": arguments.calls}
    started = time.perf_counter()
    parts = {}
    for part, count in wanted.items():
        numbers = arguments.only or range(count)
        parts[part] = summary(results(part, arguments.seed, numbers), len(numbers)) if count else {}
    from fewspikes.bench import conditions

    content = {
        "command": f"python benchmarks/attack.py --files {arguments.files} --calls {arguments.calls}",
        "seed": arguments.seed,
        "limits": {"seconds": SECONDS, "mib": MIB},
        "conditions": conditions(np),
        "minutes": (time.perf_counter() - started) / 60,
        "parts": parts,
    }
    if arguments.output is not None:
        write_json(arguments.output, content)
    print(json.dumps(content) if arguments.json else json.dumps(parts, indent=1))
    sys.exit(any(part.get("violations") for part in parts.values()))


if __name__ == "__main__":
    main()
