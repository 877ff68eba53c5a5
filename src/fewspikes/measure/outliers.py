"""Images whose numbers are far larger than the others': most often one that was scaled in another way.

A code that is fitted to the squared error would follow such an image alone, and fit none of the others.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewspikes.measure.source import Batch

_LEAST = 4  # images, from which on one can be told from the others
_FACTOR = 8.0  # of the middle image's size, that may yet be an image of its own kind
_SPREADS = 9.0  # median distances from the middle image's logarithm: 6 standard deviations, were it normal
_SHARE = 0.2  # of all images: more of them are a kind of their own, to be fitted to
_NAMED = 3  # images listed in a message
_TINY = 1e-30


@dataclass
class Outliers:
    """Which images of a stream are far from those seen so far, by the root of their mean square.

    An image is far if that is more than 8 times the middle image's, and its logarithm further from the middle one's
    than 9 times the median distance; so data of many sizes, as sounds, have none. Where more than a fifth would be,
    they are a kind of their own: counted, but fitted to. Small images never are far: they do no harm. What is said of
    an image depends on those that came before it and in its batch.

    Attributes:
        seen: images so far.
        found: number and size, in sizes of the middle image, of those that are far.
        crowd: how many would be, but are a kind of their own.
    """

    seen: int = 0
    found: list[tuple[int, float]] = field(default_factory=list)
    crowd: int = 0
    _sizes: list[Tensor] = field(default_factory=list)  # [inputs, images] of each batch: logarithms

    def far(self, inputs: Batch) -> Tensor:
        """Which images of a batch are far, as bools [images]."""
        images = len(inputs[0])
        floating = [value for value in inputs if value.is_floating_point() and value.numel()]
        if not floating or not images:
            return torch.zeros(images, dtype=torch.bool)
        self._sizes.append(torch.stack([_log_size(value) for value in floating]))
        known = torch.cat(self._sizes, 1)
        middle = known.median(1, keepdim=True).values
        spread = (known - middle).abs().median(1, keepdim=True).values
        above = self._sizes[-1] - middle
        far = (above > torch.clamp(_SPREADS * spread, min=math.log(_FACTOR))).any(0) & (known.shape[1] >= _LEAST)
        if len(self.found) + int(far.sum()) > max(1.0, _SHARE * known.shape[1]):
            self.crowd += int(far.sum())
            far = torch.zeros_like(far)
        for place in far.nonzero().flatten().tolist():
            self.found.append((self.seen + place, math.exp(float(above[:, place].max()))))
        self.seen += images
        return far

    def __bool__(self) -> bool:
        """Whether there is something to say."""
        return bool(self.found or self.crowd)

    def __str__(self) -> str:
        if self.crowd:
            return (
                f"{self.crowd + len(self.found)} of {self.seen:,} images are far larger than the middle one; "
                f"{self.crowd} of them are too many to be left out, so the codes are fitted to these, too. Look "
                "whether every image is scaled alike"
            )
        named = ", ".join(f"number {place} ({size:.3g} times)" for place, size in self.found[:_NAMED])
        more = ", ..." if len(self.found) > _NAMED else ""
        many = "is" if len(self.found) == 1 else "are"
        return (
            f"{len(self.found)} of {self.seen:,} images {many} far larger than the middle one: {named}{more}; nothing "
            f"is fitted to {'it' if len(self.found) == 1 else 'them'}. Look whether every image is scaled alike"
        )


def _log_size(value: Tensor) -> Tensor:
    """The logarithm of each image's root mean square, [images]."""
    rows = value.reshape(len(value), -1).double()
    return 0.5 * rows.square().mean(1).clamp_min(_TINY).log().cpu()
