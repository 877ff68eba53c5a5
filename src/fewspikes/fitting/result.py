"""What a fit is worth: its errors and spikes, measured by running the neuron itself."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewspikes.base import checks
from fewspikes.fitting.bounds import error_at_edges
from fewspikes.fitting.inputs import Inputs, resolve, shares
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.kernels import apply
from fewspikes.neuron.parameters import FSParameters

POINTS = 200_001  # odd, so that 0 and the ends of the main region are among them


@dataclass(frozen=True)
class FitResult:
    """Parameters with their errors on a domain and their mean number of spikes over inputs.

    Attributes:
        parameters: the FS-neuron.
        mse: unweighted mean squared error over the domain, on 200,001 points in float64.
        mse_main, mse_outer: the same inside and outside of the activation's main region; None where it has none.
        mean_spikes: spikes per neuron, averaged over the inputs.
        max_error: the largest error over the domain.
        max_error_proven: whether that is a bound (all turning points are known), or the largest of a sample.
        seconds: how long the fit took.
    """

    parameters: FSParameters
    mse: float
    mse_main: float | None
    mse_outer: float | None
    mean_spikes: float
    max_error: float
    max_error_proven: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        return asdict(self) | {"parameters": self.parameters.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "FitResult":
        """The reverse of `to_json`."""
        return cls(**{**content, "parameters": FSParameters.from_json(content["parameters"])})


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
        inputs: over what mean_spikes averages: "uniform" on the domain, a Gaussian (mean, variance), samples or a
            histogram; by default the activation's usual Gaussian, or else uniform. Of those in the domain.
        started: the `time.perf_counter()` of the fit's beginning.

    Raises:
        FewSpikesError: an infinite or empty domain, or inputs that are none.
    """
    started = time.perf_counter() if started is None else started
    low, high = checks.interval("the domain", domain or _domain(parameters, activation), "finite")
    x = torch.linspace(low, high, POINTS, dtype=torch.float64)
    y, spikes = apply(x, parameters)
    difference = (y - activation(x)).numpy()
    main, outer = _regions(difference**2, x.numpy(), activation.main_region)
    cells = np.concatenate([[low], (x.numpy()[1:] + x.numpy()[:-1]) / 2, [high]])
    share = shares(resolve(inputs if inputs is not None else activation.typical_inputs or "uniform"), cells)
    largest, sampled = error_at_edges(parameters, activation, (low, high)), float(np.abs(difference).max())
    proven = activation.turning_points is not None and largest is not None
    return FitResult(
        parameters,
        float(np.mean(difference**2)),
        main,
        outer,
        float(share @ spikes.double().numpy()),
        largest if proven and largest is not None else max(largest or 0.0, sampled),
        proven,
        time.perf_counter() - started,
    )


def _domain(parameters: FSParameters, activation: Activation) -> tuple[float, float]:
    """The activation's; without ends, as for a ReLU, up to twice the largest weight: what a binary code reaches."""
    if all(isfinite(end) for end in activation.domain):
        return activation.domain
    alpha = 2 * float(parameters.d.max())
    return (-alpha, activation.cap or alpha)


def _regions(
    error: NDArray[np.float64], x: NDArray[np.float64], region: tuple[float, float] | None
) -> tuple[float | None, float | None]:
    if region is None:
        return None, None
    inside = (x >= region[0]) & (x <= region[1])
    return (
        float(error[inside].mean()) if inside.any() else None,
        float(error[~inside].mean()) if not inside.all() else None,
    )
