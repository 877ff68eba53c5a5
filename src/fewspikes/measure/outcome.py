"""What a converted network is worth on images held out from everything else: its error, agreement, drop and spikes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.measure.batches import Batches
from fewspikes.measure.counting import count
from fewspikes.measure.outputs import floats
from fewspikes.measure.sensitivity import Batch
from fewspikes.network.spiking import SpikingNetwork

Labelled = tuple[Batch, Tensor | None]
_NEIGHBOURS = 32  # of an image in its margin, whose errors it might as well have had
_TINY = 1e-12


@dataclass(frozen=True)
class Outcome:
    """A network beside its ANN on held-out images.

    Attributes:
        images: how many.
        error: the output's mean squared error over its variance (the mean over tensors where it has several).
        agreement: percent of images of which both name the same class; None where the output is no [batch, classes].
        drop: ANN's top-1 less the network's, in points; None without labels.
        expected: the drop (without labels 100 - agreement) that these outputs let one expect, see `expected_loss`.
        spikes_per_neuron: mean spikes per neuron per image.
    """

    images: int
    error: float
    agreement: float | None
    drop: float | None
    expected: float | None
    spikes_per_neuron: float

    @property
    def loss(self) -> float | None:
        """What a budget of accuracy limits: the larger of what was counted and what is to be expected."""
        if self.agreement is None or self.expected is None:
            return None
        return max(100.0 - self.agreement if self.drop is None else self.drop, self.expected)


class HeldOut:
    """Images that nothing else may see, with the ANN's outputs for them.

    Args:
        snn: any network of the ANN in question.
        batches: inputs and labels (None without).

    Raises:
        FewSpikesError: some batches have labels and others not, or labels that are no whole numbers, one per image.
    """

    def __init__(self, snn: SpikingNetwork, batches: Sequence[Labelled]) -> None:
        self.batches = [inputs for inputs, _ in batches]
        self.images = sum(len(inputs[0]) for inputs in self.batches)
        self.labels = _labels(batches)
        shape = snn.output_shape()
        self.classes = shape[0] if shape is not None and len(shape) == 1 and shape[0] > 1 else None
        with torch.inference_mode():
            ann = snn.as_ann()
            self.wanted = _run(ann, self.batches)

    def __call__(self, snn: SpikingNetwork) -> Outcome:
        """Run `snn` over the images."""
        with torch.inference_mode(), count(snn) as counts:
            got = _run(snn, self.batches)
        error = sum(relative(y, t) for y, t in zip(got, self.wanted, strict=True)) / max(len(got), 1)
        if self.classes is None:
            return Outcome(self.images, error, None, None, None, counts.per_neuron)
        z, y = self.wanted[0], got[0]
        agreement = 100.0 * float((y.argmax(1) == z.argmax(1)).double().mean())
        drop = None
        if self.labels is not None:
            right = [(logits.argmax(1) == self.labels.to(logits.device)).double().mean() for logits in (z, y)]
            drop = 100.0 * float(right[0] - right[1])
        return Outcome(self.images, error, agreement, drop, expected_loss(z, y, self.labels), counts.per_neuron)


def expected_loss(ann: Tensor, snn: Tensor, labels: Tensor | None, neighbours: int = _NEIGHBOURS) -> float:
    """The drop in points (100 - agreement without labels), averaged over the errors that each image might have had.

    A hundred images cannot show a drop of 0.2 points: one image is a whole point. But each image's error might as well
    have struck another image that the ANN is about as sure of. So the images are put in order of the ANN's margin, and
    each gets the errors of the `neighbours` nearest to it, class by class in the order of their logits. That halves the
    estimate's own error where the drop is small, and leans to the larger side where it is large.

    Args:
        ann, snn: logits, [images, classes].
        labels: [images], or None.
        neighbours: how many errors each image gets.
    """
    images, order = len(ann), ann.argsort(1, descending=True)
    logits, errors = ann.gather(1, order), (snn - ann).gather(1, order)
    truth = None if labels is None else (order == labels.to(order.device)[:, None]).int().argmax(1)
    by_margin = (logits[:, 0] - logits[:, 1]).argsort()
    logits, errors = logits[by_margin], errors[by_margin]
    neighbours = min(neighbours, images)
    first = (torch.arange(images, device=ann.device) - neighbours // 2).clamp(0, images - neighbours)
    lost = 0.0
    for step in range(neighbours):
        named = (logits + errors[first + step]).argmax(1)
        if truth is None:
            lost += float((named != 0).double().mean())
        else:
            place = truth[by_margin]
            lost += float(((place == 0).double() - (named == place).double()).mean())
    return 100.0 * lost / neighbours


def resolution(outcome: Outcome) -> str:
    """How well so many images can tell a drop, in words."""
    one = 100.0 / outcome.images
    flips = max(100.0 - (outcome.agreement or 0.0), one) / 100.0
    spread = 196.0 * sqrt(flips * (1 - flips) / outcome.images)
    return f"one of {outcome.images} images is {one:.2g} points, and chance moves the figure by +-{spread:.1f} (95%)"


def relative(got: Tensor, wanted: Tensor) -> float:
    """Mean squared error over the variance of what is wanted."""
    variance = float(wanted.double().var(unbiased=False))
    return float((got - wanted).double().square().mean()) / max(variance, _TINY)


def _run(network: torch.nn.Module, batches: Sequence[Batch]) -> list[Tensor]:
    return [torch.cat(parts) for parts in zip(*(floats(network(*batch)) for batch in batches), strict=True)]


def _labels(batches: Sequence[Labelled]) -> Tensor | None:
    given = [labels for _, labels in batches]
    if any(labels is None for labels in given):
        if any(labels is not None for labels in given):
            raise FewSpikesError(
                "some calibration batches have labels and others not; give all of them labels, or none"
            )
        return None
    whole = torch.cat([torch.as_tensor(labels).reshape(-1) for labels in given])
    if whole.is_floating_point() or len(whole) != sum(len(inputs[0]) for inputs, _ in batches):
        raise FewSpikesError(f"labels must be whole numbers, one per image; got {whole.dtype}, {len(whole)} of them")
    return whole


class Fold:
    """Every image of `batches` that belongs to one part, as a re-iterable of the same kind.

    Image number i is held out if i % every == every - 1.

    Args:
        batches: all of them.
        every: one image in so many is held out.
        held: whether to give those held out, or the others.
        limit: give no more images than this.
    """

    def __init__(self, batches: Batches, every: int, held: bool, limit: int | None = None) -> None:
        self._batches, self._every, self._held, self._limit = batches, every, held, limit

    @property
    def total(self) -> int | None:
        """Number of batches at most, or None if the loader does not tell."""
        return self._batches.total

    def __iter__(self) -> Iterator[Labelled]:
        seen, given = 0, 0
        for inputs, labels in self._batches:
            place = torch.arange(seen, seen + len(inputs[0]))
            seen += len(place)
            chosen = ((place % self._every == self._every - 1) == self._held).nonzero().flatten()
            if self._limit is not None:
                chosen = chosen[: self._limit - given]
            given += len(chosen)
            if len(chosen):
                kept = None if labels is None else torch.as_tensor(labels)[chosen]
                yield tuple(value[chosen.to(value.device)] for value in inputs), kept
            if self._limit is not None and given >= self._limit:
                return
