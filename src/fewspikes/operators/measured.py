"""Constants that do not change what a network computes, and whose best value is found in what it sees.

A product does not change when one factor is multiplied by a number and the other divided by it, nor a softmax when
its inputs are shifted; but neurons do better where values are of one size, or end at a bound. Such a constant is named
after its kind; it begins as what changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import CONSTANT, Graph, Ref, Shape

BALANCE, BOUND = "balance", "bound"  # (a, 1 / a) for two factors; what is taken off


@dataclass(frozen=True)
class Measured:
    """One such constant, or a pair that belongs together.

    Attributes:
        kind: BALANCE or BOUND.
        constants: their names.
        nodes: those that put it to a signal, which is their first argument.
    """

    kind: str
    constants: tuple[str, ...]
    nodes: tuple[str, ...]

    def values(self, statistics: Sequence[Tensor]) -> list[Tensor]:
        """The constants' values, from the `statistic` of each node."""
        if self.kind == BOUND:
            return list(statistics)
        first, second = statistics
        ratio = (second / first.clamp_min(torch.finfo(first.dtype).tiny)).sqrt()
        ratio = torch.where((first > 0) & (second > 0), ratio, torch.ones_like(ratio))
        return [ratio, 1 / ratio]

    def statistic(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """What is wanted of a node's values: their size, or the largest of them; merge by `merged`.

        Args:
            x: of a batch, or of one time step of it.
            shape: of the constant; where it has one position, all are taken together.
        """
        x = x[(None,) * (len(shape) - x.ndim)]
        sizes = (1,) * (x.ndim - len(shape)) + tuple(shape)
        axes = [axis for axis, size in enumerate(sizes) if size == 1]
        if axes:
            x = x.amax(axes, keepdim=True) if self.kind == BOUND else _large(x, axes)
        elif self.kind == BALANCE:
            x = x.abs()
        return x.reshape(x.shape[x.ndim - len(shape) :]).expand(tuple(shape))

    def merged(self, statistics: Sequence[Tensor]) -> Tensor:
        """The statistic of several batches."""
        every = torch.stack(list(statistics))
        return every.amax(0) if self.kind == BOUND else _large(every, [0])[0]


def _large(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The eighth root of the mean of eighth powers: near the largest, which a code's range must hold, but not by one.

    Root mean squares would leave the range to the factor with the longer tail, and steps too wide for the other.
    """
    return x.double().pow(8).mean(list(axes), keepdim=True).pow(1 / 8).to(x.dtype)


def balanced(g: Builder, x: Ref, y: Ref, axis: int) -> tuple[Ref, Ref]:
    """Two factors, one multiplied and one divided by numbers that will make them of one size.

    Args:
        g: where they are.
        x, y: the factors.
        axis: of the product, counted from its end: a number for each of its positions.
    """
    number = _free(g, BALANCE)
    size = max(_size(g.shape(factor), axis) for factor in (x, y))
    made = []
    for at, factor in enumerate((x, y)):
        ones = torch.ones(size, *[1] * (-1 - axis), dtype=g.dtype)
        constant = g.constant(ones, _named(BALANCE, number, at))
        made.append(g.put("mul.Tensor", factor, constant))
    return made[0], made[1]


def _size(shape: Shape, axis: int) -> int:
    """The positions along an axis; 1 where there is none, or it counts the images."""
    size = shape[axis] if -axis <= len(shape) else 1
    return size if isinstance(size, int) else 1


def bounded(g: Builder, x: Ref, shape: Sequence[int]) -> Ref:
    """A signal less the largest value that it will have been seen to have, for each position of a shape."""
    constant = g.constant(torch.zeros(tuple(shape), dtype=g.dtype), _named(BOUND, _free(g, BOUND), 0))
    return g.put("sub.Tensor", x, constant)


def _free(g: Builder, kind: str) -> int:
    number = 0
    while _named(kind, number, 0) in g.tensors:
        number += 1
    return number


def _named(kind: str, number: int, at: int) -> str:
    return f"constants.{kind}.{number}.{at}"


def constants_of(graph: Graph) -> tuple[Measured, ...]:
    """The constants of a graph that are measured, with what they are put to."""
    by_number: dict[tuple[str, str], dict[str, str]] = {}
    for node in graph.of(CONSTANT):
        name = str(node.arguments["tensor"])
        _, kind, number, *_ = *name.split("."), "", ""
        if kind in (BALANCE, BOUND):
            (user,) = graph.users(node.name)
            by_number.setdefault((kind, number), {})[name] = user.name
    return tuple(
        Measured(kind, tuple(sorted(found)), tuple(found[name] for name in sorted(found)))
        for (kind, _), found in by_number.items()
    )
