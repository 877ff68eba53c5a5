"""What each site really sees: a histogram of its gate inputs over a few batches."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import read_json, write_json
from fewspikes.fitting.histogram import Histogram

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


def calibrate(
    network: Callable[..., Any],
    sites: Mapping[str, nn.Module],
    batches: Iterable[tuple[tuple[Tensor, ...], Any]],
) -> Calibration:
    """Run the ANN over the batches and collect what arrives at each site.

    Args:
        network: the graph with its original activations.
        sites: the modules in it that stand for the activations, by site name.
        batches: inputs and (ignored) labels.

    Raises:
        FewSpikesError: NaN or inf arrives at a site.
    """
    collected: dict[str, Histogram] = {}
    images = 0
    handles = [m.register_forward_pre_hook(partial(_collect, collected, name)) for name, m in sites.items()]
    try:
        with torch.inference_mode():
            for inputs, _ in batches:
                network(*inputs)
                images += len(inputs[0])
    finally:
        for handle in handles:
            handle.remove()
    return Calibration(images, {name: collected[name] for name in sites})


def _collect(collected: dict[str, Histogram], name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    try:
        seen = Histogram.of(args[0])
    except FewSpikesError as error:
        raise FewSpikesError(f"site {name}, calibration: {error}") from None
    collected[name] = collected[name] + seen if name in collected else seen
