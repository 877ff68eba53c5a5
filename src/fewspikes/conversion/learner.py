"""A network while its code learns: one step, one measurement, and what was learned so far."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.conversion.learning import LearningNeuron
from fewspikes.measure.outputs import tensors_of
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.layer import FSNeuron

BATCH = 64
_HELD_OUT = 512  # images at most, an eighth of all
# Adam's; see LearningNeuron for the units.
_RATES = {"shift": 0.01, "log_range": 0.02, "log_gain": 0.01, "d": 0.002, "offset": 0.002}
_WARM_UP = 0.05  # of the time, while the rates rise; then they fall to 0 as a cosine
_KEPT = 1 << 30  # bytes of the ANN's outputs; larger ones are computed anew for each batch

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Stage:
    """The network as measured on held-out images.

    Attributes:
        seconds, steps: so far.
        error: mean squared error of the output over its variance in the ANN.
        agreement: share of images that both give the same class, in percent; None if the output is no [batch, classes].
        spikes_per_neuron: mean.
    """

    seconds: float
    steps: int
    error: float
    agreement: float | None
    spikes_per_neuron: float

    def score(self, spike_weight: float) -> float:
        """What distilling makes small: log(error) + spike_weight x spikes per neuron."""
        return math.log(max(self.error, 1e-30)) + spike_weight * self.spikes_per_neuron

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        same = "" if self.agreement is None else f", same class {self.agreement:.2f}%"
        return f"output error {self.error:.4g}{same}, {self.spikes_per_neuron:.3f} spikes per neuron"


class Learner:
    """The network while it learns.

    Args:
        snn: where it begins; it stays as it is.
        images: all inputs, one tensor per input of the network; some are held out.
        reference: the ANN whose output is wanted.
        spike_weight: price of a spike per neuron, in log error.
        seed: of the order of the images.

    Raises:
        FewSpikesError: fewer than 2 images.
    """

    def __init__(
        self, snn: SpikingNetwork, images: Batch, reference: nn.Module | None, spike_weight: float, seed: int
    ) -> None:
        self.snn, self.spike_weight = snn, spike_weight
        self.held, self.images = (tuple(map(_channels_last, part)) for part in hold_out(images))
        self.random = torch.Generator().manual_seed(seed)
        self.neurons = _learning(snn, self.held)
        self._ann = snn.as_ann() if reference is None else reference
        self._body = snn.running(self.neurons)
        self._kept, self._kept_held = (_outputs(self._ann, part) for part in (self.images, self.held))
        self._sizes = {site.name: site.neurons for site in snn.report.sites}
        groups = ({"params": self._of_kind(kind), "lr": rate, "base": rate} for kind, rate in _RATES.items())
        self.optimizer = torch.optim.Adam([group for group in groups if group["params"]], betas=(0.9, 0.99))
        self._count(spike_weight > 0)

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
        rate = min(1.0, (progress + 0.01) / _WARM_UP) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate
        n = len(self.images[0])
        chosen = torch.randint(0, n, (min(BATCH, n),), generator=self.random)
        batch = tuple(value[chosen] for value in self.images)
        loss = self._loss(tensors_of(self._body(*batch)), self._wanted(batch, self._kept, chosen))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def measure(self, seconds: float, steps: int) -> Stage:
        """The network on the held-out images."""
        self._count(True)
        error = agree = spikes = 0.0
        classes, images = True, len(self.held[0])
        for start in range(0, images, BATCH):
            rows = slice(start, start + BATCH)
            batch = tuple(value[rows] for value in self.held)
            pairs = list(zip(tensors_of(self._body(*batch)), self._wanted(batch, self._kept_held, rows), strict=True))
            classes = len(pairs) == 1 and pairs[0][0].ndim == 2
            error += float(_relative(pairs)) * len(batch[0])
            agree += float((pairs[0][0].argmax(1) == pairs[0][1].argmax(1)).sum()) if classes else 0.0
            spikes += float(self._spikes()) * len(batch[0])
        self._count(self.spike_weight > 0)
        return Stage(seconds, steps, error / images, 100 * agree / images if classes else None, spikes / images)

    def learned(self) -> dict[str, FSNeuron]:
        """The neurons as they are now, by site name."""
        return {name: neuron.neuron() for name, neuron in self.neurons.items()}

    def _of_kind(self, kind: str) -> list[nn.Parameter]:
        return [value for name, value in self.parameters().items() if name.rpartition(".")[2] == kind]

    def _count(self, counting: bool) -> None:
        for neuron in self.neurons.values():
            neuron.counting = counting

    @torch.no_grad()
    def _wanted(self, batch: Batch, kept: list[Tensor] | None, rows: Tensor | slice) -> list[Tensor]:
        return tensors_of(self._ann(*batch)) if kept is None else [output[rows] for output in kept]

    def _loss(self, got: list[Tensor], wanted: list[Tensor]) -> Tensor:
        loss = _relative(list(zip(got, wanted, strict=True))).log()
        return loss + self.spike_weight * self._spikes() if self.spike_weight else loss

    def _spikes(self) -> Tensor:
        """Mean spikes per neuron of the last pass."""
        counted = [n.mean_spikes * self._sizes[name] for name, n in self.neurons.items() if n.mean_spikes is not None]
        return torch.stack(counted).sum() / sum(self._sizes.values())


def hold_out(images: Batch) -> tuple[Batch, Batch]:
    """(held out, the rest): an eighth of the images, evenly spread, at most 512.

    Raises:
        FewSpikesError: fewer than 2 images.
    """
    n = len(images[0])
    if n < 2:
        raise FewSpikesError(f"distilling needs at least 2 images, one to learn from and one held out; got {n}")
    places = torch.linspace(0, n - 1, min(max(n // 8, 1), _HELD_OUT)).round().long().unique()
    rest = torch.ones(n, dtype=torch.bool)
    rest[places] = False
    return tuple(value[places] for value in images), tuple(value[rest] for value in images)


def _channels_last(images: Tensor) -> Tensor:
    """In the layout that convolutions are fastest in."""
    return images.to(memory_format=torch.channels_last) if images.ndim == 4 else images


def _relative(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean over the pairs of (mean squared error / variance of what is wanted)."""
    errors = [(a - b).square().mean() / b.var(unbiased=False).clamp_min(1e-12) for a, b in pairs]
    return torch.stack(errors).mean().clamp_min(1e-30)


