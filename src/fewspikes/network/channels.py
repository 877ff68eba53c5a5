"""Where the channels of a site are, and where a range per channel costs nothing."""

from torch import fx

from fewspikes.graph.capture import op_name
from fewspikes.neuron.activation import Activation

_MAPS = {  # operator: the axis of its output channels
    "aten.conv1d.default": 1,
    "aten.conv1d.padding": 1,
    "aten.conv2d.default": 1,
    "aten.conv2d.padding": 1,
    "aten.linear.default": -1,
}
# These keep every channel on its axis.
_KEEP = frozenset(
    (
        "aten.add.Tensor",
        "aten.add.Scalar",
        "aten.sub.Tensor",
        "aten.sub.Scalar",
        "aten.neg.default",
        "aten.mul.Tensor",
        "aten.mul.Scalar",
        "aten.div.Tensor",
        "aten.div.Scalar",
        "aten.avg_pool1d.default",
        "aten.avg_pool2d.default",
        "aten.adaptive_avg_pool2d.default",
        "aten.max_pool1d.default",
        "aten.max_pool2d.default",
        "aten.constant_pad_nd.default",
        "aten.pad.default",
        "aten.slice.Tensor",
    )
)


def channel_axis(gate: fx.Node, ndim: int) -> int | None:
    """The axis of the channels of a gate input, from the weighted maps before it; None where they disagree.

    Args:
        gate: the node that feeds the site.
        ndim: of its value.
    """
    found: set[int | None] = set()
    queue, seen = [gate], {gate}
    while queue:
        node = queue.pop()
        name = op_name(node)
        if name in _MAPS:
            found.add(_MAPS[name] % ndim)
        elif name in _KEEP:
            more = [n for n in node.all_input_nodes if n not in seen and n.op != "get_attr"]
            seen.update(more)
            queue.extend(more)
        elif node.op != "call_module":  # another site's output keeps the axes it came with
            found.add(None)
    return found.pop() if len(found) == 1 else None


def range_is_free(site: fx.Node, activation: Activation) -> str:
    """Why a range per channel would cost something at this site, or "" where it folds into the weights.

    A ReLU's range folds into the weighted maps before and after it. It must meet one on every way to the output.
    """
    return gain_is_free(site) if activation.name == "relu" else f"{activation.label} is not positively homogeneous"


def gain_is_free(site: fx.Node) -> str:
    """Why a gain per channel would cost something at this site, or "" where it folds into the weights after it."""
    queue, seen = [site], {site}
    while queue:
        for user in queue.pop().users:
            if user.op == "output":
                return "its output leaves the network unweighted"
            if user in seen or op_name(user) in _MAPS or user.op == "call_module":
                continue
            seen.add(user)
            queue.append(user)
    return ""
