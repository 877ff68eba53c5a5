"""One layer's fit: its activation, imitated on what this layer really sees."""

from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting import cache
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.identity import least_error_identity, least_error_powers_of_two
from fewspikes.fitting.inputs import shares, smooth, uniform
from fewspikes.fitting.problem import BINS, Function, Problem, Vector, sum_up
from fewspikes.fitting.relu import least_error_relu, sparing_relu_codes
from fewspikes.fitting.search import EFFORTS, best_codes
from fewspikes.fitting.staircase import constant_neuron, error_and_spikes, parameters_of
from fewspikes.fitting.target import check_function
from fewspikes.fitting.weights import Weights
from fewspikes.neuron import known_codes
from fewspikes.neuron.activation import POWERS_OF_TWO, Activation
from fewspikes.neuron.parameters import MAX_STEPS, FSParameters

ALGORITHM = 14  # raise it when fits change, so that kept ones are made again
FLOOR = 0.01  # of the weight is spread evenly over the range: a few inputs far out must not come out wild
_WEIGHED_FLOOR = 0.001  # where the network's output says what errors count
# Later inputs go further than those seen: on either side so much of the range is added, and more where few were seen.
_MARGIN, _UNSEEN, _MOST = 0.02, 1.5, 0.25  # the share is _MARGIN + _UNSEEN n^(-1/3) for n inputs, _MOST at most
_UNWEIGHED = ("relu", "identity", POWERS_OF_TWO)  # equally spaced values are found without a search
_ROOM = 0.01  # around a constant, of its size
_SHARES_OF_MARGIN = (1.0, 0.25, 0.0625, 0.0)  # tried one after the other where the function has a pole nearby
_SWELLING = 4.0  # times as much as it rises and falls over what was seen, a function may over the margin, too
_SMOOTHING = 0.25  # of the width that is best for drawing a density; a staircase needs it finer
_FAR = 64.0  # of the variance: farther values of a function have less of the floor
_AT_A_POLE, _STEEP = 8, 0.25  # bins at either end that may be level, and how steep a function is in them
_PROBES = 65  # values of a function that tell it from another of the same name
_TRIANGLE = 2.2  # a triangle's half width that smooths like a Gaussian of sigma 1 is 2.45; a little less


def fit_site(
    activation: Activation,
    K: int,
    inputs: Histogram,
    *,
    weights: Weights | None = None,
    offset: bool = True,
    spike_price: float = 0.0,
    seed: int = 0,
    effort: str = "normal",
) -> FSParameters:
    """Fit `activation` with K steps to the gate inputs of one layer.

    Minimises E / Var(f) + spike_price * (mean spikes) over the measured range and a margin; E is the weighted mean
    squared error and Var(f) the variance of f under the same weight (for a constant f its mean square). The weight is
    the inputs' density or `weights`, smoothed as far as so many inputs allow to tell, and a floor of even weight. A
    ReLU gets the binary code of least error, with a price the best of `relu.sparing_relu_codes`; f(x) = x without a
    price equally spaced values; neither looks at weights. The same arguments give the same parameters; they are kept,
    see `cache`.

    Args:
        activation: what is imitated: elementwise on float64 tensors, with a label and a JSON form.
        K: time steps, 1 to 24.
        inputs: gate inputs, as measured.
        weights: how much errors count, by gate input; None: each input's as much as another's.
        offset: whether silence may stand for another value than 0.
        spike_price: the rise of the squared error, as a share of the output's variance, that one spike per neuron is
            worth; finite, >= 0.
        seed: of everything random.
        effort: "quick" (milliseconds: the nearest shipped table, d solved again; a tenth of a second for a function
            that no table is shipped for), "normal" (about a second) or "long" (a minute or two).

    Returns:
        The parameters; their domain is the range that they were fitted on, open where a ReLU is flat beyond it.

    Raises:
        FewSpikesError: an argument out of range, a histogram of zeros, or a range where the activation is not finite.
    """
    if inputs.total < 1:
        raise FewSpikesError("the site's histogram holds no counts; calibrate on data that reach it")
    K, seed = checks.whole("K", K, 1, MAX_STEPS), checks.whole("the seed", seed, 0)
    price = checks.price("spike_price", spike_price)
    effort = checks.one_of("effort", effort, EFFORTS)
    settings = {"offset": offset, "spike_price": price, "seed": seed, "effort": effort}
    known = {"algorithm": ALGORITHM, "activation": activation.to_json(), "values": _values(activation, inputs)}
    weights = None if activation.name in _UNWEIGHED or weights is None or not weights.total else weights
    name = cache.key({**known, "K": K, **settings}, inputs, weights)
    found = cache.look_up(name, activation.label, K)
    if found is None:
        makes = {"relu": _relu_code, "identity": _identity_code, POWERS_OF_TWO: _shifting_code}
        make = makes.get(activation.name, partial(_searched, weights=weights))
        found = make(activation, K, inputs, settings)
        cache.keep(name, found)
    return found


