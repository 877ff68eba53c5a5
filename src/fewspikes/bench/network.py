"""Images per second of a network and its spiking version, in turn in one run."""

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesWarning
from fewspikes.bench.timing import alternate, ratio
from fewspikes.conversion.conversion import convert
from fewspikes.measure.counting import count
from fewspikes.network.spiking import SpikingNetwork


def network_row(model: nn.Module, images: Tensor, seconds: float = 20.0, **options: Any) -> dict[str, Any]:
    """ANN as given, ANN with batch norm folded, spiking network without and with counts: images per second.

    Everything is eager, channels-last where images are 4-dimensional, and in one batch.

    Args:
        model: in eval mode, on the device of `images`.
        images: one batch.
        seconds: of measuring.
        options: of `convert`.
    """
    images = laid_out(images)
    model = laid_out(model)
    started = time.perf_counter()
    snn = spiking(model, images, options)
    converted = time.perf_counter() - started
    folded = laid_out(snn.as_ann())
    jobs = {
        "ann": lambda: model(images),
        "ann_folded": lambda: folded(images),
        "snn": lambda: snn(images),
        "snn_counted": lambda: _counted(snn, images),
    }
    with torch.inference_mode():
        found = alternate(jobs, seconds)
        with count(snn) as counts:
            snn(images)
    return {
        "batch": len(images),
        "input": list(images.shape[1:]),
        "K": snn.report.k,
        "neurons": snn.report.neurons,
        "spikes_per_neuron": counts.per_neuron,
        "convert_seconds": converted,
        "images_per_second": {name: len(images) / timing.median for name, timing in found.items()},
        "snn_over_ann": ratio(found["ann"], found["snn_counted"]),
        "snn_over_folded_ann": ratio(found["ann_folded"], found["snn_counted"]),
        "runs": found["ann"].runs,
    }


def growth_rows(
    model: nn.Module,
    images: Tensor,
    steps: Sequence[int] = (4, 8, 16),
    batches: Sequence[int] = (1, 4, 16),
    passes: Sequence[int] = (1, 2, 4),
    seconds: float = 5.0,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """How the spiking network's time per image grows with K, with the batch, and with the number of batches.

    Args:
        model, images: as for `network_row`; of the images the first ones are used.
        steps: K, at the full batch.
        batches: images in a batch.
        passes: batches one after the other.
        seconds: of measuring for each of the three.
        options: of `convert`, without K.
    """
    images, model = laid_out(images), laid_out(model)
    by_k = {K: spiking(model, images, {**options, "K": K}) for K in steps}
    snn = next(iter(by_k.values()))
    parts = {n: laid_out(images[:n]) for n in batches if n <= len(images)}
    cases: dict[str, dict[int, tuple[Any, int]]] = {
        "K": {K: (lambda net=net: _counted(net, images), len(images)) for K, net in by_k.items()},
        "batch": {n: (lambda part=part: _counted(snn, part), n) for n, part in parts.items()},
        "batches": {n: (lambda n=n: [_counted(snn, images) for _ in range(n)], n * len(images)) for n in passes},
    }
    for what, jobs in cases.items():
        with torch.inference_mode():
            found = alternate({str(value): job for value, (job, _) in jobs.items()}, seconds)
        for value, (_, images_run) in jobs.items():
            median = found[str(value)].median
            yield {
                "grows": what,
                "value": value,
                "seconds": median,
                "milliseconds_per_image": median / images_run * 1e3,
            }


def spiking(model: nn.Module, images: Tensor, options: dict[str, Any]) -> SpikingNetwork:
    """The spiking network of a model, for its speed: no word on ranges that were not calibrated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSpikesWarning)
        found: SpikingNetwork = laid_out(convert(model, images[:2], **options))
    return found


def _counted(snn: SpikingNetwork, images: Tensor) -> int:
    with count(snn) as counts:
        snn(images)
    return counts.total


def laid_out(what: Any) -> Any:
    """Channels-last, where that has a meaning."""
    if isinstance(what, Tensor):
        return what.contiguous(memory_format=torch.channels_last) if what.ndim == 4 else what
    flat = all(p.ndim != 5 for p in what.parameters())
    return what.to(memory_format=torch.channels_last) if flat else what
