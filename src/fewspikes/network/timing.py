"""How many time steps a network takes, from the K of each site."""

from collections.abc import Mapping

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.graph import OUTPUT, SITE, STATE, Node
from fewspikes.network.segments import Segment, Segments


def latency_steps(segments: Segments, k: Mapping[str, int]) -> int:
    """The steps from an image to its output: the largest sum of K over a chain of sites.

    A loop over time runs through all its time steps, each as soon as what it needs of the one before is complete; what
    follows the loop waits for the last.

    A gated product is complete when its gate has fired, and K steps of the gate after what it holds is complete: until
    then the gate's spikes wait.

    Args:
        segments: of the network.
        k: K of each site by its node.

    Raises:
        FewSpikesError: a site without a K.
    """
    return ready_steps(segments, k)[segments.graph.output.name][0]


def ready_steps(segments: Segments, k: Mapping[str, int]) -> dict[str, list[int]]:
    """By node, when its value is complete; in a loop at each time step.

    Args and Raises: as for `latency_steps`.
    """
    _check(segments, k)
    ready: dict[str, list[int]] = {}
    for node in segments.graph:
        if not node.loop:
            ready[node.name] = [_complete(segments, k, node, ready)]
        elif node.loop and node.name not in ready:
            nodes = segments.graph.loops[node.loop].nodes
            ready |= {one.name: [] for one in nodes}
            for _ in range(segments.graph.time_steps(node)):
                for one in nodes:
                    ready[one.name].append(_complete(segments, k, one, ready))
    return ready


def _complete(segments: Segments, k: Mapping[str, int], node: Node, ready: Mapping[str, list[int]]) -> int:
    """When a node's next value is complete. A layer in a loop is busy with the time step before until then."""
    before = ready.get(node.name, [])
    if node.operator == STATE and before:
        after = segments.graph.after(node.name)
        return ready[str(after)][len(before) - 1]
    if node.operator != OUTPUT and node.name not in segments.carriers:
        return 0
    signals = segments.carriers.intersection(segments.through(node))
    complete = max((ready[name][-1] for name in signals), default=0)
    held = segments.held(node)
    if held is not None:
        complete = max(complete, ready[held][-1] + max(k[gate] for gate in segments.gates(node)))
    if node.name in k:
        complete = max(complete, *before[-1:], 0) + k[node.name]
    return complete


def interval_steps(segments: Segments, k: Mapping[str, int]) -> int:
    """The steps between two images in a pipeline: the longest time that a membrane is busy with one image.

    A layer takes in the spikes of the layers before it, then fires: K before + K here, so 2K with one K everywhere.
    Numbers from digital operators come at once: where nothing else is taken in, only the firing counts. What a gated
    product holds is taken in, then kept while its gate fires. In a loop over time a membrane is busy from its first
    time step to its last.

    Args:
        segments: of the network.
        k: K of each site by its node.

    Raises:
        FewSpikesError: a site without a K.
    """
    ready = ready_steps(segments, k)
    return max((_busy(segments, k, segment, ready) for segment in segments), default=0)


def _busy(segments: Segments, k: Mapping[str, int], segment: Segment, ready: Mapping[str, list[int]]) -> int:
    """How long the membranes at a segment's end are busy with one image."""
    consumer, held = segment.consumer, segments.held(segment.consumer)
    here = k.get(consumer.name, 0) if held is None else max(k[name] for name in segments.gates(consumer))
    times, before = ready[consumer.name], [0]
    taken = times[0] - here
    for name, lag in segments.met(segment).items():
        node = segments.graph[name]
        if consumer.loop and lag:
            continue
        if name in k:
            before.append(k[name])
        elif segments.held(node) is not None and ready[name][0 if node.loop == consumer.loop else -1] == taken:
            before += [k[gate] for gate in segments.gates(node)]  # else it waits, and comes at once
    return times[-1] - times[0] + max(before) + here


def time_step_steps(segments: Segments, k: Mapping[str, int], loop: str) -> int:
    """The steps from one time step of a loop to the next, once it runs.

    Args:
        segments: of the network.
        k: K of each site by its node.
        loop: its name.
    """
    ready = ready_steps(segments, k)
    nodes = segments.graph.loops[loop].nodes
    last = [ready[node.name] for node in nodes if node.operator == SITE]
    return max((steps[-1] - steps[-2] if len(steps) > 1 else steps[-1] for steps in last), default=0)


def _check(segments: Segments, k: Mapping[str, int]) -> None:
    for node in segments.graph.of(SITE):
        if node.name not in k:
            raise FewSpikesError(f"no K given for the site {node.name}")
