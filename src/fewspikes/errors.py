"""The one error and the one warning that this library raises on purpose."""


class FewSpikesError(ValueError):
    """Bad input or an impossible request: one line that names the thing and the remedy."""


class FewSpikesWarning(UserWarning):
    """The work goes on, but not quite as the caller may think."""
