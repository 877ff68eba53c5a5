"""`fit`: parameters for an activation or a function of one's own, and how good they are."""

import time
from collections.abc import Callable
from math import inf, isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting import backpropagation
from fewspikes.fitting.descent import Pool
from fewspikes.fitting.grids import best_on_grid
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.inputs import Inputs, Known, resolve, shares, uniform
from fewspikes.fitting.problem import BINS, Function, Problem, Vector, sum_up
from fewspikes.fitting.relu import least_error_relu
from fewspikes.fitting.result import FitResult, measure
from fewspikes.fitting.search import EFFORTS, best_codes, silent_code
from fewspikes.fitting.staircase import constant_neuron, least_squares, parameters_of, workspace
from fewspikes.fitting.target import check_function, target_of
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.grid import Grid
from fewspikes.neuron.known_codes import PAPER_RELU_ALPHA, PAPER_RELU_STEPS, published, relu_parameters
from fewspikes.neuron.parameters import MAX_STEPS, FSParameters

METHODS = ("search", "bptt", "closed")
DEFAULT_STEPS = 16  # as the paper's SiLU
_SAME = 0.002  # relative: mean spikes are averaged over points here, over exact intervals in the search
_SLACK = 0.001  # a search may end so much above its own limit, relative, so that limit is set so much lower
_NEXT_TO_NONE = 0.01  # spikes: a limit below that may be met by silence
_QUANTILES = 1_000_001  # that stand for a Gaussian


def fit(
    target: str | Activation | Callable[[Tensor], Tensor],
    K: int | None = None,
    domain: tuple[float, float] | None = None,
    *,
    max_spikes: float | None = None,
    spike_price: float = 0.0,
    offset: bool = True,
    inputs: Inputs | None = None,
    method: str | None = None,
    bits: int | Grid | None = None,
    seed: int = 0,
    effort: str = "normal",
    warm: bool = True,
    alpha: float | None = None,
    rounding: str | None = None,
    progress: bool | None = False,
) -> FitResult:
    """Parameters of an FS-neuron with K steps that imitates `target`.

    Minimises E / Var(f) + spike_price * (mean spikes), under max_spikes. E is the weighted mean squared error: half of
    the weight follows the inputs, half is even over the domain with the main region four times; with inputs "uniform"
    all is even. Var(f) is the variance of the target under the same weight (for a constant its mean square). Mean
    spikes are over the inputs. The same arguments give the same parameters.

    Args:
        target: an activation's name (see `Activation`; "relu6" too), or a function of a float64 tensor, elementwise.
        K: time steps, 1 to 24; by default 16, with method "closed" the paper's.
        domain: (low, high), finite; by default the activation's, for a ReLU [-alpha, alpha].
        max_spikes: the most mean spikes, a hard limit.
        spike_price: the rise of the squared error, as a share of the output's variance, that one spike per neuron is
            worth; finite, >= 0. From 1 on silence is cheaper than a spike of each neuron.
        offset: whether silence may stand for another value than 0.
        inputs: a Gaussian's (mean, variance), samples, a histogram, or "uniform"; by default the Gaussian that is
            usual for the activation (SiLU and ReLU: the paper's Fig. 7), or else "uniform".
        method: "search" finds T and h by descents from many starts, d and offset by least squares; "bptt" is the
            paper's backpropagation through time; "closed" is the binary code of a ReLU, or the published table of
            silu (K=16) and sigmoid (K=12). By default "closed" for a ReLU, "search" for all others.
        bits: T, h, d and offset on 2^bits equally spaced values in [-8, 8), as chips hold them; a `Grid` says more.
        seed: of everything random.
        effort: "quick" (milliseconds: the nearest shipped table, d solved again), "normal" (seconds) or "long"
            (minutes).
        warm: whether a search may begin from the shipped tables, too.
        alpha: the range of a ReLU in closed form; by default 25 (the paper's), with inputs the one of least error.
        rounding: "down" (the paper's, the default) or "nearest" (the default with inputs), for a ReLU in closed form.
        progress: whether to show a bar; None: on a terminal.

    Returns:
        The parameters and what they are worth, see `FitResult`.

    Raises:
        FewSpikesError: an argument out of range or without effect (a price, where nothing is searched), a function
            that is not elementwise or finite on the domain, a limit that cannot be met.

    Source: paper, sections 1.2.1 (backpropagation through time) and 1.2.2 (closed form).

    >>> round(fit("silu", method="closed").mse_main, 6)
    0.002394
    """
    started = time.perf_counter()
    wanted = target_of(target)
    price = checks.price("spike_price", spike_price)
    method = _method(method, wanted, alpha, rounding, bits, price)
    steps = checks.whole("K", DEFAULT_STEPS if K is None else K, 1, MAX_STEPS)
    grid = bits if bits is None or isinstance(bits, Grid) else Grid(bits)
    effort, seed = checks.one_of("effort", effort, EFFORTS), checks.whole("the seed", seed, 0)
    limit = inf if max_spikes is None else checks.at_least_0("max_spikes", max_spikes)
    seen = resolve(inputs if inputs is not None else wanted.typical_inputs or "uniform")
    if method == "closed":
        parameters = _closed_form(wanted, K, alpha, rounding, None if inputs is None else seen)
        return _within(measure(parameters, wanted, domain, seen, started), limit)
    region = _region(wanted, domain)
    check_function(wanted, wanted.label, region)
    free = {"offset": offset, "spike_price": price, "limit": limit * (1 - _SLACK), "centred": grid is None}
    problem = even_and_seen(wanted, region, seen, wanted.main_region, **free)
    p, grid = _fitted(problem, steps, method, effort, seed, grid, warm, progress)
    provenance = {
        "method": method,
        "effort": effort,
        "seed": seed,
        "inputs": list(seen) if isinstance(seen, tuple) else seen if isinstance(seen, str) else "measured",
        "spike_price": price,
        "max_spikes": max_spikes,
        **({} if grid is None else {"grid": grid.to_json()}),
    }
    parameters = FSParameters(p.T, p.h, p.d, p.offset, wanted.label, region, provenance)
    return _within(measure(parameters, wanted, region, seen, started), limit)


