"""Where the channels of a site are, and where a scale per channel costs nothing."""

from fewspikes.graph.graph import CONSTANT, HISTORY, INPUT, OUTPUT, PASSING, SITE, STATE, Node
from fewspikes.network.segments import Segments
from fewspikes.operators.call import IMAGES
from fewspikes.operators.rule import Digital, Kind, Linear, Lookup, Rule
from fewspikes.operators.summing import divided, scaled
from fewspikes.reach.boxes import Box, identity
from fewspikes.reach.factors import Unknown, is_identity

_ANY = -1  # the axis of what keeps the axes that it came with, or has summed them up: it agrees with every other
_NONE = -2  # no axis, or several


def channel_axis(segments: Segments, site: str) -> int | None:
    """The axis of the channels of a site's gate inputs, from the weighted maps before it; None where they disagree.

    A weighted map makes channels; what follows may move them as long as each stays one position of one axis. In a loop
    over time neurons before it tell, too.

    Args:
        segments: of the network.
        site: its node.
    """
    end = segments.graph[site].arguments["input"].name
    seen: dict[str, int] = {}
    for node in _leading_to(segments, end):
        seen[node.name] = _axis_after(segments, node, seen)
        if node.operator == SITE and segments.graph[site].loop:  # gates of one state have its channels
            axis = channel_axis(segments, node.name)
            seen[node.name] = _ANY if axis is None else axis
    return seen[end] if seen[end] >= 0 else None


def _leading_to(segments: Segments, end: str) -> list[Node]:
    """The nodes between the last weighted maps, neurons and inputs, these included, and a node, in order."""
    found, waiting = {end}, [end]
    while waiting:
        node = segments.graph[waiting.pop()]
        rule = segments.fates[node.name].rule if node.name in segments.fates else None
        weighs = isinstance(rule, Linear) and rule.outputs is not None and rule.weight is not None
        if node.operator != SITE and not weighs:
            before = segments.carriers.intersection(node.reads) - found
            found |= before
            waiting.extend(before)
    return [node for node in segments.graph if node.name in found]


def _axis_after(segments: Segments, node: Node, seen: dict[str, int]) -> int:
    if node.operator in (SITE, STATE):  # a state's are those of what it will be, which stands behind it
        return _ANY
    if node.operator in PASSING:
        return _through_time(node, seen[node.reads[0]])
    if node.operator == INPUT or node.name not in segments.fates:
        return _NONE
    rule = segments.fates[node.name].rule
    if segments.kind(node.name) is Kind.LOOKUP:
        return rule.channels % len(node.shape) if isinstance(rule, Lookup) and node.shape else _NONE
    if isinstance(rule, Linear) and rule.outputs is not None and rule.weight is not None:
        return rule.outputs[1] % len(node.shape or ())
    reads = [read for read in node.reads if read in segments.carriers]
    if segments.held(node) is not None:  # either factor's channels, those of what it holds first
        reads = sorted(reads, key=lambda read: read != segments.held(node))
        axes = [_moved(segments, node, read, seen[read]) for read in reads]
        return next((axis for axis in axes if axis >= 0), max(axes))
    found = {_moved(segments, node, read, seen[read]) for read in reads}
    found -= {_ANY}
    return found.pop() if len(found) == 1 else _NONE if found else _of_factors(segments, node, rule)


def _of_factors(segments: Segments, node: Node, rule: Rule | None) -> int:
    """The one axis along which the constant differs that multiplies: it is a weight for each channel."""
    if rule not in (scaled, divided):
        return _ANY
    constants = [name for name in node.reads if segments.graph[name].operator == CONSTANT]
    shapes = [segments.graph.sizes(name, IMAGES) for name in constants]
    found = {at - len(shape) for shape in shapes for at, size in enumerate(shape) if size > 1}
    return found.pop() % len(node.shape or ()) if len(found) == 1 else _ANY


def _through_time(node: Node, axis: int) -> int:
    """Where the channels are in one time step, and in all."""
    time: int | None = node.arguments.get("dim")
    if axis < 0 or time is None:
        return axis
    if node.operator == HISTORY:
        return axis + (axis >= time)
    return _NONE if axis == time else axis - (axis > time)


def _moved(segments: Segments, node: Node, read: str, axis: int, in_place: bool = False) -> int:
    """Where an operator puts the channels of what it reads; in place, where each keeps its position."""
    rule = segments.fates[node.name].rule
    if axis < 0 or not isinstance(rule, Linear | Digital) or rule.reach is None:
        return axis if axis < 0 else _NONE
    try:
        known = {read: (identity(segments.graph.sizes(read, IMAGES)),)}
        boxes = list(rule.reach(segments.call(node, known)))
    except Unknown:
        return _NONE
    found = {_axis_of(box, axis, in_place) if isinstance(box, Box) else _NONE for box in boxes}
    return found.pop() if len(found) == 1 else _NONE


def _axis_of(box: Box, axis: int, in_place: bool) -> int:
    """The target's axis of which each position is connected to one position of the source's axis at most, and back.

    In place, to the same one. `_ANY` where all positions of the target are connected to the same ones.
    """
    source = -1 - axis
    factor = box.factor_of(source)
    if set(factor.labels) == {source}:
        return _ANY  # the same channels wherever one looks: their sum
    for at, atoms in enumerate(box.axes):
        if atoms and set(factor.labels) == {source, *atoms}:
            table = factor.ordered([source, *atoms]).table.flatten(1)
            one_to_one = int(table.sum(0).max()) <= 1 and int(table.sum(1).max()) <= 1
            if is_identity(table) if in_place else one_to_one:
                return at
    return _NONE


def moved_axis(segments: Segments, node: Node, read: str, axis: int) -> int | None:
    """Where an operator puts an axis of what it reads; None where it is lost, split up or in another order."""
    found = _moved(segments, node, read, axis, in_place=True)
    return found if found >= 0 else None


def gain_is_free(segments: Segments, site: str, axis: int | None) -> str:
    """Why a gain per channel would cost something at a site, or "" where it folds into the weights after it.

    It must meet weights, or a neuron's own synapses, on every way to the output; or what a product holds for its gate,
    if that is another value for each channel.

    Args:
        segments: of the network.
        site: its node.
        axis: of its channels, see `channel_axis`.
    """
    marked = {site: _NONE if axis is None else axis}  # by node, where the channels are
    before = -1
    while before < len(marked):  # a state is what stands behind it will be
        before = len(marked)
        for node in segments.graph:
            reads = [name for name in (*segments.through(node), segments.graph.after(node.name)) if name in marked]
            if not reads or node.name == site:
                continue
            if node.operator == OUTPUT:
                return "its output leaves the network unweighted"
            if segments.held(node) is not None:
                if not _is_held_by_channel(segments, node, marked[reads[0]]):
                    return "it gates a product that holds one value for several of its channels"
            elif node.operator in PASSING:
                marked[node.name] = _through_time(node, marked[reads[0]])
            elif segments.kind(node.name) in (Kind.SYNAPTIC, Kind.DIGITAL) and not segments.weighs(node):
                marked[node.name] = _moved(segments, node, reads[0], marked[reads[0]], in_place=True)
    return ""


def _is_held_by_channel(segments: Segments, node: Node, axis: int) -> bool:
    """Whether a gated product holds a value of its own for each position of an axis of the gate."""
    rule = segments.fates[node.name].rule
    return axis >= 0 and isinstance(rule, Linear) and rule.tells_apart(segments.call(node), axis)
