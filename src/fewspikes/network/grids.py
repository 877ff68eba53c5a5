"""Maxima that are exact: neurons that compare values of one grid take that grid as their code.

The outputs of a layer with a binary code are whole multiples of its last d. So are their differences, and max(a, b) =
b + relu(a - b) loses nothing where the ReLU has the same steps: on it the staircase is the identity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf

import numpy as np
import torch

from fewspikes.graph.graph import Node, Ref, refs
from fewspikes.network.channels import channel_axis, moved_axis
from fewspikes.network.segments import Segments
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.layer import FSNeuron
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.rewriting import Site
from fewspikes.operators.rule import Circuit, Linear

_RELU = Activation("relu")


@dataclass(frozen=True)
class Follower:
    """A layer that compares outputs of another one, `leader`; `axis`: where the leader's channels are here, if known."""

    leader: str
    axis: int | None


def followers(segments: Segments, sites: Sequence[Site]) -> dict[str, Follower]:
    """By name, the layers whose gate inputs are differences of one layer's outputs, moved and compared before."""
    by_node = {site.node: site for site in sites}
    found: dict[str, Follower] = {}
    for site in sites:
        if site.activation == _RELU and _is_comparison(segments, site):
            follower = _follower(segments, site, by_node, found)
            if follower is not None:
                found[site.name] = follower
    return found


def followed(follower: Follower, leader: FSNeuron) -> FSNeuron | None:
    """The neurons of a layer that takes its leader's grid; None where the leader has none, or channels are lost."""
    code, factors = leader.code, [v for v in (leader.scale, leader.gain) if v is not None]
    if not is_binary(code) or (factors and follower.axis is None):
        return None
    step = float(code.d[-1])
    provenance = {"method": f"the grid of {follower.leader}", "alpha": float(2 * code.d[0]), "rounding": "nearest"}
    domain = (-inf, float(2 * code.d[0]))
    own = FSParameters(code.d - step / 2, code.d, code.d, 0.0, _RELU.label, domain, provenance)
    scale = reduce(torch.mul, factors) if factors else None
    return FSNeuron(own, scale=scale, axis=follower.axis if factors else 1)  # type: ignore[arg-type]


def is_binary(code: FSParameters) -> bool:
    """Whether all outputs are whole multiples of the last d, one apart, beside the offset."""
    return bool(code.d[-1] > 0 and np.all(code.d == code.d[-1] * 2.0 ** np.arange(code.K - 1, -1, -1)))


def _is_comparison(segments: Segments, site: Site) -> bool:
    rows = segments.rules.of(Circuit, site.part)
    return any(row.kind == "max" for row in rows)


def _follower(
    segments: Segments, site: Site, by_node: Mapping[str, Site], found: Mapping[str, Follower]
) -> Follower | None:
    """Whom a layer follows; None where more than moves and differences lie between, or several layers before."""
    (segment,) = segments.of(site.node)
    if not all(_keeps(segments, node, site.part) for node in segment.nodes):
        return None
    leaders, axes = set(), set()
    for name in segment.sources:
        source = by_node.get(name)
        if source is None:
            return None
        before = found.get(source.name)
        leaders.add(source.name if before is None else before.leader)
        axis = channel_axis(segments, name) if before is None else before.axis
        axes.add(None if axis is None else moved_axis(segments, name, axis, segment))
    return Follower(leaders.pop(), axes.pop() if len(axes) == 1 else None) if len(leaders) == 1 else None


def _keeps(segments: Segments, node: Node, part: str) -> bool:
    """Whether an operator leaves values on their grid: it moves them, or compares them for a maximum."""
    if node.operator == "getitem":
        return True
    call, rule = segments.call(node), segments.fates[node.name].rule
    if not isinstance(rule, Linear):
        return False
    if rule.adds:
        terms = [call.node.arguments[name] for name in rule.terms]
        alone = all(isinstance(term, Ref) and term.name in segments.carriers for term in terms)
        return node.part == part and alone and call.get("alpha", 1) == 1
    nothing_else = all(ref.name in segments.carriers for name in rule.terms for ref in refs(node.arguments[name]))
    return rule.moves and nothing_else and all(call.get(name) in (0, None) for name in rule.zero)
