"""Search for the tables that the library ships: python benchmarks/shipped_tables.py [ACTIVATION ...] [--rounds N].

Writes src/fewspikes/neuron/tables/ACTIVATION.json after every round, and goes on from there; a table only ever gets
better in its objective. One core; the searches that made the shipped files took about 50 minutes.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from datetime import date
from math import inf
from pathlib import Path

import numba
import numpy as np
import torch

import fewspikes
from fewspikes.base.files import write_json
from fewspikes.fitting import measure
from fewspikes.fitting.descent import objective
from fewspikes.fitting.fitting import even_and_seen
from fewspikes.fitting.problem import PREFERENCE, Problem
from fewspikes.fitting.search import Pools, beginnings, enter_at, explore, merge
from fewspikes.fitting.staircase import parameters_of, workspace
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.known_codes import SHIPPED, STEPS, VARIANTS
from fewspikes.neuron.parameters import FSParameters

TABLES = Path(__file__).parent.parent / "src" / "fewspikes" / "neuron" / "tables"
# log(error) may rise by 0.3 to save a spike; and with the Gaussian of the paper's Fig. 7 as inputs, there are fewer
# spikes than the paper's own table for SiLU fires, 2.27.
PREFERENCES = {"low-error": 0.0, "low-spikes": 0.3}
MOST_SPIKES = {"low-error": None, "low-spikes": 2.25}
ROUNDS = {"silu": 40, "sigmoid": 30}  # of the search; the paper's own two activations get more
OTHER_ROUNDS = 8
DIGITS = 9  # of every number: as many as a float32 needs to come back the same


def main() -> None:
    """Search all tables, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("activations", nargs="*", default=SHIPPED)
    parser.add_argument("--variant", choices=VARIANTS, default=None)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.activations:
        for variant in VARIANTS if arguments.variant is None else [arguments.variant]:
            search(name, variant, arguments.rounds or ROUNDS.get(name, OTHER_ROUNDS), arguments.seed)


def search(name: str, variant: str, rounds: int, seed: int) -> None:
    """Search the tables of one activation and variant, and write them after every round."""
    activation = Activation(name)
    inputs = activation.typical_inputs or "uniform"
    most = MOST_SPIKES[variant] if activation.typical_inputs else None  # over a line it would say nothing
    limit = inf if most is None else most * 0.998  # the search may end a little above it
    more = PREFERENCES[variant]
    made = even_and_seen(
        activation, activation.domain, inputs, activation.main_region, preference=more + PREFERENCE, limit=limit
    )
    kept = {"variant": variant, "preference": more, "max_spikes": most, "seed": seed}
    started = time.perf_counter()
    for number, pools in enumerate(explore(made, max(STEPS), rounds, seed, known(name, made)), 1):
        write(activation, [entry(activation, k, pools[k].codes[0], made, kept) for k in STEPS])
        best = {k: round(float(pools[k].values[0]), 4) for k in (6, 8, 12, 16)}
        print(f"{name} {variant} round {number}/{rounds} {time.perf_counter() - started:.0f} s {best}", flush=True)


def known(name: str, made: Problem) -> Pools:
    """The tables there are, of both variants, and binary codes, as the search's starting point.

    With both, a table is never worse in its own objective than that of the other variant.
    """
    pools: Pools = {}
    merge(pools, beginnings(made, max(STEPS), 3, tables=False))
    for table in read(name):
        code = np.array(table["T"] + table["h"])
        enter_at(pools, code, objective(code, made, workspace(table["K"])))
    return pools


def entry(activation: Activation, K: int, code: np.ndarray, made: Problem, kept: dict) -> dict:
    """One table: its numbers, rounded, then measured."""
    p = parameters_of(np.array(short(code)), made, activation.name)
    p = FSParameters(p.T, p.h, short(p.d), short([p.offset])[0], p.activation, p.domain)
    found = measure(p, activation)
    numbers = {"T": p.T.tolist(), "h": p.h.tolist(), "d": p.d.tolist(), "offset": p.offset}
    errors = {"mse": found.mse, "mse_main": found.mse_main, "mse_outer": found.mse_outer, "max_error": found.max_error}
    return {"K": K, **kept, **numbers, **errors, "mean_spikes": found.mean_spikes, "date": date.today().isoformat()}


def short(numbers: Sequence[float] | np.ndarray) -> list[float]:
    """Numbers of so many digits as the files keep."""
    return [float(f"{number:.{DIGITS}g}") for number in numbers]


def read(name: str) -> list[dict]:
    """The tables in an activation's file."""
    path = TABLES / f"{name}.json"
    return json.loads(path.read_text())["tables"] if path.exists() else []


def write(activation: Activation, tables: list[dict]) -> None:
    """Put tables into the activation's file, in place of those of the same variant."""
    others = [table for table in read(activation.name) if table["variant"] != tables[0]["variant"]]
    content = {
        "format": "fewspikes-tables",
        "version": 1,
        "domain": activation.domain,
        "provenance": {
            "method": "search: fewspikes.fitting.search",
            "command": f"python benchmarks/shipped_tables.py {activation.name}",
            "note": "seed is that of the last run; each run goes on from the tables of the one before",
            "objective": "log(mean squared error, weighted as by fewspikes.fit) + (preference + 0.003) * mean spikes",
            "inputs": activation.typical_inputs or "uniform",
            "versions": {
                "fewspikes": fewspikes.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "numba": numba.__version__,
                "torch": torch.__version__,
            },
        },
        "tables": sorted([*others, *tables], key=lambda table: (table["variant"], table["K"])),
    }
    write_json(TABLES / f"{activation.name}.json", content, indent=None)


if __name__ == "__main__":
    main()
