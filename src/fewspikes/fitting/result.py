"""What a fit is worth: its errors and spikes, measured by running the neuron itself."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fewspikes.activations import Activation
from fewspikes.errors import FewSpikesError
from fewspikes.kernels import apply
from fewspikes.parameters import FSParameters

POINTS = 200_001  # odd, so that 0 and the ends of the main region are among them

Inputs = str | tuple[float, float]


@dataclass(frozen=True)
class FitResult:
    """Parameters with their errors on a domain and their mean number of spikes over inputs.

    Attributes:
        parameters: the FS-neuron.
        mse: unweighted mean squared error over the domain, on 200,001 points in float64.
        mse_main, mse_outer: the same inside and outside of the activation's main region; None where it has none.
        mean_spikes: spikes per neuron, averaged over the inputs.
        seconds: how long the fit took.
    """

    parameters: FSParameters
    mse: float
    mse_main: float | None
    mse_outer: float | None
    mean_spikes: float
    seconds: float


def measure(
    parameters: FSParameters,
    activation: Activation,
    domain: tuple[float, float] | None = None,
    inputs: Inputs | None = None,
    started: float | None = None,
) -> FitResult:
    """Run `parameters` over `domain` and say how far they are from `activation`.

    Args:
        parameters: the FS-neuron.
        activation: what it should compute.
        domain: (low, high); by default the activation's, for a ReLU [-alpha, alpha].
        inputs: over what mean_spikes averages: "uniform" on the domain, or a Gaussian (mean, variance); by default
            the Gaussian that the paper states for this activation, or else uniform.
        started: the `time.perf_counter()` of the fit's beginning.

    Raises:
        FewSpikesError: an infinite or empty domain, or a variance that is not positive.
    """
    started = time.perf_counter() if started is None else started
    low, high = domain or _domain(parameters, activation)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise FewSpikesError(f"the domain must be finite with low < high; got {low}, {high}")
    x = torch.linspace(low, high, POINTS, dtype=torch.float64)
    y, spikes = apply(x, parameters)
    error = ((y - activation(x)) ** 2).numpy()
    main, outer = _regions(error, x.numpy(), activation)
    weights = _weights(x.numpy(), inputs or activation.typical_inputs or "uniform")
    mean_spikes = float(weights @ spikes.double().numpy())
    return FitResult(parameters, float(error.mean()), main, outer, mean_spikes, time.perf_counter() - started)


def _domain(parameters: FSParameters, activation: Activation) -> tuple[float, float]:
    if activation.name != "relu":
        return activation.domain
    alpha = 2 * float(parameters.d[0])
    return (-alpha, activation.cap or alpha)


def _regions(
    error: NDArray[np.float64], x: NDArray[np.float64], activation: Activation
) -> tuple[float | None, float | None]:
    if activation.main_region is None:
        return None, None
    inside = (x >= activation.main_region[0]) & (x <= activation.main_region[1])
    return (
        float(error[inside].mean()) if inside.any() else None,
        float(error[~inside].mean()) if not inside.all() else None,
    )


def _weights(x: NDArray[np.float64], inputs: Inputs) -> NDArray[np.float64]:
    if isinstance(inputs, str):
        if inputs != "uniform":
            raise FewSpikesError(f"inputs must be 'uniform' or (mean, variance); got {inputs!r}")
        return np.full(len(x), 1 / len(x))
    mean, variance = inputs
    if not variance > 0:
        raise FewSpikesError(f"the inputs' variance must be > 0; got {variance}")
    weights = np.exp(-((x - mean) ** 2) / (2 * variance))
    return np.asarray(weights / weights.sum(), np.float64)
