"""A site, a layer of FS-neurons, in numbers: what it is, and what goes wrong there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.plain import from_plain, to_plain


@dataclass(frozen=True)
class SiteDiagnosis:
    """What goes wrong at a site, measured on some images, beside the ANN.

    Relative errors are mean squared errors over the variance of the ANN's output at the site: its mean can be put into
    a bias, so only what varies carries something. For a constant output they are over its mean square.

    Attributes:
        images: how many were looked at.
        own_error: relative error of the site alone, fed with what the ANN feeds it (without its shift where that is
            nearer: a shift makes up for what came before).
        error: accumulated relative error of its output.
        inherited_error: relative error that the exact activation would pass on from the sites before.
        cosine: between its output and the ANN's, over all elements.
        output_error: what the site's own error adds to the mean squared error of the network's output, over the
            output's variance; to first order.
        clipped_fraction: inputs outside the domain that its parameters were made for.
        clipped_error: the share of its own squared error that those inputs make.
        spikes_per_neuron: mean spikes per neuron per image.
        dead_fraction, always_fraction: neurons that fired in none of the images, and in every one.
        channels, silent_channels: how many there are, and that never fired; None and 0 where the graph does not tell.
        idle_steps: time steps at which no neuron fired.
        constant: the ANN's output here is one number everywhere.
        max_error: the largest error on the domain, proven from the staircase's exact steps; None where the domain is
            open and the error grows with it.
    """

    images: int
    own_error: float
    error: float
    inherited_error: float
    cosine: float
    output_error: float
    clipped_fraction: float
    clipped_error: float
    spikes_per_neuron: float
    dead_fraction: float
    always_fraction: float
    channels: int | None
    silent_channels: int
    idle_steps: int
    constant: bool
    max_error: float | None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not isfinite(value):
                raise FewSpikesError(f"the diagnosis of a site must hold finite numbers; {name} is {value}")

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        return to_plain(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SiteDiagnosis":
        """The reverse of `to_json`; raises FewSpikesError where something is missing or of another type."""
        return from_plain(cls, content, "the diagnosis of a site")


@dataclass(frozen=True)
class SiteReport:
    """One layer of FS-neurons.

    Attributes:
        name: module path, with #n where one module serves several places.
        activation: label of what is imitated.
        neurons: per image.
        K: time steps.
        alpha: range of a ReLU code, None for others.
        domain: inputs outside of it count as clipped; an open end is infinite.
        method: where the parameters come from.
        shifted, scaled, gained: how many channels have a shift, a range and a gain of their own.
        part: the operator whose circuit it is part of, "input" or "linear" for an identity; "" for one of the model's.
        diagnosis: what goes wrong here, if it was measured.
    """

    name: str
    activation: str
    neurons: int
    K: int
    alpha: float | None
    domain: tuple[float, float]
    method: str
    shifted: int = 0
    scaled: int = 0
    gained: int = 0
    part: str = ""
    diagnosis: SiteDiagnosis | None = None


@dataclass(frozen=True)
class CircuitReport:
    """What became of one operator that is no weighted sum and no activation: layers of neurons that do it together.

    Attributes:
        operator: as "max_pool2d"; "input" where an input becomes spikes, "linear" between two weighted maps.
        path: of the module.
        sites: the layers' names, in order.
        neurons: in all, per image.
        steps: time steps that they take, one after the other where they follow one another.
        exact: whether they add no error.
        spikes_per_neuron: mean per image; None without images.
        output_error: what their own errors add to the mean squared error of the network's output, over its variance;
            None without images.
    """

    operator: str
    path: str
    sites: tuple[str, ...]
    neurons: int
    steps: int
    exact: bool
    spikes_per_neuron: float | None = None
    output_error: float | None = None


@dataclass(frozen=True)
class LoopReport:
    """A loop over time, which runs its sites once for each time step.

    Attributes:
        path: of the module.
        sites: the layers' names, in order.
        neurons: in all; each runs at every time step.
        time_steps: of a sequence as long as the example's.
        steps: from one time step to the next, once the loop runs.
        spikes_per_neuron: mean per neuron and time step; None without images.
    """

    path: str
    sites: tuple[str, ...]
    neurons: int
    time_steps: int
    steps: int
    spikes_per_neuron: float | None = None
