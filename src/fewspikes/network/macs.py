"""Multiply-adds per image, of the network and of the part of it that stays analog among spikes.

Counted: one for every weight that a convolution, linear map or matrix product applies to an input that exists
(multiplications by zero padding do not count), and one for every element of a product of two signals. Pools, sums,
biases and scales by a constant (a batch norm that stands alone) count no multiply-adds. So where no chains are
collapsed, no pools, skips or digital operators stand, and every neuron spikes once, synaptic operations and analog
multiply-adds together are the network's multiply-adds.
"""

from dataclasses import dataclass
from math import prod

from torch import fx

from fewspikes.graph.capture import op_name
from fewspikes.operators.arguments import Shapes, arguments
from fewspikes.operators.classes import Kind
from fewspikes.reach.windows import conv_windows


@dataclass(frozen=True)
class Macs:
    """Multiply-adds per image: all of the network's, and those with an analog input in the spiking network.

    `by_node` and `analog_by_node` split the two sums by the graph's nodes that have any.
    """

    by_node: dict[str, int]
    analog_by_node: dict[str, int]

    @property
    def ann(self) -> int:
        """What the network without spikes computes."""
        return sum(self.by_node.values())

    @property
    def analog(self) -> int:
        """What remains in the spiking network: products, and everything from an analog value to the next neurons."""
        return sum(self.analog_by_node.values())


def macs(graph: fx.Graph, shapes: Shapes) -> Macs:
    """Count the multiply-adds per image of a converted network.

    Analog are the network's inputs, what operators left digital return, and what linear maps make of either, until a
    neuron turns it into spikes. A map of analog values and spikes together (their sum, say) counts as analog.

    Args:
        graph: a converted network: sites as `call_module` nodes, with `meta["kind"]` on all operators.
        shapes: the shapes of its tensors, axis 0 of the inputs being the batch.
    """
    batch = next(shapes[node][0] for node in graph.nodes if node.op == "placeholder")
    every, remaining = {}, {}
    analog: set[fx.Node] = set()
    for node in graph.nodes:
        kind = node.meta.get("kind")
        mixed = any(n in analog for n in node.all_input_nodes)
        if node.op == "placeholder" or kind == Kind.DIGITAL or (kind == Kind.SYNAPTIC and mixed):
            analog.add(node)
        count = _count(node, shapes) // batch if kind in (Kind.SYNAPTIC, Kind.DIGITAL) else 0
        if count:
            every[node.name] = count
        if count and node in analog:
            remaining[node.name] = count
    return Macs(every, remaining)


def _count(node: fx.Node, shapes: Shapes) -> int:
    """The multiply-adds of one operator on the whole batch."""
    name = op_name(node).removeprefix("aten.").split(".")[0]
    if name in ("conv1d", "conv2d"):
        return _convolution(node, shapes)
    if name == "linear":
        return shapes[node].numel() * _shape(node, 0, shapes)[-1]
    if name in ("matmul", "mm"):
        return shapes[node].numel() * _shape(node, 0, shapes)[-1]
    if name == "mul" and node.meta["kind"] == Kind.DIGITAL:
        return shapes[node].numel()
    return 0


def _convolution(node: fx.Node, shapes: Shapes) -> int:
    """Images x output channels x input channels per group x pairs of positions along each spatial axis."""
    x, weight, out = _shape(node, 0, shapes), _shape(node, 1, shapes), tuple(shapes[node])
    windows = conv_windows(arguments(node, shapes), x, weight, out)
    return out[0] * weight[0] * weight[1] * prod(int(matrix.sum()) for matrix in windows)


def _shape(node: fx.Node, operand: int, shapes: Shapes) -> tuple[int, ...]:
    return tuple(shapes[node.all_input_nodes[operand]])
