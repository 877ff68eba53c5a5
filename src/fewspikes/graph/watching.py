"""What torch.export does not tell: in which module it stopped, and which attributes forward sets."""

import re
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils import _pytree as pytree

from fewspikes.base.errors import FewSpikesError

_ASSIGNED = re.compile(r"tensor attributes? (.+?) (?:was|were) assigned during export")
_SHOWN = 3  # names in a message
_HOLDERS = (dict, list, set, OrderedDict, defaultdict, Counter, deque)  # OrderedDicts hold a module's hooks, too


class Watch:
    """A model that is being captured.

    Attributes:
        path: of the module in which it stopped; "" for the model itself, or where it did not stop.
        assigned: the attributes that forward set, by their paths.
    """

    def __init__(self, model: nn.Module) -> None:
        self.path, self.assigned = "", list[str]()
        self._model, self._names = model, {id(module): name for name, module in model.named_modules()}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While forward is traced: what it sets on the model is taken off again, and torch's warnings are not shown."""
        running: list[str] = []

        def enter(module: nn.Module, given: Any) -> None:
            running.append(self._names.get(id(module), running[-1] if running else ""))

        def leave(module: nn.Module, given: Any, result: Any) -> None:
            running.pop()

        entering = hooks.register_module_forward_pre_hook(enter)
        leaving = hooks.register_module_forward_hook(leave)
        try:
            with _unchanged(self._model), warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                yield
                found = (_ASSIGNED.search(str(warning.message)) for warning in said)
                self.assigned += [name.removeprefix("self.") for one in found if one for name in one[1].split(", ")]
        finally:
            self.path = running[-1] if running else ""
            entering.remove()
            leaving.remove()


def check_stateless(model: nn.Module, named: Mapping[str, Tensor], keywords: bool, assigned: list[str]) -> None:
    """Raise FewSpikesError where a second call gives something else, because of attributes that forward sets."""
    if not assigned:
        return
    other = {name: _changed(value) for name, value in named.items()}
    with torch.no_grad():
        with _unchanged(model):
            fresh = _called(model, other, keywords)
        with _unchanged(model):
            first, second, later = (_called(model, given, keywords) for given in (named, named, other))
    if not (_alike(first, second) and _alike(fresh, later)):
        names = sorted(assigned)
        shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise FewSpikesError(
            f"the model keeps a state between calls in {shown}; give the state to forward as an input and return it"
        )


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Afterwards every module has the attributes that it had before, its hooks, and in its lists and dicts what was."""
    kept = [(module, dict(vars(module))) for module in model.modules()]
    held = [(value, value.copy()) for _, own in kept for value in own.values() if type(value) in _HOLDERS]
    try:
        yield
    finally:
        for module, attributes in kept:
            vars(module).clear()
            vars(module).update(attributes)
        for value, before in held:
            value.clear()
            value.extend(before) if isinstance(value, list | deque) else value.update(before)


def _called(model: nn.Module, named: Mapping[str, Tensor], keywords: bool) -> list[Any]:
    given = {name: value.clone() for name, value in named.items()}
    return pytree.tree_leaves(model(**given) if keywords else model(*given.values()))


def _changed(value: Tensor) -> Tensor:
    """Another example: whole numbers stay, as they may be places in a table."""
    return value * 0.5 + 0.125 if value.is_floating_point() else value


def _alike(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(map(_same, first, second))


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.is_meta or (first.shape == second.shape and bool(torch.equal(first, second)))
    return True
