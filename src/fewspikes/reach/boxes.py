"""Boxes, and what a linear map of the target makes of one. The package's docstring has the words and an example."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from fewspikes.base.sums import count_true
from fewspikes.reach.factors import Factor, check_size, is_identity, join

_LONG = 1024  # positions of an axis whose factor takes a megabyte

Axes = tuple[tuple[int, ...], ...]  # of a target: the atoms of each


@dataclass(frozen=True, eq=False)
class Box:
    """Pairs of a source and a target element: those that all factors allow.

    Attributes:
        factors: every label stands in exactly one.
        axes: the atoms of each axis of the target.
    """

    factors: tuple[Factor, ...]
    axes: Axes

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the target."""
        return tuple(torch.Size(self.size(label) for label in axis).numel() for axis in self.axes)

    @property
    def pairs(self) -> int:
        """How many pairs it holds."""
        return prod(count_true(factor.table) for factor in self.factors)

    def size(self, label: int) -> int:
        """The number of positions along a label."""
        return self.factor_of(label).size(label)

    def factor_of(self, label: int) -> Factor:
        """The factor that holds a label."""
        return next(factor for factor in self.factors if label in factor.labels)

    def fresh(self) -> int:
        """A label that nobody has."""
        return 1 + max((label for factor in self.factors for label in factor.labels), default=-1)

    def swap(self, old: Iterable[Factor], new: Iterable[Factor]) -> "Box":
        """The box with some factors replaced by others."""
        gone = {id(factor) for factor in old}
        return replace(self, factors=(*(f for f in self.factors if id(f) not in gone), *new))

    def with_axis(self, axis: int, *labels: int) -> "Box":
        """The box with the atoms of one axis replaced."""
        return replace(self, axes=(*self.axes[:axis], labels, *self.axes[axis + 1 :]))

    def split(self, label: int, outer: int) -> "Box":
        """The box with an atom of n positions as two, of `outer` and n / outer."""
        factor, inner = self.factor_of(label), self.fresh()
        parts = factor.split(label, outer, inner).separated()
        axes = tuple(tuple(m for n in axis for m in ((n, inner) if n == label else (n,))) for axis in self.axes)
        return Box(self.swap([factor], parts).factors, axes)

    def merge(self, first: int, second: int) -> "Box":
        """The box with two neighbouring atoms of an axis as one."""
        old = [self.factor_of(first)]
        if second not in old[0].labels:
            old.append(self.factor_of(second))
        axes = tuple(tuple(n for n in axis if n != second) for axis in self.axes)
        return Box(self.swap(old, [join(old).merge(first, second)]).factors, axes)

    def single(self, axis: int) -> "Box":
        """The box with one atom on this axis."""
        if not self.axes[axis]:
            label = self.fresh()
            return self.swap((), [_ones(1, label)]).with_axis(axis, label)
        box = self
        for label in self.axes[axis][1:]:
            box = box.merge(box.axes[axis][0], label)
        return box


def identity(shape: Sequence[int]) -> Box:
    """Every element of the source with itself: where a relation begins."""
    for n in shape:
        check_size((n, n))
    factors = tuple(Factor(torch.eye(n, dtype=torch.bool), (-1 - k, k)) for k, n in enumerate(shape))
    return Box(factors, tuple((k,) for k in range(len(shape))))


def counted_identity(shape: Sequence[int]) -> Box:
    """`identity` to count pairs with: a long axis has several labels in the source, too, so that no table gets large.

    >>> [tuple(factor.table.shape) for factor in counted_identity((1, 2048)).factors]
    [(1, 1), (1024, 1024), (2, 2)]
    """
    parts = [_parts(n) for n in shape]
    labels = iter(range(sum(len(sizes) for sizes in parts)))
    axes = tuple(tuple(next(labels) for _ in sizes) for sizes in parts)
    factors = []
    for label, n in enumerate(n for sizes in parts for n in sizes):
        check_size((n, n))
        factors.append(Factor(torch.eye(n, dtype=torch.bool), (-1 - label, label)))
    return Box(tuple(factors), axes)


