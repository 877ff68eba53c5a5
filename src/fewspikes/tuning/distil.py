"""Learn the code, never the weights, against the network's own outputs."""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewspikes.batches import Batches
from fewspikes.errors import FewSpikesError
from fewspikes.network import ExactActivation, SpikingNetwork, build
from fewspikes.tuning.channels import channel_axis, range_is_free
from fewspikes.tuning.learning import LearningNeuron

_BYTES = 2 << 30  # of images that are kept in memory
_HELD_OUT = 512  # images at most, an eighth of all
_BATCH = 64
_RATES = {"shift": 0.01, "log_range": 0.02, "d": 0.002, "offset": 0.002}
_STAGES = 6
_FEATURES = 0.5  # weight of the sites' own outputs beside the network's


@dataclass(frozen=True)
class Stage:
    """The network after a stage: seconds and steps so far, and on held-out images the mean squared error of the output
    (relative to its variance), the agreement in percent (None where the output is no [batch, classes]) and spikes."""

    seconds: float
    steps: int
    error: float
    agreement: float | None
    spikes_per_neuron: float


class Learner:
    """The network while it learns.

    Args:
        snn: where it begins.
        batches: unlabelled inputs, in memory.
        reference: the ANN.
        spike_weight: price of a spike per neuron, in log error.
        seed: of the order of the images.
    """

    def __init__(
        self,
        snn: SpikingNetwork,
        batches: Sequence[tuple[Tensor, ...]],
        reference: nn.Module,
        spike_weight: float,
        seed: int,
    ) -> None:
        self.snn, self.reference, self.spike_weight = snn, reference, spike_weight
        self.held, self.images = _hold_out(batches)
        self.random = torch.Generator().manual_seed(seed)
        self.neurons = _learning(snn, self.held)
        self.ann, self.body = _watched(snn, None), _watched(snn, self.neurons)
        self.sizes = {site.name: site.neurons for site in snn.report.sites}
        groups = [
            {"params": [p for n in self.neurons.values() if (p := getattr(n, kind)) is not None and p.requires_grad],
             "lr": rate, "base": rate}
            for kind, rate in _RATES.items()
        ]
        self.optimizer = torch.optim.Adam([g for g in groups if g["params"]], betas=(0.9, 0.99))
        self.count_spikes(spike_weight > 0)

    def count_spikes(self, counting: bool) -> None:
        for neuron in self.neurons.values():
            neuron.counting = counting

    def step(self, progress: float) -> float:
        """One minibatch when `progress` (0 to 1) of the time is gone; the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * min(1.0, progress * 20 + 0.05) * (1 + math.cos(math.pi * progress)) / 2
        n = len(self.images[0])
        chosen = torch.randint(0, n, (min(_BATCH, n),), generator=self.random)
        batch = tuple(value[chosen] for value in self.images)
        with torch.no_grad():
            wanted = self.ann(*batch)
        loss = self.loss(self.body(*batch), wanted)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def loss(self, got: tuple[Any, list[Tensor]], wanted: tuple[Any, list[Tensor]]) -> Tensor:
        output = torch.stack([_relative(a, b) for a, b in zip(_tensors(got[0]), _tensors(wanted[0]), strict=True)])
        loss = output.mean().log()
        if _FEATURES:
            features = torch.stack([_relative(a, b) for a, b in zip(got[1], wanted[1], strict=True)])
            loss = loss + _FEATURES * features.mean().log()
        return loss + self.spike_weight * self.spikes() if self.spike_weight else loss

    def spikes(self) -> Tensor:
        """Mean spikes per neuron of the last pass."""
        total = torch.stack([n.mean_spikes * self.sizes[name] for name, n in self.neurons.items()]).sum()  # type: ignore[operator]
        return total / sum(self.sizes.values())

    @torch.no_grad()
    def measure(self, seconds: float, steps: int) -> Stage:
        self.count_spikes(True)
        error = agree = spikes = 0.0
        count, images, classes = 0, len(self.held[0]), True
        for start in range(0, images, _BATCH):
            batch = tuple(v[start : start + _BATCH] for v in self.held)
            (got, _), (wanted, _) = self.body(*batch), self.ann(*batch)
            pairs = list(zip(_tensors(got), _tensors(wanted), strict=True))
            error += sum(float(_relative(a, b)) for a, b in pairs) / len(pairs) * len(batch[0])
            classes = len(pairs) == 1 and pairs[0][0].ndim == 2
            agree += float((pairs[0][0].argmax(1) == pairs[0][1].argmax(1)).sum()) if classes else 0.0
            spikes += float(self.spikes()) * len(batch[0])
        self.count_spikes(self.spike_weight > 0)
        return Stage(
            seconds, steps, error / images, 100 * agree / images if classes else None, spikes / images
        )

    def network(self) -> SpikingNetwork:
        return self.snn.with_neurons({name: neuron.neuron() for name, neuron in self.neurons.items()})


def _relative(got: Tensor, wanted: Tensor) -> Tensor:
    return (got - wanted).square().mean() / wanted.var(unbiased=False).clamp_min(1e-12)


def _hold_out(batches: Sequence[tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    whole = tuple(torch.cat([batch[i] for batch in batches]) for i in range(len(batches[0])))
    n = len(whole[0])
    held = min(max(n // 8, 1), _HELD_OUT)
    places = torch.linspace(0, n - 1, held).round().long().unique()
    rest = torch.ones(n, dtype=torch.bool)
    rest[places] = False
    if not bool(rest.any()):
        raise FewSpikesError("distilling needs at least 2 images: one to learn from, one held out")
    return tuple(v[places] for v in whole), tuple(v[rest] for v in whole)


def _learning(snn: SpikingNetwork, held: tuple[Tensor, ...]) -> dict[str, LearningNeuron]:
    nodes = {node.target: node for node in snn.body.graph.nodes if node.op == "call_module"}
    spreads: dict[str, float] = {}
    handles = []
    for name, neuron in snn.neurons.items():
        hook = lambda m, args, name=name: spreads.__setitem__(name, float(args[0].std()))  # noqa: E731
        handles.append(neuron.register_forward_pre_hook(hook))
    with torch.no_grad():
        snn(*(v[:_BATCH] for v in held))
    for handle in handles:
        handle.remove()
    made = {}
    for site in snn.sites:
        node, neuron = nodes[site.target], snn.neurons[site.name]
        shape = snn._sizes[node.name]
        axis = channel_axis(node.args[0], len(shape))
        free = not range_is_free(node, site.activation)
        if axis is not None and neuron.shift is None and neuron.range is None:
            neuron = FSNeuron_at(neuron, axis)
        channels = None if axis is None else shape[axis]
        made[site.name] = LearningNeuron(neuron, site.activation, channels, free, spreads[site.name])
    return made


def FSNeuron_at(neuron: Any, axis: int) -> Any:
    return type(neuron)(neuron.table, neuron.shift, neuron.range, axis)


def _watched(snn: SpikingNetwork, neurons: Mapping[str, nn.Module] | None) -> fx.GraphModule:
    """The graph with these neurons (None: the exact activations); returns (output, the outputs of all sites)."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(snn.body.graph, copied)
    sites = [copied[node] for node in snn.body.graph.nodes if node.op == "call_module"]
    graph.output((output, sites))
    modules = {
        site.target: ExactActivation(site.activation) if neurons is None else neurons[site.name] for site in snn.sites
    }
    return build(graph, snn.tensors, modules)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
