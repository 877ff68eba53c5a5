"""The number of synapses behind every neuron of a layer, kept as a sum of products over its axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.graph import SITE, Node
from fewspikes.network.image_axes import ImageAxis
from fewspikes.network.segments import Segments
from fewspikes.operators.call import IMAGES
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import Factor, Unknown
from fewspikes.reach.union import disjoint_terms

Term = dict[tuple[int, ...], Tensor]  # axes of an image (increasing) -> int64 weights; one () entry, each axis once


@dataclass(frozen=True, eq=False)
class FanOut:
    """How many synapses one spike of each neuron of a site reaches.

    `shape` is the layer's shape per image: without the axis of the images, or, where an image has several places along
    that axis, as heads have, with as many there. In a loop over time its last axis is time, in the order in which it
    runs. `reason` says why the number is unknown; None if it is known.

    >>> term = {(): torch.tensor(4), (0,): torch.tensor([1, 2]), (1,): torch.tensor([1, 1, 1])}
    >>> fan = FanOut((2, 3), (term,))
    >>> fan.dense().tolist()
    [[4, 4, 4], [8, 8, 8]]
    >>> fan.weigh(torch.ones(2, 3, dtype=torch.uint8))
    36
    """

    shape: tuple[int, ...]
    terms: tuple[Term, ...] = ()
    reason: str | None = None

    def dense(self) -> Int64[Tensor, "*shape"] | None:
        """The number for every neuron; None if unknown."""
        if self.reason is not None:
            return None
        total = torch.zeros(self.shape, dtype=torch.int64)
        for term in self.terms:
            total = total + reduce(torch.mul, (self._spread(axes, weights) for axes, weights in term.items()))
        return total

    def weigh(self, spikes: Shaped[Tensor, "*shape"]) -> int | None:
        """The synapses that these spikes reach: the exact sum of spikes times fan-out; None if unknown.

        Args:
            spikes: numbers of spikes per neuron, of the layer's shape per image, an integer dtype (or bool).

        Raises:
            FewSpikesError: another shape, or a floating-point dtype.
        """
        if tuple(spikes.shape) != self.shape or spikes.is_floating_point():
            raise FewSpikesError(
                f"spikes must be integers of shape {self.shape}; got {spikes.dtype} of shape {tuple(spikes.shape)}"
            )
        if self.reason is not None:
            return None
        return sum(self._weigh(term, spikes.to(torch.int64)) for term in self.terms)

    def _weigh(self, term: Term, spikes: Tensor) -> int:
        for axes, weights in term.items():
            spikes = spikes * self._spread(axes, weights).to(spikes.device)
            spikes = spikes.sum(axes, keepdim=True) if axes else spikes
        return int(spikes)

    def _spread(self, axes: Sequence[int], weights: Tensor) -> Tensor:
        """Weights over some axes in a shape that broadcasts over the layer."""
        return weights.reshape([n if axis in axes else 1 for axis, n in enumerate(self.shape)])


def term_of(sign: int, box: Box, images: ImageAxis) -> Term:
    """The number of targets of every source element of a box, by its place in an image, times the sign.

    Raises:
        Unknown: the box connects one image of the batch with another.
    """
    counts: Term = {}
    scalar = torch.tensor(sign)
    for factor in box.factors:
        axes, weights = _count(factor, images)
        if axes:
            counts[axes] = weights
        else:
            scalar = scalar * weights
    return {(): scalar, **dict(sorted(counts.items()))}


def _count(factor: Factor, images: ImageAxis) -> tuple[tuple[int, ...], Tensor]:
    sources = sorted((n for n in factor.labels if n < 0), reverse=True)
    atoms = [n for n in factor.labels if n >= 0]
    table = factor.ordered([*sources, *atoms]).table
    weights = table.flatten(len(sources)).sum(-1) if atoms else table.to(torch.int64)
    own = -1 - images.axis
    if own in sources:
        weights, reached = (replace(images, axis=sources.index(own)).in_front(x) for x in (weights, table))
        reached = reached.any(tuple(range(1, 1 + len(sources))))
        if bool((reached.sum(0) > 1).any()) or bool((weights != weights[0]).any()):
            raise Unknown("the images of a batch are mixed with each other")
        weights = weights[0]
        if images.places == 1:
            weights = weights.squeeze(sources.index(own))
            sources.remove(own)
    gone = images.places == 1
    return tuple(-1 - n - (gone and n < own) for n in sources), weights


def gather(terms: Iterable[Term]) -> tuple[Term, ...]:
    """The same sum with fewer terms: those that differ in one factor only are added."""
    kept: list[Term] = []
    for term in terms:
        for at, other in enumerate(kept):
            differing = _differing(term, other)
            if differing is not None:
                kept[at] = {**other, differing: other[differing] + term[differing]}
                break
        else:
            kept.append(term)
    return tuple(kept)


def _differing(a: Term, b: Term) -> tuple[int, ...] | None:
    """The one factor in which two terms may be added; None if there are several."""
    if a.keys() != b.keys():
        return None
    axes = [axes for axes in a if not torch.equal(a[axes], b[axes])]
    return None if len(axes) > 1 else (axes[0] if axes else ())


def fan_outs(segments: Segments) -> dict[str, FanOut]:
    """The number of synapses that one spike of each neuron reaches, exact at borders, strides and groups.

    Linear maps that follow each other with no neuron between count as one composite map. Its synapses are the pairs of
    elements that some path connects, however many paths. Each consumer has synapses of its own: the input of a neuron
    site, each operand of an operator left digital, and each tensor that the network returns. The count is structural:
    a weight that happens to be 0 is a synapse all the same. Added constants (biases) are none.

    Returns:
        The counts by the sites' nodes. Where the connections cannot be followed, `.reason` says why.
    """
    return {node.name: _fan_out(node, segments) for node in segments.graph.of(SITE)}


def _fan_out(site: Node, segments: Segments) -> FanOut:
    images, sizes = segments.image_axes.get(site.name), tuple(segments.graph.sizes(site.name, IMAGES))
    time = (segments.graph.time_steps(site),) if site.loop else ()
    if images is None:
        return FanOut((*sizes[1:], *time), reason=f"{site.where}: no axis has the images of a batch in a known order")
    shape = (*images.shape(sizes), *time)
    try:
        relations = segments.reached(site.name, segments.from_source(site.name))
        terms = gather(term_of(sign, box, images) for boxes in relations for sign, box in disjoint_terms(boxes))
    except Unknown as error:
        return FanOut(shape, reason=str(error))
    return FanOut(shape, terms)
