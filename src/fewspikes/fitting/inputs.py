"""How a neuron's inputs are spread over a domain: the share of them in each bin of a grid."""

from math import isfinite, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting.histogram import Histogram

Inputs = str | tuple[float, float] | Histogram | Tensor | NDArray
"""A Gaussian's (mean, variance), samples, a histogram, or "uniform"."""

Known = str | tuple[float, float] | Histogram
"""The same, checked, with samples counted: what `resolve` gives."""

_MAIN_FACTOR = 4.0  # how much more a point of the main region counts


def resolve(inputs: Inputs) -> Known:
    """Check what was given as inputs, and count samples.

    Raises:
        FewSpikesError: another word, a variance that is not positive, samples that are empty or not finite.
    """
    wanted = "inputs must be 'uniform', (mean, variance), samples or a histogram"
    if isinstance(inputs, str):
        if inputs != "uniform":
            raise FewSpikesError(f"{wanted}; got {said(inputs)}")
        return inputs
    if isinstance(inputs, Histogram):
        if inputs.total < 1:
            raise FewSpikesError("the inputs' histogram holds no counts; calibrate on data that reach this site")
        return inputs
    if isinstance(inputs, Tensor | np.ndarray):
        return Histogram.of(torch.as_tensor(inputs).detach().double())
    try:
        mean, variance = (float(number) for number in inputs)
    except (TypeError, ValueError):
        raise FewSpikesError(f"{wanted}; got {said(inputs)}") from None
    if not (isfinite(mean) and isfinite(variance) and variance > 0):
        raise FewSpikesError(f"the inputs' mean must be finite and their variance must be > 0; got {mean}, {variance}")
    return mean, variance


def shares(inputs: Known, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the inputs between neighbouring edges [bins + 1], of those between the first and the last.

    Raises:
        FewSpikesError: no inputs in the domain.
    """
    if isinstance(inputs, str):
        found = np.diff(edges)
    elif isinstance(inputs, Histogram):
        found = np.maximum(np.diff(inputs.moments(edges).m0), 0.0)
    else:
        mean, variance = inputs
        scaled = torch.from_numpy((edges - mean) / sqrt(2 * variance))
        # Each tail from its own side, so that bins far out keep their digits.
        found = np.where(
            edges[1:] <= mean,
            np.diff(torch.special.erfc(-scaled).numpy()),
            -np.diff(torch.special.erfc(scaled).numpy()),
        )
    total = float(found.sum())
    if not total > 0:
        raise FewSpikesError(f"none of the inputs lies in the domain [{edges[0]:g}, {edges[-1]:g}]; widen the domain")
    return np.asarray(found / total, np.float64)


def uniform(edges: NDArray[np.float64], main: tuple[float, float] | None = None) -> NDArray[np.float64]:
    """Equal weight for equal lengths, the main region's counted four times; sums to 1."""
    weight = np.diff(edges)
    if main is not None:
        weight = weight + (_MAIN_FACTOR - 1) * np.diff(np.clip(edges, *main))
    return np.asarray(weight / weight.sum(), np.float64)


def smooth(share: NDArray[np.float64], half_width: float) -> NDArray[np.float64]:
    """Spread each bin's share over its neighbours, in a triangle of `half_width` bins on either side, of all at most.

    What would fall off an end stays in the last bin there.
    """
    half_width = min(half_width, len(share))
    reach = int(half_width)
    if reach < 1:
        return share
    kernel = np.maximum(1 - np.abs(np.arange(-reach, reach + 1)) / (half_width + 1e-9), 0)
    spread = np.convolve(share, kernel / kernel.sum())
    spread[reach] += spread[:reach].sum()
    spread[-reach - 1] += spread[len(spread) - reach :].sum()
    return spread[reach : len(spread) - reach]
