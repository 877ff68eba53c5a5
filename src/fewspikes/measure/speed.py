"""How fast a network runs here: forward passes alone."""

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from statistics import median
from typing import Any

import torch

from fewspikes.measure.source import Batch

_WARMING, _PASSES = 2, 5  # passes
_LONG = 1.0  # seconds


def images_per_second(network: Callable[..., Any], batches: Sequence[Batch]) -> float:
    """Images a second, the median over passes, after two of the first batch to warm up.

    Every batch runs once; where they are few, they run again until there are five passes or a second is over.

    Args:
        network: called with the inputs of a batch.
        batches: one at least.
    """
    with torch.inference_mode():
        for _ in range(_WARMING):
            _seconds(network, batches[0])
        started, found = time.perf_counter(), list[float]()
        for batch in cycle(batches):
            found.append(len(batch[0]) / max(_seconds(network, batch), 1e-9))
            enough = len(found) >= _PASSES or time.perf_counter() - started > _LONG
            if len(found) >= len(batches) and enough:
                return median(found)
    raise AssertionError("cycle ends only without batches")


def _seconds(network: Callable[..., Any], batch: Batch) -> float:
    started = time.perf_counter()
    network(*batch)
    _wait(batch)
    return time.perf_counter() - started


def _wait(batch: Batch) -> None:
    if batch[0].device.type == "cuda":
        torch.cuda.synchronize(batch[0].device)
