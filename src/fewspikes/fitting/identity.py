"""The code of f(x) = x in closed form: equally spaced values where a layer's inputs are."""

import numpy as np

from fewspikes.fitting.histogram import Histogram
from fewspikes.neuron.activation import POWERS_OF_TWO
from fewspikes.neuron.known_codes import identity_parameters, round_scale
from fewspikes.neuron.parameters import FSParameters

_CANDIDATES = 25  # ends that are tried on either side
_ROUNDS = 4  # each tries the lower end, then the upper one
_ALIGNED_STEPS = 4  # with fewer it costs much to have 0 among the values
_FINE_STEPS = 12  # from here on a step is narrower than a bin of the histogram
_ROOM = 0.125  # of the range on either side, where steps are so fine: later inputs go further


def least_error_identity(K: int, inputs: Histogram) -> FSParameters:
    """The 2^K equally spaced values with the least squared error on `inputs`.

    Args:
        K: time steps, 1 to 24.
        inputs: gate inputs, as measured.

    Raises:
        FewSpikesError: K out of range.
    """
    low, high = inputs.low, inputs.high
    if K > _FINE_STEPS:
        low, high = low - _ROOM * (high - low), high + _ROOM * (high - low)
    if low == high:
        low, high = low - (abs(low) or 1.0), high + (abs(high) or 1.0)
    middle, ends = _median(inputs, low, high), [low, high]
    reach = [1.0, 1.0]
    for number in range(_ROUNDS):
        for side in (0, 1):
            width = 1.0 if number == 0 else 0.5**number
            shares = (
                [1.0]
                if K > _FINE_STEPS
                else np.clip(reach[side] + width * np.linspace(-0.9, 0.9, _CANDIDATES), 0.02, 1.0)
            )
            trials = [[reach[0], float(s)] if side else [float(s), reach[1]] for s in shares]
            errors = [_error(K, *_range(K, middle, ends, trial), inputs) for trial in trials]
            reach = trials[int(np.argmin(errors))]
    found = identity_parameters(K, *_range(K, middle, ends, reach))
    provenance = {"method": "closed form, range of least squared error on measured inputs"}
    return FSParameters(found.T, found.h, found.d, found.offset, found.activation, found.domain, provenance)


def least_error_powers_of_two(K: int, inputs: Histogram, spike_price: float = 0.0, offset: bool = True) -> FSParameters:
    """The code of f(x) = x with the least error whose every d, and offset, is a power of two (or an offset of 0).

    What its spikes gate is shifted and added, never multiplied.

    Args:
        K: time steps, 1 to 24.
        inputs: gate inputs, as measured.
        spike_price: as for `fit_site`.
        offset: whether silence may stand for another value than 0.

    Raises:
        FewSpikesError: K out of range.
    """
    largest = max(abs(inputs.low), abs(inputs.high)) or 1.0
    top = int(np.ceil(np.log2(largest)))
    codes = [
        (power * 0.5**K, low * power)
        for power in 2.0 ** np.arange(top - 3, top + 3)
        for low in ((0.0, *-(0.5 ** np.arange(K + 1.0))) if offset else (0.0,))
    ]
    variance = inputs.variance or 1.0

    def cost(code: tuple[float, float]) -> tuple[float, float]:
        step, low = code
        error = _error(K, low, low + (2**K - 1) * step, inputs) / variance
        return error + spike_price * _mean_bits(K, step, low, inputs) if spike_price else error, step

    step, low = min(codes, key=cost)
    found = identity_parameters(K, low, low + (2**K - 1) * step)
    provenance = {"method": "closed form, powers of two of least squared error on measured inputs"}
    return FSParameters(found.T, found.h, found.d, found.offset, POWERS_OF_TWO, found.domain, provenance)


def _mean_bits(K: int, step: float, low: float, inputs: Histogram) -> float:
    """The mean number of spikes of a binary code."""
    levels = np.clip(np.round((inputs.centres - low) / step), 0, 2**K - 1).astype(np.int64)
    ones = sum((levels >> bit & 1) for bit in range(K))
    return float(ones @ inputs.counts / inputs.total)


def _median(inputs: Histogram, low: float, high: float) -> float:
    """A value with half of the inputs on either side, not at an end."""
    half = inputs.centres[np.searchsorted(np.cumsum(inputs.counts), inputs.total / 2)]
    room = 0.02 * (high - low)
    return float(min(max(half, low + room), high - room))


def _range(K: int, middle: float, ends: list[float], reach: list[float]) -> tuple[float, float]:
    """The lowest and the highest value; where there are many, multiples of a step of 12 bits: exact in float32."""
    low, high = (middle + share * (end - middle) for share, end in zip(reach, ends, strict=True))
    if K < _ALIGNED_STEPS:
        return low, high
    step = round_scale((high - low) / (2**K - 1), 12 if K <= _FINE_STEPS else 24)
    first = round(low / step)
    return first * step, (first + 2**K - 1) * step


def _error(K: int, low: float, high: float, inputs: Histogram) -> float:
    """The mean squared error of the nearest value, exact for the histogram's density while K <= 12."""
    step = (high - low) / (2**K - 1)
    fine = K > _FINE_STEPS
    levels = np.array([low, high]) if fine else low + np.arange(2**K) * step
    edges = [-np.inf, low, high, np.inf] if fine else [-np.inf, *(levels[:-1] + step / 2), np.inf]
    sums = inputs.moments(np.array(edges))
    m0, m1, m2 = (np.diff(moment) for moment in sums)
    if not fine:
        return float(np.sum(m2 - 2 * levels * m1 + levels**2 * m0))
    outside = [float(m2[i] - 2 * level * m1[i] + level**2 * m0[i]) for i, level in ((0, low), (2, high))]
    return float(outside[0] + outside[1] + float(m0[1]) * step * step / 12)
