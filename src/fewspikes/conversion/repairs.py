"""Shifts and ranges per channel, layer by layer on already converted inputs, kept only where they help.

Conversion moves the mean of what the next layer sees, and channels differ in what they use of a table's range. At
each site, each channel may shift its gate input and, where that is free, scale its range, to bring the site's output
closer to the ANN's. Every second image proposes, the others decide, channel by channel. At the end the whole networks
are compared on the deciding images, and the better one is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from fewspikes.base.progress import track
from fewspikes.base.sums import row_sums, variance
from fewspikes.conversion.pricing import site_prices
from fewspikes.measure.deal import Images
from fewspikes.measure.measurement import Beside, measure
from fewspikes.measure.side_by_side import images_within, walk
from fewspikes.network.grids import followed
from fewspikes.network.image_axes import ImageAxis
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.layer import FSNeuron

IMAGES = 512  # at most
_SHARES = (0.0, 0.5, 1.0)  # of the way back to the ANN's mean
_RATIOS = tuple(2.0 ** (i / 4) for i in range(-10, 4))  # of the layer's range
# Of three bits, where maxima are to stay exact: with the range's 12 and 9 of the code a product still is a float32.
_SHORT_RATIOS = tuple(m * 2.0**e for e in range(-5, 0) for m in (4, 5, 6, 7) if 0.17 < m * 2.0**e < 1.7)
_ELEMENTS = 1 << 20  # of a site that are looked at; more positions than that are thinned out
_MEMORY = 1 << 29  # bytes of the values that both networks hold at once; a quarter more while a batch joins
_WORK = 1 << 40  # multiply-adds of the ANN over all images
_LEAST = 8  # images, however large the network
_MARGIN = 0.01  # relative: less is not worth a shift
_NEGLIGIBLE = 1e-7  # an error over the layer's variance: a tighter range would only clip what no image has shown
_SURE = 2.0  # standard errors over the deciding images


@dataclass(frozen=True)
class Repair:
    """What was kept where.

    Attributes:
        kept: "shift and range", "shift", or "nothing", as decided by the network's output (and spikes, if priced).
        tried: sites whose channels are known; the others were left as they are.
        shifted, scaled: channels with a shift and with a range of their own, by site.
        not_free: why a site got no range per channel.
        errors: the output's mean squared error over its variance on the deciding images, by what is applied.
        images: how many proposed and decided.
        fewest: how many did so at the first sites, whose maps may be so large that there is no memory for all.
    """

    kept: str
    tried: int
    shifted: dict[str, int]
    scaled: dict[str, int]
    not_free: dict[str, str]
    errors: dict[str, float]
    images: int
    fewest: int

    def __str__(self) -> str:
        if not self.tried:
            return "repair: nothing was tried: no map before a site tells which axis its channels are on"
        before, after = self.errors["nothing"], self.errors[self.kept]
        if self.kept == "nothing":
            return (
                f"repair: no shift or range per channel of {self.tried} sites lowered the output's error on held-out "
                "images; none was kept"
            )
        text = f"repair: {sum(self.shifted.values()):,} channels shifted in {len(self.shifted)} sites"
        if self.scaled:
            text += f", {sum(self.scaled.values()):,} with a range of their own in {len(self.scaled)}"
        reasons = ", ".join(sorted(set(self.not_free.values())))
        fewer = f", {self.fewest} at the largest maps" if self.fewest < self.images else ""
        text += (
            f"; the output's error over its variance on held-out images {before:.3g} -> {after:.3g} ({self.images} "
            f"images{fewer}, half of them held out)"
        )
        return text + (f"; ranges per channel left off at {len(self.not_free)} sites: {reasons}" if reasons else "")


def repair(
    snn: SpikingNetwork,
    images: Images,
    spike_price: float = 0.0,
    prices: Mapping[str, float] | None = None,
    ranges: bool = True,
    progress: bool | None = None,
) -> tuple[SpikingNetwork, Repair]:
    """A network whose channels are shifted (and scaled) where that brings its outputs closer to the ANN's.

    Args:
        snn: the converted network; it stays as it is.
        images: 2 at least; 512 are used, fewer where the network is large (2^40 multiply-adds over all images), and
            at each site no more than 512 MiB of the values there takes.
        spike_price: the rise of error / variance of the output that one spike per neuron of the network is worth.
        prices: each site's own, see `pricing`; None: they are measured.
        ranges: also give ReLU channels ranges of their own.
        progress: a bar on stderr; None shows it when stderr is a terminal.
    """
    used, room = _portion(snn, images)
    if prices is None:
        free = dict.fromkeys((site.name for site in snn.sites), 0.0)
        prices = site_prices(snn, used, spike_price, progress) if spike_price else free
    halves = used.alternating()
    not_free = {name: reason for name, reason in _reasons(snn).items() if reason}
    with torch.inference_mode():
        candidates: dict[str, dict[str, FSNeuron]] = {"nothing": {}}
        candidates["shift"] = _propose(snn, halves, room, False, prices, progress)
        if ranges and len(not_free) < len(snn.sites):
            candidates["shift and range"] = _propose(snn, halves, room, True, prices, progress)
    networks = {what: snn.with_neurons(neurons) for what, neurons in candidates.items()}
    beside = Beside(halves[1], snn.as_ann())
    measured = {what: measure(network, beside) for what, network in networks.items()}
    kept = min(measured, key=lambda what: measured[what].cost(spike_price))
    neurons = networks[kept].neurons
    found = Repair(
        kept,
        len(candidates["shift"]),
        {name: int((n.shift != 0).sum()) for name, n in neurons.items() if n.shift is not None},
        {n: int((o.scale != 1).sum()) for n, o in neurons.items() if o.scale is not None and n not in snn.exact},
        not_free if ranges else {},
        {what: one.error for what, one in measured.items()},
        len(used),
        min(len(used), max(2 * used.size, room[0])),
    )
    return snn.with_neurons(candidates[kept], [str(found)]), found


def _portion(snn: SpikingNetwork, images: Images) -> tuple[Images, list[int]]:
    """The first images, as many as there is time for, in batches that fit; and how many have room at each step."""
    room = images_within(snn, _MEMORY)
    count = min(IMAGES, max(_LEAST, _WORK // max(snn.macs.ann, 1)))
    size = max(1, min(images.size, max(_LEAST, room[0]) // 4))
    return replace(images.take(slice(count)), size=size), room


def _reasons(snn: SpikingNetwork) -> dict[str, str]:
    return {site.name: snn.scale_is_free(site.name) for site in snn.sites}


def _propose(
    snn: SpikingNetwork,
    halves: tuple[Images, Images],
    room: list[int],
    ranges: bool,
    prices: Mapping[str, float],
    progress: bool | None,
) -> dict[str, FSNeuron]:
    """The neurons by site name after one walk."""
    sites = {site.name: site for site in snn.sites}
    in_turn = [batch for pair in zip_longest(*(half.batches for half in halves)) for batch in pair if batch is not None]
    reasons, own = _reasons(snn), snn.neurons
    leaders = {follower.leader for follower in snn.structure.followers.values()}
    images = snn.structure_for(in_turn[0]).image_axes
    neurons: dict[str, FSNeuron] = {}
    for name, ann, got, put in track(walk(snn, in_turn, room), "repairing", len(sites), progress):
        site, neuron = sites[name], own[name]
        axis = snn.channel_axis(name)
        follower = snn.structure.followers.get(name)
        exact = None if follower is None else followed(follower, neurons.get(follower.leader, own[follower.leader]))
        if exact is not None:
            put(exact)
        elif axis is not None:
            a, g = (
                [_by_channel(values[which::2], axis, images.get(name, ImageAxis(0))) for which in range(2)]
                for values in (ann, got)
            )
            free = ranges and not reasons[name]
            ratios = (_SHORT_RATIOS if name in leaders else _RATIOS) if free else ()
            neuron = _settle(neuron, site.activation, a, g, axis, ratios, prices[name])
            put(neuron)
            neurons[name] = neuron
    return neurons


def _by_channel(batches: list[Tensor], axis: int, images: ImageAxis) -> Tensor:
    """[channels, images, positions]; positions are thinned out where they are many."""
    rows = [images.in_front(x).movedim(axis + 1, 0).flatten(2) for x in batches]
    step, positions = -(-sum(x.numel() for x in batches) // _ELEMENTS), rows[0].shape[-1]
    if step > 1:  # a random choice: a regular one could fall in with the image's width
        chosen = torch.randperm(positions, generator=torch.Generator().manual_seed(0))[: max(positions // step, 1)]
        rows = [one[..., chosen.to(one.device)] for one in rows]
    return torch.cat(rows, 1).contiguous()


def _settle(
    neuron: FSNeuron,
    activation: Activation,
    ann: list[Tensor],
    got: list[Tensor],
    axis: int,
    ratios: Sequence[float],
    price: float,
) -> FSNeuron:
    """The neuron with the shifts and ranges that its channels keep.

    ann, got: [channels, images, positions], each once proposing and once deciding; ratios: what ranges are tried.
    """
    judge = [_Judge(neuron, activation, a, g, price) for a, g in zip(ann, got, strict=True)]
    channels = torch.arange(len(ann[0]))
    moved = (row_sums((ann[0] - got[0]).double().flatten(1)) / ann[0][0].numel()).to(got[0].dtype)
    one, zero = torch.ones_like(moved), torch.zeros_like(moved)
    options = [(share * moved, one) for share in _SHARES]

    def best() -> tuple[Tensor, Tensor]:
        chosen = torch.stack([judge[0](shift, scale).mean(1) for shift, scale in options]).argmin(0)
        return tuple(torch.stack(kind)[chosen, channels] for kind in zip(*options, strict=True))  # type: ignore[return-value]

    if ratios:
        shift, _ = best()
        options += [(shift, one * ratio) for ratio in ratios]
        _, scale = best()
        options += [(share * moved, scale) for share in _SHARES]
    shift, scale = best()
    keep = _surely_lower(judge[1](shift, scale), judge[1](zero, one))
    shift, scale = torch.where(keep, shift, zero), torch.where(keep, scale, one)
    has = (bool((shift != 0).any()), bool((scale != 1).any()))
    return stretched(neuron, activation, shift if has[0] else None, scale if has[1] else None, axis)


def stretched(
    neuron: FSNeuron, activation: Activation, shift: Tensor | None, scale: Tensor | None, axis: int
) -> FSNeuron:
    """The neuron with a shift, and `scale` times its ranges: for a function of degree n, y = r^n f̂((x + s) / r)."""
    degree = 1.0 if activation.degree is None else activation.degree
    if neuron.scale is not None:
        scale = neuron.scale if scale is None else scale * neuron.scale.to(scale)
    gain = None if scale is None or degree == 1 else scale ** (degree - 1)
    return FSNeuron(neuron.code, shift, scale, axis, gain=gain)


def _surely_lower(after: Tensor, before: Tensor) -> Tensor:
    """Where a mean over images fell by more than their chance: after and before are [..., images].

    The images' differences are paired, so that few images decide only what is plain in each of them.
    """
    gain = (before - after).double()
    chance = gain.std(-1) / gain.shape[-1] ** 0.5 if gain.shape[-1] > 1 else torch.full_like(gain[..., 0], torch.inf)
    mean = before.double().mean(-1)
    return (gain.mean(-1) > torch.maximum(_SURE * chance, _MARGIN * mean)) & (mean > _NEGLIGIBLE)


class _Judge:
    """How bad shifts and ranges are, by channel and image: squared error over the layer's variance + price x spikes."""

    def __init__(self, neuron: FSNeuron, activation: Activation, ann: Tensor, got: Tensor, price: float) -> None:
        self.neuron, self.activation, self.got, self.price = neuron, activation, got, price
        self.wanted = activation(ann)
        self.variance = variance(self.wanted) or 1.0

    def __call__(self, shift: Tensor, scale: Tensor) -> Tensor:
        trial = stretched(self.neuron, self.activation, shift, scale, 0)
        fired: list[Tensor] = []
        if self.price:
            trial.spike_hooks.append(lambda _, spikes: fired.append(row_sums(spikes.float()) / spikes.shape[2]))
        error: Tensor = row_sums((trial(self.got) - self.wanted).square_()) / (self.wanted.shape[2] * self.variance)
        return error + self.price * fired[0] if fired else error
