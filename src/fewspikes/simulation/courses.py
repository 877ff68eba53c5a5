"""One neuron at work: its threshold, reset, weight and potential, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewspikes.base.checks import said, whole
from fewspikes.base.errors import FewSpikesError
from fewspikes.network.image_axes import ImageAxis
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.recurrence import spike_train


@dataclass(frozen=True)
class Course:
    """What a neuron does for one image.

    Attributes:
        site: its layer.
        neuron: its number in the layer, row-major.
        position: where that is in the layer, as (channel, row, column).
        T, h, d: of its code, [K].
        v: its potential v(1) to v(K), before it fires.
        z: whether it fires, [K].
        offset: of its code.
        gain: of its channel; 1 where that has no range or gain of its own.
        output: what it stands for: gain * (offset + the sum of d(t) z(t)).
    """

    site: str
    neuron: int
    position: tuple[int, ...]
    T: tuple[float, ...]
    h: tuple[float, ...]
    d: tuple[float, ...]
    v: tuple[float, ...]
    z: tuple[bool, ...]
    offset: float
    gain: float
    output: float


def course(snn: SpikingNetwork, x: Tensor, site: str, neuron: int | None = None) -> Course:
    """The course of a neuron in a network, as the network itself computes it.

    In a loop over time it is that of the first time step.

    Args:
        snn: the network, which takes one input.
        x: one image, [1, *shape].
        site: the layer.
        neuron: its number, row-major; None: the one that fires most, of several the one of the largest input.

    Raises:
        FewSpikesError: a network with faults, more images than one, a site or a neuron that is not there.

    >>> import fewspikes as fs
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU()).eval()
    >>> _ = net[0].weight.data.fill_(5.0), net[0].bias.data.zero_()
    >>> one = course(fs.convert(net, torch.zeros(1, 1), K=3, alpha=8.0), torch.ones(1, 1), "1")
    >>> one.v, one.z, one.output
    ((5.0, 1.0, 1.0), (True, False, True), 5.0)
    """
    snn.check_clean("the course of a neuron")
    if site not in snn.neurons:
        raise FewSpikesError(f"there is no site {said(site)}; there are {', '.join(snn.neurons)}")
    if len(x) != 1:
        raise FewSpikesError(f"the course of a neuron is that for one image; got {len(x)}")
    layer, taken = snn.neurons[site], list[tuple[Tensor, Tensor]]()
    handle = layer.register_forward_hook(lambda _module, inputs, y: taken.append((inputs[0].clone(), y.clone())))
    try:
        with torch.inference_mode():
            snn(x)
    finally:
        handle.remove()
    (gate, y) = taken[0]
    gate = layer.gate(gate)
    T, h, d, offset = layer.parameters_for(gate)
    trains = torch.stack(list(spike_train(gate, T, h))).flatten(1)
    if neuron is None:
        most = trains.sum(0)
        neuron = int(torch.where(most == most.max(), gate.flatten(), -torch.inf).argmax())
    whole("neuron", neuron, 0, trains.shape[1] - 1)
    z = trains[:, neuron]
    v = [gate.flatten()[neuron]]
    for reset, fires in zip(h[:-1], z, strict=False):
        v.append(v[-1] - reset * fires)
    T_, h_, d_, v_ = (tuple(value.tolist()) for value in (T, h, d, torch.stack(v)))
    at = snn.structure.image_axes.get(site, ImageAxis(0)).shape(gate.shape)
    gain = float(layer.ungate(torch.ones_like(gate)).flatten()[neuron])
    fired, output = tuple(z.bool().tolist()), float(y.flatten()[neuron])
    return Course(site, neuron, unravelled(neuron, at), T_, h_, d_, v_, fired, float(offset), gain, output)


def unravelled(number: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Where an element is, from its number, row-major."""
    return tuple(int(value) for value in torch.unravel_index(torch.tensor(number), tuple(shape)))
