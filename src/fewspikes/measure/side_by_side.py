"""Run ANN and spiking network side by side, layer by layer, so that each site can be set before the next one runs."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, fx

from fewspikes.network.spiking import SpikingNetwork

Values = list[Any]  # one value per batch


def walk(
    snn: SpikingNetwork, batches: list[tuple[Tensor, ...]]
) -> Iterator[tuple[str, list[Tensor], list[Tensor], "Setter"]]:
    """Yield (site name, the ANN's gate inputs, the spiking network's gate inputs, set) at each site, in order.

    `set(neuron)` says what runs at this site from now on; without it the network's own neuron runs. What the site
    yields is one tensor per batch. Values are freed after their last use.

    Args:
        snn: the spiking network.
        batches: the inputs of each batch.
    """
    sites = {site.target: site for site in snn.sites}
    neurons = snn.neurons
    last = _last_uses(snn.body.graph)
    ann: dict[fx.Node, Values] = {}
    got: dict[fx.Node, Values] = {}
    inputs = iter(range(len(snn.inputs)))
    for node in snn.body.graph.nodes:
        if node.op == "placeholder":
            i = next(inputs)
            ann[node] = got[node] = [batch[i] for batch in batches]
        elif node.op == "get_attr":
            ann[node] = got[node] = [snn.tensors[str(node.target)]] * len(batches)
        elif node.op == "call_module":
            site, source = sites[str(node.target)], node.args[0]
            setter = Setter(neurons[site.name])
            yield site.name, ann[source], got[source], setter
            ann[node] = [site.activation(x) for x in ann[source]]
            got[node] = [setter.neuron(x) for x in got[source]]
        elif node.op == "call_function":
            same = all(got[n] is ann[n] for n in node.all_input_nodes)
            ann[node] = _call(node, ann, len(batches))
            got[node] = ann[node] if same else _call(node, got, len(batches))
        elif node.op == "output":
            return
        for done in last.get(node, ()):
            del ann[done], got[done]


class Setter:
    """Holds the neuron that runs at a site."""

    def __init__(self, neuron: Callable[[Tensor], Tensor]) -> None:
        self.neuron = neuron

    def __call__(self, neuron: Callable[[Tensor], Tensor]) -> None:
        """Let `neuron` run there."""
        self.neuron = neuron


def _call(node: fx.Node, env: dict[fx.Node, Values], count: int) -> Values:
    def run(i: int) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: env[n][i])
        return node.target(*args, **kwargs)  # type: ignore[operator]

    return [run(i) for i in range(count)]


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    seen: set[fx.Node] = set()
    last: dict[fx.Node, list[fx.Node]] = {}
    for node in reversed(graph.nodes):
        for used in (node, *node.all_input_nodes):
            if used not in seen:
                seen.add(used)
                last.setdefault(node, []).append(used)
    return last
