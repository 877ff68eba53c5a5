"""The readable truth: the recurrence in plain torch, differentiable where a gradient is wanted."""

import torch
from torch import Tensor

from fewspikes.neuron.recurrence import TriangleSpike, heaviside, spike_train


def apply(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor, count: bool) -> tuple[Tensor, Tensor | None]:
    """y and, if `count`, the spikes per element (uint8)."""
    y = offset.expand_as(x)
    spikes = torch.zeros_like(x) if count else None
    for weight, z in zip(
        d, spike_train(x, T, h, TriangleSpike.apply if learns(x, T, h, d, offset) else heaviside), strict=True
    ):
        y = y + weight * z
        if spikes is not None:
            spikes += z.detach()
    return torch.where(x.isnan(), x, y), None if spikes is None else spikes.to(torch.uint8)


def learns(*tensors: Tensor) -> bool:
    """Whether a gradient is wanted of any of them."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
