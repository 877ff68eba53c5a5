"""The pairs of a relation, one by one."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import Factor

Whole = NDArray[np.int64]


class Pairs(NamedTuple):
    """Connected elements of one image: of the source, and of the target, each pair once, in the order of sources.

    Elements are numbered row-major within the image. `first[s]` to `first[s + 1]` are the pairs of source element s.
    """

    first: Whole
    target: Whole


def pairs_of(relation: Iterable[Box], source: Sequence[int], target: Sequence[int]) -> Pairs:
    """The pairs of the first image of a batch.

    Args:
        relation: of a source and a target that both have the batch in front.
        source, target: their shapes per image.
    """
    length = prod(target)
    keys = np.concatenate([np.zeros(0, np.int64), *(_keys(box, source, length) for box in relation)])
    keys.sort()
    found = keys[np.diff(keys, prepend=-1) > 0]
    counts = np.bincount(found // length, minlength=prod(source)) if len(found) else np.zeros(prod(source), np.int64)
    return Pairs(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), found % length if length else found)


def _keys(box: Box, source: Sequence[int], length: int) -> Whole:
    """One number for each pair: the source's element, times the target's length, plus the target's element."""
    strides = {-2 - axis: prod(source[axis + 1 :]) * length for axis in range(len(source))}
    stride = 1
    for axis in box.axes[:0:-1]:
        for label in axis[::-1]:
            strides[label] = stride
            stride *= box.size(label)
    found = np.zeros(1, np.int64)
    for factor in box.factors:
        found = np.add.outer(found, _of_factor(factor, strides, box.axes[0])).ravel()
    return found


def _of_factor(factor: Factor, strides: dict[int, int], images: tuple[int, ...]) -> Whole:
    """What a factor adds to the number of each pair, with both of its elements in the first image."""
    table = factor.table.numpy()
    for label in (-1, *images):  # from the last of the table's dimensions on, so that the others keep their places
        if label in factor.labels:
            at = factor.labels.index(label)
            table = np.take(table, [0], axis=at)
    places = np.nonzero(table)
    return sum(
        (at.astype(np.int64) * strides.get(label, 0) for label, at in zip(factor.labels, places, strict=True)),
        np.zeros(len(places[0]), np.int64),
    )
