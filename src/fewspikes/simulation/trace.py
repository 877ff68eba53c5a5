"""What a simulation tells: who fired when, what came out, and when the answer was there."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.checks import said, whole
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path
from fewspikes.base.sums import count_true
from fewspikes.base.wording import counted
from fewspikes.measure.counting import Counts
from fewspikes.simulation.plan import Layer, Plan
from fewspikes.simulation.recording import RecordedSite, Stream, new_folder
from fewspikes.simulation.schedule import Traffic

_LIMIT = 1 << 30


@dataclass(frozen=True)
class Recording:
    """Which spikes a simulation keeps.

    Args:
        sites: their layers' names; None keeps all, () none.
        limit: of bytes in memory, one for each neuron, step and image.
        folder: spikes go there, as address events, and take no memory; new or empty. `read_events` reads them, also
            while the simulation runs or when it was interrupted.

    Raises:
        FewSpikesError: sites that are no names, a limit that is no whole number, or a folder that is not empty.
    """

    sites: tuple[str, ...] | None = None
    limit: int = _LIMIT
    folder: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        whole("limit", self.limit, 0)
        if self.sites is not None:
            names = tuple(self.sites) if isinstance(self.sites, Iterable) else (self.sites,)
            if isinstance(self.sites, str) or not all(isinstance(name, str) for name in names):
                raise FewSpikesError(f"sites must be names of sites, ('relu', ...); got {said(self.sites)}")
            object.__setattr__(self, "sites", tuple(dict.fromkeys(names)))
        if self.folder is not None:
            new_folder(self.folder)

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
        if wanted > self.limit and self.folder is None:
            largest = max(names, key=sizes.__getitem__)
            raise FewSpikesError(
                f"recording takes {wanted:,} bytes, the limit is {self.limit:,}; choose some sites, "
                f"Recording(sites=...) (the largest is {largest}, {sizes[largest]:,}), fewer images, a folder to "
                "record to, Recording(folder=...), or a higher limit"
            )
        return names


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """A simulation's result.

    Attributes:
        engine: what ran: steps, pipeline or events.
        output: what the network returns, in the model's own structure.
        spikes: by site, bool [K, batch, *shape]; [time steps, K, batch, *shape] in a loop over time. Empty where they
            are recorded in a folder.
        counts: exact, with synaptic operations where the engine counts them one by one.
        times: by site, the first and the last global step in which it may fire, the image coming in at step 0.
        starts: by site, the global step before its first one; in a loop, that of each time step.
        per_step: by site, the spikes of all images in each global step of their own, int64 [steps].
        answer: the step after which the output is complete. In a loop's last time step some neurons may fire later.
        running: the output after each of the last steps, [steps, batch, *shape], where it is one weighted sum.
        running_steps: those steps.
        interval: of a pipeline, the steps between two images; else None.
        traffic: of a pipeline, what it takes and gives; else None.
        together: of a pipeline, by site, the spikes of all images in flight in each global step, int64; else None.
    """

    engine: str
    output: Any
    spikes: Mapping[str, Tensor]
    counts: Counts
    times: Mapping[str, tuple[int, int]]
    starts: Mapping[str, tuple[int, ...]]
    per_step: Mapping[str, Tensor]
    answer: int
    running: Tensor | None = None
    running_steps: tuple[int, ...] = ()
    interval: int | None = None
    traffic: Traffic | None = None
    together: Mapping[str, Tensor] | None = None

    def __repr__(self) -> str:
        images, layers = counted(self.counts.images, "image"), counted(len(self.times), "layer")
        kept = f"those of {counted(len(self.spikes), 'layer')} kept" if self.spikes else "none kept"
        flow = "" if self.interval is None else f", a new image every {self.interval} steps"
        return (
            f"Trace(engine {self.engine!r}, {images}, {counted(self.counts.total, 'spike')} in {layers}, {kept}, "
            f"answer after step {self.answer}{flow})"
        )


@dataclass
class Recorder:
    """Fills a trace's tensors while a simulation runs.

    Args:
        names: the sites to keep.
        shapes: by site, time steps, K and the shape per image.
        in_loop: the sites whose spikes have an axis of time steps.
        images: how many run.
        plan: of the network.
        folder: where spikes go in place of memory, if they do.
    """

    names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, int, tuple[int, ...]]]
    in_loop: frozenset[str]
    images: int
    plan: Plan
    folder: str | os.PathLike[str] | None = None
    spikes: dict[str, Tensor] = field(init=False)
    per_step: dict[str, Tensor] = field(init=False)
    together: dict[str, Tensor] | None = field(init=False, default=None)
    interval: int | None = field(init=False, default=None)
    stream: Stream | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.spikes = {}
        for name in self.names if self.folder is None else ():
            times, K, shape = self.shapes[name]
            self.spikes[name] = torch.zeros((times, K, self.images, *shape), dtype=torch.bool)
        self.per_step = {name: torch.zeros(self.plan.end, dtype=torch.int64) for name in self.shapes}

    @contextmanager
    def running(self, engine: str, interval: int | None) -> Iterator[None]:
        """While the simulation runs.

        Args:
            engine: that runs.
            interval: of a pipeline, the steps between two images.

        Raises:
            FewSpikesError: a pipeline of too many steps.
        """
        self.interval = interval
        if interval is not None:
            steps = self.plan.end + interval * (self.images - 1)
            wanted = 8 * steps * len(self.shapes)
            if wanted > _LIMIT:
                raise FewSpikesError(
                    f"with interval={interval} the pipeline runs for {steps:,} steps; to tell what each layer fires in "
                    f"each takes {wanted:,} bytes, the limit is {_LIMIT:,}: choose a shorter interval, or fewer images"
                )
            self.together = {name: torch.zeros(steps, dtype=torch.int64) for name in self.shapes}
        if self.folder is None:
            yield
            return
        sites = []
        for name in self.names:
            times, K, shape = self.shapes[name]
            sites.append(RecordedSite(name, K, times, name in self.in_loop, tuple(shape)))
        about = {"engine": engine, "images": self.images, "interval": interval}
        about |= {"answer": self.plan.answer, "steps": self.plan.end}
        with Stream(as_path(self.folder), sites, about) as self.stream:
            yield

    def fired(self, layer: Layer, t: int, own: int, first: int, z: Tensor) -> None:
        """A layer has fired.

        Args:
            layer: that it is.
            t: the step of its code, from 0.
            own: the global step of these images.
            first: the first of them.
            z: their spikes, [images, *shape].
        """
        count = count_true(z)
        self.per_step[layer.site][own - 1] += count
        if self.together is not None:
            self.together[layer.site][own + first * (self.interval or 0) - 1] += count
        if self.stream is not None and layer.site in self.names:
            self.stream.add(layer.site, layer.time, t, own, first, z)
        if layer.site in self.spikes:
            shape = self.shapes[layer.site][2]
            self.spikes[layer.site][layer.time, t, first : first + len(z)] = z.reshape(-1, *shape)

    def shown(self) -> dict[str, Tensor]:
        """The spikes as a trace has them."""
        return {name: value if name in self.in_loop else value[0] for name, value in self.spikes.items()}
