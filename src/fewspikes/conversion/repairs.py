"""Shifts and ranges per channel, layer by layer on already converted inputs, kept only where they help.

Conversion moves the mean of what the next layer sees, and channels differ in what they use of a table's range. At
each site, each channel may shift its gate input and, where that is free, scale its range, to bring the site's output
closer to the ANN's. Images are dealt in two halves: one proposes, the other decides, channel by channel. At the end the
whole networks are compared on the deciding half, and the better one is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from fewspikes.base.progress import track
from fewspikes.measure.counting import count
from fewspikes.measure.outputs import tensors_of
from fewspikes.measure.walk import walk
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.layer import FSNeuron

_SHARES = (0.0, 0.5, 1.0)  # of the way back to the ANN's mean
_RATIOS = tuple(2.0 ** (i / 4) for i in range(-10, 4))  # of the layer's range
_ELEMENTS = 1 << 20  # of a site that are looked at; more positions than that are thinned out
_MARGIN = 0.01  # relative: less is not worth a shift
_SURE = 2.0  # standard errors over the deciding images

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Repair:
    """What was kept where.

    Attributes:
        kept: "shift and range", "shift", or "nothing", as decided by the network's output (and spikes, if priced).
        shifted, scaled: channels with a shift and with a range of their own, by site.
        not_free: why a site got no range per channel.
        errors: mean squared error of the network's output on the deciding images, by what is applied.
    """

    kept: str
    shifted: dict[str, int]
    scaled: dict[str, int]
    not_free: dict[str, str]
    errors: dict[str, float]

    def __str__(self) -> str:
        before, after = self.errors["nothing"], self.errors[self.kept]
        if self.kept == "nothing":
            return "repair: no shift or range per channel lowered the output's error on held-out images; none was kept"
        text = f"repair: {sum(self.shifted.values()):,} channels shifted in {len(self.shifted)} sites"
        if self.scaled:
            text += f", {sum(self.scaled.values()):,} with a range of their own in {len(self.scaled)}"
        reasons = ", ".join(sorted(set(self.not_free.values())))
        text += f"; mean squared error of the output on held-out images {before:.3g} -> {after:.3g}"
        return text + (f"; ranges per channel left off at {len(self.not_free)} sites: {reasons}" if reasons else "")


def repair(
    snn: SpikingNetwork,
    batches: Sequence[Batch],
    spike_weight: float = 0.0,
    prices: Mapping[str, float] | None = None,
    ranges: bool = True,
    progress: bool | None = None,
) -> tuple[SpikingNetwork, Repair]:
    """A network whose channels are shifted (and scaled) where that brings its outputs closer to the ANN's.

    Args:
        snn: the converted network; it stays as it is.
        batches: unlabelled inputs, 2 images at least; every second image proposes, the others decide.
        spike_weight: price of a spike per neuron of the network, in log(output error).
        prices: of a spike per neuron at each site, in the log of the site's own error; None: spike_weight everywhere.
        ranges: also give ReLU channels ranges of their own.
        progress: a bar on stderr; None shows it when stderr is a terminal.
    """
    if prices is None:
        prices = dict.fromkeys((site.name for site in snn.sites), spike_weight)
    with torch.inference_mode():
        proposing, deciding = ([tuple(v[i::2] for v in batch) for batch in batches] for i in (0, 1))
        deciding = [batch for batch in deciding if len(batch[0])]
        ann = snn.as_ann()
        wanted = [ann(*batch) for batch in deciding]
        candidates: dict[str, dict[str, FSNeuron]] = {"nothing": {}}
        candidates["shift"] = _propose(snn, proposing, deciding, False, prices, progress)
        not_free = {name: reason for name, reason in _reasons(snn).items() if reason}
        if ranges and len(not_free) < len(snn.sites):
            candidates["shift and range"] = _propose(snn, proposing, deciding, True, prices, progress)
        networks = {what: snn.with_neurons(neurons) for what, neurons in candidates.items()}
        measured = {what: _measured(network, deciding, wanted) for what, network in networks.items()}
    errors = {what: error for what, (error, _) in measured.items()}
    kept = min(measured, key=lambda what: log(max(errors[what], 1e-300)) + spike_weight * measured[what][1])
    neurons = networks[kept].neurons
    found = Repair(
        kept,
        {name: int((n.shift != 0).sum()) for name, n in neurons.items() if n.shift is not None},
        {name: int((n.scale != 1).sum()) for name, n in neurons.items() if n.scale is not None},
        not_free if ranges else {},
        errors,
    )
    return snn.with_neurons(candidates[kept], [str(found)]), found


def _reasons(snn: SpikingNetwork) -> dict[str, str]:
    return {site.name: snn.scale_is_free(site.name) for site in snn.sites}


def _propose(
    snn: SpikingNetwork,
    proposing: list[Batch],
    deciding: list[Batch],
    ranges: bool,
    prices: Mapping[str, float],
    progress: bool | None,
) -> dict[str, FSNeuron]:
    """The neurons by site name after one walk."""
    sites = {site.name: site for site in snn.sites}
    reasons, own, half = _reasons(snn), snn.neurons, len(proposing)
    neurons = {}
    for name, ann, got, put in track(walk(snn, [*proposing, *deciding]), "repairing", len(sites), progress):
        site, neuron = sites[name], own[name]
        axis = snn.channel_axis(name)
        if axis is not None:
            halves = (slice(half), slice(half, None))
            a, g = ([_by_channel(torch.cat(values[part]), axis) for part in halves] for values in (ann, got))
            free = ranges and not reasons[name]
            neuron = _settle(neuron, site.activation, a, g, axis, free, prices[name])
            put(neuron)
            neurons[name] = neuron
    return neurons


def _by_channel(x: Tensor, axis: int) -> Tensor:
    """[channels, images, positions]; positions are thinned out where they are many."""
    rows = x.movedim(axis, 0).flatten(2) if x.ndim > 2 else x.movedim(axis, 0).unsqueeze(-1)
    step, positions = -(-rows.numel() // _ELEMENTS), rows.shape[-1]
    if step > 1:  # a random choice: a regular one could fall in with the image's width
        chosen = torch.randperm(positions, generator=torch.Generator().manual_seed(0))[: max(positions // step, 1)]
        rows = rows[..., chosen.to(rows.device)]
    return rows.contiguous()


def _settle(
    neuron: FSNeuron,
    activation: Activation,
    ann: list[Tensor],
    got: list[Tensor],
    axis: int,
    ranges: bool,
    spike_weight: float,
) -> FSNeuron:
    """The neuron with the shifts and ranges that its channels keep.

    ann, got: [channels, images, positions], each once proposing and once deciding.
    """
    judge = [_Judge(neuron, activation(a), g, spike_weight) for a, g in zip(ann, got, strict=True)]
    channels = torch.arange(len(ann[0]))
    moved = (ann[0] - got[0]).double().mean((1, 2)).to(got[0].dtype)
    one, zero = torch.ones_like(moved), torch.zeros_like(moved)
    options = [(share * moved, one) for share in _SHARES]

    def best() -> tuple[Tensor, Tensor]:
        chosen = torch.stack([judge[0](shift, scale).mean(1) for shift, scale in options]).argmin(0)
        return tuple(torch.stack(kind)[chosen, channels] for kind in zip(*options, strict=True))  # type: ignore[return-value]

    if ranges:
        shift, _ = best()
        options += [(shift, one * ratio) for ratio in _RATIOS]
        _, scale = best()
        options += [(share * moved, scale) for share in _SHARES]
    shift, scale = best()
    keep = _surely_lower(judge[1](shift, scale), judge[1](zero, one))
    shift, scale = torch.where(keep, shift, zero), torch.where(keep, scale, one)
    has = (bool((shift != 0).any()), bool((scale != 1).any()))
    return FSNeuron(neuron.code, shift if has[0] else None, scale if has[1] else None, axis)


def _surely_lower(after: Tensor, before: Tensor) -> Tensor:
    """Where a mean over images fell by more than their chance: after and before are [..., images].

    The images' differences are paired, so that few images decide only what is plain in each of them.
    """
    gain = (before - after).double()
    chance = gain.std(-1) / gain.shape[-1] ** 0.5 if gain.shape[-1] > 1 else torch.full_like(gain[..., 0], torch.inf)
    return gain.mean(-1) > torch.maximum(_SURE * chance, _MARGIN * before.double().mean(-1))


class _Judge:
    """How bad shifts and ranges are, per channel and image: the squared error over the layer's, and the spikes' price.

    That is the change of log(squared error of the layer) + spike_weight x (spikes per neuron), to first order.
    """

    def __init__(self, neuron: FSNeuron, wanted: Tensor, got: Tensor, spike_weight: float) -> None:
        self.neuron, self.wanted, self.got, self.spike_weight = neuron, wanted, got, spike_weight
        self.scale = 1.0
        zero = torch.zeros_like(wanted[:, 0, 0])
        self.scale = float(self._error(zero, zero + 1)[0].mean()) or 1.0

    def __call__(self, shift: Tensor, scale: Tensor) -> Tensor:
        error, spikes = self._error(shift, scale)
        return error / self.scale + self.spike_weight * spikes

    def _error(self, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        trial = FSNeuron(self.neuron.code, shift, scale, axis=0)
        fired: list[Tensor] = []
        if self.spike_weight:
            trial.spike_hooks.append(lambda _, spikes: fired.append(spikes.float().mean(2)))
        error = (trial(self.got) - self.wanted).square_().mean(2)
        return error, fired[0] if fired else torch.zeros_like(error)


def _measured(snn: SpikingNetwork, batches: Sequence[Batch], wanted: Sequence[object]) -> tuple[float, float]:
    """Mean squared error of the output, and spikes per neuron."""
    total, elements = 0.0, 0
    with count(snn) as counts:
        for batch, target in zip(batches, wanted, strict=True):
            for y, t in zip(tensors_of(snn(*batch)), tensors_of(target), strict=True):
                total += float((y - t).double().square().sum())
                elements += y.numel()
    return total / elements, counts.per_neuron
