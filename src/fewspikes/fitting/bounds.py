"""A staircase's exact steps, and the largest error that they allow."""

from math import inf
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fewspikes.base import checks
from fewspikes.fitting.problem import Function
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.parameters import FSParameters

_FAR = 1e30  # stands for an open end of a domain: there a flat side is flat, and any other is off by any amount
_ROUNDING = 2.0**-50  # of the largest number, by which differences of two others may be off
_MOST = 1 << 16  # steps of a staircase that are looked at one by one; a fitted code has thousands at most


class Steps(NamedTuple):
    """The staircase from left to right: step i reaches from edges[i] up to edges[i + 1].

    edges: [n + 1];  outputs: [n], its value y;  patterns: [n], bit t - 1 is z[t].
    """

    edges: NDArray[np.float64]
    outputs: NDArray[np.float64]
    patterns: NDArray[np.int64]


class TooMany(Exception):
    """A staircase of so many steps that nobody looks at each; their number may double with every time step."""


def steps_of(p: FSParameters, domain: tuple[float, float]) -> Steps:
    """The steps of the neuron on the domain, exact but for the rounding of T[t] + h[s] + h[r] + ...

    Each time step splits the intervals in which its threshold falls, and moves the parts that fire by its reset.

    Raises:
        TooMany: more than 65,536 steps.
    """
    left, high = np.array([domain[0]]), domain[1]
    moved, outputs, patterns = np.zeros(1), np.full(1, p.offset), np.zeros(1, np.int64)
    for t in range(p.K):
        split, right = p.T[t] + moved, np.append(left[1:], high)
        cut = (split > left) & (split < right)
        source = np.repeat(np.arange(len(left)), 1 + cut)
        second = np.append(False, source[1:] == source[:-1])  # the right part of a cut
        fires = second | (split <= left)[source]
        left = np.where(second, split[source], left[source])
        moved = moved[source] + fires * p.h[t]
        outputs = outputs[source] + fires * p.d[t]
        patterns = patterns[source] | (fires.astype(np.int64) << t)
        if len(left) > _MOST:
            raise TooMany
    return Steps(np.append(left, high), outputs, patterns)


def largest_error(p: FSParameters, activation: Activation, domain: tuple[float, float] | None = None) -> float | None:
    """A proven bound: the largest |f(x) - y(x)| over the domain.

    On a step of the staircase y is constant, so the error is largest at an end of the step or where f turns, and both
    are known. In floating point the edges move by a few units in the last place of the inputs, and the bound with
    them (in float32, after T, h and d are cast, by about 1e-6 of the domain's width times the slope of f).

    Args:
        p: the FS-neuron.
        activation: f.
        domain: (low, high); by default p's own. An open end is fine where f is flat beyond it.

    Returns:
        The bound; inf where an open end lets the error grow without one; None where it is not known where f turns, or
        where the code is no ReLU's and has more than 65,536 steps.

    Raises:
        FewSpikesError: low >= high.

    >>> from fewspikes import relu_parameters
    >>> largest_error(relu_parameters(K=3, alpha=8.0), Activation("relu"), (-4.0, 8.0))
    1.0
    """
    low, high = checks.interval("the domain", p.domain if domain is None else domain)
    if activation.turning_points is None:
        return None
    found = error_at_edges(p, activation, (max(low, -_FAR), min(high, _FAR)))
    return found if found is None or found < _FAR / 2 else inf


def error_at_edges(p: FSParameters, activation: Activation, domain: tuple[float, float]) -> float | None:
    """The largest error at both ends of each step and at the known turning points within it; None: too many steps."""
    if activation.name == "relu" and 2**p.K > _MOST and _is_binary(p):
        return _binary_error(p, activation, domain)
    try:
        return _error_on(steps_of(p, domain), activation, domain, activation.turning_points or ())
    except TooMany:
        return None


def _is_binary(p: FSParameters) -> bool:
    """Whether outputs are the multiples of the last d up to the largest, each from its threshold on."""
    resets = p.is_binary and bool((p.h == p.d).all())
    return resets and p.offset == 0 and bool(np.ptp(p.h - p.T) <= _ROUNDING * p.d[0])


def _binary_error(p: FSParameters, activation: Activation, domain: tuple[float, float]) -> float:
    """The largest error of a ReLU's binary code: within a step, at its top, and at the cap.

    Output k d[K] stands for the inputs from k d[K] - c on to the next, where c = h - T, so a step is off by c at its
    left end and by d[K] - c at its right. Steps of which none begins in the domain count, too: that is a bound still.
    """
    step, lowered, top = float(p.d[-1]), float(p.h[-1] - p.T[-1]), float(p.d.sum())
    cap = inf if activation.cap is None else activation.cap
    return max(lowered, step - lowered, min(domain[1], cap) - top, min(domain[1] + lowered, top) - cap)


def _error_on(
    steps: Steps, function: Function, domain: tuple[float, float], turning_points: tuple[float, ...]
) -> float:
    """The same from all steps."""
    f = function(torch.from_numpy(steps.edges)).numpy()
    worst = float(np.maximum(np.abs(f[:-1] - steps.outputs), np.abs(f[1:] - steps.outputs)).max())
    for x in turning_points:
        if domain[0] <= x < domain[1]:
            y = steps.outputs[np.searchsorted(steps.edges, x, side="right") - 1]
            worst = max(worst, abs(float(function(torch.tensor(x, dtype=torch.float64))) - float(y)))
    return worst
