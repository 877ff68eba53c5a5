"""The recurrence in place, in blocks that stay in the processor's cache: for inference on the CPU.

The products d z and h z are exact, because z is 0 or 1; so fusing them into the addition changes no bit.
"""

import torch
from torch import Tensor

# Elements. Torch works on up to 32,768 in the calling thread; with more it would wait for the other threads at every
# step, which on a busy machine costs a hundred times the arithmetic.
_BLOCK = 1 << 15


def apply(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor, count: bool) -> tuple[Tensor, Tensor | None]:
    """y in x's memory layout and, if `count`, the spikes per element (uint8)."""
    order = sorted(range(x.ndim), key=x.stride, reverse=True)
    if not x.permute(order).is_contiguous():
        x, order = x.contiguous(), list(range(x.ndim))
    y = torch.empty_like(x)
    spikes = torch.empty_like(x, dtype=torch.uint8) if count else None
    v, z, n = (torch.empty(min(_BLOCK, x.numel()), dtype=x.dtype) for _ in range(3))
    steps = list(zip(T, h.tolist(), d.tolist(), strict=True))
    flat = [None if t is None else t.permute(order).view(-1) for t in (x, y, spikes)]
    for start in range(0, x.numel(), _BLOCK):
        source, target, counted = (None if t is None else t[start : start + _BLOCK] for t in flat)
        assert source is not None
        assert target is not None
        size = len(source)
        _run(source, target, counted, steps, offset, v[:size], z[:size], n[:size])
    return y, spikes


def _run(
    x: Tensor,
    y: Tensor,
    spikes: Tensor | None,
    steps: list[tuple[Tensor, float, float]],
    offset: Tensor,
    v: Tensor,
    z: Tensor,
    n: Tensor,
) -> None:
    v.copy_(x)
    y.copy_(offset)
    n.zero_()
    for threshold, reset, weight in steps:
        torch.ge(v, threshold, out=z)
        y.add_(z, alpha=weight)
        v.sub_(z, alpha=reset)
        if spikes is not None:
            n.add_(z)
    y.copy_(torch.where(x.isnan(), x, y))
    if spikes is not None:
        spikes.copy_(n)
