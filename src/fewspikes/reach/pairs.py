"""The pairs of a relation, one by one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewspikes.reach.boxes import Box

Whole = NDArray[np.int64]


class Pairs(NamedTuple):
    """Connected elements of one image: of the source, and of the target, each pair once, in the order of sources.

    Elements are numbered within the image. `first[s]` to `first[s + 1]` are the pairs of source element s.
    """

    first: Whole
    target: Whole


def pairs_of(relation: Iterable[Box], source: Whole, target: Whole) -> Pairs:
    """The pairs of the first image of a batch.

    Args:
        relation: of a source and a target.
        source, target: by element of the batch, row-major, its number within the first image; -1 for other images'.
    """
    keys = np.concatenate([np.zeros(0, np.int64), *(_keys(box, source, target) for box in relation)])
    keys.sort()
    found = keys[np.diff(keys, prepend=-1) > 0]
    neurons, length = int(source.max(initial=-1)) + 1, int(target.max(initial=-1)) + 1
    counts = np.bincount(found // max(length, 1), minlength=neurons)
    return Pairs(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), found % max(length, 1))


def _keys(box: Box, source: Whole, target: Whole) -> Whole:
    """A number for each pair of the first image: the source's element times the target's length, plus the target's."""
    sizes = {label: n for factor in box.factors for label, n in zip(factor.labels, factor.table.shape, strict=True)}
    of_source = sorted((label for label in sizes if label < 0), reverse=True)
    strides = _strides(of_source, sizes, len(target)) | _strides([n for axis in box.axes for n in axis], sizes, 1)
    found = np.zeros(1, np.int64)
    for factor in box.factors:
        places = np.nonzero(factor.table.numpy())
        parts = (at.astype(np.int64) * strides[label] for label, at in zip(factor.labels, places, strict=True))
        added = sum(parts, np.zeros(len(places[0]), np.int64))
        found = np.add.outer(found, added).ravel()
    s, t = source[found // len(target)], target[found % len(target)]
    is_first = s >= 0
    return s[is_first] * (int(target.max(initial=-1)) + 1) + t[is_first]


def _strides(labels: Sequence[int], sizes: Mapping[int, int], unit: int) -> dict[int, int]:
    """How far apart neighbouring positions of each label are, row-major."""
    found = {}
    for label in reversed(labels):
        found[label], unit = unit, unit * sizes[label]
    return found
