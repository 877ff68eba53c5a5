"""A capped ReLU's code with one step spent on the cap, so that a saturated neuron fires once, not K times."""

from math import log

import numpy as np

from fewspikes.activations import Activation
from fewspikes.fitting.closed_form import least_error_relu
from fewspikes.fitting.expected import expected
from fewspikes.fitting.problem import Problem
from fewspikes.histogram import Histogram
from fewspikes.parameters import FSParameters, relu_parameters, round_scale

_CANDIDATES = 65  # ranges of the binary part, from half the cap up to it
_ROOM = 16  # the first reset exceeds the cap and the largest input so many times: after it nothing fires


def relu_for(
    activation: Activation, K: int, inputs: Histogram, problem: Problem, cap_step: bool | None = None
) -> FSParameters:
    """The ReLU code for a site: binary, or for a capped ReLU perhaps with one step on the cap.

    Args:
        activation: a relu, capped or not.
        K: time steps.
        inputs: gate inputs, as measured.
        problem: what is compared, with its price of a spike.
        cap_step: whether to spend a step on the cap where inputs reach it; None: where that lowers log(error) +
            spike_weight * mean spikes. It costs a bit of resolution, so log(error) rises by about 1.4.
    """
    binary = least_error_relu(K, inputs, "nearest", activation.cap)
    reached = activation.cap is not None and inputs.high > activation.cap
    if activation.cap is None or K < 2 or not reached or cap_step is False:
        return binary
    scales = np.linspace(0.5, 1.0, _CANDIDATES) * activation.cap
    codes = [cap_code(K, activation.cap, round_scale(float(a)), inputs.high) for a in scales]
    return min(codes if cap_step else [binary, *codes], key=lambda p: cost(p, problem))


def cap_code(K: int, cap: float, alpha: float, largest: float) -> FSParameters:
    """First a step for the cap, then K - 1 binary ones, rounding to nearest, for what lies below.

    T[1] lies halfway between the cap and the highest binary level, alpha (1 - 2^-(K - 1)); d[1] is the cap, and h[1]
    so large that nothing fires after it.

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


def cost(p: FSParameters, problem: Problem) -> float:
    """log(error) + spike_weight * mean spikes."""
    error, spikes = expected(p, problem)
    return log(max(error, 1e-300)) + problem.spike_weight * spikes
