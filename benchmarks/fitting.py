"""How good the fits are and how long they take, beside the paper's own tables and its own method; written as JSON.

Every figure on one core, after a first fit that compiles. Cold means from random codes, without the shipped tables.

    python benchmarks/fitting.py -o docs/results/fitting.json        (about 10 minutes)
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.fitting import FitResult, measure, shipped
from fewspikes.fitting.descent import objective, random_code
from fewspikes.fitting.fitting import even_and_seen
from fewspikes.fitting.problem import Problem
from fewspikes.fitting.staircase import workspace
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.grid import Grid

SILU, SIGMOID = Activation("silu"), Activation("sigmoid")
SEEDS = (0, 1, 2, 3, 4)
BITS = range(4, 11)
STEPS = range(3, 17)
PAPER = {"mse_main": 2.39e-3, "mse_outer": 3.71e-3}  # of the published SiLU table, K=16
CMA_SECONDS = 20.0


def shipped_tables() -> Iterator[dict[str, Any]]:
    """The tables in the package against their targets, and the published ones."""
    rows: list[tuple[Activation, int, str, dict[str, float]]] = [
        (SILU, 8, "low-spikes", {"mse_main": 2.5e-3, "mse_outer": 4.15e-3, "mean_spikes": 1.85}),
        (SILU, 16, "low-error", {"mse_main": 2.0e-4, "mse_outer": 4.0e-4}),
        (SILU, 16, "low-spikes", {"mse_main": 6e-4, "mse_outer": 1.2e-3, "mean_spikes": 2.27}),
        (SIGMOID, 12, "low-error", {"mse": 1.2e-5}),
    ]
    for activation, K, variant, target in rows:
        result = measure(shipped(activation.name, K, variant), activation)
        yield row(f"shipped {activation.name} K={K}, {variant}", [result], target)
    for activation in (SILU, SIGMOID):
        yield row(f"published {activation.name}", [measure(fs.published(activation.name), activation)], {})


def fits() -> Iterator[dict[str, Any]]:
    """`fs.fit` from nothing, over seeds."""
    cases: list[tuple[str, str, int, dict[str, Any], dict[str, float]]] = [
        ("fit silu K=8", "silu", 8, {}, {"mse_main": 2.65e-3, "mse_outer": 4.6e-3}),
        ("fit silu K=16", "silu", 16, {}, {"mse_main": 2.5e-4, "mse_outer": 5e-4}),
        (
            "fit silu K=16, at most 2.27 spikes",
            "silu",
            16,
            {"max_spikes": 2.27},
            {"mse_main": 6e-4, "mse_outer": 1.2e-3, "mean_spikes": 2.27},
        ),
        ("fit sigmoid K=12", "sigmoid", 12, {}, {"mse": 1.2e-5}),
        ("fit silu K=9: the published quality", "silu", 9, {}, {**PAPER, "cpu_seconds": 2.0}),
    ]
    for what, name, K, options, target in cases:
        results, cpu = zip(*(timed(name, K, seed=seed, warm=False, **options) for seed in SEEDS), strict=True)
        yield row(f"{what}, cold", list(results), target, list(cpu))
    for K in (8, 16):
        yield row(f"fit silu K={K}, from the shipped tables", [fs.fit("silu", K, seed=s) for s in SEEDS[:3]], {})
        quick = [fs.fit("silu", K, (-10.0, 14.0), effort="quick")]
        yield row(f"fit silu K={K} on [-10, 14], quick", quick, {})


def quantised() -> Iterator[dict[str, Any]]:
    """Fig. 8c, d: error over [-8, 8] against bits, offset 0; the grid in the loop, rounded afterwards, and bptt."""
    for activation, K, inside in ((SILU, 16, {"mse_main": 8e-4}), (SIGMOID, 12, {"mse": 2e-4})):
        name, domain = activation.name, (-8.0, 8.0)
        for bits in BITS:
            ours = fs.fit(name, K, domain, bits=bits, offset=False)
            rounded = measure(fs.published(name).quantize(bits), activation, domain)
            trained = fs.fit(name, K, domain, bits=bits, offset=False, method="bptt")
            what = f"quantised {name} K={K} Q={bits}"
            yield row(what, [ours], inside if bits == 8 else {}) | {
                "published_rounded": rounded.mse,
                "bptt": trained.mse,
                "below_both": ours.mse < min(rounded.mse, trained.mse),
            }
        for grid in (Grid(8, endpoint=True), Grid(8, scale=0.5)):
            yield row(f"quantised {name} K={K} {grid}", [fs.fit(name, K, domain, bits=grid, offset=False)], inside)
    own = fs.fit("sigmoid", 12, bits=8, offset=False)
    yield row("quantised sigmoid K=12 Q=8 on its own domain [-10, 10]", [own], {"mse": 2e-4})
    for end in (8, 10):
        what = f"bound of sigmoid on [-{end}, {end}] with outputs that are multiples of 1/16"
        yield {"what": what, "mse": least_sigmoid_error(1 / 16, end)}


def least_sigmoid_error(step: float, end: float) -> float:
    """The mean squared error on [-end, end] of the best outputs that are multiples of `step`, whatever the neuron."""
    y = torch.sigmoid(torch.linspace(-end, end, 2_000_001, dtype=torch.float64))
    return float(((y - (y / step).round() * step) ** 2).mean())


def steps() -> Iterator[dict[str, Any]]:
    """Fig. 8b: error of SiLU against K; ours, and backpropagation through time as the paper has it (offset 0)."""
    for K in STEPS:
        trained = fs.fit("silu", K, method="bptt", offset=False)
        ours = fs.fit("silu", K)
        yield row(f"silu K={K}, ours against bptt", [ours], {}) | {
            "bptt_main": trained.mse_main,
            "bptt_outer": trained.mse_outer,
            "bptt_seconds": trained.seconds,
        }


def against_cma() -> Iterator[dict[str, Any]]:
    """The package `cma` with restarts on the same objective (d and offset by the same least squares), equal time."""
    for K in (8, 16):
        problem = even_and_seen(SILU, SILU.domain, SILU.typical_inputs or "uniform", SILU.main_region)
        started = time.perf_counter()
        found, seed = [], 0
        while time.perf_counter() - started < CMA_SECONDS:
            p = fs.fit("silu", K, seed=seed, warm=False).parameters
            found.append(objective(np.concatenate([p.T, p.h]), problem, workspace(K)))
            seed += 1
        theirs = evolve(problem, K)
        yield {
            "what": f"silu K={K}: log(error) after {CMA_SECONDS:g} s, descents and package cma",
            "ours": min(found),
            "cma": theirs,
        }


def evolve(problem: Problem, K: int) -> float | None:
    """The least objective that CMA-ES finds, restarting from random codes until the time is up."""
    try:
        import cma
    except ImportError:
        return None
    started, least, work = time.perf_counter(), inf, workspace(K)
    random = np.random.default_rng(0)
    while time.perf_counter() - started < CMA_SECONDS:
        start = np.zeros(2 * K)
        random_code(problem.low, problem.high, start)
        options = {"verbose": -9, "seed": int(random.integers(1, 2**31)), "maxfevals": 200_000}
        es = cma.CMAEvolutionStrategy(start, 1.0, options)
        while not es.stop() and time.perf_counter() - started < CMA_SECONDS:
            codes = es.ask()
            es.tell(codes, [objective(np.asarray(code), problem, work) for code in codes])
        least = min(least, float(es.result.fbest))
    return least


def timed(name: str, K: int, **options: Any) -> tuple[FitResult, float]:
    """A fit and the processor's seconds for it, which other work on the machine stretches less."""
    started = time.process_time()
    result = fs.fit(name, K, **options)
    return result, time.process_time() - started


