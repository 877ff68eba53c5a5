"""How many time steps a network takes, from the K of each site."""

from collections.abc import Mapping

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.graph import SITE
from fewspikes.network.segments import Segments


def latency_steps(segments: Segments, k: Mapping[str, int]) -> int:
    """The steps from an image to its output: the largest sum of K over a chain of sites.

    A gated product is complete when its gate has fired, and K steps of the gate after what it holds is complete: until
    then the gate's spikes wait.

    Args:
        segments: of the network.
        k: K of each site by its node.

    Raises:
        FewSpikesError: a site without a K.
    """
    _check(segments, k)
    ready: dict[str, int] = {}  # by node: when its value is complete
    for node in segments.graph:
        signals = segments.carriers.intersection(segments.through(node)) if node.name in segments.carriers else ()
        complete = max((ready[name] for name in signals), default=0)
        held = segments.held(node)
        if held is not None:
            complete = max(complete, ready[held] + max(k[gate] for gate in segments.gates(node)))
        ready[node.name] = complete + k.get(node.name, 0)
    return max((ready[name] for name in segments.graph.output.reads), default=0)


def interval_steps(segments: Segments, k: Mapping[str, int]) -> int:
    """The steps between two images in a pipeline: the largest K before + K here over neighbouring sites.

    A layer takes in the spikes of the layer before it, then fires; between the two sites may be any operators but
    neurons. With one K everywhere, or no neighbours at all, that is 2K.

    Args:
        segments: of the network.
        k: K of each site by its node.

    Raises:
        FewSpikesError: a site without a K.
    """
    _check(segments, k)
    edges = [k[name] + k[site] for site in k for name in segments.feeding(site)]
    for segment in segments:
        if segments.held(segment.consumer) is not None:
            gate = max(k[name] for name in segments.gates(segment.consumer))
            edges += [k[name] + gate for name in segment.sources if name in k]
    return max(edges, default=2 * max(k.values(), default=0))


def _check(segments: Segments, k: Mapping[str, int]) -> None:
    for node in segments.graph.of(SITE):
        if node.name not in k:
            raise FewSpikesError(f"no K given for the site {node.name}")
