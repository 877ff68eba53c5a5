"""The ReLU code with the range that makes the mean squared error least, in closed form but for one number."""

import numpy as np
import torch
from numpy.typing import NDArray

from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.target import Target
from fewspikes.neuron.parameters import (
    PAPER_RELU_ALPHA,
    PAPER_RELU_STEPS,
    FSParameters,
    published,
    relu_parameters,
    round_scale,
)

_GRID = 256  # candidates over a factor of 2^10 in alpha: neighbours differ by 2.7%
_ROUNDS = 5  # each takes 11 candidates between the best one's neighbours, a fifth of the distance: to 0.005%
_QUANTILES = 1_000_001  # that stand for a Gaussian
_FINE_STEPS = 12  # from here on a step is narrower than a bin of the histogram


def closed_form(
    target: Target, K: int | None, alpha: float | None, rounding: str | None, inputs: str | tuple | Histogram | None
) -> FSParameters:
    """The parameters that need no search: a ReLU's binary code, or the published table of silu and sigmoid.

    Args:
        target: what is imitated.
        K: time steps; None: the paper's.
        alpha: the range of an uncapped ReLU; None: with `inputs` that of least error on them, without the paper's 25.
            A capped ReLU's range is its cap.
        rounding: "down" or "nearest"; None: with `inputs` "nearest", without "down".
        inputs: what a ReLU's range is fitted to, if alpha is not given.

    Raises:
        FewSpikesError: another target, a K without a table, or alpha where it has no place.
    """
    activation = target.activation
    if activation is not None and activation.name == "relu":
        steps = PAPER_RELU_STEPS if K is None else K
        if activation.cap is not None and alpha is not None:
            raise FewSpikesError(f"alpha is for the uncapped relu; the range of {activation.label} is its cap")
        if alpha is None and not (inputs is None or isinstance(inputs, str)):  # "uniform" says no range
            return least_error_relu(steps, as_histogram(inputs), rounding or "nearest", activation.cap)
        scale = activation.cap or (PAPER_RELU_ALPHA if alpha is None else alpha)
        return relu_parameters(steps, scale, rounding or "down", activation.cap)
    if target.label not in ("silu", "sigmoid"):
        raise FewSpikesError(f"there is no closed form of {target.label}; use method='search'")
    parameters = published(target.label)
    if K not in (None, parameters.K) or alpha is not None or rounding is not None:
        raise FewSpikesError(
            f"{target.label} has the published table of K={parameters.K} only: leave K, alpha and rounding out, "
            "or use method='search'"
        )
    return parameters


def as_histogram(inputs: tuple | Histogram) -> Histogram:
    """The inputs as counts; a Gaussian as the quantiles of a million inputs."""
    if isinstance(inputs, Histogram):
        return inputs
    mean, variance = inputs
    shares = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES
    return Histogram.of(mean + variance**0.5 * torch.special.ndtri(shares))


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
    relu_parameters(K, 1.0, rounding, cap)  # checks K and rounding
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
    p = relu_parameters(K, round_scale(float(found), 12 if K <= _FINE_STEPS else 24), rounding, cap)
    provenance = {**p.provenance, "method": "closed form, range of least squared error on measured inputs"}
    return FSParameters(p.T, p.h, p.d, p.offset, p.activation, p.domain, provenance)


def squared_error(K: int, alpha: float, inputs: Histogram, rounding: str, cap: float | None = None) -> float:
    """The mean of (relu(x) - y)^2 over the inputs, exact for the histogram's density while K <= 12.

    Beyond that the levels are narrower than the bins and each contributes its uniform error, step^2 / 12 or / 3.
    """
    if rounding not in ("down", "nearest"):
        raise FewSpikesError(f"rounding must be 'down' or 'nearest'; got {rounding!r}")
    step = alpha * 2.0**-K
    half = step / 2 if rounding == "nearest" else 0.0
    if K <= _FINE_STEPS:
        levels, fine = np.arange(2**K) * step, 0.0
    else:
        levels = np.array([alpha - step])
        inside = float(np.diff(inputs.moments(np.array([0.0, min(levels[0], inputs.high, cap or np.inf)])).m0)[0])
        fine = inside * step**2 / (12 if rounding == "nearest" else 3)
    edges = np.append(levels - half, np.inf)
    edges[0] = max(edges[0], 0.0)
    return fine + _error(inputs, edges, levels, np.inf if cap is None else cap)


def _error(inputs: Histogram, edges: NDArray[np.float64], levels: NDArray[np.float64], cap: float) -> float:
    """The integral of (min(x, cap) - level)^2 over the intervals between neighbouring edges, each with its level."""
    below = inputs.moments(np.minimum(edges, cap))
    error = np.diff(below.m2) - 2 * levels * np.diff(below.m1) + levels**2 * np.diff(below.m0)
    if np.isfinite(cap):
        error = error + (cap - levels) ** 2 * np.diff(inputs.moments(np.maximum(edges, cap)).m0)
    return float(np.sum(error))
