"""What each site really sees: a histogram of its gate inputs over a few batches."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.seals import Kind
from fewspikes.fitting.histogram import Histogram
from fewspikes.measure.source import Labelled
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation

_CALIBRATION = Kind("fewspikes-calibration", 1, "calibration", "calibrate again")


@dataclass(frozen=True)
class Calibration:
    """Histograms of the gate inputs by site name, and the number of images they come from. Add to merge."""

    images: int
    sites: Mapping[str, Histogram]

    def __post_init__(self) -> None:
        checks.whole("the images of a calibration", self.images, 0)
        sites = self.sites.values() if isinstance(self.sites, Mapping) else [None]
        if not all(isinstance(histogram, Histogram) for histogram in sites):
            raise FewSpikesError("a calibration has a histogram for each site; `fewspikes.calibrate` makes them")

    def __add__(self, other: "Calibration") -> "Calibration":
        if set(self.sites) != set(other.sites):
            raise FewSpikesError("only calibrations of the same network can be added")
        return Calibration(self.images + other.images, {name: h + other.sites[name] for name, h in self.sites.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON with its checksum."""
        sites = {name: histogram.to_json() for name, histogram in self.sites.items()}
        _CALIBRATION.write(path, {"images": self.images, "sites": sites}, indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            FewSpikesError: no such file, not a calibration, or changed since it was written.
        """
        content = _CALIBRATION.read(path)
        with _CALIBRATION.reading(path):
            return cls(content["images"], {n: Histogram.from_json(entry) for n, entry in content["sites"].items()})


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
