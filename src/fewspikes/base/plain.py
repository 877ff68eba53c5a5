"""Flat records (frozen dataclasses of numbers and words) as plain JSON data, and back with every type checked."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fewspikes.base.errors import FewSpikesError

R = TypeVar("R")
_OUTSIDE = ("nan", "inf", "-inf")  # numbers that JSON has no word for, as words


def to_plain(record: Any) -> dict[str, Any]:
    """The record as a dict that strict JSON can hold: NaN and infinities become words."""
    return {name: _worded(value) for name, value in asdict(record).items()}


def from_plain(kind: type[R], content: Any, what: str) -> R:
    """The reverse of `to_plain`.

    Args:
        kind: the dataclass; its fields are bool, int, float, str, another record, a dict of int or float by str, a
            tuple of these, or one of them or None.
        content: as it was read.
        what: it is, in messages.

    Raises:
        FewSpikesError: something is missing, left over, or of another type.
    """
    if not isinstance(content, Mapping):
        raise FewSpikesError(f"{what} is incomplete or malformed: {content!r:.50}")
    types = _types(kind)  # type: ignore[arg-type]
    wrong = [name for name in types if name not in content] + [str(name) for name in content if name not in types]
    if wrong:
        raise FewSpikesError(f"{what} is incomplete or malformed: it lacks {wrong[0]}, or should")
    return kind(**{name: _read(types[name], value, f"{what}, {name}") for name, value in content.items()})


@cache
def _types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _worded(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _worded(item) for key, item in value.items()}
    return [_worded(item) for item in value] if isinstance(value, list | tuple) else value


def _read(wanted: Any, value: Any, what: str) -> Any:
    origin = get_origin(wanted)
    if origin is UnionType:
        if value is None and NoneType in get_args(wanted):
            return None
        kinds = [kind for kind in get_args(wanted) if kind is not NoneType]
        nested = [kind for kind in kinds if get_origin(kind) is dict]
        return _read(nested[0] if nested and isinstance(value, dict) else kinds[0], value, what)
    if origin is dict and isinstance(value, dict):
        of = get_args(wanted)[1]
        return {str(key): _read(of, item, what) for key, item in value.items()}
    if origin is tuple and isinstance(value, list) and len(value) == len(get_args(wanted)):
        return tuple(_read(of, item, what) for of, item in zip(get_args(wanted), value, strict=True))
    if wanted is float and type(value) in (int, float):
        return float(value)
    if wanted is float and value in _OUTSIDE:
        return float(value)
    if origin is None and isinstance(wanted, type) and type(value) is wanted:
        return value
    if origin is None and hasattr(wanted, "__dataclass_fields__"):
        return from_plain(wanted, value, what)
    raise FewSpikesError(f"{what}, must be {getattr(wanted, '__name__', wanted)}; got {value!r:.50}")
