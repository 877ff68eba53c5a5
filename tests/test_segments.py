"""A segment is the whole linear map between neurons: each spike through its homogeneous part, and what it adds."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.graph.functions import function, in_order
from fewspikes.graph.graph import CONSTANT, INPUT, SITE, Node, replaced
from fewspikes.graph.interpreter import execute
from fewspikes.network.segments import Segment
from fewspikes.operators.rule import Kind, Linear
from networks import small, squeeze_excite, trained


def values_of(snn: fs.SpikingNetwork, x: Tensor) -> dict[str, Any]:
    """Every value of a pass."""
    program = snn.running_graph.program
    values = program.values((x,), snn.tensors.__getitem__)
    steps = [step._replace(done=()) for step in program.steps]
    execute(steps, values, {site.node: snn.neurons[site.name] for site in snn.sites})
    return {name: values[place] for name, place in program.places.items()}


def through(
    snn: fs.SpikingNetwork, segment: Segment, values: dict[str, Any], sources: dict[str, Tensor], whole: bool
) -> Tensor:
    """The segment's end with these values at its sources: by the calls as they are, or by their homogeneous parts."""
    segments = snn.structure.segments
    here = {name: value for name, value in values.items() if name not in segments.carriers} | sources
    for node in segment.nodes:
        arguments = {key: replaced(value, lambda ref: here[ref.name]) for key, value in node.arguments.items()}
        here[node.name] = _called(snn, node, arguments, whole)
    return here[segment.end]


def _called(snn: fs.SpikingNetwork, node: Node, arguments: dict[str, Any], whole: bool) -> Any:
    rule, call = snn.structure.segments.fates[node.name].rule, snn.structure.segments.call(node)
    if isinstance(rule, Linear) and not whole:
        arguments = rule.homogeneous(call, arguments)
    args, kwargs = in_order(node.operator, arguments)
    return function(node.operator)(*args, **kwargs)


class Mixed(nn.Module):
    """Paddings with a value, sums with constants, pieces, a skip and a batch norm that stands alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        left, right = torch.split(F.pad(self.norm(x + 1), (1, 0), value=0.5), 2, 1)
        y = torch.cat([right, left - 2], 1)[..., 1:]
        return F.relu(self.b(y) + 3 * x - 0.25).mean((2, 3))


@pytest.mark.parametrize("make", [small, squeeze_excite, lambda: trained(Mixed(), 3, 8, 8)])
def test_what_a_site_gets_is_its_segments_constant_and_each_spike_by_itself(make: Any) -> None:
    x = torch.randn(40, 3, 8, 8)
    snn = fs.convert(make(), x[:1], x, K=4, effort="quick", repair=False).double()
    values = values_of(snn, x.double())
    names = {site.node: site.name for site in snn.sites}
    for segment in snn.structure.segments:
        nothing = {name: torch.zeros_like(values[name]) for name in segment.sources}
        total = through(snn, segment, values, nothing, whole=True)
        for source in segment.sources:
            for part in parts(snn, source, names, values):
                total = total + through(snn, segment, values, nothing | {source: part}, whole=False)
        torch.testing.assert_close(total, values[segment.end], rtol=1e-9, atol=1e-9)


def parts(snn: fs.SpikingNetwork, source: str, names: dict[str, str], values: dict[str, Any]) -> list[Tensor]:
    """What a source sends: a site its offset and d[t] z[t] in each step, all others their values."""
    if source not in names:
        return [values[source]]
    code = snn.neurons[names[source]].code
    gate = values[snn.graph[source].arguments["input"].name]
    spikes = fs.encode(gate, code).double()
    return [torch.full_like(gate, code.offset), *(float(d) * z for d, z in zip(code.d, spikes, strict=True))]


def test_every_call_that_carries_a_signal_is_a_consumer_or_lies_in_a_segment() -> None:
    snn = fs.convert(squeeze_excite(), torch.zeros(1, 3, 8, 8))
    segments = snn.structure.segments
    between = {node.name for segment in segments for node in segment.nodes}
    for node in snn.graph:
        if node.name in segments.carriers and node.operator not in (INPUT, CONSTANT, SITE, "output"):
            assert (node.name in between) == (segments.kind(node.name) is Kind.SYNAPTIC)
    assert [segment.consumer.operator for segment in segments].count("aten.mul.Tensor") == 2
