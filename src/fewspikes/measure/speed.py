"""How fast a network runs here: forward passes alone."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fewspikes.measure.source import Batch


def images_per_second(network: Callable[..., Any], batches: Sequence[Batch]) -> float:
    """Images a second over `batches`, after one pass of the first to warm up.

    Args:
        network: called with the inputs of a batch.
        batches: one at least.
    """
    with torch.inference_mode():
        network(*batches[0])
        _wait(batches[0])
        started = time.perf_counter()
        for batch in batches:
            network(*batch)
        _wait(batches[0])
        seconds = time.perf_counter() - started
    return sum(len(batch[0]) for batch in batches) / max(seconds, 1e-9)


def _wait(batch: Batch) -> None:
    if batch[0].device.type == "cuda":
        torch.cuda.synchronize(batch[0].device)
