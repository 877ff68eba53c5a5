"""Reshaping: atoms are split, or merged and split, until each new axis is made of whole atoms."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from fewspikes.reach.boxes import Box


def reshape(box: Box, shape: Sequence[int]) -> Box:
    """The box of the reshaped target (row-major, same number of elements)."""
    box = regroup(box, shape)
    for axis in range(len(box.axes)):
        box = _merge_neighbours(box, axis)
    return box


def regroup(box: Box, shape: Sequence[int]) -> Box:
    """The same, with atoms left as small as they came out."""
    box = replace(box, axes=(tuple(label for axis in box.axes for label in axis),))
    ends = [0]
    for size in shape:
        at = ends[-1]
        while size > 1:
            box = _fit(box, at, size)
            size //= box.size(box.axes[0][at])
            at += 1
        ends.append(at)
    atoms = box.axes[0]
    return replace(box, axes=tuple(atoms[a:b] for a, b in pairwise(ends)))


def _fit(box: Box, at: int, room: int) -> Box:
    """Of a target with one axis: the size of its atom number `at` made a divisor of `room`."""
    while True:
        label = box.axes[0][at]
        size = box.size(label)
        if room % size == 0:
            return box
        if size % room == 0:
            return box.split(label, room)
        box = box.merge(label, box.axes[0][at + 1])


def _merge_neighbours(box: Box, axis: int) -> Box:
    """One atom for neighbours in one factor (a channel shuffle ends with one atom again)."""
    at = 0
    while at + 1 < len(box.axes[axis]):
        first, second = box.axes[axis][at : at + 2]
        if second in box.factor_of(first).labels:
            box = box.merge(first, second)
        else:
            at += 1
    return box
