"""One deal of the images: each gets its role in one pass over the loader, whatever the loader's batches and order.

Batches are dealt anew into one size that depends on the network alone, so that no result depends on the loader's. A
loader that shuffles gives every image once in a pass, so what one pass holds out stays held out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fewspikes.base.tensors import aligned
from fewspikes.measure.outliers import Outliers
from fewspikes.measure.source import Batch, Labelled

BATCH = 64  # images at most
HELD_OUT = 1024  # images at most
BYTES = 2 << 30  # of images in one role that are kept in memory; more are left out
_AT_ONCE = 1 << 28  # neurons times images in a batch: a large network gets smaller batches


def batch_size(neurons: int) -> int:
    """Images a batch for a network of so many neurons."""
    return max(1, min(BATCH, _AT_ONCE // max(neurons, 1)))


def dealt(batches: Iterable[Labelled], size: int) -> Iterator[Labelled]:
    """The same images in batches of `size`, the last one perhaps smaller."""
    parts: list[Labelled] = []
    room = size
    for batch in batches:
        while len(batch[0][0]) >= room:
            yield _joined([*parts, _rows(batch, slice(room))])
            batch, parts, room = _rows(batch, slice(room, None)), [], size
        if len(batch[0][0]):
            parts.append(batch)
            room -= len(batch[0][0])
    if parts:
        yield _joined(parts)


@dataclass(frozen=True)
class Images:
    """Images in memory, in the order in which they came.

    Attributes:
        inputs: one tensor per input of the network, [images, ...].
        labels: [images], or None.
        size: images a batch.
    """

    inputs: Batch
    labels: Tensor | None = None
    size: int = BATCH

    def __len__(self) -> int:
        return len(self.inputs[0]) if self.inputs else 0

    def __iter__(self) -> Iterator[Labelled]:
        return dealt([(self.inputs, self.labels)] if len(self) else [], self.size)

    @property
    def batches(self) -> list[Batch]:
        """The inputs, batch by batch."""
        return [inputs for inputs, _ in self]

    def take(self, places: slice | Tensor) -> "Images":
        """Some of them."""
        inputs, labels = _rows((self.inputs, self.labels), places)
        return replace(self, inputs=inputs, labels=labels)

    def alternating(self) -> tuple["Images", "Images"]:
        """Every second image beginning with the first, and the others."""
        return self.take(slice(0, None, 2)), self.take(slice(1, None, 2))

    def apart(self, count: int) -> tuple["Images", "Images"]:
        """So many images, evenly spread over all, and the rest."""
        places = torch.linspace(0, len(self) - 1, count).round().long().unique()
        rest = torch.ones(len(self), dtype=torch.bool)
        rest[places] = False
        return self.take(places), self.take(rest.nonzero().flatten())


class Deal:
    """One pass over the batches, in which every image gets its role.

    Image number i of the pass is held out if i % every == every - 1; the others are what iterating gives, to fit on.
    With `outliers` images far larger than the others get no role at all.
    Once the pass is over, `kept` are the first of those, and `held` the first of the images held out with their labels.
    Either takes at most 2 GiB of memory.

    Args:
        batches: of any size.
        size: images a batch, see `batch_size`.
        keep: images to keep at most; None: as many as fit.
        every: one image in so many is held out; 0: none.
        outliers: whether images far from the others are left out.

    Attributes:
        outliers: those of the last pass, or None if nobody looks for them.
    """

    def __init__(
        self,
        batches: Iterable[Labelled],
        size: int,
        keep: int | None = None,
        every: int = 0,
        *,
        outliers: bool = False,
    ) -> None:
        self._batches, self._size, self._every = batches, size, every
        self.outliers = Outliers() if outliers else None
        self._kept, self._held = _Store(keep), _Store(HELD_OUT)

    def __iter__(self) -> Iterator[Labelled]:
        return dealt(self._pass(), self._size)

    @property
    def kept(self) -> Images:
        """The first images that were fitted on."""
        return self._kept.images(self._size)

    @property
    def held(self) -> Images:
        """The first images that were held out."""
        return self._held.images(self._size)

    @property
    def left_out(self) -> int:
        """Images that would have been kept if there were memory for them."""
        return self._kept.left_out

    def _pass(self) -> Iterator[Labelled]:
        self._kept, self._held, seen = _Store(self._kept.most), _Store(HELD_OUT), 0
        self.outliers = None if self.outliers is None else Outliers()
        batches = self._batches if self.outliers is None else dealt(self._batches, BATCH)  # whatever the loader's are
        for batch in batches:
            place = torch.arange(seen, seen + len(batch[0][0]))
            seen += len(place)
            out = place % self._every == self._every - 1 if self._every else torch.zeros(len(place), dtype=torch.bool)
            far = torch.zeros_like(out) if self.outliers is None else self.outliers.far(batch[0])
            self._held.add(_rows(batch, (out & ~far).nonzero().flatten()) if out.any() else None)
            fitted = _rows(batch, (~out & ~far).nonzero().flatten()) if (out | far).any() else batch
            self._kept.add(fitted)
            yield fitted


@dataclass
class _Store:
    """The first images of many, as far as there is room."""

    most: int | None
    parts: list[Labelled] = field(default_factory=list)
    count: int = 0
    bytes: int = 0
    left_out: int = 0

    def add(self, batch: Labelled | None) -> None:
        """As many of these as there is room for."""
        if batch is None or not len(batch[0][0]):
            return
        given, each = len(batch[0][0]), sum(v.numel() * v.element_size() for v in batch[0]) // len(batch[0][0])
        wanted = given if self.most is None else min(given, self.most - self.count)
        room = (BYTES - self.bytes) // max(each, 1)
        taken = max(min(wanted, room), 0 if self.count else min(wanted, 1))
        self.left_out += wanted - taken
        if taken:
            inputs, labels = _rows(batch, slice(taken))
            self.parts.append((tuple(value.clone() for value in inputs), labels))
            self.count, self.bytes = self.count + taken, self.bytes + taken * each

    def images(self, size: int) -> Images:
        """All of them."""
        return Images(*_joined(self.parts), size) if self.parts else Images((), None, size)


def _rows(batch: Labelled, places: slice | Tensor) -> Labelled:
    inputs, labels = batch

    def of(value: Tensor) -> Tensor:
        return value[places.to(value.device) if isinstance(places, Tensor) else places]

    return tuple(map(of, inputs)), None if labels is None else of(labels)


def _joined(parts: list[Labelled]) -> Labelled:
    values = zip(*(inputs for inputs, _ in parts), strict=True)
    inputs = tuple(aligned(torch.cat(one) if len(one) > 1 else one[0]) for one in values)
    labels = [labels for _, labels in parts if labels is not None]
    return inputs, torch.cat(labels) if labels else None
