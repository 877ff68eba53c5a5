"""Where errors count: a calibration with what the network's output says of each site's, from one pass backwards."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from fewspikes.base.progress import track
from fewspikes.fitting.weights import Weights
from fewspikes.measure.calibration import Calibration
from fewspikes.measure.deal import Images
from fewspikes.measure.gradients import without_gradient
from fewspikes.measure.sensitivity import portion, probe
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.layer import per_channel

IMAGES = 64  # at most
EVEN = ("relu",)  # activations whose codes are found without weights


def ranged(snn: SpikingNetwork) -> dict[str, int]:
    """The axis of the channels of each site that may have a range for each, by name; a ReLU gets its by repair."""
    free = [s.name for s in snn.sites if s.activation.name not in EVEN and not snn.scale_is_free(s.name)]
    axes = {name: snn.channel_axis(name) for name in free}
    return {name: axis for name, axis in axes.items() if axis is not None}


def weighed(
    snn: SpikingNetwork,
    calibration: Calibration,
    images: Images,
    axes: Mapping[str, int],
    progress: bool | None = None,
) -> Calibration:
    """The calibration with weights, measured on up to 64 images (fewer for a large network).

    With them a fit makes those errors small that reach the output: an error of a rsqrt counts by what it multiplies,
    one of a square by how little the others in its sum are. Where no gradient passes, nothing changes but that sites
    have one range for all channels.

    Args:
        snn: any network of these sites; its neurons are not used.
        calibration: of the network.
        images: some of them are used.
        axes: of the channels, see `ranged`.
        progress: a bar on stderr; None shows it when stderr is a terminal.
    """
    names = {site.name: site.activation.degree for site in snn.sites if site.activation.name not in EVEN}
    if not names or not len(images) or without_gradient(snn):
        return calibration.without_ranges()
    batches = portion(snn, images, IMAGES)
    found: dict[str, Weights] = {}
    for probed in track(probe(snn, batches), "measuring where errors count", len(batches), progress):
        for name, degree in names.items():
            x, squares = probed.inputs[name], probed.squares(name)
            if name in calibration.ranges:
                size = per_channel(torch.tensor(calibration.ranges[name]), x, axes[name])
                x, squares = x / size, squares * size ** (2 * (degree or 0.0))
            here = Weights.of(x, squares)
            found[name] = found[name] + here if name in found else here
    return replace(calibration, weights=found)
