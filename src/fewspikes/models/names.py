"""A wrong name answered with the right ones."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: "; did you mean a or b?", or nothing where no name is close.

    >>> did_you_mean("resnet2", ["resnet20", "vgg"])
    '; did you mean resnet20?'
    """
    close = get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