def _learning(snn: SpikingNetwork, held: Batch) -> dict[str, LearningNeuron]:
    spreads = _spreads(snn, tuple(value[:BATCH] for value in held))
    made = {}
    for site in snn.sites:
        neuron = snn.neurons[site.name]
        shape = snn.shape_at(site.name)
        axis = snn.channel_axis(site.name)
        if axis is not None and not neuron.by_channel:
            neuron = FSNeuron(neuron.code, axis=axis)
        channels = None if axis is None else shape[axis]
        free = {"log_range": not snn.scale_is_free(site.name), "log_gain": not snn.gain_is_free(site.name)}
        made[site.name] = LearningNeuron(neuron, site.activation, channels, free, spreads[site.name])
    return made


@torch.no_grad()
def _spreads(snn: SpikingNetwork, batch: Batch) -> dict[str, float]:
    """The standard deviation of each site's gate inputs."""
    found: dict[str, float] = {}

    def look(name: str, x: Tensor) -> None:
        found[name] = float(x.std(unbiased=False))

    handles = [
        neuron.register_forward_pre_hook(lambda _, args, name=name: look(name, args[0]))
        for name, neuron in snn.neurons.items()
    ]
    snn(*batch)
    for handle in handles:
        handle.remove()
    return found


@torch.no_grad()
def _outputs(ann: nn.Module, images: Batch) -> list[Tensor] | None:
    """The ANN's outputs for all images; None where they are too large to keep or no tensor per image."""
    batches = [tuple(parts) for parts in zip(*(value.split(BATCH) for value in images), strict=True)]
    first, rows = tensors_of(ann(*batches[0])), len(batches[0][0])
    size = sum(t.numel() * t.element_size() for t in first) / rows * len(images[0])
    if size > _KEPT or any(not t.ndim or len(t) != rows for t in first):  # too large, or not an output per image
        return None
    return [torch.cat(parts) for parts in zip(first, *(tensors_of(ann(*batch)) for batch in batches[1:]), strict=True)]
