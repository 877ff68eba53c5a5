"""What goes wrong where: each site beside the ANN's, in one walk through both networks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.progress import track
from fewspikes.base.sums import total
from fewspikes.fitting import largest_error
from fewspikes.measure.deal import Images
from fewspikes.measure.sensitivity import Probed, portion, probe
from fewspikes.measure.side_by_side import walk
from fewspikes.network.sites import SiteDiagnosis
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.layer import FSNeuron
from fewspikes.neuron.recurrence import encode
from fewspikes.operators.rewriting import Site

IMAGES = 128  # at most; a share of a thousandth of the neurons is then still seen a hundred times
_SAMPLED = 1 << 14  # inputs per site and batch whose spikes are looked at step by step
_CONSTANT = 1e-10  # variance over mean square that is no more than rounding


def diagnose(snn: SpikingNetwork, images: Images, progress: bool | None = None) -> dict[str, SiteDiagnosis]:
    """Compare every site with the ANN's on up to 128 of the images (fewer for a network of over 4 million neurons).

    Args:
        snn: the converted network.
        images: the first of them are looked at.
        progress: a bar on stderr; None shows it when stderr is a terminal.

    Returns:
        What goes wrong at each site, by name, in the order of the graph.

    Raises:
        FewSpikesError: no images.
    """
    batches = portion(snn, images, IMAGES) if len(images) else []
    if not batches:
        raise FewSpikesError("a diagnosis needs one image at least")
    neurons, tallies = snn.neurons, {}
    for site in snn.sites:
        alone = () if site.name in snn.exact else (neurons[site.name], neurons[site.name].replace(shift=None))
        loops = snn.structure.loop(site.name) is not None
        tallies[site.name] = _Tally(site, neurons[site.name], snn.channel_axis(site.name), alone, loops)
    probing = track(zip(batches, probe(snn, batches), strict=True), "diagnosing", len(batches), progress)
    with torch.no_grad():
        for batch, probed in probing:
            for name, wanted, got, _ in walk(snn, [batch]):
                tallies[name].add(wanted[0], got[0], probed)
    return {name: tally.result() for name, tally in tallies.items()}


class _Tally:
    """Running sums of one site over batches.

    Args:
        site: what it imitates.
        neuron: what runs there.
        axis: of the channels, or None.
        alone: the neurons to feed with what the ANN feeds them; none where they are exact on what they get.
        loops: whether they are in a loop over time, whose time steps are along a last axis.
    """

    def __init__(self, site: Site, neuron: FSNeuron, axis: int | None, alone: Sequence[FSNeuron], loops: bool) -> None:
        self.site, self.neuron, self.axis, self.alone, self.loops, self.times = site, neuron, axis, alone, loops, 1
        self.images = self.elements = self.clipped = self.spikes = 0
        self.sums = dict.fromkeys(
            ("wanted", "wanted2", "got2", "product", "error", "inherited", "own", "clipped", "output"), 0.0
        )
        self.own = [0.0] * len(self.alone)
        self.fired: Tensor | None = None  # [neurons], in how many images
        self.by_channel: Tensor | None = None  # [channels], spikes
        self.by_step = torch.zeros(neuron.code.K, dtype=torch.int64)

    def add(self, wanted_input: Tensor, input: Tensor, probed: Probed) -> None:
        """One batch: the gate inputs in the ANN and in the spiking network."""
        wanted, exact = self.site.activation(wanted_input), self.site.activation(input)
        seen = self.neuron.gate(input)
        got, spikes = _run(self.neuron, input)
        exact = torch.where(exact.isfinite(), exact, got)  # a root of what spikes left below 0
        outside = _outside(seen, self.neuron.code.domain)
        self.images += probed.images
        self.elements += wanted.numel()
        self.clipped += int(outside.sum())
        self._add_errors(wanted, exact, got, outside)
        self.sums["output"] += probed.effect(self.site.name, got - exact)
        for i, neuron in enumerate(self.alone):
            self.own[i] += _square(neuron(wanted_input) - wanted)
        self._add_spikes(seen, spikes, probed)

    def _add_errors(self, wanted: Tensor, exact: Tensor, got: Tensor, outside: Tensor) -> None:
        own = (got - exact).double().square()
        self.sums["own"] += float(total(own))
        self.sums["clipped"] += float(total(own * outside))
        self.sums["error"] += _square(got - wanted)
        self.sums["inherited"] += _square(exact - wanted)
        self.sums["wanted"] += float(total(wanted.double()))
        self.sums["wanted2"] += _square(wanted)
        self.sums["got2"] += _square(got)
        self.sums["product"] += float(total(got.double() * wanted.double()))

    def _add_spikes(self, seen: Tensor, spikes: Tensor, probed: Probed) -> None:
        self.spikes += int(spikes.sum(dtype=torch.int64))
        self.times = spikes.shape[-1] if self.loops else 1
        each = spikes.sum(-1, dtype=torch.int32) if self.loops else spikes
        fired = (probed.per_image(self.site.name, each) > 0).sum(0, dtype=torch.uint8)  # of IMAGES at most
        self.fired = fired if self.fired is None else self.fired + fired
        if self.axis is not None:
            by_channel = spikes.movedim(self.axis, 0).flatten(1).sum(1, dtype=torch.int64)
            self.by_channel = by_channel if self.by_channel is None else self.by_channel + by_channel
        flat = seen.reshape(-1)
        sample = flat[:: -(-flat.numel() // _SAMPLED)]
        self.by_step += encode(sample, self.neuron.code).sum(1).cpu()

    def result(self) -> SiteDiagnosis:
        """The sums as means and shares."""
        n, sums = self.elements, self.sums
        square = sums["wanted2"] / n
        variance = square - (sums["wanted"] / n) ** 2
        constant = variance <= _CONSTANT * square
        scale = n * ((square if constant else variance) or 1.0)
        assert self.fired is not None
        silent = 0 if self.by_channel is None else int((self.by_channel == 0).sum())
        return SiteDiagnosis(
            images=self.images,
            own_error=min(self.own, default=0.0) / scale,
            error=sums["error"] / scale,
            inherited_error=sums["inherited"] / scale,
            cosine=_cosine(sums["product"], sums["wanted2"], sums["got2"]),
            output_error=sums["output"] / self.images,
            clipped_fraction=self.clipped / n,
            clipped_error=sums["clipped"] / sums["own"] if sums["own"] else 0.0,
            spikes_per_neuron=self.spikes * self.times / n,
            dead_fraction=float((self.fired == 0).double().mean()),
            always_fraction=float((self.fired == self.images).double().mean()),
            channels=None if self.by_channel is None else len(self.by_channel),
            silent_channels=silent,
            idle_steps=int((self.by_step == 0).sum()) if self.spikes else 0,
            constant=constant,
            max_error=_largest(self.neuron, self.site),
        )


def _run(neuron: FSNeuron, x: Tensor) -> tuple[Tensor, Tensor]:
    """The neuron's output and its spikes per element."""
    seen: list[Tensor] = []
    counting = neuron.replace()
    counting.spike_hooks.append(lambda _, spikes: seen.append(spikes))
    return counting(x), seen[0]


def _outside(x: Tensor, domain: tuple[float, float]) -> Tensor:
    return (x < domain[0]) | (x > domain[1])


def _square(x: Tensor) -> float:
    return float(total(x.double().square()))


def _cosine(product: float, a: float, b: float) -> float:
    """1 where both are zero everywhere, 0 where one of them is."""
    if a == 0 or b == 0:
        return float(a == b)
    return float(product / (a * b) ** 0.5)


def _largest(neuron: FSNeuron, site: Site) -> float | None:
    """The table's bound, widened by the channels' gains and ranges: y = g r f̂((x + s) / r)."""
    bound = largest_error(neuron.code, site.activation)
    if bound is None or bound == float("inf"):
        return None
    table, one = neuron.code, torch.ones(1)
    scale, gain = (one if values is None else values for values in (neuron.scale, neuron.gain))
    largest = float(abs(table.d).sum() + abs(table.offset))  # of an output
    return float((scale * (bound + (gain - 1).abs() * largest)).max())
