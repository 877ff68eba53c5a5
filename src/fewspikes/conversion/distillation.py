"""`distil`: learn the code, never the weights, against the network's own outputs."""

import math
import os
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.progress import watch
from fewspikes.conversion.learner import Learner, Stage
from fewspikes.conversion.resume import Progress, fingerprint, keep, look_up
from fewspikes.measure.batches import Batches
from fewspikes.network.spiking import SpikingNetwork

MINUTES = 3.0
_STAGES = 6
_BYTES = 2 << 30  # of images that are kept in memory; more are left out


def distil(
    snn: SpikingNetwork,
    loader: Any,
    minutes: float | None = None,
    steps: int | None = None,
    reference: nn.Module | None = None,
    spike_weight: float = 0.0,
    seed: int = 0,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> SpikingNetwork:
    """Learn the code of `snn` against the ANN's own outputs on unlabelled images; the weights stay as they are.

    Learned are, per channel, the shift and, where they are free, range and gain; and d and offset of codes that are
    not a ReLU's, which stay binary. The loss is log(output error) + spike_weight x spikes per neuron; the error is the
    mean square over the output's variance in the ANN. An eighth of the images is held out. After each of 6 stages the
    network is measured on them, and the best measurement is what comes back: never worse than before.

    Args:
        snn: the converted network; it stays as it is.
        loader: training images, as a tensor or a re-iterable of batches; labels are ignored. Up to 2 GiB are used.
        minutes: how long; the result then depends on the machine's speed.
        steps: how many minibatches of 64 images instead: the same result wherever the arithmetic is. Both None: 3
            minutes.
        reference: the ANN, in eval mode; by default the graph of `snn` with its original activations.
        spike_weight: price of a spike per neuron, in log error; one knob trades spikes for agreement.
        seed: of the order of the images.
        checkpoint: a file that is written after each stage, and read if it is there: a run that was cut goes on.
        progress: a line per stage and a bar on stderr; None shows them when stderr is a terminal.

    Returns:
        A new network; its report's notes say what distilling did.

    Raises:
        FewSpikesError: fewer than 2 images, data that do not fit, minutes or steps that are not positive, a reference
            in training mode, or a checkpoint of another run.

    >>> import fewspikes as fs
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> images = torch.randn(64, 4)
    >>> snn = fs.convert(net, images, calibration=images, K=3)
    >>> fs.distil(snn, images, steps=5).report.notes[-1].startswith("distilled")
    True
    """
    _check(snn, minutes, steps, reference, spike_weight)
    if minutes is None and steps is None:
        minutes = MINUTES
    with torch.inference_mode(False), torch.enable_grad():
        images, left = _gather(Batches(loader, snn.inputs, snn.dtype, "distilling data", snn.device))
        learner = Learner(snn, images, reference, spike_weight, seed)
        settings = {"minutes": minutes, "steps": steps, "spike_weight": spike_weight, "seed": seed}
        done = Progress(fingerprint(snn, images, settings))
        if checkpoint is not None:
            look_up(checkpoint, learner, done)
        trouble = _learn(learner, done, minutes, steps, checkpoint, progress)
        return _kept(learner, done, len(images[0]), left, trouble)


def _learn(
    learner: Learner,
    done: Progress,
    minutes: float | None,
    steps: int | None,
    checkpoint: str | os.PathLike[str] | None,
    progress: bool | None,
) -> str:
    """Run the stages that are left; returns what went wrong, or ""."""
    if not done.stages:
        done.add(learner.measure(0.0, 0), learner)
    with watch("distilling", progress) as show:
        for stage in range(len(done.stages), _STAGES + 1):
            before, started = done.stages[-1], time.perf_counter()
            seconds, count = before.seconds, before.steps
            while (share := _share(seconds, count, minutes, steps)) < stage / _STAGES:
                loss = learner.step(share)
                count, seconds = count + 1, before.seconds + time.perf_counter() - started
                if not math.isfinite(loss):
                    return f"the loss turned {loss} at step {count}; it stopped there"
                show(share, f"step {count}, loss {loss:.3f}")
            done.add(learner.measure(seconds, count), learner)
            if sys.stderr.isatty() if progress is None else progress:
                show(stage / _STAGES, f"stage {stage} of {_STAGES}: {done.stages[-1]}")
            if checkpoint is not None:
                keep(checkpoint, learner, done)
    return ""


def _share(seconds: float, count: int, minutes: float | None, steps: int | None) -> float:
    """How much of the work is done, 0 to 1: by whichever limit is nearer."""
    shares = [count / steps if steps else 0.0, seconds / (60 * minutes) if minutes else 0.0]
    return min(max(shares), 1.0)


def _kept(learner: Learner, done: Progress, images: int, left: int, trouble: str) -> SpikingNetwork:
    before, best = done.stages[0], done.best(learner.spike_weight)
    notes = [trouble] if trouble else []
    if left:
        notes.append(f"distilling used {images:,} images; {left:,} more did not fit into {_BYTES >> 30} GiB")
    if best is before:
        notes.append("distilled in vain: no stage was better on the held-out images; the code is as before")
        return learner.snn.with_neurons({}, notes)
    last = done.stages[-1]
    notes.append(
        f"distilled for {last.seconds:.0f} s, {last.steps:,} steps on {images:,} images; held out: {before} -> {best}"
    )
    return learner.snn.with_neurons(done.neurons_at(best, learner), notes)


def _gather(batches: Batches) -> tuple[tuple[Tensor, ...], int]:
    """All images, as one tensor per input, and how many were left out."""
    kept: list[tuple[Tensor, ...]] = []
    size = left = 0
    for inputs, _ in batches:
        size += sum(value.numel() * value.element_size() for value in inputs)
        if kept and size > _BYTES:
            left += len(inputs[0])
            continue
        kept.append(inputs)
    return tuple(torch.cat(values).clone() for values in zip(*kept, strict=True)), left


def _check(
    snn: SpikingNetwork, minutes: float | None, steps: int | None, reference: nn.Module | None, spike_weight: float
) -> None:
    if not isinstance(snn, SpikingNetwork):
        raise FewSpikesError(f"distil needs a converted network; got {type(snn).__name__}")
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise FewSpikesError(f"minutes must be a number > 0; got {minutes}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise FewSpikesError(f"steps must be a whole number >= 1; got {steps!r}")
    if minutes is not None and steps is not None:
        raise FewSpikesError("minutes and steps both say how long; give one of them")
    if not (math.isfinite(spike_weight) and spike_weight >= 0):
        raise FewSpikesError(f"spike_weight must be a number >= 0; got {spike_weight}")
    if reference is not None and any(module.training for module in reference.modules()):
        raise FewSpikesError("the reference is in training mode; call reference.eval() first")


__all__ = ["Stage", "distil"]
