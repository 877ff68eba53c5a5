"""A ReLU's code when spikes have a price: thresholds moved towards outputs of few spikes, and one spike for a cap."""

from itertools import product

import numpy as np

from fewspikes.fitting.closed_form import least_error_relu
from fewspikes.fitting.histogram import Histogram
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.parameters import FSParameters, relu_parameters, round_scale

_WIDER = (1.0, 1.01, 1.02, 1.04, 1.07, 1.1)  # of the range of least error; a wider one has more of the short codes
_CAPPED = tuple(np.linspace(0.75, 1.0, 6))  # ranges beside a step on the cap, of the cap
_MOVES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)  # prices of a spike, in squared steps
_FURTHEST = 0.4  # of a step, that a threshold moves: the outputs keep their order
_ROOM = 16  # the first reset exceeds the cap and the largest input so many times: after it nothing fires


def relu_codes(
    activation: Activation, K: int, inputs: Histogram, priced: bool, cap_step: bool | None = None
) -> list[FSParameters]:
    """The codes that a site's ReLU may get; where spikes cost nothing that is the binary one of least error.

    Args:
        activation: a relu, capped or not.
        K: time steps.
        inputs: gate inputs, as measured.
        priced: whether spikes cost anything.
        cap_step: whether to spend a step on the cap where inputs reach it; None: codes of either kind. It costs a bit
            of resolution, so log(error) rises by about 1.4.
    """
    binary = least_error_relu(K, inputs, "nearest", activation.cap)
    reached = activation.cap is not None and inputs.high > activation.cap and K > 1
    if not priced and not (cap_step and reached):
        return [binary]
    moves = _MOVES if priced else (0.0,)
    codes = []
    if not (cap_step and reached):
        scales = [round_scale(float(binary.provenance["alpha"]) * wider) for wider in _WIDER]
        codes += [fewer_spikes(relu_parameters(K, a, "nearest", activation.cap), m) for a, m in product(scales, moves)]
        codes[0] = binary
    if activation.cap is not None and reached and cap_step is not False:
        scales = [round_scale(float(share) * activation.cap) for share in _CAPPED]
        codes += [fewer_spikes(cap_code(K, activation.cap, a, inputs.high), m, 1) for a, m in product(scales, moves)]
    return codes


def fewer_spikes(p: FSParameters, price: float, first: int = 0) -> FSParameters:
    """A binary code with its thresholds moved towards the neighbouring outputs of fewer spikes.

    Step t decides between an output that ends on 0 1 1 ... 1 and the next, 1 0 0 ... 0, which saves K - t - 1 spikes
    (in the last step it costs one). Where a spike costs `price` steps squared, the boundary between the two moves from
    their middle by price (1 - (K - t)) / 2 steps, as far as the outputs' order allows: the error rises by the square of
    that, the spikes fall in proportion to it.

    Args:
        p: the code, rounding to nearest, binary from step `first` on.
        price: of a spike, in squares of the smallest step.
        first: the first of the binary steps, counted from 0.

    >>> fewer_spikes(relu_parameters(3, 8.0, "nearest"), 0.4).T
    array([3.3, 1.5, 0.7])
    """
    after = np.arange(p.K - 1, -1, -1)  # steps after each
    moves = np.clip(price * (1 - after) / 2, -_FURTHEST, _FURTHEST)
    moves[:first] = 0.0
    if not moves.any():
        return p
    provenance = {**p.provenance, "spike_price": price}
    return FSParameters(p.T + moves * p.d[-1], p.h, p.d, p.offset, p.activation, p.domain, provenance)


def cap_code(K: int, cap: float, alpha: float, largest: float) -> FSParameters:
    """First a step for the cap, then K - 1 binary ones, rounding to nearest, for what lies below.

    A saturated neuron fires once, not K times. T[1] lies halfway between the cap and the highest binary level,
    alpha (1 - 2^-(K - 1)); d[1] is the cap, and h[1] so large that nothing fires after it.

    Args:
        K: time steps, at least 2.
        cap: the cap.
        alpha: the range of the binary part.
        largest: the largest input.

    >>> cap_code(4, 6.0, 6.0, 10.0).T
    array([5.625, 2.625, 1.125, 0.375])
    """
    rest = relu_parameters(K - 1, alpha, "nearest")
    highest = float(rest.d.sum())
    reset = 2.0 ** np.ceil(np.log2(_ROOM * max(cap, largest)))
    provenance = {"method": "binary code with one step on the cap", "alpha": alpha, "rounding": "nearest"}
    return FSParameters(
        [(highest + cap) / 2, *rest.T],
        [reset, *rest.h],
        [cap, *rest.d],
        0.0,
        Activation("relu", cap).label,
        (-np.inf, np.inf),
        provenance,
    )
