"""A network while its code learns: one step, one measurement, and what was learned so far."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.plain import from_plain, to_plain
from fewspikes.base.sums import mean, variance
from fewspikes.conversion.trainable import TrainableNeuron
from fewspikes.measure.deal import BATCH, Images
from fewspikes.measure.gradients import check_gradients
from fewspikes.measure.measurement import Beside, Measurement, measure
from fewspikes.measure.outputs import compared, variance_over_images
from fewspikes.measure.source import Batch
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.layer import FSNeuron

# Adam's; see TrainableNeuron for the units.
_RATES = {"shift": 0.01, "log_range": 0.02, "log_gain": 0.01, "d": 0.002, "offset": 0.002}
_WARM_UP = 0.05  # of the time, while the rates rise; then they fall to 0 as a cosine
_KEPT = 1 << 30  # bytes of the ANN's outputs; larger ones are computed anew for each batch
_OVER = 10.0  # of the loss, for spikes twice as many as a budget allows
_TINY = 1e-30


@dataclass(frozen=True)
class Stage:
    """The network as measured on held-out images.

    Attributes:
        seconds, steps: so far.
        measured: what it is worth.
    """

    seconds: float
    steps: int
    measured: Measurement

    def score(self, spike_price: float) -> float:
        """What distilling makes small: log(error + spike_price x spikes per neuron)."""
        cost = self.measured.cost(spike_price)
        return math.log(max(cost, _TINY)) if math.isfinite(cost) else math.inf

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return to_plain(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Stage":
        """The reverse of `to_json`; raises FewSpikesError for anything else."""
        return from_plain(cls, content, "a stage of distilling")

    def __str__(self) -> str:
        found = self.measured
        same = "" if found.agreement is None else f", same class {found.agreement:.2f}%"
        return f"output error {found.error:.4g}{same}, {found.spikes_per_neuron:.3f} spikes per neuron"


class Trainer:
    """The network while it learns.

    Args:
        snn: where it begins; it stays as it is.
        images: to learn from.
        held: to measure on.
        ann: what gives the wanted output.
        spike_price: the rise of error / variance of the output that one spike per neuron is worth.
        most_spikes: per neuron, where a budget allows no more.
        seed: of the order of the images.
    """

    def __init__(
        self,
        snn: SpikingNetwork,
        images: Images,
        held: Images,
        ann: Callable[..., Any],
        spike_price: float,
        seed: int,
        most_spikes: float | None = None,
    ) -> None:
        check_gradients(snn, "distilling")
        self.snn, self.spike_price, self.most_spikes = snn, spike_price, most_spikes
        self._ann = ann
        self.images = _fastest(ann, images.inputs)
        self.beside = Beside(held, ann)
        self.random = torch.Generator().manual_seed(seed)
        self.neurons = _trainable(snn, held.take(slice(BATCH)).inputs)
        self._body = snn.running(self.neurons)
        self._kept = _outputs(ann, self.images)
        self._last: Measurement | None = None
        self._sizes = {site.name: site.neurons for site in snn.report.sites}
        groups = ({"params": self._of_kind(kind), "lr": rate, "base": rate} for kind, rate in _RATES.items())
        some = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.Adam(some, betas=(0.9, 0.99)) if some else None
        for neuron in self.neurons.values():
            neuron.counting = spike_price > 0 or most_spikes is not None

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by site and kind."""
        return {
            f"{name}.{kind}": value
            for name, neuron in self.neurons.items()
            for kind in _RATES
            if (value := getattr(neuron, kind)) is not None and value.requires_grad
        }

    def step(self, progress: float) -> float:
        """Learn from one random batch when `progress` (0 to 1) of the time is gone; returns the loss."""
        assert self.optimizer is not None
        rate = min(1.0, (progress + 0.01) / _WARM_UP) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate
        n = len(self.images[0])
        chosen = torch.randint(0, n, (min(BATCH, n),), generator=self.random)
        batch = tuple(value[chosen] for value in self.images)
        for neuron in self.neurons.values():
            neuron.mean_spikes = None
        loss = self._loss(compared(self._body(*batch)), self._wanted(batch, chosen), len(chosen))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def measure(self, seconds: float, steps: int) -> Stage:
        """The network with what was learned so far, on the images held out."""
        try:
            network = self.snn.with_neurons(self.learned())
        except FewSpikesError:  # a scale or gain that is no number any more
            assert self._last is not None
            return Stage(seconds, steps, replace(self._last, error=math.inf))
        self._last = measure(network, self.beside, expected=True)
        return Stage(seconds, steps, self._last)

    def learned(self) -> dict[str, FSNeuron]:
        """The neurons as they are now, by site name."""
        return {name: neuron.neuron() for name, neuron in self.neurons.items()}

    def _of_kind(self, kind: str) -> list[nn.Parameter]:
        return [value for name, value in self.parameters().items() if name.rpartition(".")[2] == kind]

    @torch.no_grad()
    def _wanted(self, batch: Batch, rows: Tensor) -> list[Tensor]:
        return compared(self._ann(*batch)) if self._kept is None else [output[rows] for output in self._kept]

    def _loss(self, got: list[Tensor], wanted: list[Tensor], images: int) -> Tensor:
        error = _relative(list(zip(got, wanted, strict=True)), images)
        if not self.spike_price and self.most_spikes is None:
            return error.log()
        spikes = self._spikes()
        loss = (error + self.spike_price * spikes).log()
        return loss if self.most_spikes is None else loss + _OVER * (spikes / self.most_spikes - 1).relu()

    def _spikes(self) -> Tensor:
        """Mean spikes per neuron of the last pass."""
        counted = [n.mean_spikes * self._sizes[name] for name, n in self.neurons.items() if n.mean_spikes is not None]
        return torch.stack(counted).sum() / sum(self._sizes.values())


