"""The recurrence compiled by numba, in blocks that stay in the processor's nearest cache.

Each call deals its elements to as many threads as torch uses. The compiled loop releases Python's lock and keeps no
state, so any number of callers may run it at once. The products d z and h z are exact, because z is 0 or 1, and
nothing is reordered, so every bit equals the reference's.

Two steps go over a block at a time: one would spend its time on loads and stores, and more leave the processor waiting
for one spike after another. The count rides along in integers that are as wide as the values, and costs nothing.
"""

# numba infers the loops' types from their arguments.
# ruff: noqa: ANN001, ANN202
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from fewspikes.neuron.kernels.layout import dense, flat, stride_of
from fewspikes.neuron.kernels.threads import SUMMED, share_out

_BLOCK = 512  # elements
_OUTSIDE = 1 << 8  # what an element outside the domain adds to its count; its spikes stay below

_compile = numba.njit(cache=True, nogil=True, error_model="numpy")  # without a check for 0 in each division
_inline = numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")


class Table(NamedTuple):
    """T, h and d of an even number of steps, and the offset: arrays in one dtype; a step more never fires."""

    T: np.ndarray
    h: np.ndarray
    d: np.ndarray
    offset: Any


class Channels(NamedTuple):
    """What belongs to the channels: shift, range, and the factor of the output (range x gain); arrays [C]."""

    shift: np.ndarray
    before: np.ndarray
    after: np.ndarray


class Factors(NamedTuple):
    """What belongs to the channels where two maps meet: their factors, a shift and a range; arrays [C]."""

    first: np.ndarray
    second: np.ndarray
    shift: np.ndarray
    before: np.ndarray


