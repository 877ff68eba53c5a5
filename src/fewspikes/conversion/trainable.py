"""A neuron whose code can learn: exact gradients for d, offset, shift and range, straight through for the input."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewspikes.base.sums import mean, total
from fewspikes.conversion.rectified import Rectified
from fewspikes.neuron.activation import POWERS_OF_TWO, Activation
from fewspikes.neuron.kernels import apply, compiled, run
from fewspikes.neuron.layer import FSNeuron, per_channel
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.recurrence import cast, spike_train

_SMOOTH = 0.05  # of the domain's width (or a ReLU's range): over it the slope of the spike count is taken


class Staircase(torch.autograd.Function):
    """y = c + sum over t of d[t] z[t], and the spikes per element.

    Gradients: exact for d and c, which y is linear in; for x that of the activation, as if the code were perfect, and 0
    outside the domain, where the output stands still. The spikes' gradient is the slope of their moving average.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor, site: "TrainableNeuron") -> Any:  # type: ignore[override]
        """y and, as floats, the spikes per element."""
        y, spikes = run(x, T, h, d, offset, count=site.counting)
        ctx.site = site
        ctx.save_for_backward(x, T, h, d, offset)
        return y, (torch.zeros(()) if spikes is None else spikes.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_spikes: Tensor) -> Any:  # type: ignore[override]
        """Gradients of x, d and offset."""
        x, T, h, d, offset = ctx.saved_tensors
        site: TrainableNeuron = ctx.site
        grad_d = grad_offset = None
        if ctx.needs_input_grad[3]:
            grad_d = _by_step(grad, x, T, h, d, offset).to(d.dtype)
            grad_offset = total(grad).to(offset.dtype)
        grad_x = _slope(site, x, grad)
        if site.counting:
            grad_x = grad_x + grad_spikes * _spike_slope(site, x, T, h, d, offset)
        return grad_x, None, None, grad_d, grad_offset, None


