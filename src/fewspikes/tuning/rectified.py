"""A learning ReLU site in one pass forward and one backward; compiled by numba."""

# numba infers the loops' types from their arguments.
# ruff: noqa: ANN001, ANN202
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch import Tensor

from fewspikes.kernels.compiled import share_out

if TYPE_CHECKING:
    from fewspikes.tuning.learning import LearningNeuron

_BLOCK = 1024


class Rectified(torch.autograd.Function):
    """y = r f̂((x + s) / r) by channel, and the mean spikes per element; f̂ is a ReLU's staircase.

    Gradients of x, s and r are those of r relu((x + s) / r) inside the range and of its clipped end outside, with the
    staircase's own value in r's. The spikes' gradient is the slope of their moving average.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, site: "LearningNeuron") -> Any:  # type: ignore[override]
        """y like x, and the mean spikes if the site counts, else 0. x: [batch, channels, elements], contiguous."""
        y = torch.empty_like(x)
        T, h, d = (v.to(x.dtype).numpy() for v in (site.T, site.h, site.d.detach() * site.height))
        offset = x.new_tensor(float(site.offset.detach()) * site.height).numpy()[()]
        rows, out = _rows(x), _rows(y)
        channels = (shift.detach().numpy(), scale.detach().numpy())

        def work(part: slice) -> int:
            return int(_forward(rows[part], part.start, *channels, T, h, d, offset, out[part]))

        spikes = sum(share_out(work, len(rows), rows.shape[1]))
        ctx.site, ctx.table = site, (T, h)
        ctx.save_for_backward(x, y, shift, scale)
        return y, x.new_tensor(spikes / max(x.numel(), 1) if site.counting else 0.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_spikes: Tensor) -> Any:  # type: ignore[override]
        """Gradients of x, shift and scale."""
        x, y, shift, scale = ctx.saved_tensors
        site, (T, h) = ctx.site, ctx.table
        through = torch.empty_like(x)
        price = float(grad_spikes) / max(x.numel(), 1) if site.counting else 0.0
        rows = [_rows(v.contiguous()) for v in (grad, x, y, through)]
        channels = (shift.detach().numpy(), scale.detach().numpy())
        high, smooth = (rows[0].dtype.type(value) for value in (site.live[1], site.smooth))

        def work(part: slice) -> np.ndarray:
            sums = np.zeros((2, len(shift)))
            g, v, out, into = (array[part] for array in rows)
            _backward(g, v, out, part.start, *channels, T, h, high, smooth, price, into, sums)
            return sums

        totals = torch.from_numpy(np.sum(list(share_out(work, len(rows[0]), rows[0].shape[1])), axis=0))
        return through, totals[0].to(shift.dtype), totals[1].to(scale.dtype), None


def _rows(x: Tensor) -> np.ndarray:
    """[batch x channels, elements]."""
    return x.detach().reshape(-1, x.shape[2]).numpy()


@numba.njit(cache=True, nogil=True)
def _forward(x, first, shift, scale, T, h, d, offset, y):  # type: ignore[no-untyped-def]
    """Fill y and return the number of spikes. The rows of x are the channels in turn, from channel `first` on."""
    v, total, n = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, np.int32)
    spikes = 0
    for row in range(len(x)):
        channel = (first + row) % len(shift)
        s, r = shift[channel], scale[channel]
        for start in range(0, x.shape[1], _BLOCK):
            part, out = x[row, start : start + _BLOCK], y[row, start : start + _BLOCK]
            for i in range(len(part)):
                v[i] = (part[i] + s) / r
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
                out[i] = total[i] * r
                spikes += n[i]
    return spikes


@numba.njit(cache=True, nogil=True, fastmath={"reassoc"})  # the order of a sum is free here
def _backward(g, x, y, first, shift, scale, T, h, high, smooth, price, through, sums):  # type: ignore[no-untyped-def]
    """Fill `through` with x's gradient and add to sums[0], sums[1] those of shift and scale, by channel."""
    nothing = shift[0] - shift[0]
    for row in range(len(x)):
        channel = (first + row) % len(shift)
        s, r = shift[channel], scale[channel]
        moved, stretched = 0.0, 0.0
        for start in range(0, x.shape[1], _BLOCK):
            a, b = x[row, start : start + _BLOCK], y[row, start : start + _BLOCK]
            c, into = g[row, start : start + _BLOCK], through[row, start : start + _BLOCK]
            by_shift, by_scale = nothing, nothing
            for i in range(len(a)):
                u = (a[i] + s) / r
                live = (u >= nothing) & (u <= high)
                passed = c[i] if live else nothing
                into[i] = passed
                by_shift += passed
                by_scale += c[i] * (b[i] / r) - passed * u
            moved += by_shift
            stretched += by_scale
            if price != 0:
                for i in range(len(a)):
                    u = (a[i] + s) / r
                    slope = price * (_spikes(u + smooth, T, h) - _spikes(u - smooth, T, h)) / (2 * smooth)
                    into[i] += slope / r
                    moved += slope / r
                    stretched -= slope * u / r
        sums[0, channel] += moved
        sums[1, channel] += stretched


@numba.njit(cache=True, nogil=True, inline="always")
def _spikes(v, T, h):  # type: ignore[no-untyped-def]
    """Spikes of one neuron."""
    n = 0
    for t in range(len(T)):
        if v >= T[t]:
            n += 1
            v -= h[t]
    return n
