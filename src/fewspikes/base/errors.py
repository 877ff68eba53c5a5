"""The one error and the one warning that this library raises on purpose."""

import sys
import warnings


class FewSpikesError(ValueError):
    """Bad input or an impossible request: one line that names the thing and the remedy."""


class FewSpikesWarning(UserWarning):
    """The work goes on, but not quite as the caller may think."""


def warn(message: str) -> None:
    """Warn at the line of the caller's own code that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fewspikes":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, FewSpikesWarning, stacklevel=level)
