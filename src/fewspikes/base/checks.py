"""Arguments, checked: each check gives the value back in its proper type, or raises and names the argument."""

from collections.abc import Callable, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np

from fewspikes.base.errors import FewSpikesError


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number from `least` to `most`, as an int; a bool is none."""
    fits = not isinstance(value, bool) and isinstance(value, int | np.integer) and value >= least
    if not fits or (most is not None and value > most):
        wanted = f">= {least}" if most is None else f"from {least} to {most}"
        raise FewSpikesError(f"{name} must be a whole number {wanted}; got {value!r}")
    return int(value)


def finite(name: str, value: Any) -> float:
    """A finite number, as a float."""
    return _number(name, value, "", lambda number: True)


def at_least_0(name: str, value: Any) -> float:
    """A finite number >= 0, as a float."""
    return _number(name, value, " >= 0", lambda number: number >= 0)


def positive(name: str, value: Any) -> float:
    """A finite number > 0, as a float."""
    return _number(name, value, " > 0", lambda number: number > 0)


def _number(name: str, value: Any, bound: str, fits: Callable[[float], bool]) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = nan
    if not (isfinite(number) and fits(number)):
        raise FewSpikesError(f"{name} must be a finite number{bound}; got {value!r}")
    return number


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """One of the known words."""
    if not isinstance(value, str) or value not in known:
        *others, last = map(repr, known)
        raise FewSpikesError(f"{name} must be {', '.join(others)} or {last}; got {value!r}")
    return value


def interval(name: str, value: Any, ends: str = "open") -> tuple[float, float]:
    """(low, high) with low < high, as floats; with ends "finite" neither may be infinite."""
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        raise FewSpikesError(f"{name} must be (low, high); got {value!r}") from None
    if ends == "finite" and not (isfinite(low) and isfinite(high) and low < high):
        raise FewSpikesError(f"{name} must be finite with low < high; got {low}, {high}")
    if not low < high:
        raise FewSpikesError(f"{name} must be (low, high) with low < high; got {low}, {high}")
    return low, high
