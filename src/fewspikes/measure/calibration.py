"""What each site really sees: a histogram of its gate inputs over a few batches."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.seals import Kind
from fewspikes.fitting.histogram import Histogram
from fewspikes.measure.levels import Levels, of_sites
from fewspikes.measure.source import Labelled
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation

_CALIBRATION = Kind("fewspikes-calibration", 1, "calibration", "calibrate again")


@dataclass(frozen=True)
class Calibration:
    """Histograms of the gate inputs by site name, and the number of images they come from. Add to merge.

    `levels`: the distinct values of inputs that come as spikes, by site name. `constants`: what was found for the
    constants that images tell, by their names, see `operators.measured`.
    """

    images: int
    sites: Mapping[str, Histogram]
    levels: Mapping[str, Levels] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.whole("the images of a calibration", self.images, 0)
        sites = self.sites.values() if isinstance(self.sites, Mapping) else [None]
        if not all(isinstance(histogram, Histogram) for histogram in sites):
            raise FewSpikesError("a calibration has a histogram for each site; `fewspikes.calibrate` makes them")

    def __add__(self, other: "Calibration") -> "Calibration":
        if set(self.sites) != set(other.sites):
            raise FewSpikesError("only calibrations of the same network can be added")
        if any(not torch.equal(value, other.constants[name]) for name, value in self.constants.items()):
            raise FewSpikesError(
                "these calibrations balance the network's products by other images, so that their sites saw other "
                "values; calibrate once on all images"
            )
        sites = {name: h + other.sites[name] for name, h in self.sites.items()}
        levels = {name: one + other.levels[name] for name, one in self.levels.items() if name in other.levels}
        return Calibration(self.images + other.images, sites, levels, self.constants)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON with its checksum."""
        sites = {name: histogram.to_json() for name, histogram in self.sites.items()}
        levels = {name: one.to_json() for name, one in self.levels.items()}
        content = {"images": self.images, "sites": sites} | ({"levels": levels} if levels else {})
        constants = {name: value.tolist() for name, value in self.constants.items()}
        content |= {"constants": constants} if constants else {}
        _CALIBRATION.write(path, content, indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            FewSpikesError: no such file, not a calibration, or changed since it was written.
        """
        content = _CALIBRATION.read(path)
        with _CALIBRATION.reading(path):
            sites = {n: Histogram.from_json(entry) for n, entry in content["sites"].items()}
            constants = {str(n): torch.tensor(value) for n, value in content.get("constants", {}).items()}
            return cls(content["images"], sites, of_sites(content.get("levels", {})), constants)


def calibrate(
    snn: SpikingNetwork, batches: Iterable[Labelled], entries: Mapping[str, int] | None = None
) -> Calibration:
    """Run the ANN over the batches and collect what arrives at each site.

    Args:
        snn: any network of the ANN in question; its neurons are not used.
        batches: inputs and (ignored) labels.
        entries: the axis of the channels, by the name of each site where an input becomes spikes.

    Raises:
        FewSpikesError: NaN or inf arrives at a site.
    """
    axes = entries or {}
    sites = {site.name: _Watched(site.name, site.activation, axes.get(site.name)) for site in snn.sites}
    ann = snn.running(sites)
    images = 0
    with torch.inference_mode():
        for inputs, _ in batches:
            ann(*inputs)
            images += len(inputs[0])
    seen = {name: site.seen for name, site in sites.items() if site.seen is not None}
    return Calibration(images, seen, {name: site.levels for name, site in sites.items() if site.levels is not None})


class _Watched(nn.Module):
    """The activation of a site, a histogram of its inputs so far, and their levels along an axis, if there is one."""

    def __init__(self, name: str, activation: Activation, axis: int | None) -> None:
        super().__init__()
        self.name, self.activation, self.axis = name, activation, axis
        self.seen: Histogram | None = None
        self.levels: Levels | None = None

    def forward(self, x: Tensor) -> Tensor:
        """f(x)."""
        try:
            seen = Histogram.of(x)
        except FewSpikesError as error:
            raise FewSpikesError(f"site {self.name}, calibration: {error}") from None
        self.seen = seen if self.seen is None else self.seen + seen
        if self.axis is not None:
            self.levels = Levels.of(x, self.axis, self.levels)
        return self.activation(x)
