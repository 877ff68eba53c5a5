"""One network with everything in it made of spikes: its output's error beside that of the ANN in half precision."""

import copy
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from measuring import AT_ONCE, LONGEST, Options, Watch, error_of, images_of, shaken
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.errors import FewSpikesError
from kinds.comparing import batches, run, tensors

MEASURED = 16  # images; more of small ones
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def spiked(
    build: Callable[[], nn.Module], inputs: Callable[[int], Any], options: Options, family: str
) -> Iterator[dict[str, Any]]:
    """What is known of a network after each step; the last row has it all.

    Args:
        build: makes the model in eval mode.
        inputs: a random batch of so many images.
        options: of the conversion.
        family: what kind of network it is.

    Yields:
        `status`: begun, converted, ok, refused; `why`; and what was measured.
    """
    row: dict[str, Any] = {"status": "begun", "family": family, "effort": options.effort}
    watch = Watch(row)
    torch.manual_seed(options.seed)
    model = watch("build", lambda: shaken(build(), inputs))
    seen = batches(inputs(images_of(inputs(1), options.images, few=options.images)), AT_ONCE)
    other = inputs(images_of(inputs(1), MEASURED, few=MEASURED))
    parts = [(part,) if isinstance(part, Tensor) else part for part in batches(other, AT_ONCE)]
    yield row
    settings = {"K": options.K, "circuits": options.circuits, "effort": options.effort, "seed": options.seed}
    try:
        snn = watch("convert", lambda: fs.convert(model, inputs(1), seen, progress=False, **settings))
    except FewSpikesError as error:
        yield row | {"status": "refused", "why": str(error)[:LONGEST]}
        return
    report = snn.report
    row |= {
        "calibrated": sum(len(tensors(part)[0]) for part in seen),
        "measured": len(tensors(other)[0]),
        "sites": report.layers,
        "neurons": report.neurons,
        "latency_steps": report.latency_steps,
        "left_digital": dict(Counter(entry.operator for entry in report.left_digital).most_common()),
        "worst": report.worst(5),
        "status": "converted",
    }
    yield row
    yield row | watch("measure", lambda: _measured(snn, model, parts)) | {"status": "ok"}


@torch.no_grad()
def _measured(snn: fs.SpikingNetwork, model: nn.Module, parts: list[Any]) -> dict[str, Any]:
    with fs.count(snn) as counts:
        found: dict[str, Any] = {"error": error_of(snn, model, parts)}
    found |= {"spikes_per_neuron": counts.per_neuron, "clipped_fraction": counts.clipped_fraction}
    return found | {f"error_{name}": _rounded_error(model, parts, dtype) for name, dtype in HALVES.items()}


def _rounded_error(model: nn.Module, parts: list[Any], dtype: torch.dtype) -> float | None:
    """The error of the ANN in half precision; None where torch has no operator for it here, or it overflows."""
    half = copy.deepcopy(model).to(dtype)

    def rounded(*inputs: Tensor) -> Any:
        return run(half, tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs))

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = error_of(rounded, model, parts)
    except (RuntimeError, NotImplementedError):
        return None
    return error if math.isfinite(error) else None
