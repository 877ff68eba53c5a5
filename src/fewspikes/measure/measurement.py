"""How good a network is on images: what it answers beside its ANN, and what that costs in spikes."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.moments import at_moment
from fewspikes.base.sums import total
from fewspikes.graph.model import inner
from fewspikes.graph.nested import tensors_of
from fewspikes.measure.counting import count
from fewspikes.measure.expectation import expected_loss
from fewspikes.measure.outputs import Variance, compared
from fewspikes.measure.source import Batch, Labelled
from fewspikes.network.spiking import SpikingNetwork

Answered = tuple[Batch, Tensor | None, list[Tensor]]  # inputs, labels, the ANN's outputs
Heard = Callable[[Any, int], None]
_KEPT = 256 << 20  # bytes of the ANN's outputs that are kept


@dataclass(frozen=True)
class Measurement:
    """A network beside its ANN on some images. Accuracies, agreement and drop are in percent.

    Attributes:
        images: how many.
        error: the output's mean squared error over the variance of the ANN's from image to image (see `Variance`; the
            mean over its tensors).
        cosine: of all outputs with the ANN's.
        agreement: share of images of which both name the same class; None where the output is no [batch, classes].
        ann_top1, ann_top5, snn_top1, snn_top5: accuracies; None without labels, top-5 with fewer than 5 classes.
        drop: ann_top1 - snn_top1, in points.
        drop_ci95: its 95% interval from the paired outcomes (Agresti and Min 2005: half an image is added to each of
            the four cells).
        expected_loss: the drop (100 - agreement without labels) that these outputs let one expect, if asked for.
        spikes, synops: over all images, exact; synops None if not asked for or where the graph does not tell.
        spikes_per_neuron: mean per neuron and image.
        clipped_fraction: gate inputs outside the domain that the parameters were made for.
        unknown_synops: sites whose fan-out the graph does not tell, with the reason.
    """

    images: int
    error: float
    cosine: float
    agreement: float | None
    ann_top1: float | None
    ann_top5: float | None
    snn_top1: float | None
    snn_top5: float | None
    drop: float | None
    drop_ci95: tuple[float, float] | None
    expected_loss: float | None
    spikes: int
    spikes_per_neuron: float
    synops: int | None
    clipped_fraction: float
    unknown_synops: dict[str, str] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """What a budget of accuracy limits: the larger of what was counted and what is to be expected."""
        if self.agreement is None or self.expected_loss is None:
            return None
        return max(100.0 - self.agreement if self.drop is None else self.drop, self.expected_loss)

    def without_labels(self) -> "Measurement":
        """The same, as if there had been no labels."""
        return replace(self, ann_top1=None, ann_top5=None, snn_top1=None, snn_top5=None, drop=None, drop_ci95=None)

    def cost(self, spike_price: float) -> float:
        """error + spike_price x spikes per neuron."""
        return self.error + spike_price * self.spikes_per_neuron


class Beside:
    """Batches with the ANN's outputs for them, to measure networks on.

    Outputs are kept from one iteration to the next as far as 256 MiB go; the others are made anew.

    Args:
        batches: inputs and labels, dealt.
        ann: inputs -> output, see `reference_of`.
        keep: False for batches that are gone through once.
    """

    def __init__(self, batches: Iterable[Labelled], ann: Callable[..., Any], keep: bool = True) -> None:
        self.batches, self.ann = batches, ann
        self._kept: list[list[Tensor]] = []
        self._room = _KEPT if keep else 0

    def __iter__(self) -> Iterator[Answered]:
        for i, (inputs, labels) in enumerate(self.batches):
            if i < len(self._kept):
                yield inputs, labels, self._kept[i]
                continue
            wanted = compared(self.ann(*inputs))
            self._room -= sum(t.numel() * t.element_size() for t in wanted)
            if self._room >= 0:
                self._kept.append(wanted)
            yield inputs, labels, wanted


def measure(
    snn: SpikingNetwork,
    beside: Iterable[Answered],
    *,
    synops: bool = False,
    expected: bool = False,
    heard: Heard | None = None,
) -> Measurement:
    """Run `snn` over the images.

    Args:
        snn: the converted network.
        beside: inputs, labels (None without) and the ANN's outputs.
        synops: count synaptic operations, too.
        expected: also say what loss is to be expected, which keeps all outputs.
        heard: called with the output for each batch, in the network's own structure, and with how many images it has.

    Raises:
        FewSpikesError: outputs of other shapes than the ANN's.
    """
    tally = _Tally()
    with torch.inference_mode(), count(snn, synops=synops) as counts:
        for inputs, labels, wanted in beside:
            with at_moment(first=tally.images):
                output = snn(snn.by_name(inputs))
            if heard is not None:
                heard(output, len(inputs[0]))
            tally.add(wanted, compared(output), labels, len(inputs[0]), expected)
    unknown = counts.synops is None or bool(counts.unknown_synops)
    return tally.result(
        expected_loss=tally.expected(),
        spikes=counts.total,
        spikes_per_neuron=counts.per_neuron,
        synops=None if unknown else counts.synops,
        clipped_fraction=counts.clipped_fraction,
        unknown_synops=counts.unknown_synops,
    )


def reference_of(snn: SpikingNetwork, reference: nn.Module | None) -> Callable[..., Any]:
    """The ANN to compare with, called with the inputs in the network's order; by default that of the same graph.

    Raises:
        FewSpikesError: no module, or one in training mode.
    """
    if reference is None:
        return snn.as_ann()
    if not isinstance(reference, nn.Module):
        raise FewSpikesError(f"the reference must be a torch.nn.Module; got {type(reference).__name__}")
    ann = inner(reference)
    if any(module.training for module in ann.modules()):
        raise FewSpikesError("the reference is in training mode; call reference.eval() first")
    names = [spec.name for spec in snn.inputs]

    def called(*inputs: Tensor) -> Any:
        own = [value.clone() for value in inputs]  # it may change them in place
        try:
            return ann(**dict(zip(names, own, strict=True))) if snn.keywords else ann(*own)
        except (RuntimeError, TypeError) as error:
            shapes = ", ".join(f"{value.dtype} {tuple(value.shape)}" for value in own)
            raise FewSpikesError(
                f"the reference does not take this network's inputs ({shapes}): {str(error).splitlines()[0]}; give the "
                "network that it was converted from"
            ) from error

    return called


def classes_of(snn: SpikingNetwork) -> int | None:
    """How many classes the network tells apart; None where its output is not one tensor [batch, classes]."""
    shape = snn.output_shape()
    if shape is None:  # perhaps one tensor in a tuple or dict
        with torch.inference_mode():
            zeros = [torch.zeros(1, *s.shape, dtype=s.dtype, device=snn.device) for s in snn.inputs]
            found = tensors_of(snn.as_ann()(*(z.to(snn.dtype) if z.is_floating_point() else z for z in zeros)))
        return found[0].shape[1] if len(found) == 1 and _names_classes(found[0], 1) else None
    return shape[0] if len(shape) == 1 and shape[0] > 1 else None


def paired_interval(n: int, only_ann: int, only_snn: int) -> tuple[float, float]:
    """95% interval in percent for the difference of two shares of the same n images (Agresti and Min 2005)."""
    total, b, c = n + 2.0, only_ann + 0.5, only_snn + 0.5
    middle = (b - c) / total
    spread = 1.959964 * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return 100.0 * (middle - spread), 100.0 * (middle + spread)


def _names_classes(output: Tensor, images: int) -> bool:
    return output.ndim == 2 and len(output) == images and output.shape[1] > 1 and output.is_floating_point()


@dataclass
class _Tally:
    """Running sums over batches."""

    images: int = 0
    labelled: int = 0
    classes: int | None = None
    agree: int = 0
    hits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("ann1", "ann5", "snn1", "snn5"), 0))
    only_ann: int = 0
    only_snn: int = 0
    spreads: list["_Spread"] = field(default_factory=list)
    logits: list[tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=list)

    def add(self, ann: list[Tensor], snn: list[Tensor], labels: Tensor | None, images: int, expected: bool) -> None:
        """One batch of outputs."""
        shapes = [[tuple(t.shape) for t in tensors] for tensors in (ann, snn)]
        if shapes[0] != shapes[1]:
            raise FewSpikesError(
                f"the reference returns {_listed(shapes[0])}; the spiking network returns {_listed(shapes[1])}"
            )
        self.images += images
        self.spreads = self.spreads or [_Spread() for _ in ann]
        for spread, wanted, got in zip(self.spreads, ann, snn, strict=True):
            spread.add(wanted, got, images)
        if len(ann) != 1 or not _names_classes(ann[0], images):
            return
        self.classes = ann[0].shape[1]
        self.agree += int((ann[0].argmax(1) == snn[0].argmax(1)).sum())
        if labels is not None:
            self._count_hits(ann[0], snn[0], labels)
        if expected:
            self.logits.append((ann[0], snn[0], labels))

    def _count_hits(self, ann: Tensor, snn: Tensor, labels: Tensor) -> None:
        self.labelled += len(labels)
        right = {name: y.argmax(1) == labels for name, y in (("ann", ann), ("snn", snn))}
        self.only_ann += int((right["ann"] & ~right["snn"]).sum())
        self.only_snn += int((right["snn"] & ~right["ann"]).sum())
        for name, y in (("ann", ann), ("snn", snn)):
            self.hits[f"{name}1"] += int(right[name].sum())
            if y.shape[1] >= 5:
                self.hits[f"{name}5"] += int((y.topk(5).indices == labels[:, None]).sum())

    def expected(self) -> float | None:
        """The expected loss, if the outputs were kept."""
        if not self.logits:
            return None
        ann, snn = (torch.cat([parts[i] for parts in self.logits]) for i in (0, 1))  # type: ignore[misc]
        labels = [parts[2] for parts in self.logits if parts[2] is not None]
        return expected_loss(ann, snn, torch.cat(labels) if labels else None)

    def result(self, **costs: Any) -> Measurement:
        """The sums as shares and means."""
        n = self.labelled
        five = n and (self.classes or 0) >= 5
        share = {name: 100.0 * hits / n if n else None for name, hits in self.hits.items()}
        product, ann2, snn2 = (sum(getattr(s, name) for s in self.spreads) for name in ("product", "ann2", "snn2"))
        return Measurement(
            images=self.images,
            error=sum(spread.relative for spread in self.spreads) / max(len(self.spreads), 1),
            cosine=product / math.sqrt(ann2 * snn2) if ann2 and snn2 else float(ann2 == snn2),
            agreement=None if self.classes is None else 100.0 * self.agree / self.images,
            ann_top1=share["ann1"],
            ann_top5=share["ann5"] if five else None,
            snn_top1=share["snn1"],
            snn_top5=share["snn5"] if five else None,
            drop=100.0 * (self.hits["ann1"] - self.hits["snn1"]) / n if n else None,
            drop_ci95=paired_interval(n, self.only_ann, self.only_snn) if n else None,
            **costs,
        )


@dataclass
class _Spread:
    """Sums over the elements of one tensor of the output."""

    elements: int = 0
    variance: Variance = field(default_factory=Variance)
    error: float = 0.0
    product: float = 0.0
    ann2: float = 0.0
    snn2: float = 0.0

    def add(self, ann: Tensor, snn: Tensor, images: int) -> None:
        """One batch."""
        wanted, got = ann.double(), snn.double()
        self.elements += wanted.numel()
        self.variance.add(ann, images)
        self.error += float(total((got - wanted).square()))
        self.product += float(total(got * wanted))
        self.ann2 += float(total(wanted.square()))
        self.snn2 += float(total(got.square()))

    @property
    def relative(self) -> float:
        """Mean squared error over the variance of what is wanted."""
        return self.error / max(self.elements, 1) / (self.variance.value or 1.0)


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "no tensor"
