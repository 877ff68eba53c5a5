"""What an error at a site does to the network's output, and so what each K at each site costs.

To first order an error delta at a site's output moves the network's output by J delta. For random signs r, the mean
square of r . J delta = (J^T r) . delta over images and r is the output's squared error, and one pass backwards gives
J^T r at all sites at once. So a handful of passes tell the output error of every K at every site.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewspikes.base.progress import track
from fewspikes.base.sums import row_sums, total
from fewspikes.measure.deal import Images
from fewspikes.measure.gradients import check_gradients
from fewspikes.measure.outputs import Variance, floats, per_image
from fewspikes.measure.source import Batch
from fewspikes.network.image_axes import ImageAxis
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.kernels import apply
from fewspikes.neuron.parameters import FSParameters

MOST_STEPS = 16
_GRID = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # between them the logarithm of the error is close to a line in K
_PROBES = 2  # passes backwards per batch; more images tell more than more passes
_LARGE = 1 << 26  # neurons, from which on one pass must do: the gradients of another take a GiB
_IMAGES = 256  # on ResNet20 the choice of K is then nearly that of twice as many
_LEAST_IMAGES = 8
_ELEMENTS = 1 << 29  # neurons times images that are looked at: a large network gets fewer images
_AT_ONCE = 1 << 22  # neurons times images in one batch
_FEW, _MORE = 16, 4  # so many times as much where a batch had fewer images than that: small batches take longer
_TINY = 1e-12

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Output error and spikes by site and K, each with the other sites exact.

    Attributes:
        errors: [sites, most], the output's mean squared error over its variance; falls with K.
        spikes: [sites, most], spikes of the site over the network's neurons.
        images: how many they were measured on.
    """

    errors: Vector
    spikes: Vector
    images: int

    def at(self, k: NDArray[np.int64]) -> tuple[float, float]:
        """Output error and spikes per neuron of the network with these K: the sums over its sites."""
        row, k = np.arange(len(k)), np.minimum(k, self.errors.shape[1])
        return float(self.errors[row, k - 1].sum()), float(self.spikes[row, k - 1].sum())


def curves(
    snn: SpikingNetwork,
    parameters: Callable[[str, int], FSParameters],
    images: Images,
    most: int = MOST_STEPS,
    progress: bool | None = None,
) -> Curves:
    """Measure what every K up to `most` does at every site.

    Args:
        snn: any network of these sites; of its neurons only what is per channel is used.
        parameters: of a site (by name) for a K.
        images: some of them are used, see `portion`.
        most: the largest K.
        progress: a bar on stderr; None shows it when stderr is a terminal.
    """
    steps = [*(k for k in _GRID if k < most), most]
    names = [site.name for site in snn.sites]
    tables = {name: [parameters(name, k) for k in steps] for name in track(names, "fitting", len(names), progress)}
    found = effects(snn, tables, images, progress)
    return Curves(
        np.stack([_filled(np.minimum.accumulate(found.errors[n]), steps, log=True) for n in names]),
        np.stack([_filled(found.spikes[n], steps, log=False) for n in names]),
        found.images,
    )


@dataclass(frozen=True)
class Effects:
    """What each of several codes does at each site, with the other sites exact.

    Attributes:
        errors: [codes] by site, the output's mean squared error over its variance.
        own: [codes] by site, the site's mean squared error over its own variance.
        spikes: [codes] by site, spikes of the site over the network's neurons.
        images: how many they were measured on.
    """

    errors: dict[str, Vector]
    own: dict[str, Vector]
    spikes: dict[str, Vector]
    images: int


def effects(
    snn: SpikingNetwork,
    codes: Mapping[str, Sequence[FSParameters]],
    images: Images,
    progress: bool | None = None,
) -> Effects:
    """Measure what each code does at its site.

    Args:
        snn: any network of these sites; of its neurons only what is per channel is used.
        codes: by site.
        images: some of them are used, see `portion`.
        progress: a bar on stderr; None shows it when stderr is a terminal.
    """
    activations = {site.name: site.activation for site in snn.sites}
    errors, own, spikes = ({name: np.zeros(len(tables)) for name, tables in codes.items()} for _ in range(3))
    moments = {name: np.zeros(3) for name in codes}  # number, sum and sum of squares of the site's outputs
    batches = portion(snn, images)
    seen = 0
    for probed in track(probe(snn, batches), "measuring sensitivity", len(batches), progress):
        seen += probed.images
        for name, x in probed.inputs.items():
            exact = activations[name](x)
            wide = exact.double()
            moments[name] += (wide.numel(), float(total(wide)), float(total(wide.square())))
            neuron = snn.neurons[name]
            seen_there = neuron.gate(x)
            for j, table in enumerate(codes[name]):
                y, fired = apply(seen_there, table)
                y = neuron.ungate(y)
                if name not in snn.exact:
                    errors[name][j] += probed.effect(name, y - exact)
                    own[name][j] += float(total((y - exact).double().square()))
                spikes[name][j] += float(fired.sum(dtype=torch.int64))
    return Effects(
        {name: sums / seen for name, sums in errors.items()},
        {name: sums / _spread(moments[name]) for name, sums in own.items()},
        {name: sums / (seen * snn.structure.neuron_count) for name, sums in spikes.items()},
        seen,
    )


def _spread(moments: Vector) -> float:
    """Number times variance; times mean square where all are one number."""
    number, first, second = moments
    spread = float(second - first**2 / max(number, 1))
    return spread if spread > _TINY * second else float(second) or 1.0


