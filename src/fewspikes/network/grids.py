"""Maxima that are exact: neurons that compare values of one grid take that grid as their code.

The outputs of a layer with a binary code are whole multiples of its last d. So are their differences, and max(a, b) =
b + relu(a - b) loses nothing where the ReLU has the same steps: on it the staircase is the identity.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import inf

import torch

from fewspikes.graph.graph import Node, refs
from fewspikes.network.channels import channel_axis, moved_axis
from fewspikes.network.segments import Segments
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.layer import FSNeuron
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.probing import factors
from fewspikes.operators.rewriting import Site
from fewspikes.operators.rule import Linear

_RELU = Activation("relu")


@dataclass(frozen=True)
class Follower:
    """A layer that compares outputs of another, the leader.

    Attributes:
        leader: the other's name.
        axis: where the leader's channels are among the gate inputs, or None.
        negative: whether what it compares has the other sign.
    """

    leader: str
    axis: int | None
    negative: bool = False


def followers(segments: Segments, sites: Sequence[Site]) -> dict[str, Follower]:
    """By name, the layers of ReLUs whose gate inputs are differences of two values on one layer's grid."""
    by_node = {site.node: site for site in sites}
    seeking = _Values(segments, frozenset(by_node))
    found = {}
    for node in segments.graph:
        site = by_node.get(node.name)
        value = seeking.compared(node.name) if site is not None and site.activation == _RELU else None
        if site is not None and value is not None:
            seeking.following[node.name] = value
            found[site.name] = Follower(by_node[value.leader].name, value.axis)
        seeking.of(node.name)  # in the graph's order, so that what it reads is known
    return found


def followed(follower: Follower, leader: FSNeuron) -> FSNeuron | None:
    """The neurons of a layer that takes its leader's grid; None where the leader has none, or channels are lost."""
    code, factors = leader.code, [v for v in (leader.scale, leader.gain) if v is not None]
    if not code.is_binary or (factors and follower.axis is None):
        return None
    step = float(code.d[-1])
    provenance = {"method": f"the grid of {follower.leader}", "alpha": float(2 * code.d[0]), "rounding": "nearest"}
    domain = (-inf, float(2 * code.d[0]))
    own = FSParameters(code.d - step / 2, code.d, code.d, 0.0, _RELU.label, domain, provenance)
    scale = reduce(torch.mul, factors) if factors else None
    return FSNeuron(own, scale=scale, axis=follower.axis if factors else 1)  # type: ignore[arg-type]


class _Values:
    """Which tensors hold values of one layer's grid, none of them beyond those that the layer has.

    Such are its outputs, moved, all with the other sign, and maxima and minima of such: b + relu(a - b),
    a - relu(a - b). A value and one of the other sign may be farther apart than the grid is long.
    """

    def __init__(self, segments: Segments, sites: frozenset[str]) -> None:
        self.segments, self.sites = segments, sites
        self.following: dict[str, Follower] = {}  # by node, whom it follows; here leaders are nodes, too
        self._known: dict[str, Follower | None] = {}

    def compared(self, site: str) -> Follower | None:
        """The grid of a site's gate inputs where they are a difference of two values of one."""
        terms = self._terms(self.segments.graph[site].arguments["input"].name)
        if sorted(terms.values()) != [-1.0, 1.0]:
            return None
        return self._common(self.of(name) for name in terms)

    def of(self, name: str) -> Follower | None:
        """The grid of a node's result."""
        if name not in self._known:
            self._known[name] = self._found(name)
        return self._known[name]

    def _found(self, name: str) -> Follower | None:
        node = self.segments.graph[name]
        if name in self.sites:
            own = Follower(name, channel_axis(self.segments, name))
            return replace(self.following.get(name, own), negative=False)
        fate = self.segments.fates.get(name)
        rule = None if fate is None else fate.rule
        if isinstance(rule, Linear) and rule.adds:
            terms = self._terms(name)
            if list(terms.values()) == [-1.0]:
                return self._negated(next(iter(terms)))
            return self._extreme(terms)
        if node.operator != "getitem" and not (isinstance(rule, Linear) and self._only_moves(node, rule)):
            return None
        return self._common(self._moved(node, read) for read in node.reads if read in self.segments.carriers)

    def _moved(self, node: Node, read: str) -> Follower | None:
        before = self.of(read)
        if before is None or before.axis is None:
            return before
        return replace(before, axis=moved_axis(self.segments, node, read, before.axis))

    def _negated(self, read: str) -> Follower | None:
        before = self.of(read)
        return None if before is None else replace(before, negative=not before.negative)

    def _terms(self, name: str) -> dict[str, float]:
        """What a sum adds up, with its factors; nothing where it is no sum."""
        fate = self.segments.fates.get(name)
        if fate is None or not isinstance(fate.rule, Linear) or not fate.rule.adds:
            return {}
        return factors(self.segments.call(self.segments.graph[name])) or {}

    def _extreme(self, terms: Mapping[str, float]) -> Follower | None:
        """The grid of b + relu(a - b) or a - relu(a - b), that of a and b; None for other sums."""
        sites = [name for name in terms if name in self.following]
        for site in sites if len(terms) == 2 else []:
            (other,) = (name for name in terms if name != site)
            difference = self._terms(self.segments.graph[site].arguments["input"].name)
            if terms[other] == 1.0 and difference.get(other) == -terms[site] and abs(terms[site]) == 1.0:
                return self.following[site]
        return None

    def _only_moves(self, node: Node, rule: Linear) -> bool:
        """Whether all that comes out is on the grid of what goes in."""
        call = self.segments.call(node)
        nothing_else = all(r.name in self.segments.carriers for name in rule.terms for r in refs(node.arguments[name]))
        return rule.moves and nothing_else and all(call.get(name) in (0, None) for name in rule.zero)

    def _common(self, values: Iterable[Follower | None]) -> Follower | None:
        """The grid that several values are on; the channels' axis where they agree on it."""
        found = list(values)
        grids = {None if value is None else replace(value, axis=None) for value in found}
        axes = {value.axis for value in found if value is not None}
        grid = grids.pop() if len(grids) == 1 else None
        return None if grid is None else replace(grid, axis=axes.pop() if len(axes) == 1 else None)
