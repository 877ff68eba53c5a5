"""Run the ANN and the spiking network on the same images and say how they differ and what it cost."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.progress import track
from fewspikes.base.wording import counted
from fewspikes.measure.deal import Deal, batch_size
from fewspikes.measure.measurement import Beside, Measurement, classes_of, measure, reference_of
from fewspikes.measure.metric import Both, Scores, finite
from fewspikes.measure.source import Source
from fewspikes.measure.speed import images_per_second
from fewspikes.network.spiking import Countable, SpikingNetwork

_TIMED = 256  # images at most that both networks run once more, with nothing counted, to be timed


class Listener(Protocol):
    """Hears the outputs of a network, batch by batch."""

    def add(self, output: Any, images: int) -> None:
        """The output for the next images."""


class Listeners(Protocol):
    """Hear the ANN and the spiking network, and what stands beside their inputs."""

    @property
    def ann(self) -> Listener:
        """Of the ANN."""

    @property
    def snn(self) -> Listener:
        """Of the spiking network."""

    def expect(self, images: int, targets: Any) -> None:
        """What stands beside the inputs of the loader's next batch."""

    def scores(self) -> dict[str, Scores] | None:
        """For the report's `metric`."""


@dataclass(frozen=True)
class EvaluationReport:
    """The spiking network beside its ANN. Accuracies, agreement and drop are in percent.

    Accuracies and drop are None without labels, and these and agreement where the output is no [batch, classes].

    Attributes:
        model: name of the network.
        images: how many were run.
        ann_top1, ann_top5, snn_top1, snn_top5: accuracies; top-5 is None with fewer than 5 classes.
        drop: ann_top1 - snn_top1, in points.
        drop_ci95: 95% interval of the drop from the paired outcomes (Agresti and Min 2005).
        agreement: share of images on which both name the same class.
        neurons, layers: FS-neurons per image, and their layers.
        k: time steps, or by site where they differ.
        spikes_per_image, spikes_per_neuron: exact totals divided by images (and neurons).
        latency_steps: sum of K over the longest chain of layers.
        interval_steps: steps between two images in the pipeline.
        synops_per_image: synapses that the spikes reach; None where the graph does not tell some fan-out, or if they
            were not asked for.
        macs_per_image: multiply-adds left in the spiking network; ann_macs_per_image: those of the ANN.
        ann_images_per_second, snn_images_per_second: on this machine, forward passes alone, nothing counted: the
            median over passes.
        clipped_fraction: gate inputs outside the domain that the parameters were made for.
        relative_error: the output's mean squared error over the variance of the ANN's from image to image, each
            element's by itself (the mean over its tensors).
        cosine: of all outputs with the ANN's.
        metric: what the user's metric gave by name, as {"ann": ..., "snn": ...}; None without one.
        unknown_synops: the sites whose fan-out the graph does not tell, with the reason.
    """

    model: str
    images: int
    ann_top1: float | None
    ann_top5: float | None
    snn_top1: float | None
    snn_top5: float | None
    drop: float | None
    drop_ci95: tuple[float, float] | None
    agreement: float | None
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
    relative_error: float
    cosine: float
    metric: dict[str, Scores] | None = None
    unknown_synops: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON; a score of the metric that is not finite is None."""
        scores = None if self.metric is None else {name: finite(pair) for name, pair in self.metric.items()}
        return asdict(self) | {"metric": scores}

    def __str__(self) -> str:
        return self.text()

    def text(self, item: str = "image") -> str:
        """The report in lines.

        Args:
            item: what one input is called.
        """
        low, high = self.drop_ci95 or (None, None)
        k = self.k if isinstance(self.k, int) else f"{min(self.k.values())} to {max(self.k.values())}"
        none = "no classes" if self.agreement is None else "no labels"
        rows = [
            (f"{item}s", f"{self.images:,}"),
            ("top-1 ANN / SNN", _pair(self.ann_top1, self.snn_top1, none)),
            ("top-5 ANN / SNN", _pair(self.ann_top5, self.snn_top5, "fewer than 5 classes" if self.ann_top1 else none)),
            ("drop", none if self.drop is None else f"{self.drop:.2f} points (95%: {low:.2f} to {high:.2f})"),
            ("same class", "no classes" if self.agreement is None else f"{self.agreement:.2f}%"),
            ("output's error", f"{self.relative_error:.3g} of its variance, cosine {self.cosine:.6f}"),
            *((f"{name} ANN / SNN", f"{s['ann']:.6g} / {s['snn']:.6g}") for name, s in (self.metric or {}).items()),
            ("neurons", f"{self.neurons:,} in {counted(self.layers, 'layer')}, K = {k}"),
            ("spikes", f"{self.spikes_per_image:,.0f} per {item}, {self.spikes_per_neuron:.3f} per neuron"),
            ("time steps", f"{self.latency_steps} to the answer, one {item} every {self.interval_steps}"),
            ("synaptic operations", self._synops),
            ("multiply-adds ANN / SNN", f"{self.ann_macs_per_image:,} / {self.macs_per_image:,}"),
            (
                f"{item}s/s ANN / SNN",
                f"{_rate(self.ann_images_per_second)} / {_rate(self.snn_images_per_second)} here, forward passes alone",
            ),
            ("inputs clipped", f"{100 * self.clipped_fraction:.4f}%"),
        ]
        width = max(24, *(len(name) + 2 for name, _ in rows))
        return "\n".join([self.model, *(f"  {name:<{width}}{value}" for name, value in rows)])

    @property
    def _synops(self) -> str:
        if self.synops_per_image is not None:
            return f"{self.synops_per_image:,.0f}"
        if not self.unknown_synops:
            return "not counted"
        site, reason = next(iter(self.unknown_synops.items()))
        return (
            f"unknown: {len(self.unknown_synops)} of {counted(self.layers, 'layer')} with an unknown fan-out, the "
            f"first {site} ({reason}); fs.count counts those of the others"
        )


def evaluate(
    snn: SpikingNetwork,
    loader: Any,
    reference: nn.Module | None = None,
    *,
    metric: Any = None,
    name: str | None = None,
    synops: bool = True,
    progress: bool | None = None,
) -> EvaluationReport:
    """Run `snn` and its ANN over the same images, dealt into batches of one size whatever the loader's.

    Args:
        snn: the converted network, of any output.
        loader: a tensor, or a re-iterable of batches; where the output is [batch, classes], a label after the inputs
            gives accuracies.
        reference: the ANN, in eval mode; by default the graph of `snn` with its original activations, which is the
            changed network where conversion changed it (circuits={"max": "average"}).
        metric: of the user's own, for outputs that are no classes or with them: a function metric(outputs, targets) of
            all images, both in the structure that they come in, that returns a number or a dict of numbers; or an
            object with update(outputs, targets), called batch by batch of the loader, and compute(), as those of
            torchmetrics. Outputs are on the CPU; targets are what follows a batch's inputs. It scores both networks.
        name: what the report calls the network.
        synops: count synaptic operations, too.
        progress: a bar on stderr; None shows it when stderr is a terminal.

    Raises:
        FewSpikesError: data that do not fit, NaN or inf, a metric without targets, labels for some batches only or
            outside the classes, outputs of other shapes than the reference's, or a reference in training mode.
    """
    return evaluated(snn, loader, reference, None if metric is None else Both(metric), name, synops, progress)


def evaluated(
    snn: SpikingNetwork,
    loader: Any,
    reference: nn.Module | None,
    both: Listeners | None,
    name: str | None,
    synops: bool,
    progress: bool | None,
) -> EvaluationReport:
    """What `evaluate` does, for who hears both networks' outputs."""
    if not isinstance(snn, SpikingNetwork):
        more = "; give the spiking network that it came from" if isinstance(snn, Countable) else ""
        raise FewSpikesError(f"evaluate needs a converted network; got {type(snn).__name__}{more}")
    ann = reference_of(snn, reference)
    expect, heard = (None, None) if both is None else (both.expect, both.snn.add)
    source = Source(loader, snn.inputs, snn.dtype, "evaluation data", snn.device, classes_of(snn), expect)
    batches = track(source, "evaluating", source.total, progress)
    deal = Deal(batches, batch_size(snn.structure.neuron_count), keep=_TIMED)
    beside = Beside(deal, ann if both is None else _heard(ann, both.ann.add), keep=False)
    found = measure(snn, beside, synops=synops, heard=heard)
    called: list[Callable[..., Any]] = [ann, lambda *inputs: snn(snn.by_name(inputs))]
    speeds = [images_per_second(network, deal.kept.batches) for network in called]
    found = found if source.labelled else found.without_labels()
    report = _report(snn, name or (type(reference).__name__ if reference is not None else "network"), found, *speeds)
    return report if both is None else replace(report, metric=both.scores())


