"""What each site really sees: a histogram of its gate inputs over a few batches."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.seals import Kind
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.weights import Weights
from fewspikes.measure.levels import Levels, of_sites
from fewspikes.measure.source import Labelled
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation

_CALIBRATION = Kind("fewspikes-calibration", 1, "calibration", "calibrate again")
_MARGIN = 1.25  # a channel's largest input comes once: clipping it costs more than coarser steps
_LEAST = 2.0**-12  # of the largest channel's range: what is smaller is as good as silent


@dataclass(frozen=True)
class Calibration:
    """Histograms of the gate inputs by site name, and the number of images they come from. Add to merge.

    Attributes:
        images: how many.
        sites: by site name.
        levels: the distinct values of inputs that come as spikes, by site name.
        constants: what was found for the constants that images tell, by their names, see `operators.measured`.
        ranges: the largest size of a gate input in each channel, with a margin, by the name of each site whose channels
            may have ranges of their own.
        weights: how much errors count at a site's gate inputs, by name; where there are ranges at gate inputs over
            their channel's. These inputs are of a few images.
    """

    images: int
    sites: Mapping[str, Histogram]
    levels: Mapping[str, Levels] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    weights: Mapping[str, Weights] = field(default_factory=dict)

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
        both = [name for name in self.weights if name in other.weights]
        weights = {name: self.weights[name] + other.weights[name] for name in both}
        ranges = {name: tuple(map(max, self.ranges[name], other.ranges[name])) for name in both if name in self.ranges}
        return Calibration(self.images + other.images, sites, levels, self.constants, ranges, weights)

    def without_ranges(self) -> "Calibration":
        """The same for sites that have one range for all channels."""
        weights = {name: one for name, one in self.weights.items() if name not in self.ranges}
        return replace(self, ranges={}, weights=weights)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON with its checksum."""
        sites = {name: histogram.to_json() for name, histogram in self.sites.items()}
        levels = {name: one.to_json() for name, one in self.levels.items()}
        content: dict[str, Any] = {"images": self.images, "sites": sites} | ({"levels": levels} if levels else {})
        content |= {"ranges": {name: list(one) for name, one in self.ranges.items()}} if self.ranges else {}
        content |= {"weights": {name: one.to_json() for name, one in self.weights.items()}} if self.weights else {}
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
            ranges = {
                name: tuple(checks.positive(f"a range of {name}", value) for value in given)
                for name, given in content.get("ranges", {}).items()
            }
            weights = {name: Weights.from_json(entry) for name, entry in content.get("weights", {}).items()}
            if not ranges.keys() <= weights.keys() <= sites.keys():
                raise FewSpikesError("ranges or weights of sites that have none")
            constants = {str(n): torch.tensor(value) for n, value in content.get("constants", {}).items()}
            return cls(content["images"], sites, of_sites(content.get("levels", {})), constants, ranges, weights)


def calibrate(
    snn: SpikingNetwork,
    batches: Iterable[Labelled],
    entries: Mapping[str, int] | None = None,
    channels: Mapping[str, int] | None = None,
) -> Calibration:
    """Run the ANN over the batches and collect what arrives at each site.

    Args:
        snn: any network of the ANN in question; its neurons are not used.
        batches: inputs and (ignored) labels.
        entries: the axis of the channels, by the name of each site where an input becomes spikes.
        channels: likewise of each site that may have a range for each channel.

    Raises:
        FewSpikesError: NaN or inf arrives at a site.
    """
    axes, ranged = entries or {}, channels or {}
    sites = {s.name: _Watched(s.name, s.activation, axes.get(s.name), ranged.get(s.name)) for s in snn.sites}
    ann = snn.running(sites)
    images = 0
    with torch.inference_mode():
        for inputs, _ in batches:
            ann(*inputs)
            images += len(inputs[0])
    seen = {name: site.seen for name, site in sites.items() if site.seen is not None}
    levels = {name: site.levels for name, site in sites.items() if site.levels is not None}
    ranges = {name: _ranges(site.largest) for name, site in sites.items() if site.largest is not None}
    return Calibration(images, seen, levels, ranges=ranges)


def _ranges(largest: Tensor) -> tuple[float, ...]:
    """The largest sizes with a margin, as later inputs go further; a channel of zeros gets a range, too."""
    sizes = _MARGIN * largest.double()
    return tuple(sizes.clamp_min(_LEAST * (float(sizes.max()) or 1.0)).tolist())


class _Watched(nn.Module):
    """The activation of a site, a histogram of its inputs so far, and what there is to know along an axis.

    axis: of levels that are listed; channels: of which the largest sizes are taken.
    """

    def __init__(self, name: str, activation: Activation, axis: int | None, channels: int | None) -> None:
        super().__init__()
        self.name, self.activation, self.axis, self.channels = name, activation, axis, channels
        self.seen: Histogram | None = None
        self.levels: Levels | None = None
        self.largest: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """f(x)."""
        try:
            seen = Histogram.of(x)
        except FewSpikesError as error:
            raise FewSpikesError(f"site {self.name}, calibration: {error}") from None
        self.seen = seen if self.seen is None else self.seen + seen
        if self.axis is not None:
            self.levels = Levels.of(x, self.axis, self.levels)
        if self.channels is not None:
            largest = x.abs().movedim(self.channels, 0).flatten(1).amax(1)
            self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)
        return self.activation(x)
