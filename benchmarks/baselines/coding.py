"""Two older codes as small references: firing rates with soft reset, and the time of a single spike.

Both stand at the sites of a converted network, so that weights, images and counting are the same as for FS-neurons.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fewspikes.measure.calibration import Calibration
from fewspikes.network.spiking import SpikingNetwork


class RateCoded(nn.Module):
    """An integrate-and-fire neuron: adds its input at each step, fires at the threshold and keeps what is above it.

    Each spike stands for `threshold`; over T steps the mean output is a ReLU of the mean input, in T + 1 levels. It
    begins half full, so that it rounds to nearest.

    Source: Rueckauer et al. 2017 (soft reset), Diehl et al. 2015 (thresholds balanced to what a layer sees).
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold, self.spikes = threshold, 0
        self.potential: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """One step."""
        v = x + (self.threshold / 2 if self.potential is None else self.potential)
        z = v >= self.threshold
        self.spikes += int(z.sum())
        y = z.to(x.dtype) * self.threshold
        self.potential = v - y
        return y


class FirstSpike(nn.Module):
    """A neuron whose one spike says by its time how large its output is: 0 (no spike) to T times threshold / T.

    Source: Rueckauer and Liu 2018; here without errors of timing, as the best that T steps a layer can do.
    """

    def __init__(self, threshold: float, steps: int) -> None:
        super().__init__()
        self.step, self.steps, self.spikes = threshold / steps, steps, 0

    def forward(self, x: Tensor) -> Tensor:
        """The value that the spike's time stands for."""
        level = (x / self.step).round().clamp(0, self.steps)
        self.spikes += int((level > 0).sum())
        return level * self.step


def thresholds(seen: Calibration, share: float = 0.999) -> dict[str, float]:
    """By site: the value below which so large a share of its positive inputs lie."""
    found = {}
    for name, h in seen.sites.items():
        centres = (h.first + torch.arange(len(h.counts), dtype=torch.float64) + 0.5) * 2.0**h.exponent
        counts = torch.from_numpy(h.counts.copy()).double() * (centres > 0)
        total = counts.cumsum(0)
        found[name] = float(centres[int((total < share * total[-1]).sum())])
    return found


def network(snn: SpikingNetwork, make: Callable[[str], nn.Module]) -> tuple[nn.Module, dict[str, nn.Module]]:
    """The converted network's graph with other neurons, and those."""
    neurons = {site.name: make(site.name) for site in snn.sites}
    return snn.running(neurons), neurons


def rate_coded(snn: SpikingNetwork, at: dict[str, float], steps: int) -> Callable[[Tensor], tuple[Tensor, int]]:
    """A function of images: logits after so many steps, and spikes."""

    def run(x: Tensor) -> tuple[Tensor, int]:
        body, neurons = network(snn, lambda name: RateCoded(at[name]))
        total = sum((body(x) for _ in range(steps)), torch.zeros(()))
        return total / steps, sum(neuron.spikes for neuron in neurons.values())  # type: ignore[misc]

    return run


def first_spike(snn: SpikingNetwork, at: dict[str, float], steps: int) -> Callable[[Tensor], tuple[Tensor, int]]:
    """Likewise with one spike a neuron at most."""

    def run(x: Tensor) -> tuple[Tensor, int]:
        body, neurons = network(snn, lambda name: FirstSpike(at[name], steps))
        return body(x), sum(neuron.spikes for neuron in neurons.values())  # type: ignore[misc]

    return run