def row(
    what: str, results: list[FitResult], target: dict[str, float], cpu_seconds: list[float] | None = None
) -> dict[str, Any]:
    """Median and worst over the seeds, and whether the worst keeps to the target."""
    names = ("mse", "mse_main", "mse_outer", "mean_spikes", "max_error", "seconds")
    values = {name: [getattr(result, name) for result in results] for name in names}
    known = {name: list(v) for name, v in (values | {"cpu_seconds": cpu_seconds or [None]}).items() if None not in v}
    return {
        "what": what,
        "n": len(results),
        **{name: statistics.median(v) for name, v in known.items()},
        "worst": {name: max(v) for name, v in known.items()} if len(results) > 1 else None,
        "target": target or None,
        "reached": all(max(known[name]) <= limit for name, limit in target.items()) if target else None,
    }


def main() -> None:
    """Measure, print and write after every row, so that a cut run keeps what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/fitting.json"))
    parser.add_argument(
        "--only", nargs="*", choices=PARTS, default=list(PARTS), help="leave the other parts as they are"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for bits in (None, 8):
        fs.fit("silu", 4, (-8.0, 8.0), bits=bits)  # compiles
    parts = json.loads(arguments.output.read_text())["parts"] if arguments.output.exists() else {}
    for name in arguments.only:
        rows: list[dict[str, Any]] = []
        for line in PARTS[name]():
            rows.append(line)
            print({key: value for key, value in line.items() if value is not None}, flush=True)
            signed = {"seeds": SEEDS, **conditions(np, numba), "load": os.getloadavg()[0]}
            parts[name] = {"conditions": signed, "rows": rows}
            ordered = {known: parts[known] for known in PARTS if known in parts}
            write_json(arguments.output, {"command": "python benchmarks/fitting.py", "parts": ordered})


PARTS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "shipped": shipped_tables,
    "fits": fits,
    "quantised": quantised,
    "steps": steps,
    "cma": against_cma,
}


if __name__ == "__main__":
    main()
