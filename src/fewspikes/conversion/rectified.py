"""A trainable ReLU in one pass forward and one backward; compiled by numba."""

# numba infers the loops' types from their arguments.
# ruff: noqa: ANN001, ANN202
from typing import Any, Protocol

import numba
import numpy as np
import torch
from torch import Tensor

from fewspikes.neuron.kernels.threads import SUMMED, share_out

_BLOCK = 1024  # elements, about


class Code(Protocol):
    """What a pass needs of a trainable neuron: its parameters, and how its spikes count."""

    T: Tensor
    h: Tensor
    d: Tensor
    offset: Tensor
    height: float
    counting: bool
    smooth: float

    @property
    def live(self) -> tuple[float, float]:
        """Where the gradient passes."""


class Rectified(torch.autograd.Function):
    """y = g r f̂((x + s) / r) by channel, and the mean spikes per element; f̂ is a ReLU's staircase.

    Gradients of x, s and r are those of g r relu((x + s) / r) inside the range and of its clipped end outside, with the
    staircase's own value in r's; that of g is exact. The spikes' gradient is the slope of their moving average.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, gain: Tensor, site: Code) -> Any:  # type: ignore[override]
        """y like x, and the mean spikes if the site counts, else 0. x: [elements, channels], contiguous."""
        y = torch.empty_like(x)
        T, h, d = (v.to(x.dtype).numpy() for v in (site.T, site.h, site.d.detach() * site.height))
        offset = x.new_tensor(float(site.offset.detach()) * site.height).numpy()[()]
        rows, out, (s, r, g) = x.detach().numpy(), y.numpy(), _tiles(shift, scale, gain)
        after = r * g

        def work(part: slice) -> int:
            return int(_forward(rows[part].reshape(-1), s, r, after, T, h, d, offset, out[part].reshape(-1)))

        spikes = sum(share_out(work, *rows.shape))
        ctx.site, ctx.table = site, (T, h)
        ctx.save_for_backward(x, y, shift, scale, gain)
        return y, x.new_tensor(spikes / max(x.numel(), 1) if site.counting else 0.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_spikes: Tensor) -> Any:  # type: ignore[override]
        """Gradients of x, shift, scale and gain."""
        x, y, shift, scale, gain = ctx.saved_tensors
        site, (T, h) = ctx.site, ctx.table
        through, (s, r, more) = torch.empty_like(x), _tiles(shift, scale, gain)
        price = float(grad_spikes) / max(x.numel(), 1) if site.counting else 0.0
        arrays = [v.detach().contiguous().numpy() for v in (grad, x, y, through)]
        high, smooth, price = (arrays[0].dtype.type(value) for value in (site.live[1], site.smooth, price))

        def work(part: slice) -> np.ndarray:
            sums = np.zeros((3, len(s)), arrays[0].dtype)
            g, v, out, into = (array[part].reshape(-1) for array in arrays)
            _backward(g, v, out, s, r, more, T, h, high, smooth, price, into, sums)
            return sums.astype(np.float64)

        rows, channels = arrays[0].shape
        totals = np.sum([np.zeros((3, len(s))), *share_out(work, rows, channels, SUMMED)], axis=0)
        moved, stretched, raised = torch.from_numpy(totals.reshape(3, -1, len(shift)).sum(1))
        return through, moved.to(shift.dtype), stretched.to(scale.dtype), raised.to(gain.dtype), None


def _tiles(*values: Tensor) -> tuple[np.ndarray, ...]:
    """Each vector over the channels again and again, a block long, so that one index serves element and channel."""
    times = max(_BLOCK // max(len(values[0]), 1), 1)
    return tuple(value.detach().repeat(times).numpy() for value in values)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _forward(x, shift, scale, after, T, h, d, offset, y):  # type: ignore[no-untyped-def]
    """Fill y and return the number of spikes."""
    block = len(shift)
    v, total, n = np.empty(block, x.dtype), np.empty(block, x.dtype), np.empty(block, np.int32)
    spikes = 0
    for start in range(0, len(x), block):
        part, out = x[start : start + block], y[start : start + block]
        for i in range(len(part)):
            v[i] = (part[i] + shift[i]) / scale[i]
        total[:] = offset
        n[:] = 0
        for t in range(len(T)):
            threshold, reset, weight, silent = T[t], h[t], d[t], d[t] - d[t]
            for i in range(len(part)):
                fires = v[i] >= threshold
                total[i] += weight if fires else silent
                v[i] -= reset if fires else silent
                n[i] += np.int32(1) if fires else np.int32(0)
        for i in range(len(part)):
            out[i] = total[i] * after[i]
            spikes += n[i]
    return spikes


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _backward(g, x, y, shift, scale, gain, T, h, high, smooth, price, through, sums):  # type: ignore[no-untyped-def]
    """Fill `through` with x's gradient; add to `sums` those of shift, scale and gain, by place in the tile."""
    block, nothing, u = len(shift), shift[0] - shift[0], np.empty(len(shift), x.dtype)
    w = np.empty(block, x.dtype)  # the gradient before the gain
    by_shift, by_scale, by_gain = sums[0], sums[1], sums[2]
    for start in range(0, len(x), block):
        a, b = x[start : start + block], y[start : start + block]
        c, into = g[start : start + block], through[start : start + block]
        for i in range(len(a)):  # short loops over few arrays become vector instructions, one long loop does not
            u[i] = (a[i] + shift[i]) / scale[i]
        for i in range(len(a)):
            w[i] = c[i] * gain[i]
        for i in range(len(a)):
            by_gain[i] += c[i] * (b[i] / gain[i])
        for i in range(len(a)):
            into[i] = w[i] if (u[i] >= nothing) & (u[i] <= high) else nothing
        for i in range(len(a)):
            by_shift[i] += into[i]
        for i in range(len(a)):
            by_scale[i] -= into[i] * u[i]
        for i in range(len(a)):
            by_scale[i] += w[i] * (b[i] / (scale[i] * gain[i]))
        if price != 0:
            for i in range(len(a)):
                more = _spikes(u[i] + smooth, T, h) - _spikes(u[i] - smooth, T, h)
                slope = price * more / (2 * smooth * scale[i])
                into[i] += slope
                by_shift[i] += slope
                by_scale[i] -= slope * u[i]


@numba.njit(cache=True, nogil=True, inline="always")
def _spikes(v, T, h):  # type: ignore[no-untyped-def]
    """Of one neuron."""
    n = 0
    for t in range(len(T)):
        if v >= T[t]:
            n += 1
            v -= h[t]
    return n
