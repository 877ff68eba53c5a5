"""Run the ANN and the spiking network on the same images and say how they differ and what it cost."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.progress import track
from fewspikes.hardware.integers import IntegerNetwork
from fewspikes.measure.batches import Batches
from fewspikes.measure.counting import Counts, count
from fewspikes.network.spiking import SpikingNetwork


@dataclass(frozen=True)
class EvaluationReport:
    """The spiking network beside its ANN. Accuracies, agreement and drop are in percent; None without labels.

    Attributes:
        model: name of the network.
        images: how many were run.
        ann_top1, ann_top5, snn_top1, snn_top5: accuracies; top-5 is None with fewer than 5 classes.
        drop: ann_top1 - snn_top1, in points.
        drop_ci95: 95% interval of the drop from the paired outcomes (Agresti and Min 2005: half an image is added to
            each of the four cells).
        agreement: share of images on which both name the same class.
        neurons, layers: FS-neurons per image, and their layers.
        k: time steps, or by site where they differ.
        spikes_per_image, spikes_per_neuron: exact totals divided by images (and neurons).
        latency_steps: sum of K over the longest chain of layers.
        interval_steps: steps between two images in the pipeline.
        synops_per_image: synapses that the spikes reach; None where the graph does not tell some fan-out.
        macs_per_image: multiply-adds left in the spiking network; ann_macs_per_image: those of the ANN.
        ann_images_per_second, snn_images_per_second: on this machine, forward passes alone, counting included.
        clipped_fraction: gate inputs outside the domain that the parameters were made for.
    """

    model: str
    images: int
    ann_top1: float | None
    ann_top5: float | None
    snn_top1: float | None
    snn_top5: float | None
    drop: float | None
    drop_ci95: tuple[float, float] | None
    agreement: float
    neurons: int
    layers: int
    k: int | dict[str, int]
    spikes_per_image: float
    spikes_per_neuron: float
    latency_steps: int
    interval_steps: int
    synops_per_image: float | None
    macs_per_image: int
    ann_macs_per_image: int
    ann_images_per_second: float
    snn_images_per_second: float
    clipped_fraction: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        low, high = self.drop_ci95 or (None, None)
        k = self.k if isinstance(self.k, int) else f"{min(self.k.values())} to {max(self.k.values())}"
        rows = [
            ("images", f"{self.images:,}"),
            ("top-1 ANN / SNN", _pair(self.ann_top1, self.snn_top1, "%")),
            ("top-5 ANN / SNN", _pair(self.ann_top5, self.snn_top5, "%")),
            ("drop", "no labels" if self.drop is None else f"{self.drop:.2f} points (95%: {low:.2f} to {high:.2f})"),
            ("same class", f"{self.agreement:.2f}%"),
            ("neurons", f"{self.neurons:,} in {self.layers} layers, K = {k}"),
            ("spikes", f"{self.spikes_per_image:,.0f} per image, {self.spikes_per_neuron:.3f} per neuron"),
            ("time steps", f"{self.latency_steps} to the answer, one image every {self.interval_steps}"),
            ("synaptic operations", "unknown" if self.synops_per_image is None else f"{self.synops_per_image:,.0f}"),
            ("multiply-adds ANN / SNN", f"{self.ann_macs_per_image:,} / {self.macs_per_image:,}"),
            ("images/s, counting", f"{self.ann_images_per_second:.3g} / {self.snn_images_per_second:.3g}"),
            ("inputs clipped", f"{100 * self.clipped_fraction:.4f}%"),
        ]
        return "\n".join([self.model, *(f"  {name:<24}{value}" for name, value in rows)])


@dataclass
class _Tally:
    """Running sums over batches."""

    images: int = 0
    labelled: int = 0
    agree: int = 0
    ann_hits: int = 0
    snn_hits: int = 0
    ann_hits5: int = 0
    snn_hits5: int = 0
    only_ann: int = 0
    only_snn: int = 0
    classes: int = 0
    ann_seconds: float = 0.0
    snn_seconds: float = 0.0

    def add(self, ann: Tensor, snn: Tensor, labels: Tensor | None) -> None:
        """One batch of logits, [batch, classes] each."""
        self.images += len(snn)
        self.classes = snn.shape[1]
        self.agree += int((ann.argmax(1) == snn.argmax(1)).sum())
        if labels is None:
            return
        self.labelled += len(snn)
        ann_right, snn_right = ann.argmax(1) == labels, snn.argmax(1) == labels
        self.ann_hits += int(ann_right.sum())
        self.snn_hits += int(snn_right.sum())
        self.only_ann += int((ann_right & ~snn_right).sum())
        self.only_snn += int((snn_right & ~ann_right).sum())
        if self.classes >= 5:
            self.ann_hits5 += int((ann.topk(5).indices == labels[:, None]).sum())
            self.snn_hits5 += int((snn.topk(5).indices == labels[:, None]).sum())


def evaluate(
    snn: SpikingNetwork,
    loader: Any,
    reference: nn.Module | None = None,
    *,
    name: str | None = None,
    synops: bool = True,
    progress: bool | None = None,
) -> EvaluationReport:
    """Run `snn` and its ANN over the same batches.

    Args:
        snn: the converted network; its output must be [batch, classes].
        loader: a tensor, or a re-iterable of batches; a label after the inputs gives accuracies.
        reference: the ANN, in eval mode; by default the graph of `snn` with its original activations, which is the
            changed network where conversion changed it (max_pool="average").
        name: what the report calls the network.
        synops: count synaptic operations, too.
        progress: a bar on stderr; None shows it when stderr is a terminal.

    Raises:
        FewSpikesError: data that do not fit, NaN or inf, labels outside the classes, an output that is no [batch,
            classes], or a reference in training mode.
    """
    if not isinstance(snn, SpikingNetwork):
        more = "; give the spiking network that it came from" if isinstance(snn, IntegerNetwork) else ""
        raise FewSpikesError(f"evaluate needs a converted network; got {type(snn).__name__}{more}")
    shape = snn.output_shape()
    if shape is None or len(shape) != 1:
        raise FewSpikesError(f"evaluate needs an output of shape [batch, classes]; this network returns {shape}")
    if shape[0] < 2:
        raise FewSpikesError(f"evaluate needs at least 2 classes; this network has an output of {shape[0]}")
    if reference is not None and not isinstance(reference, nn.Module):
        raise FewSpikesError(f"the reference must be a torch.nn.Module; got {type(reference).__name__}")
    if reference is not None and any(module.training for module in reference.modules()):
        raise FewSpikesError("the reference is in training mode; call reference.eval() first")
    ann = snn.as_ann() if reference is None else reference
    batches = Batches(loader, snn.inputs, snn.dtype, "evaluation data", snn.device)
    tally = _Tally()
    with torch.inference_mode(), count(snn, synops=synops) as counts:
        for inputs, labels in track(batches, "evaluating", batches.total, progress):
            labels = _checked(labels, len(inputs[0]), shape[0], snn.device)
            started = time.perf_counter()
            wanted = _logits(_call(ann, snn, inputs), len(inputs[0]), shape[0])
            middle = time.perf_counter()
            got = snn(*inputs)
            _wait(snn.device)
            tally.add(wanted, got, labels)
            tally.ann_seconds += middle - started
            tally.snn_seconds += time.perf_counter() - middle
    return _report(snn, name or (type(reference).__name__ if reference is not None else "network"), tally, counts)


def _call(ann: nn.Module, snn: SpikingNetwork, inputs: tuple[Tensor, ...]) -> Any:
    """The reference's output; it takes its inputs by name where the network was converted from named inputs."""
    if not snn.keywords:
        return ann(*inputs)
    return ann(**{spec.name: value for spec, value in zip(snn.inputs, inputs, strict=True)})


