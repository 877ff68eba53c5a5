"""What loss a few images let one expect, where counting them says little."""

from math import sqrt

import torch
from torch import Tensor

_NEIGHBOURS = 32  # of an image in its margin, whose errors it might as well have had


def expected_loss(ann: Tensor, snn: Tensor, labels: Tensor | None, neighbours: int = _NEIGHBOURS) -> float:
    """The drop in points (100 - agreement without labels), averaged over the errors that each image might have had.

    A hundred images cannot show a drop of 0.2 points: one image is a whole point. But each image's error might as well
    have struck another image that the ANN is about as sure of. So the images are put in order of the ANN's margin, and
    each gets the errors of the `neighbours` nearest to it, class by class in the order of their logits. That halves the
    estimate's own error where the drop is small, and leans to the larger side where it is large.

    Args:
        ann, snn: logits, [images, classes].
        labels: [images], or None.
        neighbours: how many errors each image gets.
    """
    images, order = len(ann), ann.argsort(1, descending=True)
    logits, errors = ann.gather(1, order), (snn - ann).gather(1, order)
    truth = None if labels is None else (order == labels.to(order.device)[:, None]).int().argmax(1)
    by_margin = (logits[:, 0] - logits[:, 1]).argsort()
    logits, errors = logits[by_margin], errors[by_margin]
    neighbours = min(neighbours, images)
    first = (torch.arange(images, device=ann.device) - neighbours // 2).clamp(0, images - neighbours)
    lost = 0.0
    for step in range(neighbours):
        named = (logits + errors[first + step]).argmax(1)
        if truth is None:
            lost += float((named != 0).double().mean())
        else:
            place = truth[by_margin]
            lost += float(((place == 0).double() - (named == place).double()).mean())
    return 100.0 * lost / neighbours


def resolution(images: int, agreement: float | None) -> str:
    """How well so many images can tell a drop, in words."""
    one = 100.0 / images
    flips = max(100.0 - (agreement or 0.0), one) / 100.0
    spread = 196.0 * sqrt(flips * (1 - flips) / images)
    return f"one of {images} images is {one:.2g} points, and chance moves the figure by +-{spread:.1f} (95%)"
