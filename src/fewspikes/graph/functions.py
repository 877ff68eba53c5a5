"""Operators by name: what they are called with, and the function behind them."""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError

# Python's own operators, on sizes and on lists of tensors, and the names that their operands get here.
PYTHON: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "sub", "mul", "floordiv", "truediv", "mod"), ("self", "other")),
    "neg": ("self",),
    "getitem": ("self", "index"),
}
_MOST = 1 << 63  # a size has 64 bits


class Parameter(NamedTuple):
    """One argument of a schema."""

    name: str
    default: Any
    has_default: bool
    by_name: bool  # can only be given by name


@cache
def function(name: str) -> Callable[..., Any]:
    """The function of an operator, of ATen or of another library.

    Whoever has the name from a file asks first whether a row covers it.

    Raises:
        FewSpikesError: no such operator in this process.
    """
    if name in PYTHON:
        found: Callable[..., Any] = getattr(operator, name)
        return found if name == "getitem" else partial(_on_sizes, found)
    library, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    try:
        if not overload:
            raise AttributeError
        found = getattr(getattr(getattr(torch.ops, library), packet), overload)
        if not isinstance(found, torch._ops.OpOverload):
            raise AttributeError
    except AttributeError:
        raise FewSpikesError(f"there is no operator {said(name)} in torch {torch.__version__}") from None
    return found


def is_aten(name: str) -> bool:
    """Whether it is one of torch's own, or of Python's on sizes."""
    return name in PYTHON or name.startswith("aten.")


def _on_sizes(found: Callable[..., Any], *sizes: Any) -> Any:
    """Python's operator on numbers: a file may also ask for a list a million times, or for ever larger numbers."""
    if any(isinstance(size, Sequence | Mapping) for size in sizes):
        raise FewSpikesError(
            f"{found.__name__} of sizes takes numbers; got {', '.join(type(s).__name__ for s in sizes)}"
        )
    result = found(*sizes)
    if isinstance(result, int) and abs(result) >= _MOST:
        raise FewSpikesError(f"{found.__name__} of sizes gives a number of more than 64 bits")
    return result


@cache
def parameters(name: str) -> tuple[Parameter, ...]:
    """The arguments that an operator takes, in order."""
    if name in PYTHON:
        return tuple(Parameter(given, None, False, False) for given in PYTHON[name])
    schema = function(name)._schema.arguments  # type: ignore[attr-defined]
    return tuple(
        Parameter(a.name, a.default_value if a.has_default_value() else None, a.has_default_value(), a.kwarg_only)
        for a in schema
    )


@cache
def tensor_parameters(name: str) -> tuple[str, ...]:
    """The arguments of an operator that are one tensor, or may be."""
    schema = function(name)._schema.arguments  # type: ignore[attr-defined]
    return tuple(a.name for a in schema if str(a.type) in ("Tensor", "Optional[Tensor]"))


def named(name: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments by name with defaults filled in.

    Raises:
        FewSpikesError: too many, one without a name, or one that is missing.
    """
    wanted = parameters(name)
    given = dict(zip((p.name for p in wanted), args, strict=False)) | dict(kwargs or {})
    found = {p.name: given.get(p.name, p.default) for p in wanted}
    missing = [p.name for p in wanted if p.name not in given and not p.has_default]
    if missing or len(args) > len(wanted) or set(given) - set(found):
        raise FewSpikesError(f"{name} takes {', '.join(found)}; got {len(args)} values and {', '.join(kwargs or {})}")
    return found


def in_order(name: str, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The same arguments as a call takes them, without those at the end that are left at their defaults."""
    wanted = parameters(name)
    args = [arguments[p.name] for p in wanted if not p.by_name]
    usual = [p.has_default and _same(arguments[p.name], p.default) for p in wanted if not p.by_name]
    while usual and usual.pop():
        args.pop()
    kwargs = {p.name: arguments[p.name] for p in wanted if p.by_name and not _same(arguments[p.name], p.default)}
    return args, kwargs


def is_elementwise(name: str) -> bool:
    """Whether torch says that each element of the result depends on that element alone, and on nothing random."""
    if name in PYTHON:
        return False
    found: Any = function(name)
    return torch.Tag.pointwise in found.tags and not is_random(name) and not found._schema.is_mutable


def is_random(name: str) -> bool:
    """Whether it may give another result each time."""
    return name not in PYTHON and torch.Tag.nondeterministic_seeded in function(name).tags  # type: ignore[attr-defined]


def is_pure(name: str) -> bool:
    """Whether it is an operator that always gives the same for the same, so that a constant may be computed once."""
    if name in PYTHON:
        return name == "getitem"
    try:
        return not is_random(name) and not function(name)._schema.is_mutable  # type: ignore[attr-defined]
    except FewSpikesError:
        return False


def is_fresh(name: str) -> bool:
    """Whether what it returns is in memory of its own, by its schema."""
    return name not in PYTHON and all(
        entry.alias_info is None
        for entry in function(name)._schema.returns  # type: ignore[attr-defined]
    )


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)
