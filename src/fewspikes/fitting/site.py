"""One layer's fit: the activation, fitted to what this layer really sees."""

from functools import lru_cache
from math import inf, log
from typing import Any

import numpy as np
import torch

from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting import cache
from fewspikes.fitting.checks import at_least_0, known_effort, whole_K, whole_seed
from fewspikes.fitting.code import parameters_of
from fewspikes.fitting.expected import expected
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.masses import masses, smooth, uniform
from fewspikes.fitting.objective import PREFERENCE
from fewspikes.fitting.problem import BINS, Problem, problem
from fewspikes.fitting.relu_code import relu_codes
from fewspikes.fitting.searching import look_quickly
from fewspikes.fitting.silent import constant_code, is_constant
from fewspikes.fitting.target import check_function, target_of
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.parameters import FSParameters

ALGORITHM = 8  # raise it when fits change, so that kept ones are made again
FLOOR = 0.01  # of the weight is spread evenly over the range: a few inputs far out must not come out wild
# Later inputs go further than those seen: on either side so much of the range is added, and more where few were seen.
_MARGIN, _UNSEEN, _MOST = 0.02, 1.5, 0.25  # the share is _MARGIN + _UNSEEN n^(-1/3) for n inputs, _MOST at most
_ROOM = 0.01  # around a constant, of its size
_SMOOTHING = 0.25  # of the width that is best for drawing a density; a staircase needs it finer
_TRIANGLE = 2.2  # a triangle's half width that smooths like a Gaussian of sigma 1 is 2.45; a little less


def fit_site(
    activation: Activation,
    K: int,
    inputs: Histogram,
    *,
    offset: bool = True,
    spike_weight: float = 0.0,
    seed: int = 0,
    effort: str = "normal",
    floor: float = FLOOR,
    cap_step: bool | None = None,
) -> FSParameters:
    """Fit `activation` with K steps to the gate inputs of one layer.

    Minimises log(weighted mean squared error) + spike_weight * mean spikes over the measured range and a margin. The
    weight is the inputs' density, smoothed as far as so many inputs allow to tell, and a floor of even weight. A
    ReLU gets the binary code of least error, a capped one with a price on spikes perhaps one step on its cap. The
    same arguments give the same parameters; they are kept, see `cache`.

    Args:
        activation: what is imitated.
        K: time steps, 1 to 24.
        inputs: gate inputs, as measured.
        offset: whether silence may stand for another value than 0.
        spike_weight: how much log(error) may rise to save a mean spike, >= 0.
        seed: of everything random.
        effort: "quick" (milliseconds: the nearest shipped table, d solved again), "normal" (about a second) or
            "long" (a minute or two).
        floor: the share of even weight, 0 to 1.
        cap_step: for a capped ReLU, see `relu_code.relu_codes`.

    Returns:
        The parameters; their domain is the range that they were fitted on, open where a ReLU is flat beyond it.

    Raises:
        FewSpikesError: an argument out of range, a histogram of zeros, or a range where the activation is not finite.
    """
    if inputs.total < 1:
        raise FewSpikesError("the site's histogram holds no counts; calibrate on data that reach it")
    K, seed, spike_weight = whole_K(K), whole_seed(seed), at_least_0("spike_weight", spike_weight)
    if not 0 <= floor <= 1:
        raise FewSpikesError(f"the floor must be from 0 to 1; got {floor}")
    effort = known_effort(effort)
    settings = {"offset": offset, "spike_weight": spike_weight, "seed": seed, "effort": effort, "floor": floor}
    settings["cap_step"] = cap_step
    name = cache.key({"algorithm": ALGORITHM, "activation": activation.to_json(), "K": K, **settings}, inputs)
    found = cache.look_up(name)
    if found is None:
        found = _fit(activation, K, inputs, settings)
        cache.keep(name, found)
    return found


def _fit(activation: Activation, K: int, inputs: Histogram, settings: dict[str, Any]) -> FSParameters:
    if activation.name == "relu":
        price = settings["spike_weight"]
        codes = _relu_codes(activation, K, inputs, price > 0, settings["cap_step"])
        return min(codes, key=lambda code: code[1] + price * code[2])[0]
    made = site_problem(activation, inputs, settings["offset"], settings["spike_weight"], settings["floor"])
    domain = (made.low, made.high)
    provenance = {"method": "search", "inputs": "measured", **settings}
    if inputs.low == inputs.high or is_constant(made):
        value = float(activation(torch.tensor(inputs.low, dtype=torch.float64)))
        code, d, c = constant_code(made, K, value)
        return FSParameters(code[:K], code[K:], d, c, activation.label, domain, provenance)
    code = look_quickly(made, K, settings["effort"], settings["seed"]).codes[0]
    return parameters_of(code, made, activation.label, domain, provenance)


def site_problem(activation: Activation, inputs: Histogram, offset: bool, spike_weight: float, floor: float) -> Problem:
    """What the fit of a site minimises: the error over its inputs, smoothed, with a floor of even weight."""
    low, high = _range(inputs)
    check_function(target_of(activation), (low, high))
    edges = np.linspace(low, high, BINS + 1)
    density = smooth(masses(inputs, edges), _half_width(inputs) / float(edges[1] - edges[0]))
    weight = (1 - floor) * density + floor * uniform(edges)
    price = spike_weight + PREFERENCE
    return problem(activation, low, high, weight, density, offset=offset, spike_weight=price, limit=inf)


@lru_cache(maxsize=8)  # a site may be asked at several prices, one after the other
def _relu_codes(
    activation: Activation, K: int, inputs: Histogram, priced: bool, cap_step: bool | None
) -> list[tuple[FSParameters, float, float]]:
    """A ReLU's codes, each with log(error) and mean spikes over the inputs as they are.

    Its few numbers need neither smoothing nor a floor.
    """
    low, high = _range(inputs)
    density = masses(inputs, np.linspace(low, high, BINS + 1))
    made = problem(activation, low, high, density, density, offset=False)
    codes = relu_codes(activation, K, inputs, priced, cap_step)
    measured = (expected(p, made) for p in codes)
    return [(p, log(max(error, 1e-300)), spikes) for p, (error, spikes) in zip(codes, measured, strict=True)]


def _range(inputs: Histogram) -> tuple[float, float]:
    """The measured range with a margin; a constant gets a little room around it."""
    span = inputs.high - inputs.low
    share = min(_MARGIN + _UNSEEN * inputs.total ** (-1 / 3), _MOST)
    margin = share * span if span > 0 else _ROOM * max(abs(inputs.low), 1.0)
    return inputs.low - margin, inputs.high + margin


def _half_width(inputs: Histogram) -> float:
    """How far to smooth: by Silverman's rule, scaled down, with a spread that outliers do not move."""
    shares, centres = inputs.counts / inputs.total, inputs.centres
    quarter, three = (float(centres[np.searchsorted(np.cumsum(shares), q)]) for q in (0.25, 0.75))
    deviation = float(np.sqrt(shares @ (centres - shares @ centres) ** 2))
    spread = min(deviation, (three - quarter) / 1.34) or deviation
    return float(_SMOOTHING * _TRIANGLE * spread * inputs.total**-0.2)
