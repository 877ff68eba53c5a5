"""Where the images of a batch are in what a layer of neurons computes: in front, on another axis, or folded into one.

Attention of several heads puts each head of each image into one axis, [images x heads, queries, keys]; a network whose
sequences come first has [tokens, images, channels].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from fewspikes.graph.graph import SITE, Batch, Graph, Node
from fewspikes.operators.batch import followed_images
from fewspikes.operators.call import Relation
from fewspikes.operators.rule import Rules


@dataclass(frozen=True)
class ImageAxis:
    """The axis of the images; it is outer x images x inner, row-major, so that an image has outer x inner places.

    >>> heads = ImageAxis(0, inner=2)  # [images x heads, tokens]
    >>> heads.in_front(torch.arange(12).reshape(4, 3)).tolist()
    [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    >>> ImageAxis(1).in_front(torch.arange(6).reshape(3, 2)).tolist()  # [tokens, images]
    [[[0], [2], [4]], [[1], [3], [5]]]
    """

    axis: int
    outer: int = 1
    inner: int = 1

    @property
    def places(self) -> int:
        """The positions that one image has along the axis."""
        return self.outer * self.inner

    def in_front(self, x: Tensor) -> Tensor:
        """The images in front of all axes of x, of which that of the images keeps the places of one image."""
        split: Tensor = x.unflatten(self.axis, (self.outer, -1, self.inner))
        return split.movedim(self.axis + 1, 0).flatten(self.axis + 1, self.axis + 2)

    def back(self, x: Tensor) -> Tensor:
        """The reverse of `in_front`, for an axis that keeps places of its own, be it one."""
        split: Tensor = x.unflatten(self.axis + 1, (self.outer, self.inner))
        return split.movedim(0, self.axis + 1).flatten(self.axis, self.axis + 2)

    def shape(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape per image of a tensor of these sizes; an axis of images alone is gone."""
        own = (self.places,) if self.places > 1 else ()
        return (*sizes[: self.axis], *own, *sizes[self.axis + 1 :])


def axes_of_images(
    graph: Graph, fixed: Mapping[str, Tensor], rules: Rules, nodes: Sequence[Node] | None = None
) -> dict[str, ImageAxis]:
    """The axis of the images by node; one is not there if no axis has them in an order that is known.

    Args:
        graph: of a spiking network, with shapes.
        fixed: its constants that are structure.
        rules: the rows.
        nodes: of the graph; None: its sites.
    """
    nodes = graph.of(SITE) if nodes is None else nodes
    found = {node.name: ImageAxis((node.shape or ()).index(Batch(1))) for node in nodes if _is_alone(node)}
    folded = [node for node in nodes if node.name not in found]
    followed = followed_images(graph, fixed, rules) if folded else {}
    return found | dict(_of_folded(folded, followed))


def _is_alone(site: Node) -> bool:
    """Whether one axis counts the images and nothing else."""
    return [size for size in site.shape or () if isinstance(size, Batch)] == [Batch(1)]


def _of_folded(sites: list[Node], followed: Mapping[str, Relation]) -> dict[str, ImageAxis]:
    found = {}
    for site in sites:
        counting = [(axis, size) for axis, size in enumerate(site.shape or ()) if isinstance(size, Batch)]
        if len(counting) != 1 or counting[0][1].plus:
            continue
        axis, size = counting[0]
        owners = _owners(followed.get(site.name, ()), axis)
        inner = [n for n in range(1, size.times + 1) if size.times % n == 0]
        ways = [ImageAxis(axis, size.times // n, n) for n in inner]
        fitting = [way for way in ways if owners is not None and _fits(way, owners)]
        if len(fitting) == 1:
            found[site.name] = fitting[0]
    return found


def _owners(relation: Relation, axis: int) -> Bool[Tensor, "images positions"] | None:
    """Which image each position of an axis belongs to; None if other axes have a say in it."""
    tables = []
    for box in relation:
        box = box.single(axis)
        labels = [-1, box.axes[axis][0]]
        factor = box.factor_of(-1)
        if set(factor.labels) != set(labels):
            return None
        tables.append(factor.ordered(labels).table)
    return torch.stack(tables).any(0) if tables else None


def _fits(way: ImageAxis, owners: Bool[Tensor, "images positions"]) -> bool:
    """Whether all positions of one image, and no other's, are where the axis has it; in whatever order images come."""
    digits = owners.unflatten(1, (way.outer, -1, way.inner)).any(3).any(1)
    return bool((digits.sum(0) == 1).all() and (digits.sum(1) == 1).all())
