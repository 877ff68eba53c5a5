"""Factors: boolean tables, and what is done to one label of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from fewspikes.base.sums import count_true

# Entries of one table, a byte each: enough for axes of 11,000 positions, and not yet a strain on a laptop's memory.
MAX_TABLE = 2**27


class Unknown(Exception):
    """The relation cannot be followed here, and why. It ends as a `reason`, never as an error of the user's."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A boolean table over a few labels.

    Attributes:
        table: True where the positions belong together, a dimension for each label.
        labels: of the table's dimensions, in order.
    """

    table: Tensor
    labels: tuple[int, ...]

    def size(self, label: int) -> int:
        """The number of positions along a label."""
        return int(self.table.shape[self.labels.index(label)])

    def last(self, *labels: int) -> "Factor":
        """The same factor with these labels at the end."""
        return self.ordered([n for n in self.labels if n not in labels] + list(labels))

    def ordered(self, labels: Sequence[int]) -> "Factor":
        """The same factor with its labels in this order."""
        return Factor(self.table.permute([self.labels.index(n) for n in labels]), tuple(labels))

    def any_over(self, label: int) -> "Factor":
        """True where any position along the label is; the label is gone."""
        at = self.labels.index(label)
        return Factor(self.table.any(at), self.labels[:at] + self.labels[at + 1 :])

    def split(self, label: int, outer: int, inner_label: int) -> "Factor":
        """The label's n positions, row-major, as `outer` (under the old label) times n / outer (under the new one)."""
        at = self.labels.index(label)
        shape = self.table.shape
        table = self.table.reshape(*shape[:at], outer, -1, *shape[at + 1 :])
        return Factor(table, (*self.labels[: at + 1], inner_label, *self.labels[at + 1 :]))

    def merge(self, first: int, second: int) -> "Factor":
        """Two labels as one, row-major, under the first one's name and at the end."""
        factor = self.last(first, second)
        return Factor(factor.table.flatten(-2), factor.labels[:-1])

    def through(self, label: int, matrix: Tensor) -> "Factor":
        """The label's positions p replaced by q: True at q where it is at some p with matrix[p, q]."""
        factor = self.last(label)
        check_size((*factor.table.shape[:-1], matrix.shape[1]))
        if is_identity(factor.table):
            return Factor(matrix, factor.labels)
        return Factor(factor.table.float() @ matrix.float() > 0, factor.labels)

    def separated(self) -> "list[Factor]":
        """Factors whose product it is: one for each label that does not depend on the others, and the rest."""
        rest, parts = self, []
        for label in self.labels:
            if len(rest.labels) == 1:
                break
            others = rest.any_over(label)
            own = rest.last(label).table.flatten(0, -2).any(0)
            # The table lies within the product of its two shadows, so equal counts mean equal tables.
            if count_true(rest.table) == count_true(own) * count_true(others.table):
                parts.append(Factor(own, (label,)))
                rest = others
        return [*parts, rest]


def join(factors: Iterable[Factor]) -> Factor:
    """One factor that says what several without common labels say together."""
    return reduce(_join, factors)


def _join(a: Factor, b: Factor) -> Factor:
    check_size((*a.table.shape, *b.table.shape))
    left = a.table.reshape(a.table.shape + (1,) * b.table.ndim)
    return Factor(left & b.table, a.labels + b.labels)


def is_identity(table: Tensor) -> bool:
    """Whether each position goes with the same position and with no other."""
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        return False
    return bool(table.diagonal().all()) and count_true(table) == len(table)


def check_size(shape: Sequence[int]) -> None:
    """Raise Unknown if a table of this shape is too large to write down."""
    if torch.Size(shape).numel() > MAX_TABLE:
        raise Unknown(f"a connection table of {' x '.join(str(n) for n in shape)} entries is too large")
