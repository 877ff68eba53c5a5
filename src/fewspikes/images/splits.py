"""Which split of a data set is meant by a wish: train, evaluation, or a name."""

from collections.abc import Collection
from pathlib import Path

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError, warn

SPLIT_NAMES = ("train", "test", "val", "validation")
_ALIASES = {"val": "validation", "validation": "val"}
_FITTING = {"train": ("train",), "evaluation": ("test", "val", "validation", "all")}
_STOPGAPS = {"train": ("validation", "val", "test", "all"), "evaluation": ("train",)}


def choose_split(found: Collection[str], wanted: str, folder: Path) -> str:
    """The name of the split to read: for "train" (calibration), "evaluation" (test before val), or another name.

    Raises:
        FewSpikesError: a name that is not there.

    Warns:
        FewSpikesWarning: "train" or "evaluation" has to do with a split that is meant for something else.

    >>> choose_split(["train", "val"], "evaluation", Path("photos"))
    'val'
    """
    if not isinstance(wanted, str):
        raise FewSpikesError(f"a split is a name, one of {', '.join(sorted(found))}; got {said(wanted)}")
    for name in _FITTING.get(wanted, (wanted, _ALIASES.get(wanted, wanted))):
        if name in found:
            return name
    if wanted not in _FITTING:
        raise FewSpikesError(f"{folder} has no split {said(wanted)}; it has {', '.join(sorted(found))}")
    name = next((n for n in (*_STOPGAPS[wanted], *sorted(found)) if n in found), "")
    purpose = "calibration" if wanted == "train" else "evaluation"
    warn(f"{folder} has no split for {purpose} ({' or '.join(_FITTING[wanted])}); its split {name!r} is used")
    return name
