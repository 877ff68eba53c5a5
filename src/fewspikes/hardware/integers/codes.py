"""Layers of neurons whose output is a whole number, and what turns such numbers back into values."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewspikes.neuron.kernels import apply, compiled
from fewspikes.neuron.layer import FSNeuron, count_outside, per_channel
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.recurrence import cast

MOST_STEPS = 8  # a code is one byte


def is_binary(neuron: FSNeuron) -> bool:
    """Whether its outputs are whole multiples of d[K], up to 2^K - 1 of them."""
    p = neuron.code
    return p.K <= MOST_STEPS and p.offset == 0 and p.is_binary


def _powers(K: int) -> np.ndarray:
    return 2.0 ** np.arange(K - 1, -1, -1)


def unit(neuron: FSNeuron, channels: int) -> Tensor:
    """What a code of 1 stands for, by channel, float64 [channels]: d[K] times range and gain."""
    found = torch.full((channels,), float(neuron.code.d[-1]), dtype=torch.float64)
    for factor in (neuron.scale, neuron.gain):
        found = found if factor is None else found * factor.double()
    return found


class CodeNeuron(nn.Module):
    """A layer of neurons with y = d[K] q: gives q as uint8 for the gate input (x f + other g + add) / divide.

    Everything is by channel, [C], in the units of the sum; T, h and the domain are the neuron's. `factors` are f and g,
    where two maps meet; without `other` f is 1. The engine is "auto" or "reference" (plain torch); count_hooks are as
    of an FSNeuron.
    """

    add: Tensor
    divide: Tensor
    f: Tensor
    g: Tensor

    def __init__(
        self,
        neuron: FSNeuron,
        add: Tensor,
        divide: Tensor,
        factors: tuple[Tensor, Tensor] | None,
        axis: int,
        engine: str,
    ) -> None:
        super().__init__()
        p = neuron.code
        self.code = FSParameters(p.T, p.h, _powers(p.K), 0.0, p.activation, p.domain, p.provenance)
        self.axis, self.engine = axis, engine
        self.count_hooks: list[Callable[[Any, Any], None]] = []
        f, g = factors or (torch.ones_like(add), torch.zeros_like(add))
        for name, values in (("add", add), ("divide", divide), ("f", f), ("g", g)):
            self.register_buffer(name, values.float())
        self._steps = compiled.table(*cast(self.code, self.add))

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """q, uint8 like x."""
        f, g, add, divide = self.f, self.g, self.add, self.divide
        if self.engine == "reference" or x.device.type != "cpu":
            if other is not None:
                x, other = x.float(), other.float()
                x = x * per_channel(f, x, self.axis) + other * per_channel(g, x, self.axis)
            seen = (x + per_channel(add, x, self.axis)) / per_channel(divide, x, self.axis)
            y, spikes = apply(seen, self.code, "reference")
            found: Sequence[Any] = (int(spikes.sum(dtype=torch.int64)), count_outside(seen, self.code.domain))
            codes = y.to(torch.uint8)
        elif other is not None:
            own = compiled.Factors(f.numpy(), g.numpy(), add.numpy(), divide.numpy())
            codes, *found = compiled.joined(x, other, self._steps, own, self.code.domain, torch.uint8)
        else:
            one = compiled.Channels(add.numpy(), divide.numpy(), np.ones(len(add), np.float32))
            codes, *found = compiled.layer(x, self._steps, one, self.axis, self.code.domain, dtype=torch.uint8)
        for tally in tuple(self.count_hooks):
            tally(*found)
        return codes


class Values(nn.Module):
    """x times a factor by channel, plus a constant by channel: codes or sums of products as values."""

    factor: Tensor
    constant: Tensor | None

    def __init__(self, factor: Tensor, constant: Tensor | None, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("factor", factor.float())
        self.register_buffer("constant", None if constant is None else constant.float())

    def forward(self, x: Tensor) -> Tensor:
        """float32 like x."""
        x = x.float()
        y = x * per_channel(self.factor, x, self.axis)
        return y if self.constant is None else y + per_channel(self.constant, y, self.axis)
