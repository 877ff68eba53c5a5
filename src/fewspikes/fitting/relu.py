"""A ReLU's codes in closed form: the range of least error, and codes that give up a little precision for spikes."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from fewspikes.fitting.histogram import Histogram
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.known_codes import relu_parameters, round_scale
from fewspikes.neuron.parameters import FSParameters

_GRID = 256  # candidates over a factor of 2^10 in alpha: neighbours differ by 2.7%
_ROUNDS = 5  # each takes 11 candidates between the best one's neighbours, a fifth of the distance: to 0.005%
_FINE_STEPS = 12  # from here on a step is narrower than a bin of the histogram
_MARGIN = 1.25  # of the range where steps are so fine: later inputs go further, and a wider range costs next to nothing
# Of the codes with few spikes:
_WIDER = (1.0, 1.01, 1.02, 1.04, 1.07, 1.1)  # of the range of least error; a wider one has more of the short codes
_CAPPED = tuple(np.linspace(0.75, 1.0, 6))  # ranges beside a step on the cap, of the cap
# Squared steps that a spike is worth. From about a half on a bit less is better: it quadruples the error of step^2 / 12
# and saves half a spike of each neuron that fires.
_WORTHS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
_FURTHEST = 0.4  # of a step, that a threshold moves: the outputs keep their order
_ROOM = 16  # so many times the cap and the largest input is out of reach


def least_error_relu(K: int, inputs: Histogram, rounding: str = "nearest", cap: float | None = None) -> FSParameters:
    """The (capped) ReLU parameters whose range alpha has the least squared error on `inputs`.

    A capped ReLU may get an alpha slightly above its cap, so that its highest level, alpha (1 - 2^-K), is the cap.
    A site whose inputs are never positive stays silent with alpha = 1 (or the cap).

    Args:
        K: time steps, 1 to 24.
        inputs: gate inputs, as measured.
        rounding: "nearest" or "down".
        cap: the cap of a capped ReLU.

    Raises:
        FewSpikesError: K or rounding out of range.
    """
    relu_parameters(K, 1.0, rounding, cap)  # checks all three
    top = min(inputs.high, cap if cap is not None else np.inf)
    if top <= 0:
        return relu_parameters(K, cap or 1.0, rounding, cap)
    highest = top / (1 - 2.0**-K)  # the highest level reaches the largest output: a wider range only coarsens
    candidates = highest * 2.0 ** -np.linspace(0, 10, _GRID)
    for _ in range(_ROUNDS):
        errors = [squared_error(K, float(alpha), inputs, rounding, cap) for alpha in candidates]
        best = int(np.argmin(errors))
        found = candidates[best]
        above, below = candidates[max(best - 1, 0)], candidates[min(best + 1, len(candidates) - 1)]
        candidates = np.concatenate([np.linspace(above, found, 6), np.linspace(found, below, 6)[1:]])
    # 12 bits keep every multiple of alpha 2^-K exact in float32 for K <= 12; more steps need a finer range.
    fine = K > _FINE_STEPS
    alpha = round_scale(float(found) * (_MARGIN if fine and cap is None else 1.0), 24 if fine else 12)
    p = relu_parameters(K, alpha, rounding, cap)
    provenance = {**p.provenance, "method": "closed form, range of least squared error on measured inputs"}
    return FSParameters(p.T, p.h, p.d, p.offset, p.activation, p.domain, provenance)


def squared_error(K: int, alpha: float, inputs: Histogram, rounding: str, cap: float | None = None) -> float:
    """The mean of (relu(x) - y)^2 over the inputs, exact for the histogram's density while K <= 12.

    Beyond that the levels are narrower than the bins and each contributes its uniform error, step^2 / 12 or / 3.
    """
    step = alpha * 2.0**-K
    half = step / 2 if rounding == "nearest" else 0.0
    if K <= _FINE_STEPS:
        levels, fine = np.arange(2**K) * step, 0.0
    else:
        levels = np.array([alpha - step])
        inside = float(np.diff(inputs.moments(np.array([0.0, min(levels[0], inputs.high, cap or np.inf)])).m0)[0])
        fine = inside * step**2 / (12 if rounding == "nearest" else 3)
    edges = np.append(levels - half, np.inf)  # of the intervals, each with its level
    edges[0] = max(edges[0], 0.0)
    top = np.inf if cap is None else cap
    below = inputs.moments(np.minimum(edges, top))
    error = np.diff(below.m2) - 2 * levels * np.diff(below.m1) + levels**2 * np.diff(below.m0)
    if np.isfinite(top):
        error = error + (top - levels) ** 2 * np.diff(inputs.moments(np.maximum(edges, top)).m0)
    return fine + float(np.sum(error))


def sparing_relu_codes(activation: Activation, K: int, inputs: Histogram) -> Iterator[FSParameters]:
    """Codes that a ReLU may get where spikes have a price, from silence to the binary code of least error.

    For every number of bits up to K (12, if that is less: a 13th would lower the error by some 1e-8 of the output's
    variance) the binary code of least error, that with wider ranges and with moved thresholds; and for a capped ReLU
    that reaches its cap the same with a first step on it. The other steps never fire.
    """
    cap, largest = activation.cap, inputs.high
    for bits in range(1, min(K, _FINE_STEPS) + 1):
        binary = least_error_relu(bits, inputs, "nearest", cap)
        if bits == 1:
            yield lengthened(binary, K, largest, fires=False)
        if bits == K:
            yield binary
        for wider, worth in product(_WIDER, _WORTHS):
            plain = relu_parameters(bits, round_scale(float(binary.provenance["alpha"]) * wider), "nearest", cap)
            yield lengthened(fewer_spikes(plain, worth), K, largest)
    if cap is None or largest <= cap:
        return
    for bits in range(1, min(K - 1, _FINE_STEPS) + 1):
        for share, worth in product(_CAPPED, _WORTHS):
            code = cap_code(bits + 1, cap, round_scale(float(share) * cap), largest)
            yield lengthened(fewer_spikes(code, worth, 1), K, largest)


def lengthened(p: FSParameters, K: int, largest: float, fires: bool = True) -> FSParameters:
    """A binary code with further bits, to K steps in all, that never fire; with `fires` False none ever does.

    d goes on in halves, so the outputs are whole multiples of the last d as in any binary code.

    >>> lengthened(relu_parameters(2, 8.0), 4, 10.0).T
    array([  4.,   2., 256., 256.])
    """
    more = K - p.K
    if not more and fires:
        return p
    halves = p.d[-1] * 2.0 ** -np.arange(1, more + 1)
    never = _out_of_reach(max(largest, float(p.d.sum())))
    T = np.full(K, never)
    if fires:
        T[: p.K] = p.T
    h, d = np.append(p.h, halves), np.append(p.d, halves)
    provenance = {**p.provenance, "bits": p.K if fires else 0}
    return FSParameters(T, h, d, p.offset, p.activation, p.domain, provenance)


def _out_of_reach(largest: float) -> float:
    """A power of two far above all inputs; 1 where none is positive."""
    return float(2.0 ** np.ceil(np.log2(_ROOM * largest))) if largest > 0 else 1.0


def fewer_spikes(p: FSParameters, squared_steps: float, first: int = 0) -> FSParameters:
    """A binary code with its thresholds moved towards the neighbouring outputs of fewer spikes.

    Step t decides between an output that ends on 0 1 1 ... 1 and the next, 1 0 0 ... 0, which saves K - t - 1 spikes
    (in the last step it costs one). Where a spike is worth q squares of the smallest step, the boundary between the two
    moves from their middle by q (1 - (K - t)) / 2 steps, as far as the outputs' order allows: the error rises by the
    square of that, the spikes fall in proportion to it. The code p rounds to nearest; it is binary from step `first`
    on, counted from 0.

    >>> fewer_spikes(relu_parameters(3, 8.0, "nearest"), 0.4).T
    array([3.3, 1.5, 0.7])
    """
    after = np.arange(p.K - 1, -1, -1)  # steps after each
    moves = np.clip(squared_steps * (1 - after) / 2, -_FURTHEST, _FURTHEST)
    moves[:first] = 0.0
    if not moves.any():
        return p
    provenance = {**p.provenance, "spike_worth_in_squared_steps": squared_steps}
    return FSParameters(p.T + moves * p.d[-1], p.h, p.d, p.offset, p.activation, p.domain, provenance)


def cap_code(K: int, cap: float, alpha: float, largest: float) -> FSParameters:
    """First a step for the cap, then K - 1 >= 1 binary ones of range alpha, rounding to nearest, for what lies below.

    A saturated neuron fires once, not K times. T[1] lies halfway between the cap and the highest binary level,
    alpha (1 - 2^-(K - 1)); d[1] is the cap, and h[1] so large that nothing fires after it, even for the largest input.

    >>> cap_code(4, 6.0, 6.0, 10.0).T
    array([5.625, 2.625, 1.125, 0.375])
    """
    rest = relu_parameters(K - 1, alpha, "nearest")
    highest = float(rest.d.sum())
    reset = _out_of_reach(max(cap, largest))
    provenance = {"method": "binary code with one step on the cap", "alpha": alpha, "rounding": "nearest"}
    T, h, d = [(highest + cap) / 2, *rest.T], [reset, *rest.h], [cap, *rest.d]
    return FSParameters(T, h, d, 0.0, Activation("relu", cap).label, (-np.inf, np.inf), provenance)
