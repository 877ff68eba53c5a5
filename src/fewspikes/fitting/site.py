"""One layer's fit: the activation, fitted to what this layer really sees."""

import numpy as np

from fewspikes.activations import Activation
from fewspikes.errors import FewSpikesError
from fewspikes.fitting import cache
from fewspikes.fitting.closed_form import least_error_relu
from fewspikes.fitting.code import parameters_of
from fewspikes.fitting.masses import masses, smooth, uniform
from fewspikes.fitting.problem import BINS, Problem, problem
from fewspikes.fitting.search import Effort, grow
from fewspikes.histogram import Histogram
from fewspikes.parameters import FSParameters

ALGORITHM = 1  # raise it when fits change, so that kept ones are made again
FLOOR = 0.02  # of the weight is spread evenly over the range: a few inputs far out must not come out wild
_MARGIN = 0.03  # of the range, on either side: later inputs may go a little further
_SMOOTHING = 0.25  # of the width that is best for drawing a density; a staircase needs it finer
_EFFORTS = {
    "quick": Effort(fresh=8, idle=0, most=8, branches=1, pool=3),
    "normal": Effort(fresh=40, idle=60, most=300, branches=8, pool=8),
    "long": Effort(fresh=80, idle=200, most=2000, branches=12, pool=12),
}


def fit_site(
    activation: Activation,
    K: int,
    inputs: Histogram,
    *,
    offset: bool = True,
    spike_weight: float = 0.0,
    seed: int = 0,
    refine: str = "normal",
    floor: float = FLOOR,
) -> FSParameters:
    """Fit `activation` with K steps to the gate inputs of one layer."""
    if inputs.total < 1:
        raise FewSpikesError("the site's histogram holds no counts; calibrate on data that reach it")
    if activation.name == "relu":
        return least_error_relu(K, inputs, "nearest", activation.cap)
    name = cache.key(
        {
            "algorithm": ALGORITHM,
            "activation": activation.to_json(),
            "K": K,
            "inputs": inputs.to_json(),
            "settings": [offset, spike_weight, seed, refine, floor],
        }
    )
    found = cache.look_up(name)
    if found is None:
        found = _search(activation, K, inputs, offset, spike_weight, seed, refine, floor)
        cache.keep(name, found)
    return found


def _search(
    activation: Activation,
    K: int,
    inputs: Histogram,
    offset: bool,
    spike_weight: float,
    seed: int,
    refine: str,
    floor: float,
) -> FSParameters:
    made = site_problem(activation, inputs, offset, spike_weight, floor)
    best = grow(made, K, _EFFORTS[refine], seed).codes[0]
    provenance = {"method": "search", "inputs": "measured", "refine": refine, "seed": seed}
    return parameters_of(best, made, activation.label, (made.low, made.high), provenance)


def site_problem(activation: Activation, inputs: Histogram, offset: bool, spike_weight: float, floor: float) -> Problem:
    """What the fit of a site minimises: the error over its inputs, smoothed, with a floor of even weight."""
    low, high = _range(inputs)
    edges = np.linspace(low, high, BINS + 1)
    density = smooth(masses(inputs, edges), _half_width(inputs) / (edges[1] - edges[0]))
    weight = (1 - floor) * density + floor * uniform(edges)
    return problem(activation, low, high, weight, density, offset=offset, spike_weight=spike_weight)


def _range(inputs: Histogram) -> tuple[float, float]:
    """The measured range with a margin; a constant gets a little room around it."""
    span = inputs.high - inputs.low
    margin = _MARGIN * span if span > 0 else max(abs(inputs.low), 1.0) * 0.01
    return inputs.low - margin, inputs.high + margin


def _half_width(inputs: Histogram) -> float:
    """How far to smooth: by Silverman's rule, scaled down, with a spread that outliers do not move."""
    counts = np.cumsum(inputs.counts) / inputs.total
    quarter, three = (float(inputs.centres[np.searchsorted(counts, q)]) for q in (0.25, 0.75))
    mean = float(inputs.centres @ inputs.counts) / inputs.total
    deviation = float(np.sqrt(((inputs.centres - mean) ** 2) @ inputs.counts / inputs.total))
    spread = min(deviation, (three - quarter) / 1.34) or deviation
    return float(_SMOOTHING * 2.2 * spread * inputs.total**-0.2)  # a triangle 2.2 times as wide as a Gaussian's sigma