def _filled(values: Vector, steps: list[int], log: bool) -> Vector:
    """Values at every K from 1 to the last, from those at `steps`."""
    every = np.arange(1, steps[-1] + 1)
    if not log:
        return np.asarray(np.interp(every, steps, values), np.float64)
    return np.asarray(np.exp(np.interp(every, steps, np.log(np.maximum(values, _TINY)))), np.float64)


@dataclass
class Probed:
    """A batch as the ANN sees it: each site's gate inputs, and the output's gradients at each site's output.

    In a loop over time those of all time steps are along a last axis. `axes` say where each site has its images.
    """

    images: int
    inputs: dict[str, Tensor]
    gradients: dict[str, list[Tensor]]
    axes: Mapping[str, ImageAxis]

    def per_image(self, name: str, x: Tensor) -> Tensor:
        """[images, elements] of what a site has; where it has its images in no known order, whatever comes first."""
        axis = self.axes.get(name)
        return per_image(x if axis is None else axis.in_front(x), self.images)

    def squares(self, name: str) -> Tensor:
        """The mean squared gradient at each element of the site's output."""
        return torch.stack([g.square() for g in self.gradients[name]]).mean(0)

    def effect(self, name: str, error: Tensor) -> float:
        """The output's relative squared error, summed over the batch, that `error` at the site's output makes."""
        rows = self.per_image(name, error)
        products = [row_sums(self.per_image(name, g) * rows).double() for g in self.gradients[name]]
        return float(sum(p.square().sum() for p in products)) / max(len(products), 1)


def probe(snn: SpikingNetwork, batches: Sequence[Batch], seed: int = 0) -> Iterator[Probed]:
    """Run the ANN forwards and, for random signs, backwards; what is yielded is emptied before the next one."""
    check_gradients(snn, "measuring what a site's error does to the output")
    random = torch.Generator().manual_seed(seed)
    scales = _scales(snn, batches)
    for batch in batches:
        probed = _probed(snn, batch, scales, random)
        yield probed
        probed.inputs.clear()  # whoever still holds it: with the next one's that would be twice the memory
        probed.gradients.clear()


def _probed(snn: SpikingNetwork, batch: Batch, scales: list[float], random: torch.Generator) -> Probed:
    taps = {site.name: _Tap(site.activation) for site in snn.sites}
    ann = snn.running(taps)
    with torch.inference_mode(False), torch.enable_grad():
        outputs = floats(ann(*(value.clone() if value.is_inference() else value for value in batch)))
        wanted = [output for tap in taps.values() for output in tap.outputs]
        rows = []
        for _ in range(1 if snn.structure.neuron_count > _LARGE else _PROBES):
            signs = [torch.randint(0, 2, y.shape, generator=random).to(y) * 2 - 1 for y in outputs]
            along = torch.stack([(s * y).sum() * c for s, y, c in zip(signs, outputs, scales, strict=True)]).sum()
            rows.append(torch.autograd.grad(along, wanted, retain_graph=True, materialize_grads=True))
    gradients = {}
    for name, tap in taps.items():
        times = len(tap.outputs)
        gradients[name] = [_finite(_over_time(row[:times])) for row in rows]
        rows = [row[times:] for row in rows]
    inputs = {name: tap.taken() for name, tap in taps.items()}
    return Probed(len(batch[0]), inputs, gradients, snn.structure_for(batch).image_axes)


def _finite(gradient: Tensor) -> Tensor:
    """The gradient, 0 where there is none: a root is infinitely steep at 0, as at the length of a vector of zeros."""
    return gradient.nan_to_num(0.0, 0.0, 0.0)


class _Tap(nn.Module):
    """The exact activation, which keeps its inputs and lets a gradient reach its outputs, one for each time step."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.inputs, self.outputs = list[Tensor](), list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        """f(x)."""
        y = self.activation(x)
        self.inputs.append(x.detach())
        self.outputs.append(y if y.requires_grad else y.detach().requires_grad_())
        return self.outputs[-1]

    def taken(self) -> Tensor:
        """The inputs, for the last time: modules are in circles, and would keep all that a pass backwards needs."""
        found = _over_time(self.inputs)
        self.inputs, self.outputs = [], []
        return found


def _over_time(values: Sequence[Tensor]) -> Tensor:
    """The values of all time steps of a loop, along a last axis."""
    return torch.stack(list(values), -1) if len(values) > 1 else values[0]


def _scales(snn: SpikingNetwork, batches: Sequence[Batch]) -> list[float]:
    """For each tensor of the output, what makes its squared error, summed over an image, relative."""
    with torch.inference_mode():
        ann = snn.as_ann()
        outputs = [floats(ann(*batch)) for batch in batches]
    sizes = [len(batch[0]) for batch in batches]
    scales = []
    for parts in zip(*outputs, strict=True):
        variance, elements = Variance(), sum(part.numel() for part in parts) / sum(sizes)
        for part, images in zip(parts, sizes, strict=True):
            variance.add(part, images)
        scales.append((len(outputs[0]) * (variance.value or 1.0) * max(elements, 1)) ** -0.5)
    return scales


def portion(snn: SpikingNetwork, images: Images, most: int = _IMAGES) -> list[Batch]:
    """The first images, in batches that a pass backwards has room for; fewer of them for a large network."""
    neurons = max(snn.structure.neuron_count, 1)
    wanted = min(most, max(_LEAST_IMAGES, _ELEMENTS // neurons))
    size = max(_AT_ONCE // neurons, min(_FEW, _MORE * _AT_ONCE // neurons))
    return replace(images.take(slice(wanted)), size=max(1, min(32, size))).batches
