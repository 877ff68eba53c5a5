"""`fit`: parameters for an activation by name."""

import time

from fewspikes.activations import Activation
from fewspikes.errors import FewSpikesError
from fewspikes.fitting.result import FitResult, Inputs, measure
from fewspikes.parameters import PAPER_RELU_ALPHA, PAPER_RELU_STEPS, published, relu_parameters


def fit(
    target: str,
    K: int | None = None,
    domain: tuple[float, float] | None = None,
    inputs: Inputs | None = None,
    alpha: float | None = None,
    rounding: str = "down",
    method: str = "closed",
) -> FitResult:
    """Parameters for an activation with K steps, and how good they are.

    "relu" and "relu6" come in closed form for any K; "silu" (K=16) and "sigmoid" (K=12) are the published tables.

    Args:
        target: "relu", "relu6", "silu" or "sigmoid".
        K: time steps; by default the paper's.
        domain: where the error is measured.
        inputs: over what mean_spikes averages, see `measure`.
        alpha: the range of a ReLU; by default 25, as in the paper.
        rounding: "down" (the paper) or "nearest", for a ReLU.
        method: "closed".

    Raises:
        FewSpikesError: an activation, K or method that there is nothing for.

    >>> round(fit("silu").mse_main, 6)
    0.002394
    """
    started = time.perf_counter()
    if method != "closed":
        raise FewSpikesError(f"method must be 'closed'; got {method!r}")
    if target in ("relu", "relu6"):
        cap = 6.0 if target == "relu6" else None
        if cap is not None and alpha is not None:
            raise FewSpikesError("alpha is for the uncapped relu; the range of relu6 is its cap")
        scale = cap if cap is not None else PAPER_RELU_ALPHA if alpha is None else alpha
        parameters = relu_parameters(PAPER_RELU_STEPS if K is None else K, scale, rounding, cap)
        return measure(parameters, Activation("relu", cap), domain, inputs, started)
    if target not in ("silu", "sigmoid"):
        raise FewSpikesError(f"no fit for {target!r}; there are relu, relu6, silu and sigmoid")
    parameters = published(target)
    if K not in (None, parameters.K) or alpha is not None:
        raise FewSpikesError(f"{target} has the published table of K={parameters.K} only; leave K and alpha out")
    return measure(parameters, Activation(target), domain, inputs, started)
