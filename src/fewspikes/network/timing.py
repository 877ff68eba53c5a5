"""How many time steps a network takes, from the K of each site."""

from collections.abc import Mapping

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.graph import OUTPUT, SITE
from fewspikes.network.segments import Segments


def latency_steps(segments: Segments, k: Mapping[str, int]) -> int:
    """The steps from an image to its output: the largest sum of K over a chain of sites.

    Args:
        segments: of the network.
        k: K of each site by its node.

    Raises:
        FewSpikesError: a site without a K.
    """
    _check(segments, k)
    ready: dict[str, int] = {}  # by consumer and source: when its value is complete
    for segment in segments:
        complete = max((ready.get(name, 0) for name in segment.sources), default=0)
        name = segment.consumer.name
        ready[name] = max(ready.get(name, 0), complete + k.get(name, 0))
    return ready.get(OUTPUT, max(ready.values(), default=0))


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
    edges = (k[name] + k[site] for site in k for name in segments.feeding(site))
    return max(edges, default=2 * max(k.values(), default=0))


def _check(segments: Segments, k: Mapping[str, int]) -> None:
    for node in segments.graph.of(SITE):
        if node.name not in k:
            raise FewSpikesError(f"no K given for the site {node.name}")
