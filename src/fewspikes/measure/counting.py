"""Counting spikes while a network runs: exact integers by site, mergeable with +."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.network.spiking import Countable, SpikingNetwork
from fewspikes.network.structure import Structure
from fewspikes.neuron.layer import count_outside
from fewspikes.neuron.parameters import MAX_STEPS


@dataclass
class Counts:
    """Spikes of a network over some images. Every number is an exact int.

    Not counted: the input image, which is analog current into the first layer, and what stays digital.

    Attributes:
        neurons: FS-neurons per image, by site; those in a loop over time are counted once, and their spikes add up.
        images: how many images ran.
        by_site: spikes over all images, by site.
        clipped_by_site: gate inputs outside the domain that the parameters were made for.
        inputs_by_site: all gate inputs: one for each neuron, image, and time step of its loop.
        synops: synaptic operations over all images, or None if they were not asked for.
        unknown_synops: sites whose fan-out the graph does not tell, with the reason; their spikes are not in synops.
    """

    neurons: Mapping[str, int]
    images: int = 0
    by_site: dict[str, int] = field(default_factory=dict)
    clipped_by_site: dict[str, int] = field(default_factory=dict)
    inputs_by_site: dict[str, int] = field(default_factory=dict)
    synops: int | None = None
    unknown_synops: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All spikes."""
        return sum(self.by_site.values())

    @property
    def per_image(self) -> float:
        """Spikes per image."""
        return self.total / self._ran

    @property
    def per_neuron(self) -> float:
        """Mean spikes per neuron per image."""
        return self.total / (self._ran * sum(self.neurons.values()))

    @property
    def per_neuron_and_time_step(self) -> float:
        """Mean spikes per neuron and time step of its loop; outside of loops there is one."""
        return self.total / self._inputs

    @property
    def clipped_fraction(self) -> float:
        """The share of gate inputs outside the domain."""
        return sum(self.clipped_by_site.values()) / self._inputs

    @property
    def _inputs(self) -> int:
        return sum(self.inputs_by_site.values()) if self._ran else 0

    @property
    def _ran(self) -> int:
        if not self.images:
            raise FewSpikesError("nothing was counted yet; run the network inside `with fs.count(snn)`")
        return self.images

    def __add__(self, other: "Counts") -> "Counts":
        if dict(self.neurons) != dict(other.neurons):
            raise FewSpikesError("only counts of the same network can be added")
        synops = None if self.synops is None or other.synops is None else self.synops + other.synops
        return Counts(
            self.neurons,
            self.images + other.images,
            _sum(self.by_site, other.by_site),
            _sum(self.clipped_by_site, other.clipped_by_site),
            _sum(self.inputs_by_site, other.inputs_by_site),
            synops,
            self.unknown_synops | other.unknown_synops,
        )


@contextmanager
def count(snn: Countable, synops: bool = False) -> Iterator[Counts]:
    """Count the spikes of every forward pass of `snn` inside the block, in whatever thread it runs.

    A pass that fails half-way counts nothing.

    Args:
        snn: the converted network.
        synops: also count synaptic operations (each spike times the synapses that it reaches).

    Raises:
        FewSpikesError: `snn` is not a converted network.

    >>> import fewspikes as fs
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval()
    >>> snn = fs.convert(net, torch.zeros(1, 2))
    >>> with fs.count(snn) as counts:
    ...     _ = snn(torch.ones(3, 2))
    >>> counts.images
    3
    """
    if not isinstance(snn, Countable):
        raise FewSpikesError(f"count needs a converted network; got {type(snn).__name__}")
    if synops and not isinstance(snn, SpikingNetwork):
        raise FewSpikesError("an integer network's synaptic operations are those of the network that it came from")
    counts = _nothing(snn, synops)
    passing, lock = threading.local(), threading.Lock()  # each thread counts its own pass, then adds it
    neurons = snn.neurons
    watch = partial(_observe, passing, snn) if isinstance(snn, SpikingNetwork) and synops else partial(_tally, passing)
    watchers = {name: _Hook(partial(watch, name)) for name in neurons}

    def begin(module: nn.Module, args: Any) -> None:
        passing.counts, passing.structure = _nothing(snn, synops), None
        passing.seen = {name: [] for name in neurons}

    def begin_within(module: nn.Module, values: tuple[Tensor, ...]) -> None:
        passing.structure = snn.structure_for(values) if isinstance(snn, SpikingNetwork) else None

    def end(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Any) -> None:
        done: Counts | None = passing.__dict__.pop("counts", None)
        if done is None:  # the pass began, in another thread, before the block did
            return
        first = next(iter((*args, *kwargs.values())))
        done.images = len(next(iter(first.values())) if isinstance(first, Mapping) else first)
        _weigh(done, passing.__dict__.pop("seen"), passing.structure)
        for by_site in (done.by_site, done.clipped_by_site):  # on a GPU, one wait for all layers
            by_site.update({name: int(value) for name, value in by_site.items()})
        with lock:
            counts.__dict__.update((counts + done).__dict__)

    handles = [snn.register_forward_pre_hook(_Hook(begin)), snn.register_forward_hook(_Hook(end), with_kwargs=True)]
    if isinstance(snn, SpikingNetwork):
        handles.append(snn.running_graph.register_forward_pre_hook(_Hook(begin_within)))
    places = {name: neuron.spike_hooks if synops else neuron.count_hooks for name, neuron in neurons.items()}
    for name, place in places.items():
        place.append(watchers[name])
    try:
        yield counts
    finally:
        for name, place in places.items():
            place.remove(watchers[name])
        for handle in handles:
            handle.remove()


