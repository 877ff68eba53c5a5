"""Nanoseconds of a neuron by engine, number of steps and size, beside torch's own SiLU; and how long fits take."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fewspikes.bench.timing import Timing, alternate
from fewspikes.fitting import fit
from fewspikes.neuron.kernels.dispatch import run
from fewspikes.neuron.kernels.reference import apply as plain_loop
from fewspikes.neuron.known_codes import shipped
from fewspikes.neuron.layer import FSNeuron, overwriting
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.recurrence import cast

STEPS, SIZES = (4, 8, 16), (1 << 16, 1 << 22)


def activation_rows(
    steps: Sequence[int] = STEPS, sizes: Sequence[int] = SIZES, device: str = "cpu", seconds: float = 2.0
) -> Iterator[dict[str, Any]]:
    """One row for each K and size: nanoseconds per element, spikes counted, all engines in turn.

    "layer" is what a network runs: a layer that may write over its input, spikes in total. "counts per element" keeps
    the spikes of each element. "eager loop" is the recurrence in plain torch, "silu" torch's own, in place.

    Args:
        steps: K of SiLU's shipped table.
        sizes: elements, float32, normally distributed.
        device: where.
        seconds: of measuring for each row.
    """
    for size in sizes:
        x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device) * 1.4
        for K in steps:
            p = shipped("silu", K)
            with torch.inference_mode():
                found = alternate(_jobs(x, p), seconds)
            yield {
                "K": K,
                "elements": size,
                "ns_per_element": {name: _nanoseconds(found, name, size) for name in found},
                "eager_loop_over_layer": found["eager loop"].median / _nanoseconds(found, "layer", size) / size * 1e9,
                "runs": found["layer"].runs,
            }


def _jobs(x: Tensor, p: FSParameters) -> dict[str, Callable[[], Any]]:
    T, h, d, offset = cast(p, x)
    neuron, into = FSNeuron(p), x.clone()
    neuron.count_hooks.append(lambda spikes, outside: None)

    def layer() -> Tensor:
        with overwriting(frozenset([neuron])):
            return neuron(into.copy_(x))  # type: ignore[no-any-return]

    return {
        "layer": layer,
        "counts per element": lambda: run(x, T, h, d, offset, count=True),
        "eager loop": lambda: plain_loop(x, T, h, d, offset, count=True),
        "silu": lambda: F.silu(into.copy_(x), inplace=True),
        "copy": lambda: into.copy_(x),
    }


def _nanoseconds(found: dict[str, Timing], name: str, size: int) -> float:
    """Per element; the copy that fills the buffer again is not part of what works in place."""
    copied = found["copy"].median if name in ("layer", "silu") else 0.0
    return (found[name].median - copied) / size * 1e9


def fit_rows(
    cases: Sequence[tuple[str, int]] = (("silu", 8), ("silu", 16), ("sigmoid", 12)),
) -> Iterator[dict[str, Any]]:
    """Seconds and error of `fit`, one run each."""
    for name, K in cases:
        started = time.perf_counter()
        result = fit(name, K)
        yield {"activation": name, "K": K, "seconds": time.perf_counter() - started, "mse": result.mse}
