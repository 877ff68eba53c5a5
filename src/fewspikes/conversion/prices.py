"""What a spike may cost at each site, when the network's spikes have a price in the error of its output.

The network should have the least log(output error) + spike_weight x (spikes per neuron). Sites differ in what their
errors do to the output and in their neurons, so each gets several codes, from precise to sparing, each is measured, and
the best choice of one for each is made: the output's error is close to the sum of what the sites do to it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from fewspikes.base.progress import in_threads
from fewspikes.measure.sensitivity import Batch, Effects, effects
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.rewriting import Site

# Prices in the log of the site's own error. A ReLU's codes are quickly found, others take a search each.
_CLOSED_FORM, _SEARCHED = (0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0), (0.1, 0.3, 1.0)
_ROUNDS = 50  # each lowers the objective, which soon stands still
_LEAST = 1e-4  # of the output's error, so that no price becomes infinite

Fit = Callable[[str, float], FSParameters]


def spend(
    snn: SpikingNetwork, fit: Fit, images: Sequence[Batch], spike_weight: float, progress: bool | None = None
) -> tuple[dict[str, FSParameters], dict[str, float]]:
    """Codes by site for a price on the network's spikes, and each site's price in the log of its own error.

    Args:
        snn: the network with the codes of least error, where spikes cost nothing.
        fit: the parameters of a site (by name) for a price of a spike in the log of its own error.
        images: unlabelled, for the sensitivity.
        spike_weight: price of a spike per neuron of the network, in log(output error).
        progress: bars on stderr; None shows them when stderr is a terminal.
    """
    jobs = [partial(_codes, site, snn.neurons[site.name].code, fit) for site in snn.sites]
    found = in_threads(jobs, torch.get_num_threads(), "fitting", progress)  # the search holds no lock
    codes = {site.name: tables for site, tables in zip(snn.sites, found, strict=True)}
    measured = effects(snn, codes, images, progress)
    chosen = choose_codes(measured, spike_weight)
    total = sum(measured.errors[name][i] for name, i in chosen.items())
    sizes = {site.name: site.neurons / snn.report.neurons for site in snn.report.sites}
    prices = {
        name: spike_weight * sizes[name] / max(measured.errors[name][i] / max(total, 1e-30), _LEAST)
        for name, i in chosen.items()
    }
    return {name: codes[name][i] for name, i in chosen.items()}, prices


def _codes(site: Site, precise: FSParameters, fit: Fit) -> list[FSParameters]:
    """A site's codes, from precise to sparing."""
    prices = _CLOSED_FORM if site.activation.name == "relu" else _SEARCHED
    return [precise, *(fit(site.name, price) for price in prices)]


def choose_codes(measured: Effects, spike_weight: float) -> Mapping[str, int]:
    """By site, which code makes log(sum of errors) + spike_weight * (sum of spikes) least.

    The logarithm lies below its tangents, so choosing by the tangent at the last choice never makes it worse; it
    begins from the least error and from the fewest spikes, and the better end counts.
    """
    found = []
    for begin in (measured.errors, measured.spikes):
        chosen = {name: int(np.argmin(values)) for name, values in begin.items()}
        for _ in range(_ROUNDS):
            total = sum(measured.errors[name][i] for name, i in chosen.items())
            slope = 1.0 / max(total, 1e-30)
            again = {
                name: int(np.argmin(slope * errors + spike_weight * measured.spikes[name]))
                for name, errors in measured.errors.items()
            }
            if again == chosen:
                break
            chosen = again
        total = sum(measured.errors[name][i] for name, i in chosen.items())
        spikes = sum(measured.spikes[name][i] for name, i in chosen.items())
        found.append((float(np.log(max(total, 1e-30)) + spike_weight * spikes), chosen))
    return min(found, key=lambda entry: entry[0])[1]
