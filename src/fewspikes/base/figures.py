"""The one look of all pictures, and how they are written. Needs matplotlib, which is imported only here."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.base.files import check_place, shown, write_aside

TARGET, THEIRS, OURS, LEAST, GREY = "#c0392b", "#2c5aa0", "#1a9850", "#e08214", "#888888"
FORMATS = ("png", "svg")
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "fewspikes",
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}


def check_picture(given: Any) -> Path:
    """The path of a picture to write, .png or .svg.

    Raises:
        FewSpikesError: another kind of file, or a place where none can be.
    """
    path = check_place(given)
    if path.suffix[1:].lower() not in FORMATS:
        raise FewSpikesError(f"a picture's name must end in .png or .svg; got {shown(path)}")
    return path


@contextmanager
def drawing(purpose: str) -> Iterator[Any]:
    """Inside the block pictures have our look; gives matplotlib.pyplot, and closes what was drawn.

    Raises:
        FewSpikesError: matplotlib is not installed.
    """
    require("matplotlib", purpose, "report").use("agg")
    plt = require("matplotlib.pyplot", purpose, "report")
    before = set(plt.get_fignums())
    try:
        with plt.rc_context(_STYLE):
            yield plt
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def write_picture(figure: Any, path: Path) -> None:
    """Write a figure as its file's ending says; equal figures give equal bytes."""
    kind, picture = path.suffix[1:].lower(), BytesIO()
    figure.savefig(picture, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    write_aside(path, picture.getvalue())