def even_and_seen(
    function: Function,
    domain: tuple[float, float],
    inputs: Known,
    main_region: tuple[float, float] | None = None,
    **settings: Any,
) -> Problem:
    """What `fit` minimises: errors weighted half by the inputs, half evenly with the main region four times.

    With inputs "uniform" all is even, without a main region. The settings are offset, spike_price, preference, limit
    and centred, as for `problem.sum_up`; inputs that all lie outside of the domain raise FewSpikesError.
    """
    edges = np.linspace(*domain, BINS + 1)
    density = shares(inputs, edges)
    weight = uniform(edges) if isinstance(inputs, str) else (density + uniform(edges, main_region)) / 2
    return sum_up(function, domain, weight, density, **settings)


def _method(method: str | None, target: Activation, alpha: Any, rounding: Any, bits: Any, price: float) -> str:
    """The method to use, by default "closed" for a ReLU; raises where an argument does not go with it."""
    chosen = ("closed" if _is_relu(target) and bits is None else "search") if method is None else method
    checks.one_of("method", chosen, METHODS)
    if chosen != "closed" and (alpha is not None or rounding is not None):
        raise FewSpikesError("alpha and rounding are for a ReLU with method='closed'; a search takes a domain")
    if chosen == "closed" and bits is not None:
        raise FewSpikesError("bits is for method='search' or 'bptt'; for a closed form use .quantize(bits) on it")
    if chosen == "closed" and price > 0:
        raise FewSpikesError("spike_price has no effect on a closed form; use method='search', or leave it out")
    return chosen


def _is_relu(target: Activation) -> bool:
    return target.name == "relu" and not target.expression


def _region(target: Activation, domain: Any) -> tuple[float, float]:
    """The domain to fit on: the one given, the target's, or what the paper's ReLU covers."""
    if domain is not None:
        return checks.interval("the domain", domain, "finite")
    if all(isfinite(end) for end in target.domain):
        return target.domain
    if target.expression:
        raise FewSpikesError(f"a function of your own needs a domain: fit({target.label}, K, domain=(low, high))")
    return (-PAPER_RELU_ALPHA, target.cap or PAPER_RELU_ALPHA)