@torch.no_grad()
def _fastest(ann: Callable[..., Any], images: Batch) -> Batch:
    """In the layout that convolutions are fastest in, unless the network reshapes what lies otherwise."""
    last = tuple(v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for v in images)
    try:
        ann(*(value[:2] for value in last))
    except (RuntimeError, FewSpikesError):  # of a view that needs another layout; a reference's error is one of ours
        return images
    return last


def _relative(pairs: Sequence[tuple[Tensor, Tensor]], images: int) -> Tensor:
    """Mean over the pairs of (mean squared error / variance of what is wanted, over the images)."""
    errors = [mean((a - b).square()) / (variance_over_images(b, images) or 1.0) for a, b in pairs]
    return torch.stack(errors).mean().clamp_min(_TINY)


def _trainable(snn: SpikingNetwork, held: Batch) -> dict[str, TrainableNeuron]:
    spreads = _spreads(snn, held)
    made = {}
    for site in (site for site in snn.sites if site.name not in snn.exact):
        neuron = snn.neurons[site.name]
        shape = snn.shape_at(site.name)
        axis = snn.channel_axis(site.name)
        if axis is not None and not neuron.by_channel:
            neuron = FSNeuron(neuron.code, axis=axis)
        channels = None if axis is None else shape[axis]
        free = {"log_range": not snn.scale_is_free(site.name), "log_gain": not snn.gain_is_free(site.name)}
        made[site.name] = TrainableNeuron(neuron, site.activation, channels, free, spreads[site.name])
    return made


@torch.no_grad()
def _spreads(snn: SpikingNetwork, batch: Batch) -> dict[str, float]:
    """The standard deviation of each site's gate inputs."""
    found: dict[str, list[float]] = {name: [] for name in snn.neurons}

    def look(name: str, x: Tensor) -> None:
        found[name].append(variance(x))

    handles = [
        neuron.register_forward_pre_hook(lambda _, args, name=name: look(name, args[0]))
        for name, neuron in snn.neurons.items()
    ]
    snn(snn.by_name(batch))
    for handle in handles:
        handle.remove()
    return {name: (sum(values) / len(values)) ** 0.5 for name, values in found.items()}  # over all time steps of a loop


@torch.no_grad()
def _outputs(ann: Callable[..., Any], images: Batch) -> list[Tensor] | None:
    """The ANN's outputs for all images; None where they are too large to keep or no tensor per image."""
    batches = [tuple(parts) for parts in zip(*(value.split(BATCH) for value in images), strict=True)]
    first, rows = compared(ann(*batches[0])), len(batches[0][0])
    size = sum(t.numel() * t.element_size() for t in first) / rows * len(images[0])
    if size > _KEPT or any(not t.ndim or len(t) != rows for t in first):  # too large, or not an output per image
        return None
    return [torch.cat(parts) for parts in zip(first, *(compared(ann(*batch)) for batch in batches[1:]), strict=True)]
