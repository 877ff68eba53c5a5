"""How fast a network runs here: forward passes alone."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from fewspikes.measure.source import Batch


def images_per_second(network: Callable[..., Any], batches: Sequence[Batch]) -> float:
    """Images a second, the median over `batches`, after one pass of the first to warm up.

    Args:
        network: called with the inputs of a batch.
        batches: one at least.
    """
    with torch.inference_mode():
        network(*batches[0])
        _wait(batches[0])
        return median(_of_one(network, batch) for batch in batches)


def _of_one(network: Callable[..., Any], batch: Batch) -> float:
    started = time.perf_counter()
    network(*batch)
    _wait(batch)
    return len(batch[0]) / max(time.perf_counter() - started, 1e-9)


def _wait(batch: Batch) -> None:
    if batch[0].device.type == "cuda":
        torch.cuda.synchronize(batch[0].device)
