"""Chance that depends on nothing but what it is drawn for: a hash of counters, with the same bits on every machine.

Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64's finaliser).
"""

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from math import prod
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from fewspikes.neuron.kernels.threads import share_out

STRIDE, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
SHIFTS = (30, 27, 31)
CERTAIN = 1 << 53  # as many equally likely cases
_ALL = (1 << 64) - 1
_CASES = 1 << 16  # of a normal number
Words = NDArray[np.uint64]
_GRID = 1 << 20  # on which its values are, so that no machine's last bit shows


def key(*parts: int | str) -> int:
    """A number of 64 bits for what chance is drawn for; words count by their letters."""
    found = 0
    for part in parts:
        number = int.from_bytes(blake2b(part.encode(), digest_size=8).digest(), "little") if type(part) is str else part
        found = _mixed_number((found + STRIDE & _ALL) ^ (int(number) & _ALL))
    return found


def bits(start: int, *counts: range, device: torch.device | None = None) -> Int64[Tensor, "*counts"]:
    """64 bits for each combination of the counts' numbers."""
    if device is None or device.type == "cpu":
        return _bits_here(start, counts)
    return _bits_there(start, counts, device)


def _bits_here(start: int, counts: Sequence[range]) -> Tensor:
    """On the CPU, in one pass."""
    found = np.array([start], np.uint64)
    for count in counts:
        more = np.empty((len(found), len(count)), np.uint64)

        def work(part: slice, given: Words = found, out: Words = more, first: int = count.start) -> None:
            _mix(given[part], np.uint64(first), out[part])

        share_out(work, len(found), len(count))
        found = more.reshape(-1)
    return torch.from_numpy(found.view(np.int64)).view([len(count) for count in counts])


def _bits_there(start: int, counts: Sequence[range], device: torch.device) -> Tensor:
    """On any device."""
    found = torch.tensor(_signed(start), device=device)
    for count in counts:
        numbers = torch.arange(count.start, count.stop, device=device)
        found = _mixed(found[..., None] + numbers * _signed(STRIDE))
    return found


def happens(drawn: Int64[Tensor, "*shape"], probability: float) -> Bool[Tensor, "*shape"]:
    """True with a probability from 0 to 1."""
    if drawn.device.type == "cpu":
        below = (drawn.numpy().view(np.uint64) >> np.uint64(11)) < np.uint64(cases(probability))
        return torch.from_numpy(np.asarray(below))
    return _right(drawn, 11) < cases(probability)


def happening(
    start: int, *counts: range, probability: float, device: torch.device | None = None
) -> Bool[Tensor, "*counts"]:
    """`happens(bits(start, *counts))`, on the CPU in one pass."""
    if not counts or (device is not None and device.type != "cpu"):
        return happens(bits(start, *counts, device=device), probability)
    given = bits(start, *counts[:-1]).numpy().view(np.uint64).reshape(-1)
    found, first = np.empty((len(given), len(counts[-1])), np.bool_), np.uint64(counts[-1].start)

    def work(part: slice) -> None:
        _mix_below(given[part], first, np.uint64(cases(probability)), found[part])

    share_out(work, len(given), len(counts[-1]))
    return torch.from_numpy(found).view([len(count) for count in counts])


def cases(probability: float) -> int:
    """How many of `CERTAIN` equally likely cases have this probability."""
    return round(probability * CERTAIN)


def normals(drawn: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Standard normal numbers, float64: 65,536 equally likely values, none beyond 4.2."""
    table: Tensor = _quantiles().to(drawn.device)
    return table[_right(drawn, 48)]


def noisy(values: Tensor, deviation: float, drawn: Int64[Tensor, "*shape"]) -> Tensor:
    """values (1 + deviation n), rounded once to their dtype, n standard normal."""
    found: Tensor = values.double() * (1 + deviation * normals(drawn))
    return found.to(values.dtype)


def noisy_weight(weight: Tensor, deviation: float, *parts: int | str) -> Tensor:
    """A weight with noise of its own in each element."""
    drawn = bits(key(*parts), range(prod(weight.shape)), device=weight.device).view(weight.shape)
    return noisy(weight, deviation, drawn)


@cache
def _quantiles() -> Tensor:
    with torch.inference_mode(False):
        middles = (torch.arange(_CASES, dtype=torch.float64) + 0.5) / _CASES
        quantiles: Tensor = torch.special.ndtri(middles)
        return (quantiles * _GRID).round() / _GRID


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _right(x: Tensor, places: int) -> Tensor:
    """A shift to the right that brings in zeros."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _right(x, SHIFTS[0])) * _signed(FIRST)
    x = (x ^ _right(x, SHIFTS[1])) * _signed(SECOND)
    return x ^ _right(x, SHIFTS[2])


@numba.njit(cache=True, nogil=True)
def _mix(given: Words, first: Any, out: Words) -> None:
    """A row of words for each that is given."""
    for i in range(len(given)):
        for j in range(out.shape[1]):
            out[i, j] = _word(given[i], first + np.uint64(j))


@numba.njit(cache=True, nogil=True)
def _mix_below(given: Words, first: Any, limit: Any, out: NDArray[np.bool_]) -> None:
    """A row of words for each that is given: whether their first 53 bits are below a limit."""
    for i in range(len(given)):
        for j in range(out.shape[1]):
            out[i, j] = case(given[i], first + np.uint64(j)) < limit


@numba.njit(cache=True, nogil=True, inline="always")
def case(start: Any, number: Any) -> Any:
    """One of `CERTAIN` equally likely cases, for compiled loops: the first of the bits that `bits` gives."""
    return _word(start, number) >> np.uint64(11)


@numba.njit(cache=True, nogil=True, inline="always")
def _word(start: Any, number: Any) -> Any:
    x = start + np.uint64(number) * np.uint64(STRIDE)
    x = (x ^ (x >> np.uint64(SHIFTS[0]))) * np.uint64(FIRST)
    x = (x ^ (x >> np.uint64(SHIFTS[1]))) * np.uint64(SECOND)
    return x ^ (x >> np.uint64(SHIFTS[2]))


def _mixed_number(x: int) -> int:
    x = (x ^ x >> SHIFTS[0]) * FIRST & _ALL
    x = (x ^ x >> SHIFTS[1]) * SECOND & _ALL
    return x ^ x >> SHIFTS[2]
