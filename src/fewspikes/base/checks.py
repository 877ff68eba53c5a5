"""Arguments, checked: each check gives the value back in its proper type, or raises and names the argument."""

from collections.abc import Callable, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np

from fewspikes.base.errors import FewSpikesError

MOST_SEED = (1 << 63) - 1  # that all generators take
_DEAREST = 1e6
_NO_FLOAT = (TypeError, ValueError, OverflowError, RuntimeError)  # of a tensor: it asks for a gradient
_LONGEST = 80  # characters of a value in a message


def said(value: Any) -> str:
    """A value as messages show it: on one line, of bounded length, whatever it is."""
    try:
        line = " ".join(repr(value).split())
    except Exception:  # a number of too many digits, or an object whose own repr fails
        line = f"a {type(value).__name__}"
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number from `least` to `most`, as an int; a bool is none."""
    fits = not isinstance(value, bool) and isinstance(value, int | np.integer) and value >= least
    if not fits or (most is not None and value > most):
        wanted = f">= {least}" if most is None else f"from {least} to {most}"
        raise FewSpikesError(f"{name} must be a whole number {wanted}; got {said(value)}")
    return int(value)


def finite(name: str, value: Any) -> float:
    """A finite number, as a float."""
    return _number(name, value, "", lambda number: True)


def at_least_0(name: str, value: Any) -> float:
    """A finite number >= 0, as a float."""
    return _number(name, value, " >= 0", lambda number: number >= 0)


def price(name: str, value: Any) -> float:
    """The price of a spike: a finite number from 0 to 1e6, far beyond the one that silences every neuron."""
    number = at_least_0(name, value)
    if number > _DEAREST:
        raise FewSpikesError(f"{name} must be at most {_DEAREST:g}; got {number:g}")
    return number


def positive(name: str, value: Any) -> float:
    """A finite number > 0, as a float."""
    return _number(name, value, " > 0", lambda number: number > 0)


def _number(name: str, value: Any, bound: str, fits: Callable[[float], bool]) -> float:
    try:
        number = _float(value)
    except _NO_FLOAT:
        number = nan
    if not (isfinite(number) and fits(number)):
        raise FewSpikesError(f"{name} must be a finite number{bound}; got {said(value)}")
    return number


def _float(value: Any) -> float:
    """Numbers alone: float would also take "1" and True."""
    if isinstance(value, str | bytes | bool):
        raise TypeError
    return float(value)


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """One of the known words."""
    if not isinstance(value, str) or value not in known:
        *others, last = map(repr, known)
        raise FewSpikesError(f"{name} must be {', '.join(others)} or {last}; got {said(value)}")
    return value


def interval(name: str, value: Any, ends: str = "open") -> tuple[float, float]:
    """(low, high) with low < high, as floats; with ends "finite" neither may be infinite."""
    try:
        low, high = (_float(end) for end in value)
    except _NO_FLOAT:
        raise FewSpikesError(f"{name} must be (low, high); got {said(value)}") from None
    if ends == "finite" and not (isfinite(low) and isfinite(high) and low < high):
        raise FewSpikesError(f"{name} must be finite with low < high; got {low}, {high}")
    if not low < high:
        raise FewSpikesError(f"{name} must be (low, high) with low < high; got {low}, {high}")
    return low, high
