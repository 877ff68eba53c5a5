"""How many time steps a converted network takes, from the K of each site."""

from collections.abc import Mapping

from torch import fx

from fewspikes.base.errors import FewSpikesError
from fewspikes.operators.classes import Kind


def latency_steps(graph: fx.Graph, k: Mapping[str, int]) -> int:
    """The steps from an image to its output: the largest sum of K over a chain of sites.

    Args:
        graph: a converted network, with `meta["kind"]` on all operators.
        k: K of each site by its target.

    Raises:
        FewSpikesError: a site without a K.
    """
    depth: dict[fx.Node, int] = {}
    for node in graph.nodes:
        depth[node] = max((depth[n] for n in _carriers(node)), default=0) + _own(node, k)
    return max(depth.values(), default=0)


def interval_steps(graph: fx.Graph, k: Mapping[str, int]) -> int:
    """The steps between two images in a pipeline: the largest K before + K here over neighbouring sites.

    A layer takes in the spikes of the layer before it, then fires; between the two sites may be any operators but
    neurons. With one K everywhere, or no neighbours at all, that is 2K.

    Args:
        graph: a converted network, with `meta["kind"]` on all operators.
        k: K of each site by its target.

    Raises:
        FewSpikesError: a site without a K.
    """
    last: dict[fx.Node, int] = {}  # the largest K among the sites from which spikes reach a node
    edges = []
    for node in graph.nodes:
        before, own = max((last[n] for n in _carriers(node)), default=0), _own(node, k)
        if own and before:
            edges.append(before + own)
        last[node] = own or before
    return max(edges, default=2 * max((_own(node, k) for node in last), default=0))


def _carriers(node: fx.Node) -> list[fx.Node]:
    """The inputs that carry values from neuron to neuron; shapes and arithmetic on sizes carry none."""
    return [n for n in node.all_input_nodes if n.meta.get("kind") != Kind.BOOKKEEPING]


def _own(node: fx.Node, k: Mapping[str, int]) -> int:
    if node.op != "call_module":
        return 0
    if node.target not in k:
        raise FewSpikesError(f"no K given for the site {node.target}")
    return k[str(node.target)]
