"""The tensors of a network's output, whatever holds them, and how much they vary from image to image."""

from typing import Any

import torch
from torch import Tensor

from fewspikes.base.sums import mean, total
from fewspikes.graph.nested import tensors_of

_CONSTANT = 1e-12  # variance over mean square that is no more than rounding


def floats(output: Any) -> list[Tensor]:
    """Those that are floating."""
    return [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]


def compared(output: Any) -> list[Tensor]:
    """Those that an error is measured on: the floating ones, or all where there is none."""
    return floats(output) or tensors_of(output)


def per_image(x: Tensor, images: int) -> Tensor:
    """[images, elements] of a tensor with its images in front. One row if they do not divide."""
    return x.reshape(images if x.numel() % images == 0 else 1, -1)


class Variance:
    """The variance of an output over images: of each element by itself, and then the mean over the elements.

    What is the same for every image, as one class's large bias, says nothing and does not count. Where no element ever
    varies, as with a single image, it is the variance over all elements, and the mean square where that is 0, too.
    Sums are taken in float64, about the first batch's means.
    """

    def __init__(self) -> None:
        self._images = self._elements = 0
        self._middle: Tensor | None = None  # [elements]
        self._first = torch.zeros(())
        self._sums = torch.zeros(4, dtype=torch.float64)  # squares about the middle; values, about their mean; squares
        self._centre = 0.0

    def add(self, output: Tensor, images: int) -> None:
        """One batch of so many images."""
        if not output.numel():
            return
        wide = output.double()
        rows = per_image(wide, images)
        if self._middle is None:
            self._middle, self._centre = rows.mean(0), float(mean(rows))
            self._first = torch.zeros_like(self._middle)
        if len(rows) != images or rows.shape[1] != len(self._middle):  # no output per image: one long image
            rows = torch.empty(0, len(self._middle)).to(rows)
        about, flat = rows - self._middle, wide - self._centre
        self._images, self._elements = self._images + len(rows), self._elements + output.numel()
        self._first += about.sum(0)
        sums = [total(values) for values in (about.square(), flat, flat.square(), wide.square())]
        self._sums += torch.stack([one.cpu() for one in sums])

    @property
    def value(self) -> float:
        """Of all images so far; 0 if there are none, or if all outputs are 0."""
        squares, *sums = self._sums.tolist()
        first, second, square = (one / max(self._elements, 1) for one in sums)
        found = [second - first**2, square]
        if self._images > 1:
            spread = squares - float(total(self._first.square())) / self._images
            found = [spread / self._images / len(self._first), *found]
        return next((variance for variance in found if variance > _CONSTANT * square), 0.0)


def variance_over_images(output: Tensor, images: int) -> float:
    """The same of one batch."""
    found = Variance()
    found.add(output, images)
    return found.value
