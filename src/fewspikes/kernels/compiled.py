"""The recurrence compiled by numba, in blocks that stay in the processor's nearest cache.

Each call deals its elements to as many threads as torch uses. The compiled loop releases Python's lock and keeps no
state, so any number of callers may run it at once. The products d z and h z are exact, because z is 0 or 1, and
nothing is reordered, so every bit equals the reference's.
"""

# numba infers the loops' types from their arguments.
# ruff: noqa: ANN001, ANN202
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

_BLOCK = 2048  # elements
_SHARE = 1 << 16  # elements below which another thread does not pay


def apply(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor, count: bool) -> tuple[Tensor, Tensor | None]:
    """y in x's memory layout and, if `count`, the spikes per element (uint8)."""
    x, y, flat = _laid_out(x)
    spikes = torch.empty_like(y, dtype=torch.uint8) if count else None
    counted = _flat(spikes) if spikes is not None else np.empty(0, np.uint8)
    _deal(_count if count else _plain, flat, (T, h, d, offset), _flat(y), counted)
    return y, spikes


def patterns(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """y, and the spike pattern of each element as int32: bit t - 1 is z[t]."""
    x, y, flat = _laid_out(x)
    found = torch.empty_like(y, dtype=torch.int32)
    _deal(_patterns, flat, (T, h, d, offset), _flat(y), _flat(found))
    return y, found


def _laid_out(x: Tensor) -> tuple[Tensor, Tensor, np.ndarray]:
    order = sorted(range(x.ndim), key=x.stride, reverse=True)
    if not x.permute(order).is_contiguous():
        x = x.contiguous()
    x = x.detach()
    return x, torch.empty_like(x), _flat(x)


def _flat(x: Tensor) -> np.ndarray:
    """The elements in the order of memory, without a copy."""
    order = sorted(range(x.ndim), key=x.stride, reverse=True)
    return x.permute(order).reshape(-1).numpy()


def _deal(
    loop: Callable[..., None], x: np.ndarray, parameters: tuple[Tensor, ...], y: np.ndarray, out: np.ndarray
) -> None:
    T, h, d, offset = (p.detach().numpy() for p in parameters)

    def work(part: slice) -> None:
        loop(x[part], T, h, d, offset[()], y[part], out[part])

    share_out(work, len(x), 1)


def share_out(work: Callable[[slice], Any], rows: int, size: int) -> list[Any]:
    """What `work` returns for each part of `rows` rows of `size` elements, a part for each thread; in order."""
    workers = min(torch.get_num_threads(), max(rows * size // _SHARE, 1), rows)
    step = max(-(-rows // max(workers, 1)), 1)
    parts = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    if not parts:
        return []
    others = [_pool(workers).submit(work, part) for part in parts[1:]]
    return [work(parts[0]), *(other.result() for other in others)]  # this thread works, too


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="fewspikes")


@numba.njit(cache=True, nogil=True)
def _count(x, T, h, d, offset, y, spikes):  # type: ignore[no-untyped-def]
    v, total, n = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, np.int32)
    for start in range(0, len(x), _BLOCK):
        part = x[start : start + _BLOCK]
        _begin(part, offset, v, total)
        n[:] = 0
        for t in range(len(T)):
            _step(T[t], h[t], d[t], np.int32(1), v, total, n)
        spikes[start : start + _BLOCK] = n[: len(part)]
        _end(part, total, y[start : start + _BLOCK])


@numba.njit(cache=True, nogil=True)
def _plain(x, T, h, d, offset, y, unused):  # type: ignore[no-untyped-def]
    v, total = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype)
    for start in range(0, len(x), _BLOCK):
        part = x[start : start + _BLOCK]
        _begin(part, offset, v, total)
        for t in range(len(T)):
            threshold, reset, weight, silent = T[t], h[t], d[t], d[t] - d[t]
            for i in range(_BLOCK):
                fires = v[i] >= threshold
                total[i] += weight if fires else silent
                v[i] -= reset if fires else silent
        _end(part, total, y[start : start + _BLOCK])


@numba.njit(cache=True, nogil=True)
def _patterns(x, T, h, d, offset, y, found):  # type: ignore[no-untyped-def]
    v, total, n = np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, x.dtype), np.empty(_BLOCK, np.int32)
    for start in range(0, len(x), _BLOCK):
        part = x[start : start + _BLOCK]
        _begin(part, offset, v, total)
        n[:] = 0
        for t in range(len(T)):
            _step(T[t], h[t], d[t], np.int32(1 << t), v, total, n)
        found[start : start + _BLOCK] = n[: len(part)]
        _end(part, total, y[start : start + _BLOCK])


@numba.njit(cache=True, nogil=True, inline="always")
def _begin(x, offset, v, total):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        v[i] = x[i]
    for i in range(len(x), _BLOCK):
        v[i] = 0
    total[:] = offset


@numba.njit(cache=True, nogil=True, inline="always")
def _step(threshold, reset, weight, mark, v, total, n):  # type: ignore[no-untyped-def]
    """One step of the recurrence; a spike adds `mark` to n."""
    silent = weight - weight
    for i in range(_BLOCK):
        fires = v[i] >= threshold
        total[i] += weight if fires else silent
        v[i] -= reset if fires else silent
        n[i] += mark if fires else np.int32(0)


@numba.njit(cache=True, nogil=True, inline="always")
def _end(x, total, y):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        y[i] = x[i] if x[i] != x[i] else total[i]


def sum_by_step(values: Tensor, found: Tensor, K: int) -> Tensor:
    """For each step, the sum of `values` over the elements that fire in it, float64 [K].

    Args:
        values: a gradient, in the memory layout of `found`.
        found: the spike patterns.
        K: steps.
    """
    if values.stride() != found.stride():
        values = torch.empty_like(found, dtype=values.dtype).copy_(values)
    flat, fired = _flat(values.detach()), _flat(found)
    sums = share_out(lambda part: _sums(flat[part], fired[part], K), len(flat), 1)
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