def _checked(given: Any, images: int, classes: int, device: torch.device) -> Tensor | None:
    if given is None:
        return None
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise FewSpikesError(f"labels must be {images} whole numbers; got a {type(given).__name__}") from None
    if labels.shape != (images,) or labels.is_floating_point():
        raise FewSpikesError(
            f"labels must be {images} whole numbers; got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        worst = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise FewSpikesError(f"label {worst} is outside the network's classes 0 to {classes - 1}; map the labels first")
    return labels.to(device)


def _logits(output: Any, images: int, classes: int) -> Tensor:
    if not isinstance(output, Tensor) or tuple(output.shape) != (images, classes):
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise FewSpikesError(f"the reference returns {got}; the spiking network returns [batch, {classes}]")
    _wait(output.device)
    return output


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _percent(hits: int, of: int) -> float:
    return 100.0 * hits / of


def _paired_interval(n: int, only_ann: int, only_snn: int) -> tuple[float, float]:
    total, b, c = n + 2.0, only_ann + 0.5, only_snn + 0.5
    middle = (b - c) / total
    spread = 1.959964 * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return 100.0 * (middle - spread), 100.0 * (middle + spread)


def _report(snn: SpikingNetwork, name: str, tally: _Tally, counts: Counts) -> EvaluationReport:
    n = tally.labelled
    if n not in (0, tally.images):
        raise FewSpikesError(f"only {n} of {tally.images} images have labels; give all of them labels, or none")
    five = n and tally.classes >= 5
    return EvaluationReport(
        model=name,
        images=tally.images,
        ann_top1=_percent(tally.ann_hits, n) if n else None,
        ann_top5=_percent(tally.ann_hits5, n) if five else None,
        snn_top1=_percent(tally.snn_hits, n) if n else None,
        snn_top5=_percent(tally.snn_hits5, n) if five else None,
        drop=_percent(tally.ann_hits - tally.snn_hits, n) if n else None,
        drop_ci95=_paired_interval(n, tally.only_ann, tally.only_snn) if n else None,
        agreement=_percent(tally.agree, tally.images),
        neurons=snn.report.neurons,
        layers=snn.report.layers,
        k=snn.report.k,
        spikes_per_image=counts.per_image,
        spikes_per_neuron=counts.per_neuron,
        latency_steps=snn.report.latency_steps,
        interval_steps=snn.report.interval_steps,
        synops_per_image=None if counts.synops is None or counts.unknown_synops else counts.synops / counts.images,
        macs_per_image=snn.macs.analog,
        ann_macs_per_image=snn.macs.ann,
        ann_images_per_second=tally.images / tally.ann_seconds,
        snn_images_per_second=tally.images / tally.snn_seconds,
        clipped_fraction=counts.clipped_fraction,
    )


def _pair(ann: float | None, snn: float | None, unit: str) -> str:
    return "no labels" if ann is None or snn is None else f"{ann:.2f}{unit} / {snn:.2f}{unit}"