def table(T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> Table:
    """The parameters as the compiled loops take them."""
    steps = [p.detach().numpy() for p in (T, h, d)]
    if len(T) % 2:
        steps = [np.append(p, p.dtype.type(end)) for p, end in zip(steps, (np.nan, 0.0, 0.0), strict=True)]
    T_, h_, d_ = steps
    return Table(T_, h_, d_, offset.detach().numpy()[()])


def apply(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor, count: bool) -> tuple[Tensor, Tensor | None]:
    """y in x's memory layout and, if `count`, the spikes per element (uint8)."""
    x = dense(x.detach())
    y = torch.empty_like(x)
    spikes = torch.empty_like(y, dtype=torch.uint8) if count else None
    inputs, out = flat(x), flat(y)
    counted = None if spikes is None else flat(spikes)
    steps, wide = table(T, h, d, offset), (inputs.dtype.type(-np.inf), inputs.dtype.type(np.inf))

    def work(part: slice) -> None:
        _staircase(inputs[part], *steps, *wide, None, out[part], None if counted is None else counted[part])

    share_out(work, len(inputs), 1)
    return y, spikes


def fire(v: Tensor, threshold: Tensor, h: Tensor, d: Tensor, axis: int) -> tuple[Tensor, Tensor, int]:
    """One step of membranes, which lose h where they fire: their spikes, d times these, and how many there are.

    Args:
        v: dense; it is changed.
        threshold, h: one number each, in v's dtype.
        d: one number, or one for each channel, [C].
        axis: the channels' axis of v.
    """
    z, value = torch.empty_like(v, dtype=torch.bool), torch.empty_like(v)
    membranes, spikes, out, sent = flat(v), flat(z), flat(value), d.reshape(-1).numpy()
    T, lost = (one.numpy()[()] for one in (threshold, h))
    inner = stride_of(v, axis) if len(sent) > 1 else 1
    tiles = _tiled(sent) if inner == 1 else sent
    size = len(sent) if inner == 1 else inner  # elements that stay together

    def work(part: slice) -> int:
        first, part = part.start, slice(part.start * size, part.stop * size)
        given = membranes[part], T, lost, tiles, spikes[part], out[part]
        return _fire(*given) if inner == 1 else _fire_rows(*given, size, first)  # type: ignore[no-any-return, call-arg]

    return z, value, sum(share_out(work, len(membranes) // max(size, 1), size))


def layer(
    x: Tensor,
    steps: Table,
    channels: Channels | None,
    axis: int,
    domain: tuple[float, float],
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, int, int]:
    """A whole layer in one pass: y = after f̂((x + shift) / before), all its spikes, and what lay outside the domain.

    Args:
        x: gate inputs, any shape and layout.
        steps, channels: in x's dtype.
        axis: the channels' axis of x.
        domain: of (x + shift) / before.
        overwrite: write y over x where x is dense.
        dtype: of y, where that is not x's: an integer one takes outputs that are whole numbers.
    """
    x = dense(x.detach())
    y = x if overwrite else torch.empty_like(x, dtype=dtype)
    inputs, out = flat(x), flat(y)
    low, high = _ends(domain, inputs.dtype)
    inner = 1 if channels is None else stride_of(x, axis)
    wide = Channels(*(_tiled(values) for values in channels)) if channels is not None and inner == 1 else None
    size = inner if channels is None or wide is None else len(channels.shift)  # elements that stay together

    def work(part: slice) -> tuple[int, int]:
        first, part = part.start, slice(part.start * size, part.stop * size)
        if channels is None or wide is not None:
            return _staircase(inputs[part], *steps, low, high, wide, out[part], None)  # type: ignore[no-any-return]
        return _rows(inputs[part], *steps, low, high, channels, size, first, out[part])  # type: ignore[no-any-return]

    totals = share_out(work, len(inputs) // max(size, 1), size)
    return y, sum(spikes for spikes, _ in totals), sum(outside for _, outside in totals)


def joined(
    a: Tensor, b: Tensor, steps: Table, factors: Factors, domain: tuple[float, float], dtype: torch.dtype
) -> tuple[Tensor, int, int]:
    """As `layer` for the gate input (a f + b g + shift) / before, by channel; a and b may hold whole numbers.

    a and b are alike in shape, [batch, C] or [batch, C, height, width], and taken channels last; steps are in the dtype
    of the factors.
    """
    if a.ndim == 4:
        a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
    y = torch.empty_like(a, dtype=dtype)
    first, second, out = flat(a.detach()), flat(b.detach()), flat(y)
    low, high = _ends(domain, factors.before.dtype)
    wide, size = Factors(*(_tiled(values) for values in factors)), len(factors.before)

    def work(part: slice) -> tuple[int, int]:
        part = slice(part.start * size, part.stop * size)
        return _joined(first[part], second[part], *steps, low, high, wide, out[part])  # type: ignore[no-any-return]

    totals = share_out(work, len(first) // max(size, 1), size)
    return y, sum(spikes for spikes, _ in totals), sum(outside for _, outside in totals)


def patterns(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """y, and the spike pattern of each element as int32: bit t - 1 is z[t]."""
    x = dense(x.detach())
    y, found = torch.empty_like(x), torch.empty_like(x, dtype=torch.int32)
    inputs, out, bits = flat(x), flat(y), flat(found)
    parameters = [p.detach().numpy() for p in (T, h, d)]
    start = offset.detach().numpy()[()]

    def work(part: slice) -> None:
        _patterns(inputs[part], *parameters, start, out[part], bits[part])  # type: ignore[call-arg]

    share_out(work, len(inputs), 1)
    return y, found


def _ends(domain: tuple[float, float], dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The ends in a dtype; one beyond its range is open."""
    with np.errstate(over="ignore"):
        return dtype.type(domain[0]), dtype.type(domain[1])


def _tiled(values: np.ndarray) -> np.ndarray:
    """A vector over the channels again and again, about a block long, so that one index serves element and channel."""
    return np.tile(values, max(_BLOCK // max(len(values), 1), 1))


@_compile
def _staircase(x, T, h, d, offset, low, high, tiles, y, spikes):  # type: ignore[no-untyped-def]
    """Fill y, and `spikes` unless None; tiles: Channels a block long, or None. Returns spikes, and how many outside."""
    block = _BLOCK if tiles is None else len(tiles.shift)
    v, total, n = np.empty(block, x.dtype), np.empty(block, x.dtype), np.empty(block, np.int32)
    fired = outside = 0
    for start in range(0, len(x), block):
        part, out = x[start : start + block], y[start : start + block]
        if tiles is None:
            for i in range(len(part)):
                v[i] = part[i]
        else:
            shift, before = tiles.shift, tiles.before
            for i in range(len(part)):
                v[i] = (part[i] + shift[i]) / before[i]
        seen, beyond = _steps(T, h, d, offset, low, high, len(part), v, total, n)
        fired += seen
        outside += beyond
        if tiles is None:
            for i in range(len(part)):
                out[i] = total[i] if v[i] == v[i] else v[i]
        else:
            after = tiles.after
            for i in range(len(part)):
                out[i] = (total[i] if v[i] == v[i] else v[i]) * after[i]
        if spikes is not None:
            counted = spikes[start : start + block]
            for i in range(len(part)):
                counted[i] = n[i]
    return fired, outside


@_compile
def _rows(x, T, h, d, offset, low, high, channels, size, first, y):  # type: ignore[no-untyped-def]
    """As `_staircase` for rows of `size` elements, each of one channel; the first row is number `first`."""
    v, total, n = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, np.int32)
    fired = outside = 0
    for row in range(len(x) // size):
        channel = (first + row) % len(channels.shift)
        shift, before, after = channels.shift[channel], channels.before[channel], channels.after[channel]
        for start in range(row * size, (row + 1) * size, _BLOCK):
            stop = min(start + _BLOCK, (row + 1) * size)
            part, out = x[start:stop], y[start:stop]
            for i in range(len(part)):
                v[i] = (part[i] + shift) / before
            seen, beyond = _steps(T, h, d, offset, low, high, len(part), v, total, n)
            fired += seen
            outside += beyond
            for i in range(len(part)):
                out[i] = (total[i] if v[i] == v[i] else v[i]) * after
    return fired, outside


@_compile
def _joined(a, b, T, h, d, offset, low, high, factors, y):  # type: ignore[no-untyped-def]
    block = len(factors.before)
    v, total, n = (
        np.empty(block, factors.before.dtype),
        np.empty(block, factors.before.dtype),
        np.empty(block, np.int32),
    )
    first, second, shift, before = factors.first, factors.second, factors.shift, factors.before
    fired = outside = 0
    for start in range(0, len(a), block):
        one, other, out = a[start : start + block], b[start : start + block], y[start : start + block]
        for i in range(len(one)):
            v[i] = one[i] * first[i]
        for i in range(len(one)):
            v[i] += np.float32(other[i]) * second[i]
        for i in range(len(one)):
            v[i] = (v[i] + shift[i]) / before[i]
        seen, beyond = _steps(T, h, d, offset, low, high, len(one), v, total, n)
        fired += seen
        outside += beyond
        for i in range(len(one)):
            out[i] = total[i]
    return fired, outside


@_compile
def _fire(v, T, h, d, z, value):  # type: ignore[no-untyped-def]
    count, nothing = 0, h - h
    for start in range(0, len(v), len(d)):
        end = min(start + len(d), len(v))
        count += _fired(v[start:end], T, h, z[start:end])
        part, out = z[start:end], value[start:end]
        for i in range(len(part)):
            out[i] = d[i] if part[i] else nothing
    return count


@_compile
def _fire_rows(v, T, h, d, z, value, size, first):  # type: ignore[no-untyped-def]
    count, nothing = 0, h - h
    for row in range(len(v) // size):
        sent = d[(first + row) % len(d)]
        for start in range(row * size, (row + 1) * size, _BLOCK):
            end = min(start + _BLOCK, (row + 1) * size)
            count += _fired(v[start:end], T, h, z[start:end])
            part, out = z[start:end], value[start:end]
            for i in range(len(part)):
                out[i] = sent if part[i] else nothing
    return count


@_inline
def _fired(v, T, h, z):  # type: ignore[no-untyped-def]
    """Spikes of a block, and how many."""
    fired, nothing = np.int32(0), h - h
    for i in range(len(v)):
        u = v[i]
        is_over = u >= T
        z[i] = is_over
        v[i] = u - (h if is_over else nothing)
        fired += np.int32(is_over)
    return fired


@_inline
def _steps(T, h, d, offset, low, high, size, v, total, n):  # type: ignore[no-untyped-def]
    """All steps of the first `size` elements of v, a block; returns their spikes, and how many lie outside.

    Each element's two counts share one integer; their sums do not, so that a block may be of any length.
    """
    whole = min((size + 63) // 64 * 64, len(v))  # loops over a few whole vectors more are quicker than a remainder's
    for i in range(size, whole):
        v[i] = np.nan
    for i in range(whole):
        total[i] = offset
    for i in range(whole):
        n[i] = np.int32(_OUTSIDE) if (v[i] < low) | (v[i] > high) else np.int32(0)
    for t in range(0, len(T), 2):
        _pair(T[t], h[t], d[t], T[t + 1], h[t + 1], d[t + 1], v[:whole], total[:whole], n[:whole])
    fired, outside = 0, 0
    for i in range(whole):
        fired += n[i] & (_OUTSIDE - 1)
        outside += n[i] >> 8
    return fired, outside


@_inline
def _pair(T1, h1, d1, T2, h2, d2, v, total, n):  # type: ignore[no-untyped-def]
    """Two steps of the recurrence."""
    nothing = d1 - d1
    for i in range(len(v)):
        u, s = v[i], total[i]
        first = u >= T1
        s += d1 if first else nothing
        u -= h1 if first else nothing
        second = u >= T2
        s += d2 if second else nothing
        u -= h2 if second else nothing
        v[i], total[i] = u, s
        n[i] += np.int32(first + second)


@_compile
def _patterns(x, T, h, d, offset, y, found):  # type: ignore[no-untyped-def]
    v, total, n = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, np.int32)
    for start in range(0, len(x), _BLOCK):
        part, out, bits = x[start : start + _BLOCK], y[start : start + _BLOCK], found[start : start + _BLOCK]
        for i in range(len(part)):
            v[i] = part[i]
        for i in range(len(part), _BLOCK):
            v[i] = np.nan
        total[:] = offset
        n[:] = 0
        for t in range(len(T)):
            _step(T[t], h[t], d[t], np.int32(1 << t), v, total, n)
        for i in range(len(part)):
            out[i] = total[i] if v[i] == v[i] else v[i]
        for i in range(len(part)):
            bits[i] = n[i]


@_inline
def _step(threshold, reset, weight, mark, v, total, n):  # type: ignore[no-untyped-def]
    """One step of the recurrence; a spike adds `mark` to n."""
    nothing = weight - weight
    for i in range(_BLOCK):
        fires = v[i] >= threshold
        total[i] += weight if fires else nothing
        v[i] -= reset if fires else nothing
        n[i] += mark if fires else np.int32(0)


def sum_by_step(values: Tensor, found: Tensor, K: int) -> Tensor:
    """For each step, the sum of `values`, a gradient, over the elements that fire in it by their patterns; [K]."""
    if values.stride() != found.stride():
        values = torch.empty_like(found, dtype=values.dtype).copy_(values)
    given, fired = flat(values.detach()), flat(found)
    sums = share_out(lambda part: _sums(given[part], fired[part], K), len(given), 1, SUMMED)
    return torch.from_numpy(np.sum(sums, axis=0)) if sums else torch.zeros(K, dtype=torch.float64)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc"})  # the order of a sum is free here
def _sums(values, found, K):  # type: ignore[no-untyped-def]
    totals = np.zeros(K)
    for start in range(0, len(values), _BLOCK):
        part, fired = values[start : start + _BLOCK], found[start : start + _BLOCK]
        for t in range(K):
            total, bit = part[0] - part[0], np.int32(1 << t)
            for i in range(len(part)):
                total += part[i] if fired[i] & bit else part[0] - part[0]
            totals[t] += total
    return totals
