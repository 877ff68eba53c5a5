"""Constants that do not change what a network computes, and whose best value is found in what it sees.

A product does not change when one factor is multiplied by a number and the other divided by it; but neurons do better
where both are of one size. Such constants begin as 1, and are told by their names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import CONSTANT, Graph, Ref, Shape

_PREFIX = "constants.balance."
_FAINT = 2.0**-12  # beside the largest position: a neuron of K = 12 has no smaller step


@dataclass(frozen=True)
class Measured:
    """Two constants a and 1 / a, one for each factor of a product.

    Attributes:
        constants: their names.
        nodes: those that put it to a signal, which is their first argument.
    """

    constants: tuple[str, ...]
    nodes: tuple[str, ...]

    def values(self, statistics: Sequence[Tensor]) -> list[Tensor]:
        """The constants' values, from the `statistic` of each node."""
        first, second = statistics
        above, below = (_told_from_silence(size) for size in (second, first))
        ratio = torch.where((first > 0) & (second > 0), (above / below).sqrt(), torch.ones_like(first))
        return [ratio, 1 / ratio]

    def statistic(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The size of a node's values; merge by `merged`.

        Args:
            x: of a batch, or of one time step of it.
            shape: of the constant; where it has one position, all are taken together.
        """
        x = x[(None,) * (len(shape) - x.ndim)]
        sizes = (1,) * (x.ndim - len(shape)) + tuple(shape)
        axes = [axis for axis, size in enumerate(sizes) if size == 1]
        x = _large(x, axes) if axes else x.abs()
        return x.reshape(x.shape[x.ndim - len(shape) :]).expand(tuple(shape))

    def merged(self, statistics: Sequence[Tensor]) -> Tensor:
        """The statistic of several batches."""
        return _large(torch.stack(list(statistics)), [0])[0]


def _told_from_silence(sizes: Tensor) -> Tensor:
    """Sizes, where one is far below the largest as what neurons can tell: else their error would be made large."""
    return sizes.clamp_min(max(float(sizes.max()) * _FAINT, torch.finfo(sizes.dtype).tiny))


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
    number = _free(g)
    size = max(_size(g.shape(factor), axis) for factor in (x, y))
    made = []
    for at, factor in enumerate((x, y)):
        ones = torch.ones(size, *[1] * (-1 - axis), dtype=g.dtype)
        constant = g.constant(ones, _named(number, at))
        made.append(g.put("mul.Tensor", factor, constant))
    return made[0], made[1]


def _size(shape: Shape, axis: int) -> int:
    """The positions along an axis; 1 where there is none, or it counts the images."""
    size = shape[axis] if -axis <= len(shape) else 1
    return size if isinstance(size, int) else 1


def _free(g: Builder) -> int:
    number = 0
    while _named(number, 0) in g.tensors:
        number += 1
    return number


def _named(number: int, at: int) -> str:
    return f"{_PREFIX}{number}.{at}"


def constants_of(graph: Graph) -> tuple[Measured, ...]:
    """The constants of a graph that are measured, with what they are put to."""
    by_number: dict[str, dict[str, str]] = {}
    for node in graph.of(CONSTANT):
        name = str(node.arguments["tensor"])
        if name.startswith(_PREFIX):
            (user,) = graph.users(node.name)
            by_number.setdefault(name.removeprefix(_PREFIX).partition(".")[0], {})[name] = user.name
    return tuple(
        Measured(tuple(sorted(found)), tuple(found[name] for name in sorted(found))) for found in by_number.values()
    )
