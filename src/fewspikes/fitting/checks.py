"""Numbers that a fit is given, checked once."""

from typing import Any

import numpy as np

from fewspikes.base.errors import FewSpikesError
from fewspikes.neuron.parameters import MAX_STEPS

EFFORTS = ("quick", "normal", "long")


def whole_K(K: Any) -> int:
    """K as an int; raises FewSpikesError unless it is a whole number from 1 to 24."""
    if isinstance(K, bool) or not isinstance(K, int | np.integer) or not 1 <= K <= MAX_STEPS:
        raise FewSpikesError(f"K must be a whole number from 1 to {MAX_STEPS}; got {K!r}")
    return int(K)


def whole_seed(seed: Any) -> int:
    """The seed as an int; raises FewSpikesError unless it is a whole number >= 0."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise FewSpikesError(f"the seed must be a whole number >= 0; got {seed!r}")
    return int(seed)


def known_effort(effort: str) -> str:
    """The word itself; raises FewSpikesError unless it is one of EFFORTS."""
    if effort not in EFFORTS:
        raise FewSpikesError(f"effort must be 'quick', 'normal' or 'long'; got {effort!r}")
    return effort


def at_least_0(name: str, value: Any) -> float:
    """A number >= 0, infinity allowed; raises FewSpikesError, which names it, for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not number >= 0:
        raise FewSpikesError(f"{name} must be a number >= 0; got {value!r}")
    return number
