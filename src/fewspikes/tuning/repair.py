"""Shifts and ranges per channel, layer by layer on already converted inputs, kept only where they help.

Conversion moves the mean of what the next layer sees, and channels differ in what they use of a table's range. At
each site, each channel may shift its gate input and, where that is free, scale its range, to bring the site's output
closer to the ANN's. Images are dealt in two halves: one proposes, the other decides, channel by channel. At the end the
whole networks are compared on the deciding half, and the better one is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from fewspikes.activations import Activation
from fewspikes.kernels import FSNeuron
from fewspikes.kernels.module import per_channel
from fewspikes.network import SpikingNetwork
from fewspikes.progress import track
from fewspikes.tuning.channels import channel_axis, range_is_free
from fewspikes.tuning.walk import walk

_SHARES = (0.0, 0.5, 1.0)  # of the way back to the ANN's mean
_RATIOS = tuple(2.0 ** (i / 4) for i in range(-10, 4))  # of the layer's range
_ELEMENTS = 1 << 20  # of a site that are looked at; more positions than that are thinned out
_MARGIN = 0.01  # relative: less is within the noise of the deciding half

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Repair:
    """What was kept where.

    Attributes:
        kept: "shift and range", "shift", or "nothing", as decided by the network's output.
        shifted, scaled: channels with a shift and with a range of their own, by site.
        not_free: why a site got no range per channel.
        errors: mean squared error of the network's output on the deciding images, by what is applied.
    """

    kept: str
    shifted: dict[str, int]
    scaled: dict[str, int]
    not_free: dict[str, str]
    errors: dict[str, float]


def repair(
    snn: SpikingNetwork, batches: Sequence[Batch], ranges: bool = True, progress: bool | None = None
) -> tuple[SpikingNetwork, Repair]:
    """A network whose channels are shifted (and scaled) where that brings its outputs closer to the ANN's.

    Args:
        snn: the converted network; it stays as it is.
        batches: unlabelled inputs; every second image proposes, the others decide.
        ranges: also give ReLU channels ranges of their own.
        progress: a bar on stderr; None shows it when stderr is a terminal.
    """
    with torch.inference_mode():
        proposing, deciding = ([tuple(v[i::2] for v in batch) for batch in batches] for i in (0, 1))
        wanted = [snn.as_ann()(*batch) for batch in deciding]
        plain = {name: FSNeuron(n.table, n.shift, n.range, n.axis) for name, n in snn.neurons.items()}
        candidates = {"nothing": plain, "shift": _propose(snn, [*proposing, *deciding], False, progress)}
        not_free = {name: reason for name, reason in _reasons(snn).items() if reason}
        if ranges and len(not_free) < len(snn.sites):
            candidates["shift and range"] = _propose(snn, [*proposing, *deciding], True, progress)
        made = {what: snn.with_neurons(neurons) for what, neurons in candidates.items()}
        errors = {what: _output_error(network, deciding, wanted) for what, network in made.items()}
    kept = min(errors, key=errors.__getitem__)
    neurons = made[kept].neurons
    return made[kept], Repair(
        kept,
        {name: int((n.shift != 0).sum()) for name, n in neurons.items() if n.shift is not None},
        {name: int((n.range != 1).sum()) for name, n in neurons.items() if n.range is not None},
        not_free,
        errors,
    )


def _reasons(snn: SpikingNetwork) -> dict[str, str]:
    nodes = {node.target: node for node in snn.body.graph.nodes if node.op == "call_module"}
    return {site.name: range_is_free(nodes[site.target], site.activation) for site in snn.sites}


def _propose(
    snn: SpikingNetwork, batches: list[Batch], ranges: bool, progress: bool | None
) -> dict[str, FSNeuron]:
    """The neurons after one walk; the first half of `batches` proposes, the second decides."""
    nodes = {node.target: node for node in snn.body.graph.nodes if node.op == "call_module"}
    by_name = {site.name: site for site in snn.sites}
    reasons = _reasons(snn)
    neurons = {}
    half = len(batches) // 2
    for name, ann, got, put in track(walk(snn, batches), "repairing", len(snn.sites), progress):
        site, neuron = by_name[name], snn.neurons[name]
        gate: fx.Node = nodes[site.target].args[0]
        axis = channel_axis(gate, ann[0].ndim)
        if axis is not None:
            a = [_by_channel(torch.cat(ann[part]), axis) for part in (slice(half), slice(half, None))]
            g = [_by_channel(torch.cat(got[part]), axis) for part in (slice(half), slice(half, None))]
            neuron = _settle(neuron, site.activation, a, g, axis, ranges and not reasons[name])
        else:
            neuron = FSNeuron(neuron.table, neuron.shift, neuron.range, neuron.axis)
        put(neuron)
        neurons[name] = neuron
    return neurons


def _by_channel(x: Tensor, axis: int) -> Tensor:
    """[channels, elements], thinned out where they are many."""
    rows = x.movedim(axis, 0).flatten(1)
    step = -(-rows.numel() // _ELEMENTS)
    if step > 1:  # a random choice of columns: a regular one could fall in with the image's width
        chosen = torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(0))[: rows.shape[1] // step]
        rows = rows[:, chosen.to(rows.device)]
    return rows.contiguous()


def _settle(
    neuron: FSNeuron, activation: Activation, ann: list[Tensor], got: list[Tensor], axis: int, ranges: bool
) -> FSNeuron:
    """The site's neuron with the shifts and ranges that its channels keep. ann, got: [channels, n], proposing, deciding."""
    wanted = [activation(x) for x in ann]
    channels = len(ann[0])
    moved = (ann[0] - got[0]).double().mean(1).to(got[0].dtype)
    one, zero = torch.ones_like(moved), torch.zeros_like(moved)
    options = [(share * moved, one) for share in _SHARES]
    best = _best(neuron, options, wanted[0], got[0])
    if ranges:
        shift = torch.stack([s for s, _ in options])[best, torch.arange(channels)]
        options += [(shift, one * ratio) for ratio in _RATIOS]
        best = _best(neuron, options, wanted[0], got[0])
        scale = torch.stack([r for _, r in options])[best, torch.arange(channels)]
        options += [(share * moved, scale) for share in _SHARES]
        best = _best(neuron, options, wanted[0], got[0])
    index = torch.arange(channels)
    shift = torch.stack([s for s, _ in options])[best, index]
    scale = torch.stack([r for _, r in options])[best, index]
    before = _errors(neuron, zero, one, wanted[1], got[1])
    after = _errors(neuron, shift, scale, wanted[1], got[1])
    keep = after < before * (1 - _MARGIN)
    shift, scale = torch.where(keep, shift, zero), torch.where(keep, scale, one)
    return FSNeuron(
        neuron.table,
        shift if bool((shift != 0).any()) else None,
        scale if bool((scale != 1).any()) else None,
        axis,
    )


def _best(neuron: FSNeuron, options: list[tuple[Tensor, Tensor]], wanted: Tensor, got: Tensor) -> Tensor:
    """The index of the option with the least error, per channel."""
    return torch.stack([_errors(neuron, shift, scale, wanted, got) for shift, scale in options]).argmin(0)


def _errors(neuron: FSNeuron, shift: Tensor, scale: Tensor, wanted: Tensor, got: Tensor) -> Tensor:
    """Mean squared error per channel."""
    y = FSNeuron(neuron.table, shift, scale, axis=0)(got)
    return (y - wanted).square_().mean(1)


def _output_error(snn: SpikingNetwork, batches: Sequence[Batch], wanted: Sequence[object]) -> float:
    total, count = 0.0, 0
    for batch, target in zip(batches, wanted, strict=True):
        for y, t in zip(_tensors(snn(*batch)), _tensors(target), strict=True):
            total += float((y - t).double().square().sum())
            count += y.numel()
    return total / count


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