def _parts(n: int) -> list[int]:
    """The size as a product of sizes that are not long, as far as it can be divided."""
    parts = [n]
    while parts[-1] > _LONG:
        largest = next(d for d in range(_LONG, 0, -1) if parts[-1] % d == 0)
        if largest == 1:
            break
        parts[-1:] = [largest, parts[-1] // largest]
    return parts


def contract(box: Box, axis: int, matrix: Tensor) -> Box:
    """Weighted sums along an axis: matrix[p, q] says whether the new position q takes the old position p."""
    if bool(matrix.all()):
        return dense(box, axis, matrix.shape[1])
    if is_identity(matrix):
        return box
    box = box.single(axis)
    factor = box.factor_of(box.axes[axis][0])
    return box.swap([factor], factor.through(box.axes[axis][0], matrix).separated())


def contracted(relation: Iterable[Box], first: int, matrices: Sequence[Tensor]) -> list[Box]:
    """A relation through one matrix for each axis from `first` on, see `contract`."""
    result = list(relation)
    for axis, matrix in enumerate(matrices, first):
        result = [contract(box, axis, matrix) for box in result]
    return result


def dense(box: Box, axis: int, size: int) -> Box:
    """Weighted sums along an axis, `size` of them, that take all its positions."""
    atoms = box.axes[axis]
    for label in atoms:
        factor = box.factor_of(label)
        box = box.swap([factor], [factor.any_over(label)])
    label = box.fresh()
    return box.swap((), [_ones(size, label)]).with_axis(axis, label)


def take(box: Box, axis: int, positions: slice) -> Box:
    """Some of the positions along an axis."""
    box = box.single(axis)
    factor = box.factor_of(box.axes[axis][0]).last(box.axes[axis][0])
    return box.swap([box.factor_of(box.axes[axis][0])], [replace(factor, table=factor.table[..., positions])])


def pad(box: Box, axis: int, left: int, right: int) -> Box:
    """New positions, which nothing reaches, on both sides of an axis; a negative number cuts positions off."""
    box = box.single(axis)
    label = box.axes[axis][0]
    factor = box.factor_of(label).last(label)
    check_size((*factor.table.shape[:-1], factor.table.shape[-1] + left + right))
    return box.swap([box.factor_of(label)], [replace(factor, table=functional.pad(factor.table, (left, right)))])


def kept(box: Box, mask: Tensor) -> Box:
    """The pairs whose target a mask, broadcast to the shape of the target, has true."""
    mask = mask.reshape((1,) * (len(box.axes) - mask.ndim) + mask.shape)
    axes = [axis for axis, size in enumerate(mask.shape) if size > 1]
    for axis in axes:
        box = box.single(axis)
    labels = [box.axes[axis][0] for axis in axes]
    old = [factor for factor in box.factors if not set(labels).isdisjoint(factor.labels)]
    if not old:
        return box if bool(mask) else box.swap((), [Factor(torch.zeros((), dtype=torch.bool), ())])
    factor = join(old).last(*labels)
    return box.swap(old, replace(factor, table=factor.table & mask.squeeze()).separated())


def insert(box: Box, axis: int) -> Box:
    """A new axis of one position."""
    return replace(box, axes=(*box.axes[:axis], (), *box.axes[axis:]))


def drop(box: Box, axis: int) -> Box:
    """The box without an axis of one position."""
    box = tidy(box)
    return replace(box, axes=(*box.axes[:axis], *box.axes[axis + 1 :]))


def broadcast(box: Box, shape: Sequence[int]) -> Box:
    """The box repeated along new leading axes and along axes of one position, up to a shape."""
    axes = ((),) * (len(shape) - len(box.axes)) + box.axes
    box = replace(box, axes=axes)
    for axis, (size, wanted) in enumerate(zip(box.shape, shape, strict=True)):
        if size == 1 and wanted != 1:
            box = dense(box, axis, wanted)
    return box


def tidy(box: Box) -> Box:
    """The same box without atoms of one position, and without factors that have nothing left to say."""
    unit = {n for factor in box.factors for n in factor.labels if n >= 0 and factor.size(n) == 1}
    factors = []
    for factor in box.factors:
        kept = [n for n in factor.labels if n not in unit]
        table = factor.last(*kept).table.reshape([factor.size(n) for n in kept])
        if kept or not bool(table):
            factors.append(Factor(table, tuple(kept)))
    return Box(tuple(factors), tuple(tuple(n for n in axis if n not in unit) for axis in box.axes))


def reached(box: Box, position: Sequence[int]) -> Bool[Tensor, "*shape"]:
    """The target elements that one source element reaches.

    >>> reached(dense(identity((2, 3)), axis=1, size=2), (1, 0)).int().tolist()
    [[0, 0], [1, 1]]
    """
    parts, shape, box = [], box.shape, tidy(box)
    for factor in box.factors:
        sources = [n for n in factor.labels if n < 0]
        atoms = [n for n in factor.labels if n >= 0]
        table = factor.ordered([*sources, *atoms]).table
        parts.append(Factor(table[tuple(position[-1 - n] for n in sources)], tuple(atoms)))
    atoms = [label for axis in box.axes for label in axis]
    return join(parts).ordered(atoms).table.reshape(shape)


def is_empty(box: Box) -> bool:
    """Whether it holds no pair."""
    return not all(bool(factor.table.any()) for factor in box.factors)


def _ones(size: int, label: int) -> Factor:
    return Factor(torch.ones(size, dtype=torch.bool), (label,))
