"""What a fit minimises over a domain: log of the weighted squared error, and a price for spikes."""

from math import inf

import numpy as np

from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.masses import masses, uniform
from fewspikes.fitting.problem import BINS, Function, Problem, problem

PREFERENCE = 0.003  # per spike, in log(error): of two codes of about equal error the one with fewer spikes


def objective(
    function: Function,
    domain: tuple[float, float],
    inputs: str | tuple[float, float] | Histogram,
    main_region: tuple[float, float] | None = None,
    *,
    offset: bool = True,
    spike_weight: float = 0.0,
    max_spikes: float = inf,
    centred: bool = True,
) -> Problem:
    """The error weighted half by the inputs, half evenly with the main region four times; spikes over the inputs.

    With inputs "uniform" all is even, without a main region.

    Args:
        function: elementwise, on float64 tensors.
        domain: (low, high), finite.
        inputs: as `masses.resolve` gives them.
        main_region: where the paper's loss weighs more.
        offset: whether the neuron may have one.
        spike_weight: the price of a mean spike in log(error).
        max_spikes: the most mean spikes.
        centred: as in `problem`.

    Raises:
        FewSpikesError: none of the inputs lies in the domain.
    """
    edges = np.linspace(*domain, BINS + 1)
    density = masses(inputs, edges)
    weight = uniform(edges) if isinstance(inputs, str) else (density + uniform(edges, main_region)) / 2
    price = spike_weight + PREFERENCE
    return problem(
        function, *domain, weight, density, offset=offset, spike_weight=price, limit=max_spikes, centred=centred
    )
