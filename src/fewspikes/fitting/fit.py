"""`fit`: parameters for an activation or a function of one's own, and how good they are."""

import time
from collections.abc import Callable
from math import inf
from typing import Any

from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting.checks import at_least_0, known_effort, whole_K, whole_seed
from fewspikes.fitting.closed_form import closed_form
from fewspikes.fitting.fitted import SLACK, Settings, fitted, words
from fewspikes.fitting.masses import Inputs, resolve
from fewspikes.fitting.objective import objective
from fewspikes.fitting.result import FitResult, measure
from fewspikes.fitting.target import Target, check_function, checked_domain, target_of
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.parameters import PAPER_RELU_ALPHA, FSParameters, Grid

METHODS = ("search", "bptt", "closed")
DEFAULT_STEPS = 16  # as the paper's SiLU
_SAME = 0.002  # relative: mean spikes are averaged over points here, over exact intervals in the search


def fit(
    target: str | Activation | Callable[[Tensor], Tensor],
    K: int | None = None,
    domain: tuple[float, float] | None = None,
    *,
    max_spikes: float | None = None,
    spike_weight: float = 0.0,
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

    Minimises log(weighted mean squared error) + spike_weight * mean spikes, under max_spikes. The squared error is
    weighted half by the inputs, half evenly over the domain with the main region four times; with inputs "uniform"
    all evenly. Mean spikes are over the inputs. The same arguments give the same parameters.

    Args:
        target: an activation's name (see `Activation`; "relu6" too), or a function of a float64 tensor, elementwise.
        K: time steps, 1 to 24; by default 16, with method "closed" the paper's.
        domain: (low, high), finite; by default the activation's, for a ReLU [-alpha, alpha].
        max_spikes: the most mean spikes, a hard limit.
        spike_weight: how much log(error) may rise to save a mean spike, >= 0.
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
        FewSpikesError: an argument out of range, a function that is not elementwise or finite on the domain, a limit
            that cannot be met.

    Source: paper, sections 1.2.1 (backpropagation through time) and 1.2.2 (closed form).

    >>> round(fit("silu", method="closed").mse_main, 6)
    0.002394
    """
    started = time.perf_counter()
    wanted = target_of(target)
    method = _method(method, wanted, alpha, rounding, bits)
    settings = _settings(K, method, effort, seed, bits, warm, progress)
    limit = at_least_0("max_spikes", inf if max_spikes is None else max_spikes)
    weight = at_least_0("spike_weight", spike_weight)
    seen = resolve(inputs if inputs is not None else wanted.typical_inputs or "uniform")
    if method == "closed":
        parameters = closed_form(wanted, K, alpha, rounding, None if inputs is None else seen)
        return _within(measure(parameters, wanted, domain, seen, started), limit)
    region = _region(wanted, domain)
    check_function(wanted, region)
    made = objective(
        wanted.function,
        region,
        seen,
        wanted.main_region,
        offset=offset,
        spike_weight=weight,
        max_spikes=limit * (1 - SLACK),
        centred=settings.grid is None,
    )
    p, grid = fitted(made, settings)
    provenance = {
        "method": method,
        "effort": effort,
        "seed": seed,
        "inputs": words(seen),
        "spike_weight": weight,
        "max_spikes": max_spikes,
        **({} if grid is None else {"grid": grid.to_json()}),
    }
    parameters = FSParameters(p.T, p.h, p.d, p.offset, wanted.label, region, provenance)
    return _within(measure(parameters, wanted, region, seen, started), limit)


def _method(method: str | None, target: Target, alpha: Any, rounding: Any, bits: Any) -> str:
    """The method to use, by default "closed" for a ReLU; raises where an argument does not go with it."""
    relu = target.activation is not None and target.activation.name == "relu"
    chosen = ("closed" if relu and bits is None else "search") if method is None else method
    if chosen not in METHODS:
        raise FewSpikesError(f"method must be 'search', 'bptt' or 'closed'; got {method!r}")
    if chosen != "closed" and (alpha is not None or rounding is not None):
        raise FewSpikesError("alpha and rounding are for a ReLU with method='closed'; a search takes a domain")
    if chosen == "closed" and bits is not None:
        raise FewSpikesError("bits is for method='search' or 'bptt'; for a closed form use .quantize(bits) on it")
    return chosen


def _settings(K: Any, method: str, effort: str, seed: Any, bits: Any, warm: bool, progress: bool | None) -> Settings:
    grid = bits if bits is None or isinstance(bits, Grid) else Grid(bits)
    steps = whole_K(DEFAULT_STEPS if K is None else K)
    return Settings(steps, method, known_effort(effort), whole_seed(seed), grid, warm, progress)


def _region(target: Target, domain: Any) -> tuple[float, float]:
    """The domain to fit on: the one given, the target's, or what the paper's ReLU covers."""
    if domain is not None:
        return checked_domain(domain)
    if target.domain is not None:
        return target.domain
    if target.activation is None:
        raise FewSpikesError(f"a function of your own needs a domain: fit({target.label}, K, domain=(low, high))")
    return (-PAPER_RELU_ALPHA, target.activation.cap or PAPER_RELU_ALPHA)


def _within(result: FitResult, limit: float) -> FitResult:
    if result.mean_spikes > limit * (1 + _SAME):
        raise FewSpikesError(
            f"max_spikes={limit:.4g} cannot be met: the best here fires {result.mean_spikes:.4g} spikes. "
            "Allow more, use method='search', or more steps K"
        )
    return result