def _fitted(
    problem: Problem,
    K: int,
    method: str,
    effort: str,
    seed: int,
    grid: Grid | None,
    tables: bool,
    progress: bool | None,
) -> tuple[FSParameters, Grid | None]:
    """The neuron, without label and provenance, and the grid with its scale."""
    if problem.constant:
        mean = float(problem.sums[-1, 1] / problem.sums[-1, 0]) + problem.middle
        return _rounded(constant_neuron(problem, K, mean), grid)
    if method == "bptt":
        training = backpropagation.TRAININGS[effort]
        return _rounded(backpropagation.train(problem, K, seed, training, grid, progress), grid)
    pool = best_codes(problem, K, effort, seed, tables, progress)
    if grid is not None:
        return best_on_grid(problem, pool, grid, effort, seed, progress)
    return parameters_of(_allowed(pool, problem), problem), None


def _rounded(p: FSParameters, grid: Grid | None) -> tuple[FSParameters, Grid | None]:
    if grid is None:
        return p, None
    grid = grid.scaled_for(p.numbers)
    return p.quantize(grid.bits, grid.low, grid.high, endpoint=grid.endpoint, scale=grid.scale), grid


def _allowed(pool: Pool, problem: Problem) -> Vector:
    """The best code that keeps to the limit, a silent one where next to no spikes are allowed; raises without any."""
    K = pool.codes.shape[1] // 2
    work, fewest = workspace(K), np.inf
    for code in pool.codes[pool.values < np.inf]:
        _, spikes = least_squares(code, problem, work)
        if spikes <= problem.limit * (1 + _SLACK):
            return np.asarray(code, np.float64)
        fewest = min(fewest, spikes)
    if problem.limit > _NEXT_TO_NONE:
        raise FewSpikesError(
            f"no code of at most {problem.limit:.4g} mean spikes was found, the fewest are {fewest:.4g}; "
            "allow more, or use effort='long'"
        )
    return silent_code(problem, K)


def _closed_form(
    target: Activation, K: int | None, alpha: float | None, rounding: str | None, inputs: Known | None
) -> FSParameters:
    """What needs no search: a ReLU's binary code, of least error on `inputs` if given; published silu and sigmoid."""
    if _is_relu(target):
        steps = PAPER_RELU_STEPS if K is None else K
        if target.cap is not None and alpha is not None:
            raise FewSpikesError(f"alpha is for the uncapped relu; the range of {target.label} is its cap")
        if alpha is None and not (inputs is None or isinstance(inputs, str)):  # "uniform" says no range
            return least_error_relu(steps, _as_histogram(inputs), rounding or "nearest", target.cap)
        scale = target.cap or (PAPER_RELU_ALPHA if alpha is None else alpha)
        return relu_parameters(steps, scale, rounding or "down", target.cap)
    if target.label not in ("silu", "sigmoid"):
        raise FewSpikesError(f"there is no closed form of {target.label}; use method='search'")
    parameters = published(target.label)
    if K not in (None, parameters.K) or alpha is not None or rounding is not None:
        raise FewSpikesError(
            f"{target.label} has the published table of K={parameters.K} only: leave K, alpha and rounding out, "
            "or use method='search'"
        )
    return parameters


def _as_histogram(inputs: tuple[float, float] | Histogram) -> Histogram:
    """The inputs as counts; a Gaussian as the quantiles of a million inputs."""
    if isinstance(inputs, Histogram):
        return inputs
    mean, variance = inputs
    parts = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES
    return Histogram.of(mean + variance**0.5 * torch.special.ndtri(parts))


def _within(result: FitResult, limit: float) -> FitResult:
    if result.mean_spikes > limit * (1 + _SAME):
        raise FewSpikesError(
            f"max_spikes={limit:.4g} cannot be met: the best here fires {result.mean_spikes:.4g} spikes. "
            "Allow more, use method='search', or more steps K"
        )
    return result
