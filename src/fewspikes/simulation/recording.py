"""Recordings in a folder: spikes as address events, in files that are whole whenever the simulation ends.

The folder holds an index, `index.json`, and chunks, `events-000000.safetensors` and so on, of 262,144 spikes each, the
last one of fewer. A file is written aside and renamed, so a simulation that is killed leaves whole files, and loses the
spikes of the chunk that was not full yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewspikes.base.checks import said, whole
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.files import as_path, reason_of, shown
from fewspikes.base.seals import Kind
from fewspikes.base.tensors import read_tensors, write_tensors
from fewspikes.base.version import __version__

_RECORDING = Kind("fewspikes-recording", 1, "recording", "record again")
_CHUNK = Kind("fewspikes-events", 1, "chunk of a recording", "record again")
_INDEX, _EVENTS = "index.json", 1 << 18
_MOST = 1 << 31  # of an int32


class Events(NamedTuple):
    """Spikes in the order in which they were fired, one an element.

    Attributes:
        image: its number, from 0, int32.
        step: the global step of its image, from 1, int32.
        site: the number of its layer in the recording, int32.
        time: the time step of its loop, 0 outside of loops, int32.
        t: the step of the code, from 0, int32.
        neuron: its number in the layer, row-major, int64.
    """

    image: Tensor
    step: Tensor
    site: Tensor
    time: Tensor
    t: Tensor
    neuron: Tensor


_TYPES = {name: torch.int64 if name == "neuron" else torch.int32 for name in Events._fields}


@dataclass(frozen=True)
class RecordedSite:
    """A layer of a recording.

    Attributes:
        name: of its site.
        K: the steps of its code.
        times: the time steps of its loop; 1 outside of loops.
        in_loop: whether it is in one.
        shape: of its neurons for one image.
    """

    name: str
    K: int
    times: int
    in_loop: bool
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.in_loop, bool):
            raise ValueError("a site needs a name and whether it is in a loop")
        object.__setattr__(self, "shape", tuple(whole("a side of a shape", side, 0, _MOST) for side in self.shape))
        for name in ("K", "times"):
            whole(name, getattr(self, name), 1, _MOST)


def new_folder(path: Any) -> Path:
    """The path of a folder that is not there yet, or is empty.

    Raises:
        FewSpikesError: something is there, or it has no folder to be in.
    """
    folder = as_path(path)
    if folder.exists() and not folder.is_dir():
        raise FewSpikesError(f"cannot record to {shown(folder)}: it is a file; give a folder")
    if not folder.parent.is_dir():
        what = "is a file; give another folder" if folder.parent.exists() else "does not exist; make it first"
        raise FewSpikesError(f"cannot record to {shown(folder)}: {shown(folder.parent)} {what}")
    if folder.is_dir() and any(folder.iterdir()):
        raise FewSpikesError(f"cannot record to {shown(folder)}: it is not empty; give a new folder, or empty it")
    return folder


class Stream:
    """Writes a recording while a simulation runs; leaving the block writes what is left, whatever ends it.

    Args:
        folder: new or empty.
        sites: the layers that are recorded, in order.
        about: engine, images, interval, answer, steps.
    """

    def __init__(self, folder: Path, sites: Sequence[RecordedSite], about: Mapping[str, Any]) -> None:
        self._folder, self._about = new_folder(folder), dict(about)
        self._sites = [vars(site) | {"shape": list(site.shape)} for site in sites]
        self._numbers = {site.name: number for number, site in enumerate(sites)}
        self._waiting: list[Events] = []
        self._events = self._chunks = 0

    def __enter__(self) -> "Stream":
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise FewSpikesError(f"cannot record to {shown(self._folder)}: {reason_of(error)}") from None
        self._index(None)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._events:
            self._write(self._events)
        if error is None:
            self._index(self._chunks)

    def _index(self, chunks: int | None) -> None:
        versions = {"fewspikes": __version__, "torch": torch.__version__}
        content = {**self._about, "sites": self._sites, "chunks": chunks, "versions": versions}
        _RECORDING.write(self._folder / _INDEX, content)

    def add(self, site: str, time: int, t: int, step: int, first: int, z: Tensor) -> None:
        """The spikes of a layer at one step, [images, *shape], of which `first` is the first image's number."""
        image, neuron = z.flatten(1).nonzero(as_tuple=True)
        same = [torch.full_like(image, value) for value in (step, self._numbers[site], time, t)]
        found = (image + first, *same, neuron)
        self._waiting.append(Events(*(v.to(kind) for v, kind in zip(found, _TYPES.values(), strict=True))))
        self._events += len(image)
        while self._events >= _EVENTS:
            self._write(_EVENTS)

    def _write(self, count: int) -> None:
        """The first so many of the spikes that wait, as a chunk."""
        held = _joined(self._waiting)
        file = self._folder / _name(self._chunks)
        write_tensors(file, _CHUNK, {"number": self._chunks}, {k: v[:count] for k, v in held._asdict().items()})
        self._chunks, self._events = self._chunks + 1, self._events - count
        self._waiting = [Events(*(v[count:].clone() for v in held))] if self._events else []


