"""What holds several results: lists, dicts and tuples, and classes with names for their fields."""

import keyword
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError

TUPLE, RECORD = "named", "record"  # what a class with fields may be: a named tuple, or anything else


class Record(Mapping[Any, Any]):
    """Results by attribute, by key and by position, in the place of a dataclass whose code is not here.

    Fields that are None are attributes alone, as in the outputs of transformers.

    Args:
        kind: the name of the class that it stands for.
        values: by field.

    >>> output = Record("Output", {"loss": None, "logits": 2})
    >>> output, output.logits, output["logits"], output[0], output.loss
    (Output(loss=None, logits=2), 2, 2, 2, None)
    """

    def __init__(self, kind: str, values: Mapping[str, Any]) -> None:
        self.__kind = kind
        self.__values = dict(values)
        vars(self).update(values)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.__given()[key]
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.__given())

    def __len__(self) -> int:
        return len(self.__given())

    def __repr__(self) -> str:
        return f"{self.__kind}({', '.join(f'{name}={value!r}' for name, value in self.__values.items())})"

    def to_tuple(self) -> tuple[Any, ...]:
        """All that is not None, in order."""
        return tuple(self.__given().values())

    def pattern(self, change: Callable[[Any, str], Any]) -> "Held":
        """How it is filled, with its values changed."""
        values = [change(value, name) for name, value in self.__values.items()]
        return Held(RECORD, self.__kind, tuple(self.__values), tuple(values))

    def __given(self) -> dict[str, Any]:
        return {name: value for name, value in self.__values.items() if value is not None}


@dataclass(frozen=True)
class Held:
    """How the fields of a named tuple or of another class are filled, in a graph.

    Attributes:
        kind: TUPLE or RECORD.
        name: of the class.
        fields, values: what it holds.
        made_as: the class itself where it is at hand; it goes into no file and no pickle.
    """

    kind: str
    name: str
    fields: tuple[str, ...]
    values: tuple[Any, ...]
    made_as: type[Any] | None = None

    def __post_init__(self) -> None:
        if self.kind == TUPLE:
            named_tuple(self.name, self.fields)
        odd = next((name for name in self.fields if not name.isidentifier() or keyword.iskeyword(name)), None)
        if odd is not None or len(set(self.fields)) < len(self.fields):
            raise FewSpikesError(f"a {said(self.name)} of {', '.join(map(said, self.fields))}: no names of fields")

    def __getstate__(self) -> dict[str, Any]:
        """What pickle takes: whoever reads it may not have the class."""
        return {**vars(self), "made_as": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Held":
        return self

    def made(self, values: Sequence[Any]) -> Any:
        """What the caller gets: an instance of the class itself, or what stands for it."""
        if self.kind == TUPLE:
            return tuple.__new__(self.made_as or named_tuple(self.name, self.fields), values)
        named = dict(zip(self.fields, values, strict=True))
        return Record(self.name, named) if self.made_as is None else _instance(self.made_as, named)


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


def parts(value: Any) -> Sequence[Any] | None:
    """What a list, a tuple, a dict or a class with fields holds, in order; None for what holds nothing."""
    if isinstance(value, Held):
        return value.values
    if isinstance(value, Record):
        return Record.to_tuple(value)  # a field may have that name
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, one.name, None) for one in fields(value)]
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list | tuple) else None


def alike(value: Any, items: Iterable[Any]) -> Any:
    """What is built like a list, a tuple, a dict or a `Held` and holds these items."""
    if isinstance(value, Held):
        return Held(value.kind, value.name, value.fields, tuple(items), value.made_as)
    if isinstance(value, Mapping):
        return dict(zip(value, items, strict=True))
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in a network's output, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in parts(value) or () for tensor in tensors_of(part)]


def with_tensors(output: Any, tensors: Iterable[Tensor]) -> Any:
    """The same structure with these in the place of its own tensors, in the order of `tensors_of`."""
    others = iter(tensors)
    return given(held(output, lambda value, where: next(others) if isinstance(value, Tensor) else value))


def given(pattern: Any) -> Any:
    """What the caller gets: a pattern with instances of classes in the place of `Held`."""
    values = parts(pattern)
    if values is None:
        return pattern
    items = [given(value) for value in values]
    return pattern.made(items) if isinstance(pattern, Held) else alike(pattern, items)


def held(value: Any, leaf: Callable[[Any, str], Any], where: str = "") -> Any:
    """A model's output in plain lists, tuples and dicts, and `Held` for classes, its leaves replaced.

    Args:
        value: the output.
        leaf: called with a tensor, None or anything else that holds nothing, and with where it stands.
        where: how the output is called where it stands, such as ".logits[0]".

    Raises:
        FewSpikesError: a dict with a key that is no word and no number.
    """
    if isinstance(value, Record):
        return Record.pattern(value, lambda item, name: held(item, leaf, f"{where}.{name}"))
    if is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in fields(value)]
        values = [getattr(value, name, None) for name in names]
        return _held(RECORD, type(value), names, values, leaf, where)
    if isinstance(value, Mapping):
        return {_key(key, where): held(item, leaf, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list):
        return [held(item, leaf, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            return _held(TUPLE, type(value), value._fields, value, leaf, where)
        return tuple(held(item, leaf, f"{where}[{i}]") for i, item in enumerate(value))
    return leaf(value, where)


def _held(
    kind: str, cls: type[Any], names: Sequence[str], values: Sequence[Any], leaf: Callable[[Any, str], Any], where: str
) -> Held:
    items = [held(item, leaf, f"{where}.{name}") for name, item in zip(names, values, strict=True)]
    return Held(kind, cls.__name__, tuple(names), tuple(items), cls)


def _instance(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """One with these values, as they were when the model returned it: what its __init__ does is done already.

    Dicts with fields, as transformers has them, fill themselves there.
    """
    if issubclass(cls, dict):
        return cls(**values)
    made = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _key(key: Any, where: str) -> Any:
    if key is None or isinstance(key, bool | int | float | str):
        return key
    place = f" at {where}" if where else ""
    raise FewSpikesError(
        f"the model returns a dict with the key {key!r}{place}; only words and numbers can be saved as keys"
    )


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