def _by_step(grad: Tensor, x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> Tensor:
    if type(x) is Tensor and x.device.type == "cpu":
        _, found = compiled.patterns(x, T, h, d, offset)
        return compiled.sum_by_step(grad, found, len(T))
    return torch.stack([total(grad * z) for z in spike_train(x, T, h)])


def _slope(site: "TrainableNeuron", x: Tensor, grad: Tensor) -> Tensor:
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        (through,) = torch.autograd.grad(site.activation(at), at, grad)
    low, high = site.live
    return through if math.isinf(low) and math.isinf(high) else through * ((x >= low) & (x <= high))


def _spike_slope(site: "TrainableNeuron", x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> Tensor:
    step = site.smooth
    counts = [run(x + by, T, h, d, offset, count=True)[1] for by in (step, -step)]
    above, below = (c.to(x.dtype) for c in counts if c is not None)
    return (above - below) / (2 * step)


class TrainableNeuron(nn.Module):
    """Stands at a site while it learns; `neuron()` is what it has learned so far.

    Learned are per channel the shift and, where free, range and gain, and d and offset of a code. The bits of a ReLU
    and of an identity stay.

    Args:
        neuron: where it begins.
        activation: what the site imitates.
        channels: how many there are along the neuron's axis; None leaves shift, range and gain out.
        free: whether "log_range" and "log_gain" per channel are.
        spread: the gate inputs' standard deviation, the unit of a shift.
    """

    def __init__(
        self, neuron: FSNeuron, activation: Activation, channels: int | None, free: Mapping[str, bool], spread: float
    ) -> None:
        super().__init__()
        self.start, self.activation, self.counting = neuron, activation, False
        table = neuron.code
        like = next(iter(neuron.by_channel.values()), torch.empty((), dtype=torch.float32))
        self.spread = spread or 1.0
        self.live, width = _live(table)
        self.smooth = _SMOOTH * width
        self.T, self.h, d, offset = cast(table, like)
        learns_code = activation.name not in ("relu", "identity", POWERS_OF_TWO)
        self.height = float(abs(table.d).mean()) or 1.0
        self.d = nn.Parameter(d / self.height, requires_grad=learns_code)
        self.offset = nn.Parameter(offset / self.height, requires_grad=learns_code)
        self.shift = self.log_range = self.log_gain = None
        if channels is not None:
            shift = torch.zeros(channels) if neuron.shift is None else neuron.shift.float()
            self.shift = nn.Parameter(shift / self.spread)
            for kind, values in (("log_range", neuron.scale), ("log_gain", neuron.gain)):
                if free[kind]:
                    start = torch.zeros(channels) if values is None else values.float().log()
                    setattr(self, kind, nn.Parameter(start))
        self.mean_spikes: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """As FSNeuron; adds its mean spikes to `mean_spikes` where `counting`, at each time step of a loop."""
        axis = self.start.axis
        if self.activation.name == "relu" and type(x) is Tensor and x.device.type == "cpu":
            return self._rectified(x, axis)
        if self.shift is not None:
            x = x + per_channel(self.shift * self.spread, x, axis)
        scale = None if self.log_range is None else per_channel(self.log_range.exp(), x, axis)
        u = x if scale is None else x / scale
        T, h = self.T.to(u.dtype), self.h.to(u.dtype)
        d, offset = (v.to(u.dtype) * self.height for v in (self.d, self.offset))
        y, spikes = Staircase.apply(u, T, h, d, offset, self)
        self._count(mean(spikes))
        if self.log_gain is not None:
            gain = per_channel(self.log_gain.exp(), x, axis)
            scale = gain if scale is None else scale * gain
        out: Tensor = y if scale is None else y * scale
        return out

    def _count(self, spikes: Tensor) -> None:
        if self.counting:
            self.mean_spikes = spikes if self.mean_spikes is None else self.mean_spikes + spikes

    def _rectified(self, x: Tensor, axis: int) -> Tensor:
        rows = x.unsqueeze(-1) if self.shift is None else x.movedim(axis, -1)
        channels = rows.shape[-1]
        shift = x.new_zeros(channels) if self.shift is None else (self.shift * self.spread).to(x.dtype)
        scale, gain = (
            x.new_ones(channels) if v is None else v.exp().to(x.dtype) for v in (self.log_range, self.log_gain)
        )
        y, spikes = Rectified.apply(rows.reshape(-1, channels).contiguous(), shift, scale, gain, self)
        self._count(spikes)
        out: Tensor = y.view(rows.shape)
        return out.squeeze(-1) if self.shift is None else out.movedim(-1, axis)

    @torch.no_grad()
    def neuron(self) -> FSNeuron:
        """The neuron with what was learned."""
        p = self.start.code
        if self.d.requires_grad:
            provenance = {**p.provenance, "learned": "d and offset, against the network's own outputs"}
            d, offset = (self.d.double() * self.height).cpu().numpy(), float(self.offset) * self.height
            p = FSParameters(p.T, p.h, d, offset, p.activation, p.domain, provenance)
        shift = None if self.shift is None else self.shift.detach() * self.spread
        scale, gain = (None if v is None else v.detach().exp() for v in (self.log_range, self.log_gain))
        return FSNeuron(p, shift, scale, self.start.axis, gain=gain)


def _live(table: FSParameters) -> tuple[tuple[float, float], float]:
    """Where the output follows the input, and how wide that is."""
    low, high = table.domain
    if table.activation.startswith("relu"):  # its code ends where its largest output is, whatever its domain says
        bound = 2 * float(np.abs(table.d).sum())
        y, _ = apply(torch.linspace(-bound, bound, 8193, dtype=torch.float64), table)
        high = float(y.max()) + float(np.abs(table.d).min()) / 2
        return (0.0, high), high
    return (low, high), high - low if math.isfinite(high - low) else 1.0
