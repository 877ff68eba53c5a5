"""Networks with sites for the tests of rows, synapses and steps, and their fan-out by brute force."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewspikes.graph.capture import captured_model
from fewspikes.graph.functions import named
from fewspikes.graph.graph import INPUT, OUTPUT, SITE, Graph, Node, Ref
from fewspikes.graph.inputs import InputSpec
from fewspikes.graph.interpreter import execute, filled, lowered
from fewspikes.network.macs import Macs, multiply_adds
from fewspikes.network.segments import Segments
from fewspikes.network.synapses import FanOut, fan_outs
from fewspikes.network.timing import interval_steps, latency_steps
from fewspikes.operators.call import fixed_of
from fewspikes.operators.rewriting import prepared, with_sizes
from fewspikes.operators.rule import Kind

aten = torch.ops.aten


class Net(nn.Module):
    """Layers and what to do with them."""

    def __init__(self, forward: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.run = nn.ModuleList(layers), forward

    def forward(self, x: Tensor) -> Any:
        return self.run(x, *self.layers)


def between(forward: Callable[..., Any], *layers: nn.Module) -> Net:
    """One neuron in front of a linear chain and one behind it."""
    return Net(lambda x, *layers: torch.relu(forward(torch.relu(x), *layers)), *layers)


class Converted:
    """A network whose activations are sites, as convert prepares it."""

    def __init__(self, graph: Graph, tensors: dict[str, Tensor]) -> None:
        self.graph, self.tensors = graph, tensors
        self.sites = [node.name for node in graph.of(SITE)]
        self.segments = Segments(graph, fixed_of(tensors))

    @classmethod
    def of(cls, net: nn.Module, *shape: int) -> "Converted":
        """Through the whole of the rewriting."""
        work = prepared(captured_model(net.double().eval(), torch.ones(2, *shape, dtype=torch.float64)))
        return cls(work.graph, work.tensors)

    @classmethod
    def traced(cls, forward: Callable[[Any], Any], *shape: int) -> "Converted":
        """A chain of ATen calls as they stand, relu a site; capture writes some of them another way."""
        inputs = (InputSpec("x", shape, torch.float64),)
        graph = Graph(tuple(_own(node) for node in fx.symbolic_trace(Net(forward)).graph.nodes))
        return cls(with_sizes(graph, inputs, {}), {})

    def fan(self, site: int = 0) -> FanOut:
        return fan_outs(self.segments)[self.sites[site]]

    def dense(self, site: int = 0) -> Tensor:
        fan = self.fan(site)
        assert fan.reason is None
        return fan.dense()

    def macs(self) -> Macs:
        return multiply_adds(self.segments)

    def latency(self, *k: int) -> int:
        return latency_steps(self.segments, dict(zip(self.sites, k, strict=False)))

    def interval(self, *k: int) -> int:
        return interval_steps(self.segments, dict(zip(self.sites, k, strict=False)))

    def operators(self) -> set[str]:
        return {node.short for node in self.graph}

    def run(self, inputs: list[Tensor], at: Callable[[Node, Any], Any]) -> list[Any]:
        """Every value, each as `at` gives it back."""
        program = lowered(self.graph)
        values = program.values(inputs, self.tensors.__getitem__)
        for name, place in program.places.items():
            if self.graph[name].operator == INPUT:
                values[place] = at(self.graph[name], values[place])
        for step in program.steps:
            execute((step._replace(done=()),), values, dict.fromkeys(self.sites, lambda x: x))
            values[step.at] = at(self.graph[step.node], values[step.at])
        self.returned = filled(program.output, values)
        return {name: values[place] for name, place in program.places.items()}


def _own(node: fx.Node) -> Node:
    def ours(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return Ref(value.name)
        return [ours(item) for item in value] if isinstance(value, list | tuple) else value

    if node.op == "placeholder":
        return Node(node.name, INPUT, {})
    if node.op == "output":
        return Node(node.name, OUTPUT, {"value": ours(node.args[0])})
    if node.target is aten.relu.default:
        return Node(node.name, SITE, {"input": ours(node.args[0])})
    name = str(node.target) if isinstance(node.target, torch._ops.OpOverload) else node.target.__name__
    return Node(node.name, name, named(name, ours(node.args), {k: ours(v) for k, v in node.kwargs.items()}))


def pushed_through(net: Converted, site: int) -> Tensor:
    """The fan-out by brute force: an image for every neuron, positive weights, and the elements that are not 0."""
    generator, net = torch.Generator().manual_seed(0), copy.copy(net)
    net.tensors = {
        name: torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.1
        if tensor.is_floating_point()
        else tensor
        for name, tensor in net.tensors.items()
    }
    shape = net.graph.sizes(net.sites[site], 2)[1:]
    one_hot = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)

    def at(node: Node, value: Any) -> Any:
        if node.name == net.sites[site]:
            return one_hot  # as it is now
        silent = node.operator in (INPUT, SITE) or net.segments.kind(node.name) is Kind.DIGITAL
        return torch.zeros_like(value) if silent else value

    inputs = [torch.zeros(net.graph.sizes(n.name, len(one_hot)), dtype=torch.float64) for n in net.graph.of(INPUT)]
    consumers = [name for name in consumed(net) if name in net.segments.carriers]
    one_hot, hot = torch.zeros_like(one_hot), one_hot
    nothing = net.run(inputs, at)  # what biases make
    one_hot = hot
    values = net.run(inputs, at)
    return sum((values[name] != nothing[name]).flatten(1).sum(1) for name in consumers).reshape(shape)


def consumed(net: Converted) -> Iterator[str]:
    """The tensors that consumers take."""
    for node in net.graph:
        if node.operator == OUTPUT:
            yield from node.reads
        elif net.segments.kind(node.name) in (Kind.NEURON, Kind.DIGITAL):
            yield from (value.name for value in node.arguments.values() if isinstance(value, Ref))


def conv(*args: Any, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(*args, bias=False, **kwargs)


def check(converted: Converted) -> None:
    assert torch.equal(converted.dense(), pushed_through(converted, 0))


def squeeze_and_excite() -> Net:
    def forward(x: Tensor, first: nn.Module, squeeze: nn.Module, excite: nn.Module) -> Tensor:
        x = torch.relu(first(x))
        return x * torch.sigmoid(excite(torch.relu(squeeze(x.mean((2, 3), keepdim=True)))))

    return Net(forward, conv(3, 4, 1), conv(4, 2, 1), conv(2, 4, 1))
