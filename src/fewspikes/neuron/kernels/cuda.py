"""The recurrence on a GPU: one Triton kernel that reads each element once and writes it once.

Triton comes with torch on Linux; `AVAILABLE` says whether it is there. A sum of d z or h z has no product in it, so
nothing can be contracted and every bit equals the reference's.
"""

# Triton infers the kernel's types from its arguments.
# ruff: noqa: ANN001, ANN202
import os

import torch
from torch import Tensor

from fewspikes.neuron.kernels.layout import dense, stride_of

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:  # torch has no Triton on this system
    AVAILABLE = False

_BLOCK = 1024  # elements per program
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # runs on the CPU, slowly, to be tested there


def takes(x: Tensor) -> bool:
    """Whether this engine can run on x's device."""
    return AVAILABLE and (x.device.type == "cuda" or (INTERPRETED and x.device.type == "cpu"))


def apply(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor, count: bool) -> tuple[Tensor, Tensor | None]:
    """y in x's memory layout and, if `count`, the spikes per element (uint8)."""
    x = dense(x.detach())
    y = torch.empty_like(x)
    spikes = torch.empty_like(x, dtype=torch.uint8) if count else None
    _launch(x, y, (T, h, d, offset), None, 0, (0.0, 0.0), spikes, None)
    return y, spikes


def layer(
    x: Tensor,
    parameters: tuple[Tensor, ...],
    channels: tuple[Tensor, Tensor, Tensor] | None,
    axis: int,
    domain: tuple[float, float],
    overwrite: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `compiled.layer`, with T, h, d, offset and shift, range, range x gain as tensors in x's dtype.

    The counts are int64 scalars on the device, so that nothing waits for them.
    """
    x = dense(x.detach())
    y = x if overwrite else torch.empty_like(x)
    sums = torch.empty(2, triton.cdiv(x.numel(), _BLOCK), dtype=torch.int32, device=x.device)
    _launch(x, y, parameters, channels, axis, domain, None, sums)
    fired, outside = sums.sum(1, dtype=torch.int64)
    return y, fired, outside


def _launch(
    x: Tensor,
    y: Tensor,
    parameters: tuple[Tensor, ...],
    channels: tuple[Tensor, Tensor, Tensor] | None,
    axis: int,
    domain: tuple[float, float],
    spikes: Tensor | None,
    sums: Tensor | None,
) -> None:
    if not x.numel():
        return
    T, h, d, offset = parameters
    shift, before, after = channels or (T, T, T)
    bounds = torch.tensor(domain, dtype=x.dtype, device=x.device)
    programs = triton.cdiv(x.numel(), _BLOCK)
    tensors = (x, y, T, h, d, offset, shift, before, after, bounds)
    counts = (x if spikes is None else spikes, x if sums is None else sums)
    inner, size = (1, 1) if channels is None else (stride_of(x, axis), len(shift))
    kinds = {"BY_CHANNEL": channels is not None, "PER_ELEMENT": spikes is not None, "SUMS": sums is not None}
    device = torch.cuda.device(x.device) if x.device.type == "cuda" else torch.no_grad()
    with device:
        _staircase[(programs,)](*tensors, *counts, x.numel(), inner, size, programs, K=len(T), **kinds, BLOCK=_BLOCK)


if AVAILABLE:

    @triton.jit  # type: ignore[untyped-decorator]
    def _staircase(  # type: ignore[no-untyped-def]
        x_at,
        y_at,
        T_at,
        h_at,
        d_at,
        offset_at,
        shift_at,
        before_at,
        after_at,
        bounds_at,
        spikes_at,
        sums_at,
        size,
        inner,
        channels,
        programs,
        K: tl.constexpr,
        BY_CHANNEL: tl.constexpr,
        PER_ELEMENT: tl.constexpr,
        SUMS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """One block: gate, K steps, output, counts."""
        program = tl.program_id(0)
        i = program.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = i < size
        v = tl.load(x_at + i, mask=inside, other=float("nan"))  # a NaN fires nothing
        if BY_CHANNEL:
            channel = (i // inner) % channels
            v += tl.load(shift_at + channel)
            before = tl.load(before_at + channel)
            v = tl.div_rn(v, before) if v.dtype == tl.float32 else v / before  # in 64 bits / rounds to nearest itself
        if SUMS:
            out = (v < tl.load(bounds_at)) | (v > tl.load(bounds_at + 1))
            tl.store(sums_at + programs + program, tl.sum(out.to(tl.int32)))
        y = tl.zeros([BLOCK], v.dtype) + tl.load(offset_at)
        fired = tl.zeros([BLOCK], tl.int32)
        nothing = tl.zeros([BLOCK], v.dtype)
        for t in tl.static_range(K):
            fires = v >= tl.load(T_at + t)
            y += tl.where(fires, tl.load(d_at + t), nothing)
            v -= tl.where(fires, tl.load(h_at + t), nothing)
            fired += fires.to(tl.int32)
        y = tl.where(v == v, y, v)
        if BY_CHANNEL:
            y = y * tl.load(after_at + channel)
        tl.store(y_at + i, y, mask=inside)
        if PER_ELEMENT:
            tl.store(spikes_at + i, fired.to(tl.uint8), mask=inside)
        if SUMS:
            tl.store(sums_at + program, tl.sum(fired))