def layer_problem(
    activation: Activation, inputs: Histogram, offset: bool, spike_price: float, weights: Weights | None = None
) -> Problem:
    """What a layer's fit minimises: the error over its inputs or by weights, smoothed, with a floor of even weight."""
    low, high = domain = _finite_range(activation, inputs)
    edges = np.linspace(low, high, BINS + 1)
    width = _half_width(inputs) / float(edges[1] - edges[0])
    density = smooth(shares(inputs, edges), width)
    counted, floor = (density, FLOOR) if weights is None else (smooth(weights.shares(edges), width), _WEIGHED_FLOOR)
    function = _resolved(activation, edges)
    weight = (1 - floor) * counted + floor * _tamed(uniform(edges), counted, function, edges)
    return sum_up(function, domain, weight, density, offset=offset, spike_price=spike_price)


def _resolved(function: Function, edges: Vector) -> Function:
    """The function, level in the bins at either end in which it rises or falls as a pole does.

    Such a bin cannot say how much of what was seen lies how near the pole.
    """
    f = function(torch.from_numpy(edges)).numpy()
    first, last = _steep_bins(f), len(f) - 1 - _steep_bins(f[::-1])
    if (first, last) == (0, len(f) - 1):
        return function
    least, most = float(f[first : last + 1].min()), float(f[first : last + 1].max())
    return lambda x: function(x).clamp(least, most)


def _steep_bins(f: Vector) -> int:
    """In how many bins in front a function changes by a quarter of all that it changes by behind them, or more."""
    for i in range(_AT_A_POLE):
        behind = np.ptp(f[i + 1 :])
        if not abs(f[i + 1] - f[i]) > _STEEP * behind > 0:
            return i
    return _AT_A_POLE


def _tamed(floor: Vector, counted: Vector, function: Function, edges: Vector) -> Vector:
    """The floor, lower where the function lies so far off that the floor alone would outweigh all that counts.

    1/x of a sum that is 0 in places, where what it is multiplied with is 0, too, would be fitted to nothing else.
    """
    f = function(torch.from_numpy(np.linspace(edges[0], edges[-1], 2 * len(floor) + 1))).numpy()
    middle = counted @ f[1::2]
    squares = np.maximum(abs(f[:-1:2] - middle), abs(f[2::2] - middle)) ** 2
    most = _FAR * float(counted @ (f[1::2] - middle) ** 2)
    return floor * np.minimum(1.0, most / np.maximum(squares, most)) if most > 0 else floor


def _values(activation: Activation, inputs: Histogram) -> list[float]:
    """Some values of an expression, whose text says which operators it calls and not what these compute."""
    if "expression" not in activation.to_json():
        return []
    found: list[float] = activation(torch.linspace(*_range(inputs), _PROBES, dtype=torch.float64)).tolist()
    return found


def _searched(
    activation: Activation, K: int, inputs: Histogram, settings: dict[str, Any], weights: Weights | None = None
) -> FSParameters:
    problem = layer_problem(activation, inputs, settings["offset"], settings["spike_price"], weights)
    weighed = {} if weights is None else {"weights": "measured"}
    provenance = {"method": "search", "inputs": "measured", **weighed, **settings}
    if inputs.low == inputs.high or problem.constant:
        value = float(activation(torch.tensor(inputs.low, dtype=torch.float64)))
        return constant_neuron(problem, K, value, activation.label, provenance)
    near = activation.name in known_codes.SHIPPED
    code = best_codes(problem, K, settings["effort"], settings["seed"], layer=True, near=near).codes[0]
    return parameters_of(code, problem, activation.label, provenance)


