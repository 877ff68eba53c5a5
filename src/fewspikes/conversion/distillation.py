"""`distil`: learn the code, never the weights, against the network's own outputs."""

import math
import os
import sys
import time
from collections import deque
from typing import Any

import torch
from torch import nn

from fewspikes.base.checks import MOST_SEED, positive, price, whole
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.files import check_place
from fewspikes.base.progress import watch
from fewspikes.conversion.budget_search import few_spikes, small_drop
from fewspikes.conversion.checkpoint import Checkpoint, fingerprint, restore, write
from fewspikes.conversion.settings import Budget
from fewspikes.conversion.trainer import Stage, Trainer
from fewspikes.measure.deal import BYTES, Deal, Images, batch_size
from fewspikes.measure.measurement import reference_of
from fewspikes.measure.source import Source
from fewspikes.network.spiking import SpikingNetwork

MINUTES = 3.0
_STAGES = 6
_MOST_STEPS = 1 << 31
_HELD_OUT = 512  # images at most, an eighth of all


def distil(
    snn: SpikingNetwork,
    loader: Any,
    minutes: float | None = None,
    steps: int | None = None,
    reference: nn.Module | None = None,
    spike_price: float = 0.0,
    seed: int = 0,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> SpikingNetwork:
    """Learn the code of `snn` against the ANN's own outputs on unlabelled images; the weights stay as they are.

    Learned are, per channel, the shift and, where they are free, range and gain; and d and offset of codes that are
    not a ReLU's, which stay binary. The loss is log(error + spike_price x spikes per neuron); the error is the output's
    mean square over its variance in the ANN. An eighth of the images is held out. After each of 6 stages the network is
    measured on them, and the best measurement is what comes back: never worse than before.

    Args:
        snn: the converted network; it stays as it is.
        loader: training images, as a tensor or a re-iterable of batches; what follows the inputs is ignored. Up to
            2 GiB are used.
        minutes: how long; the result then depends on the machine's speed.
        steps: how many minibatches of 64 images instead: the same result wherever the arithmetic is. Both None: 3
            minutes.
        reference: the ANN, in eval mode; by default the graph of `snn` with its original activations.
        spike_price: the rise of the output's squared error, as a share of its variance, that one spike per neuron is
            worth; 0: spikes cost nothing.
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
    >>> snn = fs.convert(net, images, images, K=3)
    >>> fs.distil(snn, images, steps=5).report.notes[-1].startswith("distilled")
    True
    """
    if not isinstance(snn, SpikingNetwork):
        raise FewSpikesError(f"distil needs a converted network; got {type(snn).__name__}")
    snn.check_clean("distil")
    _check(minutes, steps)
    price("spike_price", spike_price)
    if checkpoint is not None:
        check_place(checkpoint)
    whole("seed", seed, 0, MOST_SEED)
    ann = reference_of(snn, reference)
    source = Source(loader, snn.inputs, snn.dtype, "distilling data", snn.device)
    deal = Deal(source, batch_size(snn.structure.neuron_count), outliers=True)
    with torch.inference_mode(False):
        deque(deal, maxlen=0)
        images, left = deal.kept, deal.left_out
        if deal.outliers:
            warn(f"distilling: {deal.outliers}")
        if len(images) < 2:
            raise FewSpikesError(
                f"distilling needs at least 2 images, one to learn from and one held out; got {len(images)}"
            )
        held, rest = images.apart(min(max(len(images) // 8, 1), _HELD_OUT))
        trainer = Trainer(snn, rest, held, ann, spike_price, seed)
        return learned(trainer, minutes, steps, left=left, checkpoint=checkpoint, progress=progress)


def distil_within(
    snn: SpikingNetwork,
    images: Images,
    held: Images,
    budget: Budget | None,
    minutes: float,
    spike_price: float,
    seed: int,
    left: int,
    progress: bool | None,
) -> SpikingNetwork:
    """Distil a network that was made within a budget: the images held out for it stay held out, and it is kept.

    Args:
        snn: within the budget.
        images: to learn from; without a budget some of them are held out.
        held: to measure on.
        budget: or None.
        minutes, spike_price, seed, progress: as for `distil`.
        left: images that there was no memory for.
    """
    if not len(held):
        held, images = images.apart(min(max(len(images) // 8, 1), _HELD_OUT))
    most = None if budget is None else budget.spikes
    trainer = Trainer(snn, images, held, snn.as_ann(), spike_price, seed, most)
    return learned(trainer, minutes, None, budget, left, progress=progress)


def learned(
    trainer: Trainer,
    minutes: float | None,
    steps: int | None,
    budget: Budget | None = None,
    left: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> SpikingNetwork:
    """The network with the best that was learned within the budget, or as it was.

    Args:
        trainer: where it begins.
        minutes, steps, checkpoint, progress: as for `distil`.
        budget: what the network must keep to.
        left: images that there was no memory for.
    """
    if not trainer.parameters():
        return trainer.snn.with_neurons({}, ["distilled in vain: nothing can be learned: no site's channels are known"])
    if minutes is None and steps is None:
        minutes = MINUTES
    with torch.inference_mode(False), torch.enable_grad():
        settings = {"minutes": minutes, "steps": steps, "spike_price": trainer.spike_price, "most": trainer.most_spikes}
        settings["seed"] = trainer.random.initial_seed()
        done = Checkpoint("" if checkpoint is None else fingerprint(trainer, settings))
        if checkpoint is not None:
            restore(checkpoint, trainer, done)
        trouble = _learn(trainer, done, minutes, steps, checkpoint, progress)
        return _kept(trainer, done, budget, left, trouble)


def _learn(
    trainer: Trainer,
    done: Checkpoint,
    minutes: float | None,
    steps: int | None,
    checkpoint: str | os.PathLike[str] | None,
    progress: bool | None,
) -> str:
    """Run the stages that are left; returns what went wrong, or ""."""
    if not done.stages:
        done.add(trainer.measure(0.0, 0), trainer)
    with watch("distilling", progress) as show:
        for stage in range(len(done.stages), _STAGES + 1):
            before, started = done.stages[-1], time.perf_counter()
            seconds, count = before.seconds, before.steps
            while (share := _share(seconds, count, minutes, steps)) < stage / _STAGES:
                loss = trainer.step(share)
                count, seconds = count + 1, before.seconds + time.perf_counter() - started
                if not math.isfinite(loss):
                    return f"the loss turned {loss} at step {count}; it stopped there"
                show(share, f"step {count}, loss {loss:.3f}")
            done.add(trainer.measure(seconds, count), trainer)
            if sys.stderr.isatty() if progress is None else progress:
                show(stage / _STAGES, f"stage {stage} of {_STAGES}: {done.stages[-1]}")
            if checkpoint is not None:
                write(checkpoint, trainer, done)
    return ""


def _share(seconds: float, count: int, minutes: float | None, steps: int | None) -> float:
    """How much of the work is done, 0 to 1: by whichever limit is nearer."""
    shares = [count / steps if steps else 0.0, seconds / (60 * minutes) if minutes else 0.0]
    return min(max(shares), 1.0)


def _kept(trainer: Trainer, done: Checkpoint, budget: Budget | None, left: int, trouble: str) -> SpikingNetwork:
    def allowed(stage: Stage) -> bool:
        return budget is None or (few_spikes(budget, stage.measured) and small_drop(budget, stage.measured))

    images = len(trainer.images[0]) + done.stages[0].measured.images
    before, best = done.stages[0], done.best(trainer.spike_price, allowed)
    notes = [trouble] if trouble else []
    if left:
        notes.append(f"distilling used {images:,} images; {left:,} more did not fit into {BYTES >> 30} GiB")
    if best is before:
        within = "" if budget is None else f" within {budget}"
        notes.append(f"distilled in vain: no stage was better on the held-out images{within}; the code is as before")
        return trainer.snn.with_neurons({}, notes)
    last = done.stages[-1]
    notes.append(
        f"distilled for {last.seconds:.0f} s, {last.steps:,} steps on {images:,} images; held out: {before} -> {best}"
    )
    return trainer.snn.with_neurons(done.neurons_at(best, trainer), notes)


def _check(minutes: float | None, steps: int | None) -> None:
    if minutes is not None:
        positive("minutes", minutes)
    if steps is not None:
        whole("steps", steps, 1, _MOST_STEPS)
    if minutes is not None and steps is not None:
        raise FewSpikesError("minutes and steps both say how long; give one of them")