class _Hook:
    """A function that is called while the block runs. In a copy or a pickle of the network it does nothing."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> None:
        self.function(*args)

    def __reduce__(self) -> tuple[type["_Hook"], tuple[Callable[..., None]]]:
        return _Hook, (_ignore,)


def _ignore(*args: Any) -> None:
    """Count nothing."""


def _nothing(snn: Countable, synops: bool) -> Counts:
    names = [site.name for site in snn.report.sites]
    fans = snn.fan_out if synops and isinstance(snn, SpikingNetwork) else {}
    unknown = {name: fan.reason for name, fan in fans.items() if fan.reason}
    return Counts(
        neurons={site.name: site.neurons for site in snn.report.sites},
        by_site=dict.fromkeys(names, 0),
        clipped_by_site=dict.fromkeys(names, 0),
        inputs_by_site=dict.fromkeys(names, 0),
        synops=0 if synops else None,
        unknown_synops=unknown,
    )


def _tally(passing: threading.local, name: str, spikes: Any, outside: Any) -> None:
    counts: Counts | None = getattr(passing, "counts", None)
    if counts is not None:  # else the layer was called by itself, outside of a pass
        counts.by_site[name] += spikes
        counts.clipped_by_site[name] += outside
        counts.inputs_by_site[name] += 1  # time steps, until the pass has told its images


def _observe(passing: threading.local, snn: SpikingNetwork, name: str, x: Tensor, spikes: Tensor) -> None:
    counts: Counts | None = getattr(passing, "counts", None)
    if counts is None:
        return
    outside = count_outside(x, snn.neurons[name].code.domain)
    images = passing.structure.image_axes.get(name)
    if images is None:
        _tally(passing, name, int(spikes.sum(dtype=torch.int64)), outside)
        return
    by_position = _over_images(images.in_front(spikes))
    _tally(passing, name, int(by_position.sum()), outside)
    if counts.synops is not None and name not in counts.unknown_synops:
        passing.seen[name].append(by_position.squeeze(images.axis) if images.places == 1 else by_position)


def _weigh(counts: Counts, seen: Mapping[str, list[Tensor]], structure: Structure | None) -> None:
    """What a pass of known length comes to: gate inputs, and the synapses of all spikes, time step by time step."""
    for name, neurons in (counts.neurons if structure is None else structure.neurons).items():
        counts.inputs_by_site[name] *= counts.images * neurons
    if counts.synops is None or structure is None:
        return
    counts.unknown_synops |= {name: fan.reason for name, fan in structure.fan_out.items() if fan.reason}
    for name, spikes in seen.items():
        if spikes:
            whole = spikes[0] if structure.loop(name) is None else torch.stack(spikes, -1)
            counts.synops += structure.fan_out[name].weigh(whole) or 0


def _over_images(spikes: Tensor) -> Tensor:
    """The sum over axis 0 in int64; float32 adds several times faster, and exactly as long as no sum reaches 2^24."""
    if len(spikes) * MAX_STEPS < 1 << 24:
        return spikes.to(torch.float32).sum(0).to(torch.int64)
    return spikes.sum(0, dtype=torch.int64)


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {name: a[name] + b[name] for name in a}
