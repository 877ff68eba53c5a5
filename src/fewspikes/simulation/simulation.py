"""`simulate`: a network run spike by spike, by the engine that is asked for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewspikes.base.checks import said, whole
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.progress import track
from fewspikes.graph.graph import refs
from fewspikes.graph.inputs import bound, check_autocast, check_finite, check_inputs
from fewspikes.graph.nested import tensors_of, with_tensors
from fewspikes.measure.counting import Counts
from fewspikes.measure.deal import batch_size
from fewspikes.network.image_axes import ImageAxis, axes_of_images
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.simulation.events import Flat, Wiring, shot
from fewspikes.simulation.pipeline import piped
from fewspikes.simulation.plan import Layer, Plan
from fewspikes.simulation.run import Batch
from fewspikes.simulation.schedule import Schedule, Traffic
from fewspikes.simulation.steps import fired
from fewspikes.simulation.trace import Recorder, Recording, Trace

ENGINES = ("steps", "pipeline", "events")


@dataclass(frozen=True)
class Pipeline:
    """The paper's pipeline.

    Args:
        membranes: for each neuron, 1 or 2. With two a layer takes in an image while it fires for the one before.
        interval: the steps between two images; None: as few as the membranes allow.

    Raises:
        FewSpikesError: another number.
    """

    membranes: int = 1
    interval: int | None = None

    def __post_init__(self) -> None:
        whole("membranes", self.membranes, 1, 2)
        if self.interval is not None:
            whole("interval", self.interval, 1)


class _Fired(NamedTuple):
    """Some images have fired: the first of them, their own global step, the layer, the step of its code, the spikes."""

    first: int
    own: int
    layer: Layer
    t: int
    z: Tensor


def simulate(
    snn: SpikingNetwork,
    x: Any,
    engine: str | Pipeline = "steps",
    recording: Recording | None = None,
    progress: bool | None = None,
) -> Trace:
    """Run a network spike by spike: only spikes cross from one layer of neurons to the next.

    At every step each neuron holds its membrane's value, fires or not, and what it sends is weighed and added to sums.
    Operators left digital run once, when their inputs are complete. The spikes are those that the network
    itself fires; sums are formed in another order, so in float32 a few may differ, and what follows from them.

    Args:
        snn: the network, on the CPU.
        x: a batch, as the network takes it: a tensor, a tuple of tensors, or a dict by name.
        engine: "steps": all images at once, step by step. "pipeline", or a `Pipeline` with settings: one image after
            another, all layers at work at once, as in the paper. "events": nothing is done for a neuron that cannot
            fire, nor for a synapse that no spike reaches; synaptic operations are counted one by one.
        recording: which spikes are kept, and where; None: all, in memory, up to 1 GiB.
        progress: shows how far it is on stderr; None: on a terminal.

    Raises:
        FewSpikesError: an unknown engine, inputs that do not fit, no image, NaN or inf, too much to record, an interval
            that is too short, or a network on a GPU.

    Source: paper, Fig. 2 and section 1.1 (the pipeline).

    >>> import fewspikes as fs
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1)).eval()
    >>> snn = fs.convert(net, torch.zeros(1, 2))
    >>> trace = simulate(snn, torch.ones(3, 2))
    >>> torch.allclose(trace.output, snn(torch.ones(3, 2))), trace.answer, trace.spikes["1"].shape
    (True, 10, torch.Size([10, 3, 2]))
    """
    if not isinstance(snn, SpikingNetwork):
        raise FewSpikesError(f"simulate needs a converted network; got {type(snn).__name__}")
    if not isinstance(engine, Pipeline) and engine not in ENGINES:
        raise FewSpikesError(f"engine must be {', '.join(ENGINES)} or a Pipeline; got {said(engine)}")
    if recording is not None and not isinstance(recording, Recording):
        raise FewSpikesError(f"recording must be a Recording, as Recording(sites=('relu',)); got {said(recording)}")
    check_autocast()
    args, named = ((), x) if isinstance(x, Mapping) else (x if isinstance(x, tuple) else (x,), {})
    values = bound(snn.inputs, args, named)
    check_inputs(snn.inputs, values, snn.dtype, "simulate")
    for what, device in (("the network", snn.device), *(("the batch", value.device) for value in values)):
        if device.type != "cpu":
            raise FewSpikesError(f"simulate runs on the CPU; {what} is on {device}: move it with .cpu()")
    if not len(values[0]):
        raise FewSpikesError("simulate needs at least one image; got a batch of 0")
    check_finite(values, "the batch to simulate")
    if snn.faults is not None:
        snn.faults.check_engine("pipeline" if isinstance(engine, Pipeline) else engine)
    with torch.inference_mode(False), torch.no_grad():
        return _Simulation(snn, values, recording or Recording(), progress).run(engine)


class _Simulation:
    def __init__(self, snn: SpikingNetwork, values: list[Tensor], recording: Recording, progress: bool | None) -> None:
        self.snn, self.values, self.images, self.progress = snn, values, len(values[0]), progress
        self.structure = snn.structure_for(values)
        K = {name: neuron.code.K for name, neuron in snn.neurons.items()}
        self.plan = Plan(self.structure, _laid_out(snn.tensors, values), K)
        self.outputs: list[Any] = []
        self.running: dict[int, list[Tensor]] = {}
        self.synops: int | None = None
        self.outside = Counter[str]()
        self.interval: int | None = None
        self.traffic: Traffic | None = None
        self.times: dict[str, tuple[int, int]] = {}
        self.starts: dict[str, tuple[int, ...]] = {}
        shapes: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        for layer in self.plan.layers:
            sizes = tuple(self.plan.graph.sizes(layer.node, 1))
            axis = self.structure.image_axes.get(layer.site)
            per_image = sizes if axis is None else axis.shape(sizes)
            first, last = self.times.get(layer.site, (layer.start + 1, 0))
            self.starts[layer.site] = (*self.starts.get(layer.site, ()), layer.start)
            self.times[layer.site] = min(first, layer.start + 1), max(last, layer.start + layer.K)
            shapes[layer.site] = layer.time + 1, layer.K, per_image
        taken = {name: n * K * self.images * torch.Size(shape).numel() for name, (n, K, shape) in shapes.items()}
        known = {name: size for name, size in taken.items() if name in self.structure.image_axes}
        looped = frozenset(name for name in shapes if self.structure.loop(name) is not None)
        names = recording.chosen(known)
        self.recorder = Recorder(names, shapes, looped, self.images, self.plan, recording.folder)

    def run(self, engine: str | Pipeline) -> Trace:
        """All images, by an engine."""
        if isinstance(engine, Pipeline) or engine == "pipeline":
            told, name = self._pipeline(engine if isinstance(engine, Pipeline) else Pipeline()), "pipeline"
        else:
            told, name = self._steps() if engine == "steps" else self._events(), engine
        with self.recorder.running(name, self.interval):
            for one in told:
                axis = self.structure.image_axes.get(one.layer.site)
                z = one.z if axis is None else axis.in_front(one.z)
                self.recorder.fired(one.layer, one.t, one.own, one.first, z)
        steps = tuple(sorted(self.running))
        running = torch.stack([torch.cat(self.running[step]) for step in steps]) if steps else None
        return Trace(
            name, self._output(), self.recorder.shown(), self._counts(), self.times, self.starts,
            self.recorder.per_step,
            self.plan.answer, running, steps, self.interval, self.traffic, self.recorder.together,
        )  # fmt: skip

    def _part(self, first: int, count: int) -> list[Tensor]:
        return [value[first : first + count] for value in self.values]

    def _steps(self) -> Iterator[_Fired]:
        size = batch_size(self.snn.structure.neuron_count)
        for first in track(range(0, self.images, size), "simulating", -(-self.images // size), self.progress):
            batch, before = Batch(self.plan, self.snn, self._part(first, size), None, first, self.outside), 0
            for own, layer, t, z in fired(self.plan, batch):
                if own != before:
                    self._listen(batch, before)
                before = own
                yield _Fired(first, own, layer, t, z)
            self._listen(batch, before)
            self.outputs.append(batch.output())

    def _listen(self, batch: Batch, own: int) -> None:
        """What the output is after a step."""
        value = batch.so_far(own)
        if value is not None:
            self.running.setdefault(own, []).append(value)

    def _pipeline(self, engine: Pipeline) -> Iterator[_Fired]:
        schedule = Schedule(self.plan, engine.membranes)
        self.interval = schedule.chosen(engine.interval)
        self.traffic = schedule.traffic(self.interval)
        return self._piped(schedule, self.interval)

    def _piped(self, schedule: Schedule, interval: int) -> Iterator[_Fired]:
        images = [self._part(n, 1) for n in range(self.images)]
        for now, n, layer, t, z in piped(schedule, self.snn, images, interval, self.outside, self.progress):
            if layer is None:
                self.outputs.append(z)
            else:
                yield _Fired(n, now - n * interval, layer, t, z)

    def _events(self) -> Iterator[_Fired]:
        wiring, self.synops = None, 0
        for n in track(range(self.images), "simulating", self.images, self.progress):
            if wiring is None or self.plan.has_masks:
                wiring = Wiring(self.plan, self.snn, self._part(n, 1))
            store = Flat(wiring)
            batch = Batch(self.plan, self.snn, self._part(n, 1), store, n, self.outside)
            for own, layer, t, neurons, done in shot(wiring, batch, store):
                self.synops += done
                if t >= 0 and len(neurons):
                    z = torch.zeros(self.plan.graph.sizes(layer.node, 1), dtype=torch.bool)
                    z.view(-1)[torch.from_numpy(neurons)] = True
                    yield _Fired(n, own, layer, t, z)
            self.outputs.append(batch.output())

    def _output(self) -> Any:
        parts = zip(*(tensors_of(output) for output in self.outputs), strict=True)
        names = [ref.name for ref in refs(self.plan.graph.output.arguments)]
        axes = axes_of_images(
            self.plan.graph, self.structure.fixed, self.structure.rules, [*map(self.plan.graph.__getitem__, names)]
        )
        return with_tensors(
            self.outputs[0], [_joined(same, axes.get(name)) for name, same in zip(names, parts, strict=True)]
        )

    def _counts(self) -> Counts:
        neurons = dict(self.structure.neurons)
        spikes = {name: int(own.sum()) for name, own in self.recorder.per_step.items()}
        times = {name: n for name, (n, _, _) in self.recorder.shapes.items()}
        inputs = {name: own * self.images * times[name] for name, own in neurons.items()}
        clipped = {name: self.outside[name] for name in neurons}
        return Counts(neurons, self.images, spikes, clipped, inputs, self.synops)


def _laid_out(tensors: Mapping[str, Tensor], values: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """Constants as the images lie in memory, so that no convolution turns its weights round at every step."""
    if not any(x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) for x in values):
        return tensors
    four = {name: x.contiguous(memory_format=torch.channels_last) for name, x in tensors.items() if x.ndim == 4}
    return {**tensors, **four}


def _joined(parts: Sequence[Tensor], axis: ImageAxis | None) -> Tensor:
    """The outputs for some images after one another, wherever the images are; what is for no image is there once."""
    if len(parts) == 1 or axis is None:
        return parts[0]
    return axis.back(torch.cat([axis.in_front(part) for part in parts]))
