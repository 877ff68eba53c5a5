"""Codes that need no search: a ReLU's in closed form, the paper's published tables, and the tables shipped with us."""

import json
from functools import cache
from importlib import resources
from math import inf

import numpy as np

from fewspikes.base import checks
from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.parameters import MAX_STEPS, FSParameters

EXACT = "exact"  # in a code's provenance: on what it is given it adds no error
PAPER_DOI = "10.1038/s42256-021-00311-4"
_PUBLISHED = {"silu": "silu_k16_published.json", "sigmoid": "sigmoid_k12_published.json"}
PAPER_RELU_STEPS, PAPER_RELU_ALPHA = 10, 25.0
ROUNDINGS = ("down", "nearest")
SHIPPED = (
    "silu",
    "sigmoid",
    "tanh",
    "gelu",
    "gelu_tanh",
    "hardswish",
    "hardsigmoid",
    "softplus",
    "elu",
    "leaky_relu",
    "mish",
)
STEPS = range(3, 17)
VARIANTS = ("low-error", "low-spikes")


def relu_parameters(K: int = 10, alpha: float = 25.0, rounding: str = "down", cap: float | None = None) -> FSParameters:
    """The ReLU code in closed form: h[t] = d[t] = alpha 2^-t, a binary number, most significant bit first.

    "down" has T = h, the paper's code: y is x rounded down to a multiple of alpha 2^-K. "nearest" lowers every
    threshold by half a step, alpha 2^-(K+1): y is the nearest multiple. Both saturate at alpha (1 - 2^-K).

    Args:
        K: time steps, 1 to 24.
        alpha: the range, > 0, in units of the input.
        rounding: "down" or "nearest".
        cap: the cap of a capped ReLU (6 for ReLU6); its inputs above the cap are not clipped, they are at the cap.

    Raises:
        FewSpikesError: K, alpha or rounding out of range.

    Source: paper, section 1.2.2 ("down").

    >>> relu_parameters(K=3, alpha=8.0).d
    array([4., 2., 1.])
    """
    K = checks.whole("K", K, 1, MAX_STEPS)
    alpha = checks.positive("alpha", alpha)
    if alpha * 2.0 ** -(K + 1) == 0:
        raise FewSpikesError(f"alpha is so small that its last step is 0; got {alpha}")
    checks.one_of("rounding", rounding, ROUNDINGS)
    bits = alpha * 2.0 ** -np.arange(1, K + 1)
    lowered = alpha * 2.0 ** -(K + 1) if rounding == "nearest" else 0.0
    provenance = {"method": "closed form", "alpha": alpha, "rounding": rounding, "source": PAPER_DOI}
    domain = (-inf, alpha if cap is None else inf)
    return FSParameters(bits - lowered, bits, bits, 0.0, Activation("relu", cap).label, domain, provenance)


def identity_parameters(K: int, low: float, high: float) -> FSParameters:
    """The code of f(x) = x in closed form: the nearest of 2^K values, equally spaced from low to high.

    Silence stands for the lowest; h[t] = d[t] are the bits of what is above it, and thresholds lie half a step lower.

    Args:
        K: time steps, 1 to 24.
        low, high: the lowest and the highest value, low < high.

    Raises:
        FewSpikesError: K or the values out of range.

    >>> identity_parameters(2, -1.0, 2.0).T
    array([ 0.5, -0.5])
    """
    K = checks.whole("K", K, 1, MAX_STEPS)
    low, high = checks.interval("the values", (checks.finite("low", low), checks.finite("high", high)))
    step = (high - low) / (2**K - 1)
    bits = step * 2.0 ** np.arange(K - 1, -1, -1)
    domain = (low - step / 2, high + step / 2)
    return FSParameters(low + bits - step / 2, bits, bits, low, "identity", domain, {"method": "closed form"})


def levels_parameters(bits: int = 8) -> FSParameters:
    """The code of f(x) = x for whole numbers from 0 to 2^bits - 1, which is exact on them.

    >>> levels_parameters(2).d
    array([2., 1.])
    """
    found = identity_parameters(bits, 0.0, 2.0**bits - 1)
    provenance = {"method": f"{bits}-bit values, one by one", EXACT: True}
    return FSParameters(found.T, found.h, found.d, 0.0, found.activation, found.domain, provenance)


def published(activation: str) -> FSParameters:
    """The parameters of the paper: "silu" (K=16), "sigmoid" (K=12), or "relu" (K=10, alpha=25, rounding down).

    Raises:
        FewSpikesError: the paper published none for this activation.

    >>> published("sigmoid").K
    12
    """
    if isinstance(activation, str) and activation == "relu":
        return relu_parameters(PAPER_RELU_STEPS, PAPER_RELU_ALPHA, "down")
    if not isinstance(activation, str) or activation not in _PUBLISHED:
        raise FewSpikesError(f"no published parameters for {said(activation)}; there are silu, sigmoid and relu")
    text = resources.files("fewspikes").joinpath("neuron", "tables", _PUBLISHED[activation]).read_text()
    return FSParameters.from_json(json.loads(text))


def round_scale(alpha: float, bits: int = 12) -> float:
    """Round a positive range to `bits` significant bits, so that alpha 2^-K k stays exact in float32 for K <= 12."""
    mantissa, exponent = np.frexp(alpha)
    return float(np.ldexp(np.round(np.ldexp(mantissa, bits)), int(exponent) - bits))


def shipped(name: str, K: int, variant: str = "low-error") -> FSParameters:
    """The shipped table of an activation with K steps, on the activation's default domain.

    Args:
        name: "silu", "sigmoid", "tanh", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "softplus", "elu",
            "leaky_relu" or "mish".
        K: time steps, 3 to 16.
        variant: "low-error", or "low-spikes" with fewer spikes at a modest extra error.

    Returns:
        The parameters; their provenance says how they were made and how good they are.

    Raises:
        FewSpikesError: no such table.

    >>> shipped("silu", 8).K
    8
    """
    if not isinstance(name, str) or name not in SHIPPED:
        raise FewSpikesError(f"no shipped tables for {said(name)}; there are {', '.join(SHIPPED)}. Fit it with fs.fit")
    checks.one_of("the variant", variant, VARIANTS)
    tables = all_shipped(name)
    if (K, variant) not in tables:
        steps = sorted(k for k, other in tables if other == variant)
        raise FewSpikesError(
            f"no shipped table of {name} with K={said(K)}; there are K = {steps[0]} to {steps[-1]}. Fit it with fs.fit"
        )
    return tables[K, variant]


@cache
def all_shipped(name: str) -> dict[tuple[int, str], FSParameters]:
    """All tables of an activation, by K and variant; empty where it has none."""
    file = resources.files("fewspikes").joinpath("neuron", "tables", f"{name}.json")
    if not file.is_file():
        return {}
    content = json.loads(file.read_text())
    tables = {}
    for entry in content["tables"]:
        numbers = {key: entry.pop(key) for key in ("T", "h", "d", "offset")}
        provenance = {**content["provenance"], **entry}
        tables[entry["K"], entry["variant"]] = FSParameters(
            **numbers, activation=name, domain=tuple(content["domain"]), provenance=provenance
        )
    return tables
