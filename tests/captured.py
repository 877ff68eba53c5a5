"""Networks with sites for the tests of synapses and steps, and their fan-out by brute force."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewspikes.graph.capture import Captured, capture, op_name
from fewspikes.graph.inputs import InputSpec
from fewspikes.graph.shapes import shapes
from fewspikes.network.fan import FanOut
from fewspikes.network.macs import Macs, macs
from fewspikes.network.paths import fan_out
from fewspikes.operators.classes import Kind, activation_of, classify

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
    """A captured network whose activations are sites, and its shapes for two images."""

    def __init__(self, captured: Captured) -> None:
        sites = 0
        for node in list(captured.graph.nodes):
            if activation_of(node) is not None:
                with captured.graph.inserting_before(node):
                    site = captured.graph.create_node("call_module", f"sites.{sites}", (node.args[0],))
                node.replace_all_uses_with(site)
                captured.graph.erase_node(node)
                sites += 1
        neurons = {f"sites.{i}": nn.Identity() for i in range(sites)}
        self.module = fx.GraphModule({**captured.tensors, **neurons}, captured.graph)
        self.graph, self.tensors = self.module.graph, captured.tensors
        self.shapes = shapes(self.module, captured.inputs, 2)
        for node in self.graph.nodes:
            inputs = any(n.meta["signal"] for n in node.all_input_nodes)
            node.meta["signal"] = node.op == "placeholder" or (inputs and op_name(node) != "aten.sym_size.int")
            if node.op.startswith("call"):
                node.meta["kind"] = classify(node)[0]

    @classmethod
    def of(cls, net: nn.Module, *shape: int) -> "Converted":
        return cls(capture(net.double().eval(), torch.ones(2, *shape, dtype=torch.float64)))

    @classmethod
    def traced(cls, forward: Callable[[Any], Any], *shape: int) -> "Converted":
        """A chain of ATen calls as they stand; capture writes some of them another way."""
        inputs = (InputSpec("x", shape, torch.float64),)
        return cls(Captured(fx.symbolic_trace(Net(forward)).graph, {}, inputs))

    def fan(self, site: int = 0) -> FanOut:
        return fan_out(self.graph, self.shapes)[f"sites.{site}"]

    def dense(self, site: int = 0) -> Tensor:
        fan = self.fan(site)
        assert fan.reason is None
        return fan.dense()

    def macs(self) -> Macs:
        return macs(self.graph, self.shapes)

    def operators(self) -> set[str]:
        return {op_name(node) for node in self.graph.nodes}


class Probe(fx.Interpreter):
    """Runs a network in which nothing but one site is active; its spikes are given."""

    def __init__(self, module: fx.GraphModule, site: str, spikes: Tensor) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.site, self.spikes = site, spikes

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_module" and n.target == self.site:
            return self.spikes
        result = super().run_node(n)
        silent = n.op in ("placeholder", "call_module") or n.meta.get("kind") == Kind.DIGITAL
        return torch.zeros_like(result) if silent else result


def pushed_through(net: Converted, site: int) -> Tensor:
    """The fan-out by brute force: an image for every neuron, positive weights, and the elements that are not 0."""
    generator = torch.Generator().manual_seed(0)
    for tensor in net.tensors.values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.1)
    for name, tensor in net.tensors.items():
        parent, _, attribute = name.rpartition(".")
        setattr(net.module.get_submodule(parent), attribute, tensor)
    node = next(n for n in net.graph.nodes if n.target == f"sites.{site}")
    shape = net.shapes[node][1:]
    one_hot = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    inputs = [torch.zeros(len(one_hot), *net.shapes[n][1:], dtype=torch.float64) for n in placeholders(net)]
    probe = Probe(net.module, f"sites.{site}", one_hot)
    probe.run(*inputs)
    reached = [(probe.env[n] != 0).flatten(1).sum(1) for n in consumed(net) if n.meta["signal"]]
    return sum(reached).reshape(shape)


def placeholders(net: Converted) -> list[fx.Node]:
    return [n for n in net.graph.nodes if n.op == "placeholder"]


def consumed(net: Converted) -> Iterator[fx.Node]:
    for node in net.graph.nodes:
        if node.op == "output":
            yield from node.all_input_nodes
        elif node.meta.get("kind") in (Kind.NEURON, Kind.DIGITAL):
            yield from (n for n in node.args if isinstance(n, fx.Node))


def conv(*args: Any, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(*args, bias=False, **kwargs)


def check(converted: Converted) -> None:
    assert torch.equal(converted.dense(), pushed_through(converted, 0))


def squeeze_and_excite() -> Net:
    def forward(x: Tensor, first: nn.Module, squeeze: nn.Module, excite: nn.Module) -> Tensor:
        x = torch.relu(first(x))
        return x * torch.sigmoid(excite(torch.relu(squeeze(x.mean((2, 3), keepdim=True)))))

    return Net(forward, conv(3, 4, 1), conv(4, 2, 1), conv(2, 4, 1))
