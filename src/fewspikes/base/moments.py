"""Which images a layer runs on, and at which time step of its loop: what a fault must know to be drawn for it alone."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch


class Moment(NamedTuple):
    """When and on what a layer runs.

    Attributes:
        time: the time step of its loop, counted as it runs; 0 outside.
        first: the position of the batch's first image among all.
        images: by site, the axis of the images, where inputs have other lengths than the network's example.
    """

    time: int = 0
    first: int = 0
    images: Mapping[str, Any] = {}


_AT_FIRST = Moment()
_moment: ContextVar[Moment] = ContextVar("moment", default=_AT_FIRST)


def moment() -> Moment:
    """The moment of whatever runs now."""
    return _moment.get()


def at_moment(**changes: Any) -> AbstractContextManager[None]:
    """Inside the block some of the moment is changed; a compiler sees nothing of it."""
    return nullcontext() if torch.compiler.is_compiling() else _changed(changes)


@contextmanager
def _changed(changes: Mapping[str, Any]) -> Iterator[None]:
    token = _moment.set(_moment.get()._replace(**changes))
    try:
        yield
    finally:
        _moment.reset(token)
