"""What a simulation tells: who fired when, what came out, and when the answer was there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.checks import said, whole
from fewspikes.base.errors import FewSpikesError
from fewspikes.measure.counting import Counts
from fewspikes.simulation.plan import Layer

_LIMIT = 1 << 30


@dataclass(frozen=True)
class Recording:
    """Which spikes a simulation keeps.

    Args:
        sites: their layers' names; None keeps all, () none.
        limit: of bytes in memory, one for each neuron, step and image.

    Raises:
        FewSpikesError: a limit that is no whole number.
    """

    sites: tuple[str, ...] | None = None
    limit: int = _LIMIT

    def __post_init__(self) -> None:
        whole("limit", self.limit, 0)

    def chosen(self, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """The sites to keep, given how many bytes each takes.

        Raises:
            FewSpikesError: a site that is not there, or more bytes than the limit.
        """
        names = tuple(sizes) if self.sites is None else self.sites
        unknown = [name for name in names if name not in sizes]
        if unknown:
            raise FewSpikesError(f"there is no site {said(unknown[0])} to record; there are {', '.join(sizes)}")
        wanted = sum(sizes[name] for name in names)
        if wanted > self.limit:
            largest = max(names, key=sizes.__getitem__)
            raise FewSpikesError(
                f"recording takes {wanted:,} bytes, the limit is {self.limit:,}; choose some sites, "
                f"Recording(sites=...) (the largest is {largest}, {sizes[largest]:,}), fewer images, or a higher limit"
            )
        return names


@dataclass(frozen=True)
class Trace:
    """A simulation's result.

    Attributes:
        engine: what ran: steps, pipeline or events.
        output: what the network returns, in the model's own structure.
        spikes: by site, bool [K, batch, *shape]; [time steps, K, batch, *shape] in a loop over time.
        counts: exact, with synaptic operations where the engine counts them one by one.
        times: by site, the first and the last global step in which it may fire, the image coming in at step 0.
        per_step: by site, the spikes of all images in each global step of their own, int64 [answer].
        answer: the step after which the output is complete.
        running: the output after each of the last steps, [steps, batch, *shape], where it is one weighted sum.
        running_steps: those steps.
        interval: of a pipeline, the steps between two images; else None.
    """

    engine: str
    output: Any
    spikes: Mapping[str, Tensor]
    counts: Counts
    times: Mapping[str, tuple[int, int]]
    per_step: Mapping[str, Tensor]
    answer: int
    running: Tensor | None = None
    running_steps: tuple[int, ...] = ()
    interval: int | None = None


@dataclass
class Recorder:
    """Fills a trace's tensors while a simulation runs.

    Args:
        names: the sites to keep.
        shapes: by site, time steps, K and the shape per image.
        in_loop: the sites whose spikes have an axis of time steps.
        images: how many run.
        answer: the step of the answer.
    """

    names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, int, tuple[int, ...]]]
    in_loop: frozenset[str]
    images: int
    answer: int
    spikes: dict[str, Tensor] = field(init=False)
    per_step: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.spikes = {}
        for name in self.names:
            times, K, shape = self.shapes[name]
            self.spikes[name] = torch.zeros((times, K, self.images, *shape), dtype=torch.bool)
        self.per_step = {name: torch.zeros(self.answer, dtype=torch.int64) for name in self.shapes}

    def fired(self, layer: Layer, t: int, own: int, first: int, z: Tensor) -> None:
        """A layer has fired.

        Args:
            layer: that it is.
            t: the step of its code, from 0.
            own: the global step of these images.
            first: the first of them.
            z: their spikes, [images, *shape].
        """
        self.per_step[layer.site][own - 1] += int(z.sum())
        if layer.site in self.spikes:
            shape = self.shapes[layer.site][2]
            self.spikes[layer.site][layer.time, t, first : first + len(z)] = z.reshape(-1, *shape)

    def shown(self) -> dict[str, Tensor]:
        """The spikes as a trace has them."""
        return {name: value if name in self.in_loop else value[0] for name, value in self.spikes.items()}
