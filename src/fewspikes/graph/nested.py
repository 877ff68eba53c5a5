"""What holds several results: lists, dicts and tuples, those with names for their fields, too."""

from collections import namedtuple
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from fewspikes.base.errors import FewSpikesError


def named_tuple(name: str, fields: Sequence[str]) -> type[Any]:
    """A class of tuples with names for their fields; the same one for the same names.

    Raises:
        FewSpikesError: no such names can be given in Python.

    >>> named_tuple("Output", ("logits", "features"))(1, 2).features
    2
    """
    try:
        return _class(str(name), tuple(map(str, fields)))
    except ValueError as error:
        raise FewSpikesError(f"a named tuple {name} of {', '.join(map(str, fields))}: {error}") from None


def alike(value: Any, items: Iterable[Any]) -> Any:
    """A list or a tuple of the kind of `value` with these items."""
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


@cache
def _class(name: str, fields: tuple[str, ...]) -> type[Any]:
    made: Any = namedtuple(name, fields)  # type: ignore[misc]

    def reduce(self: tuple[Any, ...]) -> tuple[Any, ...]:  # pickle would look for the class by its name
        return _made, (name, fields, tuple(self))

    setattr(made, "__reduce__", reduce)  # noqa: B010
    found: type[Any] = made
    return found


def _made(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return named_tuple(name, fields)(*values)
