"""What each site really sees: a histogram of its gate inputs over a few batches."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import read_json, write_json
from fewspikes.fitting.histogram import Histogram
from fewspikes.measure.source import Labelled
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation

_FORMAT, _VERSION = "fewspikes-calibration", 1


@dataclass(frozen=True)
class Calibration:
    """Histograms of the gate inputs by site name, and the number of images they come from. Add to merge."""

    images: int
    sites: Mapping[str, Histogram]

    def __add__(self, other: "Calibration") -> "Calibration":
        if set(self.sites) != set(other.sites):
            raise FewSpikesError("only calibrations of the same network can be added")
        return Calibration(self.images + other.images, {name: h + other.sites[name] for name, h in self.sites.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON."""
        sites = {name: histogram.to_json() for name, histogram in self.sites.items()}
        content = {"format": _FORMAT, "version": _VERSION, "images": self.images, "sites": sites}
        write_json(path, content, indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            FewSpikesError: no such file, or not a calibration.
        """
        content = read_json(path, _FORMAT)
        try:
            sites = {str(name): Histogram.from_json(entry) for name, entry in content["sites"].items()}
            return cls(int(content["images"]), sites)
        except FewSpikesError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise FewSpikesError(f"{path} is not a complete calibration: {error!r}") from None


def calibrate(snn: SpikingNetwork, batches: Iterable[Labelled]) -> Calibration:
    """Run the ANN over the batches and collect what arrives at each site.

    Args:
        snn: any network of the ANN in question; its neurons are not used.
        batches: inputs and (ignored) labels.

    Raises:
        FewSpikesError: NaN or inf arrives at a site.
    """
    sites = {site.name: _Watched(site.name, site.activation) for site in snn.sites}
    ann = snn.running(sites)
    images = 0
    with torch.inference_mode():
        for inputs, _ in batches:
            ann(*inputs)
            images += len(inputs[0])
    return Calibration(images, {name: site.seen for name, site in sites.items() if site.seen is not None})


class _Watched(nn.Module):
    """The activation of a site, and a histogram of its inputs so far."""

    def __init__(self, name: str, activation: Activation) -> None:
        super().__init__()
        self.name, self.activation = name, activation
        self.seen: Histogram | None = None

    def forward(self, x: Tensor) -> Tensor:
        """f(x)."""
        try:
            seen = Histogram.of(x)
        except FewSpikesError as error:
            raise FewSpikesError(f"site {self.name}, calibration: {error}") from None
        self.seen = seen if self.seen is None else self.seen + seen
        return self.activation(x)