def _heard(ann: Callable[..., Any], heard: Callable[[Any, int], None]) -> Callable[..., Any]:
    """The ANN, whose outputs somebody listens to."""

    def called(*inputs: Tensor) -> Any:
        output = ann(*inputs)
        heard(output, len(inputs[0]))
        return output

    return called


def _report(
    snn: SpikingNetwork, name: str, found: Measurement, ann_images_per_second: float, snn_images_per_second: float
) -> EvaluationReport:
    return EvaluationReport(
        model=name,
        images=found.images,
        ann_top1=found.ann_top1,
        ann_top5=found.ann_top5,
        snn_top1=found.snn_top1,
        snn_top5=found.snn_top5,
        drop=found.drop,
        drop_ci95=found.drop_ci95,
        agreement=found.agreement,
        neurons=snn.report.neurons,
        layers=snn.report.layers,
        k=snn.report.k,
        spikes_per_image=found.spikes / found.images,
        spikes_per_neuron=found.spikes_per_neuron,
        latency_steps=snn.report.latency_steps,
        interval_steps=snn.report.interval_steps,
        synops_per_image=None if found.synops is None else found.synops / found.images,
        macs_per_image=snn.macs.analog,
        ann_macs_per_image=snn.macs.ann,
        ann_images_per_second=ann_images_per_second,
        snn_images_per_second=snn_images_per_second,
        clipped_fraction=found.clipped_fraction,
        relative_error=found.error,
        cosine=found.cosine,
        unknown_synops=found.unknown_synops,
    )


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _pair(ann: float | None, snn: float | None, none: str) -> str:
    return none if ann is None or snn is None else f"{ann:.2f}% / {snn:.2f}%"