@dataclass(frozen=True)
class RecordedEvents:
    """A recording in a folder. Iterating reads it chunk by chunk, each as `Events`.

    Attributes:
        folder: where it lies.
        sites: the layers that were recorded; `Events.site` is a position here.
        engine: that ran.
        images: how many were simulated.
        interval: of a pipeline, the steps between two images; else None.
        answer: the global step of the answer.
        steps: the global steps of an image; in a loop's last time step some neurons may fire after the answer.
        versions: of fewspikes and torch that wrote it.
        chunks: its files.
        complete: whether the simulation came to its end.
    """

    folder: Path
    sites: tuple[RecordedSite, ...]
    engine: str
    images: int
    interval: int | None
    answer: int
    steps: int
    versions: Mapping[str, str]
    chunks: int
    complete: bool

    def __iter__(self) -> Iterator[Events]:
        for number in range(self.chunks):
            yield self._chunk(number)

    def events(self) -> Events:
        """All of them, in memory."""
        return _joined(list(self))

    def spikes(self, site: str) -> Tensor:
        """A layer's spikes as `Trace.spikes` has them: bool [K, images, *shape], with the time steps first in a loop.

        Of a simulation that was cut short it warns: what had not happened, or was not written yet, looks like silence.

        Raises:
            FewSpikesError: a site that was not recorded.
        """
        names = [one.name for one in self.sites]
        if site not in names:
            raise FewSpikesError(f"there is no site {said(site)} in this recording; there are {', '.join(names)}")
        if not self.complete:
            warn(
                f"the simulation that was recorded to {shown(self.folder)} did not end: later images, and with engine "
                "steps later layers, are silent here because they are missing"
            )
        one = self.sites[names.index(site)]
        found = torch.zeros((one.times, one.K, self.images, prod(one.shape)), dtype=torch.bool)
        for chunk in self:
            mine = chunk.site == names.index(site)
            at = (value[mine].long() for value in (chunk.time, chunk.t, chunk.image, chunk.neuron))
            found[tuple(at)] = True
        shaped = found.view(one.times, one.K, self.images, *one.shape)
        return shaped if one.in_loop else shaped[0]

    def _chunk(self, number: int) -> Events:
        path = self.folder / _name(number)
        content, tensors = read_tensors(path, _CHUNK)
        with _CHUNK.reading(path):
            if content["number"] != number or {k: v.dtype for k, v in tensors.items()} != _TYPES:
                raise ValueError("its name or its arrays are not those of a chunk")
            found = Events(**tensors)
            self._check(found)
        return found

    def _check(self, found: Events) -> None:
        if len({tuple(v.shape) for v in found}) != 1 or found.image.ndim != 1:
            raise ValueError("its arrays differ in length")
        site = found.site.long()
        _within(site, len(self.sites), "site")
        sizes = ((one.times, one.K, prod(one.shape)) for one in self.sites)
        times, K, neurons = torch.tensor(list(sizes), dtype=torch.int64).view(-1, 3)[site].unbind(1)
        _within(found.image, self.images, "image")
        _within(found.step - 1, self.steps, "step")
        _within(found.time, times, "time step")
        _within(found.t, K, "step of the code")
        _within(found.neuron, neurons, "neuron")


def read_events(folder: Any) -> RecordedEvents:
    """Open a recording that `Recording(folder=...)` made, also of a simulation that was interrupted or killed.

    Args:
        folder: that was recorded to.

    Raises:
        FewSpikesError: no recording, one of another version, or one that was changed or has lost a file.

    >>> import fewspikes as fs, tempfile
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1)).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recording = fs.Recording(folder=f"{folder}/spikes")
    ...     trace = fs.simulate(fs.convert(net, torch.zeros(1, 2)), torch.ones(3, 2), recording=recording)
    ...     found = read_events(f"{folder}/spikes")
    ...     len(found.events().step) == trace.counts.total, found.complete
    (True, True)
    """
    folder = as_path(folder)
    path = folder / _INDEX
    if not path.is_file():
        raise FewSpikesError(f"no recording at {shown(folder)}; give the folder that a simulation recorded to")
    content = _RECORDING.read(path)
    there = 0
    while (folder / _name(there)).is_file():
        there += 1
    with _RECORDING.reading(path):
        chunks = content["chunks"]
        if chunks is not None and whole("chunks", chunks, 0) != there:
            raise ValueError(f"of its {chunks} chunks {_name(there)} is missing")
        sites = tuple(RecordedSite(**site) for site in content["sites"])
        images, answer, steps = (whole(name, content[name], 0, _MOST) for name in ("images", "answer", "steps"))
        interval = None if content["interval"] is None else whole("interval", content["interval"], 1, _MOST)
        versions = {str(name): str(version) for name, version in content["versions"].items()}
        return RecordedEvents(
            folder, sites, str(content["engine"]), images, interval, answer, steps, versions, there, chunks is not None
        )


def _name(chunk: int) -> str:
    return f"events-{chunk:06d}.safetensors"


def _joined(parts: Sequence[Events]) -> Events:
    if not parts:
        return Events(*(torch.empty(0, dtype=kind) for kind in _TYPES.values()))
    return Events(*(torch.cat(same) for same in zip(*parts, strict=True)))


def _within(values: Tensor, most: Tensor | int, name: str) -> None:
    if not bool(((values >= 0) & (values < most)).all()):
        raise ValueError(f"a {name} that is not there")
