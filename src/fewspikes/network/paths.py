"""Follow the spikes of each site through the linear maps behind it, up to the next neurons."""

import heapq
from collections.abc import Iterator

from torch import fx

from fewspikes.network.fan import FanOut, gather, term_of
from fewspikes.operators.arguments import Shapes
from fewspikes.operators.call import Known, Relation
from fewspikes.operators.classes import Kind, describe
from fewspikes.operators.rules import apply
from fewspikes.reach.boxes import identity, is_empty, tidy
from fewspikes.reach.factors import Unknown
from fewspikes.reach.union import disjoint_terms, unite


def fan_out(graph: fx.Graph, shapes: Shapes) -> dict[str, FanOut]:
    """The number of synapses that one spike of each neuron reaches, exact at borders, strides and groups.

    Linear maps that follow each other with no neuron between count as one composite map. Its synapses are the pairs of
    elements that some path connects, however many paths. Each consumer has synapses of its own: the input of a neuron
    site, each operand of an operator left digital, and each tensor that the network returns. The count is structural:
    a weight that happens to be 0 is a synapse all the same. Added constants (biases) are none.

    Args:
        graph: a converted network: sites as `call_module` nodes, with `meta["kind"]` on all operators.
        shapes: the shapes of its tensors for a batch of two images or more; axis 0 is the batch.

    Returns:
        The counts by the sites' targets. Where the connections cannot be followed, `.reason` says why.
    """
    order = {node: at for at, node in enumerate(graph.nodes)}
    return {str(node.target): _fan_out(node, order, shapes) for node in order if node.op == "call_module"}


def _fan_out(site: fx.Node, order: dict[fx.Node, int], shapes: Shapes) -> FanOut:
    shape = tuple(shapes[site][1:])
    try:
        batch = next(shapes[node][0] for node in order if node.op == "placeholder")
        if shapes[site][:1] != (batch,):
            raise Unknown(f"axis 0 of {describe(site)} is not the batch")
        consumed = _consumed(site, order, shapes)
        terms = gather(term_of(sign, box) for boxes in consumed for sign, box in disjoint_terms(boxes))
    except Unknown as error:
        return FanOut(shape, reason=str(error))
    return FanOut(shape, terms)


def _consumed(site: fx.Node, order: dict[fx.Node, int], shapes: Shapes) -> Iterator[Relation]:
    """The connections from a site's output to every tensor that a consumer takes."""
    known: Known = {site: (identity(shapes[site]),)}
    for node in _downstream(site, order, known):
        if node.op == "output" or node.meta["kind"] in (Kind.NEURON, Kind.DIGITAL):
            yield from (known[operand] for operand in _operands(node) if operand in known)
        elif node.meta["kind"] == Kind.SYNAPTIC:
            relation = _through(node, known, shapes)
            if relation:
                known[node] = relation


def _downstream(site: fx.Node, order: dict[fx.Node, int], known: Known) -> Iterator[fx.Node]:
    """The users of known nodes in the graph's order, while more nodes become known."""
    waiting = {order[user] for user in site.users}
    heap, nodes = sorted(waiting), list(order)
    while heap:
        node = nodes[heapq.heappop(heap)]
        yield node
        for user in node.users if node in known else ():
            if order[user] not in waiting:
                waiting.add(order[user])
                heapq.heappush(heap, order[user])


def _operands(node: fx.Node) -> list[fx.Node]:
    """The tensors that a consumer takes; x * x takes x twice, but a result returned twice is there once."""
    if node.op == "output":
        return node.all_input_nodes
    return [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, fx.Node)]


def _through(node: fx.Node, known: Known, shapes: Shapes) -> Relation:
    try:
        boxes = [tidy(box) for box in apply(node, known, shapes)]
        wrong = [box.shape for box in boxes if node in shapes and box.shape != tuple(shapes[node])]
        if wrong:
            raise Unknown(f"its connections come out with shape {wrong[0]}, not {tuple(shapes[node])}")
        return unite(box for box in boxes if not is_empty(box))
    except Unknown as error:
        raise Unknown(f"{describe(node)}: {error}") from error
