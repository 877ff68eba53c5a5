"""Timings that can be compared: in turn, many times, medians."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

_FEWEST, _MOST = 5, 200  # runs of each job


@dataclass(frozen=True)
class Timing:
    """Seconds of one run: the median, and between what it lay."""

    median: float
    least: float
    most: float
    runs: int


def alternate(jobs: Mapping[str, Callable[[], Any]], seconds: float = 2.0) -> dict[str, Timing]:
    """Run the jobs in turn, A B A B, so that a machine that slows down slows all of them.

    Args:
        jobs: by name; each is run once before it counts.
        seconds: for all jobs together, about; every job runs at least 5 times.
    """
    for job in jobs.values():
        job()
    wait()
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    begun = time.perf_counter()
    for run in range(_MOST):
        if run >= _FEWEST and time.perf_counter() - begun > seconds:
            break
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            wait()
            taken[name].append(time.perf_counter() - started)
    return {name: Timing(median(t), min(t), max(t), len(t)) for name, t in taken.items()}


def ratio(above: Timing, below: Timing) -> float:
    """How many times as long `above` took, by the medians."""
    return above.median / below.median


def wait() -> None:
    """Until a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
