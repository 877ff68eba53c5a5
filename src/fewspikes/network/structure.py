"""What a network is apart from its numbers: graph, inputs and sites, and what follows from these without running it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from fewspikes.graph.graph import Graph, Loop, Ref, sizes
from fewspikes.graph.inputs import InputSpec
from fewspikes.network.channels import channel_axis, gain_is_free
from fewspikes.network.grids import Follower, followers
from fewspikes.network.image_axes import ImageAxis
from fewspikes.network.macs import Macs, multiply_adds
from fewspikes.network.segments import Segments
from fewspikes.network.synapses import FanOut, fan_outs
from fewspikes.network.timing import interval_steps, latency_steps, time_step_steps
from fewspikes.neuron.activation import POWERS_OF_TWO
from fewspikes.operators.rewriting import Site, with_sizes
from fewspikes.operators.rule import Rules
from fewspikes.operators.rules import RULES


@dataclass(frozen=True, eq=False)
class Structure:
    """A spiking network without its weights and codes; networks that differ in these alone share it.

    Attributes:
        graph: with the shape of every tensor.
        inputs: what it takes, per image.
        sites: the layers of neurons, in the order of the graph.
        fixed: the constants that say what reaches what (indices, masks), by name, see `call.fixed_of`.
        keywords: whether the original model is called with its inputs by name.
        rules: the rows, with those of the user's that it was converted with.
    """

    graph: Graph
    inputs: tuple[InputSpec, ...]
    sites: tuple[Site, ...]
    fixed: Mapping[str, Tensor]
    keywords: bool = False
    rules: Rules = RULES

    def __getstate__(self) -> dict[str, Any]:
        """What pickle takes: all that follows from it is worked out again."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def site(self, name: str) -> Site:
        """A site by its name."""
        return self._by_name[name]

    def resized(self, shapes: Sequence[tuple[int, ...]], tensors: Mapping[str, Tensor]) -> "Structure":
        """The same for inputs of other lengths, given the shape of each, per image, and the constants by name."""
        inputs = tuple(replace(spec, shape=shape) for spec, shape in zip(self.inputs, shapes, strict=True))
        return replace(self, graph=with_sizes(self.graph, inputs, tensors, self.rules), inputs=inputs)

    @cached_property
    def segments(self) -> Segments:
        """The linear maps between the sites."""
        return Segments(self.graph, self.fixed, self.rules)

    @cached_property
    def weights(self) -> frozenset[str]:
        """The names of the constants that weigh signals."""
        return self.segments.weights

    @cached_property
    def fan_out(self) -> dict[str, FanOut]:
        """By site name: how many synapses a spike reaches from each position."""
        found = fan_outs(self.segments)
        return {site.name: found[site.node] for site in self.sites}

    @cached_property
    def image_axes(self) -> dict[str, ImageAxis]:
        """Where the images of a batch are, by site name; a site is not there if no axis has them in a known order."""
        found = self.segments.image_axes
        return {site.name: found[site.node] for site in self.sites if site.node in found}

    @cached_property
    def macs(self) -> Macs:
        """Multiply-adds of the ANN, and those left in the spiking network."""
        return multiply_adds(self.segments)

    @cached_property
    def neurons(self) -> dict[str, int]:
        """Neurons per image by site name."""
        return {site.name: self._per_image(site.node) for site in self.sites}

    @cached_property
    def neuron_count(self) -> int:
        """Neurons per image."""
        return sum(self.neurons.values())

    @cached_property
    def followers(self) -> dict[str, Follower]:
        """By site name, the sites that take the grid of another one's code, and so are exact."""
        return followers(self.segments, self.sites)

    @cached_property
    def feeding(self) -> dict[str, dict[str, int]]:
        """By site name, the sites that feed it directly, in the order of the graph.

        With how many time steps later they do, at least, where both are in one loop.
        """
        found = {site.name: self.segments.feeding(site.node) for site in self.sites}
        return {name: {s.name: lags[s.node] for s in self.sites if s.node in lags} for name, lags in found.items()}

    def loop(self, site: str) -> Loop | None:
        """The loop over time that a site is in."""
        return self.graph.loops.get(self.graph[self.site(site).node].loop)

    def latency_steps(self, k: Mapping[str, int]) -> int:
        """The steps from an image to its output, from K by site name."""
        return latency_steps(self.segments, {site.node: k[site.name] for site in self.sites})

    def interval_steps(self, k: Mapping[str, int]) -> int:
        """The steps between two images in a pipeline, from K by site name."""
        return interval_steps(self.segments, {site.node: k[site.name] for site in self.sites})

    def time_step_steps(self, loop: Loop, k: Mapping[str, int]) -> int:
        """The steps from one time step of a loop to the next, from K by site name."""
        return time_step_steps(self.segments, {site.node: k[site.name] for site in self.sites}, loop.name)

    def channel_axis(self, site: str) -> int | None:
        """The axis of the channels of a site's gate inputs; None where the maps before it do not tell."""
        return self._channel_axes[site]

    def gain_is_free(self, site: str) -> str:
        """Why a gain per channel would cost something at a site, or "" where it folds into the weights after it."""
        if self.site(site).activation.name == POWERS_OF_TWO:
            return "it would make numbers of its code that are no powers of two"
        return self._why_gains_cost[site]

    def scale_is_free(self, site: str) -> str:
        """Why a scale per channel would cost something at a site, or "" where it folds into the weights around it.

        A homogeneous activation is the same at every scale, up to a gain; it must meet weights on every way out.
        """
        activation = self.site(site).activation
        return self.gain_is_free(site) if activation.degree else f"{activation.label} is not positively homogeneous"

    def shape_at(self, site: str, images: int = 2) -> tuple[int, ...]:
        """Shape of a site's gate inputs for so many images."""
        return tuple(self.graph.sizes(self.site(site).node, images))

    def output_shape(self) -> tuple[int, ...] | None:
        """Shape per image of the output, or None if the network returns several tensors."""
        value = self.graph.output.arguments["value"]
        return tuple(self.graph.sizes(value.name, 2)[1:]) if isinstance(value, Ref) else None

    def _per_image(self, node: str) -> int:
        # The difference of two batch sizes, because a model may fold the batch into other axes.
        shape = self.graph[node].shape or ()
        return sizes(shape, 2).numel() - sizes(shape, 1).numel()

    @cached_property
    def _channel_axes(self) -> dict[str, int | None]:
        return {site.name: channel_axis(self.segments, site.node) for site in self.sites}

    @cached_property
    def _why_gains_cost(self) -> dict[str, str]:
        return {site.name: gain_is_free(self.segments, site.node, self.channel_axis(site.name)) for site in self.sites}

    @cached_property
    def _by_name(self) -> dict[str, Site]:
        return {site.name: site for site in self.sites}
