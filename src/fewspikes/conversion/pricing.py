"""What each site's spikes cost, when the network's spikes have a price in the error of its output.

The network should have the least error / variance of the output + p x (spikes per neuron). To first order the output's
error is the sum of what the sites do to it, so each site by itself takes the best of several codes, from precise to
sparing. For a site with n of the network's N neurons, whose own relative error e becomes g e at the output, the sum is
g (e + q x its spikes per neuron) with the site's own price q = p n / (N g).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from fewspikes.base.progress import in_threads
from fewspikes.measure.deal import Images
from fewspikes.measure.sensitivity import Effects, effects
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.rewriting import Site

# Of a site's own price: what its codes are fitted at. A ReLU's are quickly found, others take a search each.
_CLOSED_FORM, _SEARCHED = tuple(2.0 ** (i / 2) for i in range(-4, 7)), (0.5, 1.0, 2.0)
_TINY = 1e-12

Fit = Callable[[str, float], FSParameters]


def site_prices(
    snn: SpikingNetwork, images: Images, spike_price: float, progress: bool | None = None
) -> dict[str, float]:
    """Each site's own price of a spike per neuron, in its error over its variance."""
    found = effects(snn, {site.name: [snn.neurons[site.name].code] for site in snn.sites}, images, progress)
    sizes = {name: count / snn.structure.neuron_count for name, count in snn.structure.neurons.items()}
    own = {name: max(float(errors[0]), _TINY) for name, errors in found.own.items()}
    carried = {name: max(float(found.errors[name][0]), _TINY) / own[name] for name in own}
    return {name: spike_price * sizes[name] / carried[name] for name in own}


def priced(
    snn: SpikingNetwork, fit: Fit, images: Images, spike_price: float, progress: bool | None = None
) -> tuple[dict[str, FSParameters], dict[str, float]]:
    """Codes by site for a price on the network's spikes, and each site's own price.

    Args:
        snn: the network with the codes of least error, where spikes cost nothing.
        fit: (site's name, its own price) -> parameters.
        images: some are used, for the sensitivity.
        spike_price: the rise of error / variance of the output that one spike per neuron of the network is worth.
        progress: bars on stderr; None shows them when stderr is a terminal.
    """
    prices = site_prices(snn, images, spike_price, progress)
    jobs = [partial(_codes, site, snn, fit, prices[site.name]) for site in snn.sites]
    found = in_threads(jobs, torch.get_num_threads(), "fitting", progress)  # the search holds no lock
    codes = {site.name: tables for site, tables in zip(snn.sites, found, strict=True)}
    chosen = choose_codes(effects(snn, codes, images, progress), spike_price)
    return {name: codes[name][i] for name, i in chosen.items()}, prices


def choose_codes(measured: Effects, spike_price: float) -> dict[str, int]:
    """By site, which code makes the output's error + spike_price x spikes least."""
    return {
        name: int(np.argmin(errors + spike_price * measured.spikes[name])) for name, errors in measured.errors.items()
    }


def _codes(site: Site, snn: SpikingNetwork, fit: Fit, own_price: float) -> list[FSParameters]:
    """A site's codes, from precise to sparing; a price has two digits, so that rounding makes no other codes."""
    factors = _CLOSED_FORM if site.activation.name == "relu" else _SEARCHED
    prices = (float(f"{own_price * factor:.2g}") for factor in factors)
    return [snn.neurons[site.name].code, *(fit(site.name, one) for one in prices)]
