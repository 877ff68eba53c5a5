"""`reproduce`: a table or figure of the paper by its name."""

from collections.abc import Callable, Iterator

from fewspikes.base.errors import FewSpikesError
from fewspikes.models.names import did_you_mean
from fewspikes.paper import cifar, claims, drawing, imagenet, neurons
from fewspikes.paper.results import Folder, Found
from fewspikes.paper.sources import Sources

_WORK: dict[str, Callable[[Folder, Sources], Found]] = {
    "table1": imagenet.table1,
    "table2": cifar.table2,
    "table3": claims.table3,
    "fig1": neurons.fig1,
    "fig2": neurons.fig2,
    "fig3": neurons.fig3,
    "fig4": neurons.fig4,
    "fig5": neurons.fig5,
    "fig6": neurons.fig6,
    "fig7": neurons.fig7,
    "fig8": neurons.fig8,
    "claims": claims.claims,
}
NAMES = (*_WORK, "all")
WEIGHTED = (*cifar.NETWORKS, *(network.name for network in imagenet.NETWORKS))  # whose weights can be given
_ORDER = ("fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "fig8", "table1", "table2", "table3", "claims")


def check_name(name: str) -> None:
    """Raise FewSpikesError unless it is one of `NAMES`."""
    if name not in NAMES:
        known = ", ".join(NAMES)
        raise FewSpikesError(f"unknown table or figure {name!r}; there are {known}{did_you_mean(name, NAMES)}")


def reproduce(name: str, folder: Folder, sources: Sources, pictures: bool = True) -> Iterator[Found]:
    """Make a table or figure, or all, and write its numbers and picture; yields each when it is written.

    Args:
        name: one of `NAMES`.
        folder: where results go; rows that are there already are kept.
        sources: data and weights that are at hand; what they lack is said in the rows.
        pictures: whether figures are drawn, which needs matplotlib.

    Raises:
        FewSpikesError: an unknown name, a folder in use, data that cannot be right, or no matplotlib.
    """
    check_name(name)
    with folder.locked():
        parts = _ORDER if name == "all" else (name,)
        for number, part in enumerate(parts, 1):
            if len(parts) > 1:
                folder.say(f"{part}, {number} of {len(parts)}")
            found = _WORK[part](folder, sources)
            folder.write(found, sources.settings, sources.options)
            if pictures:
                drawing.draw(found, folder.path)
            yield found