def _relu_code(activation: Activation, K: int, inputs: Histogram, settings: dict[str, Any]) -> FSParameters:
    if settings["spike_price"] == 0:
        return least_error_relu(K, inputs, "nearest", activation.cap)
    codes = _measured_relu_codes(activation, K, inputs)
    return min(codes, key=lambda code: code[1] + settings["spike_price"] * code[2])[0]


def _identity_code(activation: Activation, K: int, inputs: Histogram, settings: dict[str, Any]) -> FSParameters:
    if settings["spike_price"] == 0 and settings["offset"]:
        return least_error_identity(K, inputs)
    return _searched(activation, K, inputs, settings)


def _shifting_code(activation: Activation, K: int, inputs: Histogram, settings: dict[str, Any]) -> FSParameters:
    return least_error_powers_of_two(K, inputs, settings["spike_price"], settings["offset"])


@lru_cache(maxsize=8)  # a site may be asked at several prices, one after the other
def _measured_relu_codes(activation: Activation, K: int, inputs: Histogram) -> list[tuple[FSParameters, float, float]]:
    """A ReLU's codes, each with E / Var(f) and mean spikes over the inputs: few numbers need no smoothing or floor."""
    domain = _range(inputs)
    density = shares(inputs, np.linspace(*domain, BINS + 1))
    problem = sum_up(activation, domain, density, density, offset=False)
    found = ((p, *error_and_spikes(p, problem)) for p in sparing_relu_codes(activation, K, inputs))
    return [(p, error / problem.variance, spikes) for p, error, spikes in found]


def _range(inputs: Histogram) -> tuple[float, float]:
    """The measured range with a margin; a constant gets a little room around it."""
    span = inputs.high - inputs.low
    share = min(_MARGIN + _UNSEEN * inputs.total ** (-1 / 3), _MOST)
    margin = share * span if span > 0 else _ROOM * max(abs(inputs.low), 1.0)
    return inputs.low - margin, inputs.high + margin


def _finite_range(activation: Activation, inputs: Histogram) -> tuple[float, float]:
    """The measured range with as much of the margin as the activation is tame on; raises if it is not finite without.

    A margin in which it grows out of proportion, as exp does above 0, would weigh more than all that was seen.
    """
    low, high = _range(inputs)
    most = _SWELLING * _spread(activation, (inputs.low, inputs.high))
    shares_of_margin = _shares_of_margin(inputs)
    for share in shares_of_margin:
        domain = inputs.low + share * (low - inputs.low), inputs.high + share * (high - inputs.high)
        if 0 < most < _spread(activation, domain) and share:
            continue
        try:
            check_function(activation, activation.label, domain)
        except FewSpikesError:
            if share == shares_of_margin[-1]:
                raise
        else:
            break
    return domain


def _shares_of_margin(inputs: Histogram) -> tuple[float, ...]:
    """What to try; around a small constant last of all a room of its own size, which does not reach 0."""
    if inputs.low < inputs.high:
        return _SHARES_OF_MARGIN
    return (1.0, abs(inputs.low)) if 0 < abs(inputs.low) < 1 else (1.0,)


def _spread(activation: Activation, domain: tuple[float, float]) -> float:
    """How far apart a function's values on a domain are."""
    values = activation(torch.linspace(*domain, BINS + 1, dtype=torch.float64))
    return float(values.max() - values.min())


def _half_width(inputs: Histogram) -> float:
    """How far to smooth: by Silverman's rule, scaled down, with a spread that outliers do not move."""
    parts, centres = inputs.counts / inputs.total, inputs.centres
    quarter, three = (float(centres[np.searchsorted(np.cumsum(parts), q)]) for q in (0.25, 0.75))
    deviation = float(np.sqrt(inputs.variance))
    spread = min(deviation, (three - quarter) / 1.34) or deviation
    return float(_SMOOTHING * _TRIANGLE * spread * inputs.total**-0.2)
