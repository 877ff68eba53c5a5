"""Rules that a user gives: checked when they are given, tested where they apply; what goes wrong in one names it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.files import reason_of
from fewspikes.graph.graph import Ref
from fewspikes.neuron.activation import Activation
from fewspikes.operators.call import Call
from fewspikes.operators.rule import Circuit, Linear, Rule, Rules, Shapes, always
from fewspikes.operators.rules import RULES
from fewspikes.operators.trial import Trial
from fewspikes.operators.truths import wrong
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import Unknown

_ARGUMENTS = ("weight", "terms", "without", "zero", "pads")  # of a Linear rule: names of its operators' arguments


class _Extended(Rules):
    """The library's rows, and a user's before them."""

    def __init__(self, given: tuple[Rule, ...]) -> None:
        self.given = given
        super().__init__(RULES.rows, (_guarded(row) for row in given))

    def __reduce__(self) -> Any:
        """What pickle takes: the rules as they were given."""
        return rules_with, (self.given,)

    def __deepcopy__(self, memo: Any) -> "_Extended":
        return self


def rules_with(given: Sequence[Rule] = ()) -> Rules:
    """All rows, a user's before the library's.

    Raises:
        FewSpikesError: something that is no rule, an operator or an argument that there is not, or a clash: two rules
            of one class for an operator, or one beside the library's own that does not say that it replaces it.
    """
    if not isinstance(given, list | tuple):
        raise FewSpikesError(f"rules= takes a list of rules, see fewspikes.rules; got {said(given)}")
    for row in given:
        _check(row)
    for at, row in enumerate(given):
        _check_alone(row, given[:at])
    return _Extended(tuple(given)) if given else RULES


def _check(row: Any) -> None:
    if not isinstance(row, Rule) or type(row) is Rule:
        hint = "; is its decorator missing?" if callable(row) else ""
        raise FewSpikesError(f"rules= takes rules, see fewspikes.rules; got {said(row)}{hint}")
    if type(row) is Shapes and row.takes is not always:
        raise FewSpikesError(f"{row.label}: takes is not asked where sizes and constants are told from signals")
    if not row.operators:
        raise FewSpikesError(f"{row.label} names no operator")
    for name in row.operators:
        known = _arguments(row, name)
        for setting in _ARGUMENTS if isinstance(row, Linear) else ():
            value = getattr(row, setting)
            _check_names(row, name, setting, (value,) if isinstance(value, str) else value or (), known)


def _check_names(row: Rule, operator: str, setting: str, names: Iterable[str], known: Mapping[str, bool]) -> None:
    """Raise unless a setting names arguments that the operator has, and those that are left out are optional."""
    for name in names:
        if name not in known:
            raise FewSpikesError(
                f"{row.label}: {setting} names {said(name)}, which {operator} does not take: that takes "
                f"{', '.join(known)}"
            )
        if setting == "without" and not known[name]:
            raise FewSpikesError(f"{row.label}: without={name!r}, which {operator} asks for; name it in zero= instead")


def _arguments(row: Rule, name: str) -> dict[str, bool]:
    """The names of an operator's arguments, of all its overloads, and whether a call may have None in their place."""
    library, _, own = name.rpartition("::")
    packet = getattr(getattr(torch.ops, library or "aten"), own, None) if own.isidentifier() else None
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        raise FewSpikesError(
            f"{row.label}: there is no operator {said(name)} in this process; those outside of ATen are named as in "
            "'mylib::roll', and the module that registers them is imported first"
        )
    schemas = (getattr(packet, overload)._schema for overload in packet.overloads())
    return {a.name: isinstance(a.type, torch.OptionalType) for schema in schemas for a in schema.arguments}


def _check_alone(row: Rule, before: Iterable[Rule]) -> None:
    """Raise where another rule of the class is for the same operator."""
    for name in row.operators:
        other = next((one for one in before if name in one.operators and _is_same(one, row)), None)
        if other is not None:
            raise FewSpikesError(f"two rules clash, {other.label} and {row.label}: leave one of them out")
        if not row.replaces and any(_is_same(one, row) for one in RULES.of(type(row), name)):
            raise FewSpikesError(
                f"{row.label} clashes with the library's own row of {name}: leave it out, or give it replaces=True to "
                "stand before that row"
            )


def _is_same(one: Rule, other: Rule) -> bool:
    """Whether two rows say the same kind of thing."""
    if isinstance(one, Circuit) and isinstance(other, Circuit):
        return (one.kind, one.choice) == (other.kind, other.choice)
    return type(one) is type(other)


def _guarded(row: Rule) -> Rule:
    """The row with functions that name it when something goes wrong in them, and give what is wanted of them."""
    settings = ((one.name, getattr(row, one.name)) for one in fields(row))
    changed: dict[str, Any] = {name: _asked(row, name, value) for name, value in settings if _is_function(value)}
    return replace(row, **changed)


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, Activation)


def _asked(row: Rule, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def asked(*given: Any) -> Any:
        try:
            return _answer(row, name, function(*given))
        except Unknown:
            raise
        except Exception as error:
            kind = "" if isinstance(error, FewSpikesError) else f"{type(error).__name__}: "
            where = next((f" of {call.node.where}" for call in given if hasattr(call, "node")), "")
            raise FewSpikesError(f"{row.label}, asked for {name}{where}: {kind}{reason_of(error)}") from error

    return asked


def _answer(row: Rule, name: str, found: Any) -> Any:
    """What a rule's function gave, if it is of the kind that is wanted."""
    if name == "reach":
        if isinstance(row, Linear) and row.several:
            return [_boxes(piece) for piece in found]
        return _boxes(found)
    if name == "activation" and not isinstance(found, Activation):
        raise FewSpikesError(f"an Activation is wanted; got {said(found)}")
    if name == "expand" and not isinstance(found, Ref | tuple | None):
        raise FewSpikesError(f"a Ref, a tuple of one for each result, or None is wanted; got {said(found)}")
    return found


def _boxes(found: Any) -> list[Box]:
    boxes = list(found)
    wrong = next((one for one in boxes if not isinstance(one, Box)), None)
    if wrong is not None:
        raise FewSpikesError(f"boxes are wanted, see fewspikes.reach; got {said(wrong)}")
    return boxes


class Tested:
    """A user's rules on trial in one conversion: each is tested at each call that it applies to.

    Args:
        rules: the rows.
        dtypes: of the graph's inputs, by node.
    """

    def __init__(self, rules: Rules, dtypes: Mapping[str, torch.dtype]) -> None:
        self.own, self._dtypes = frozenset(rules.own), dtypes
        self.used = set[Rule]()

    def test(self, row: Rule | None, call: Call, tensors: Mapping[str, Tensor]) -> None:
        """Raise where a row of the user's is not true of a call; the library's own rows pass.

        Raises:
            FewSpikesError: what is wrong, and by how much.
        """
        if row is None or row not in self.own:
            return
        self.used.add(row)
        if any(tensor.is_meta for tensor in tensors.values()):
            return
        try:
            found = wrong(row, Trial(call, tensors, self._dtypes))
        except FewSpikesError as error:
            if str(error).startswith(row.label):
                raise
            found = str(error)
        except Exception as error:
            found = f"its trial raised {type(error).__name__}: {reason_of(error)}"
        if found:
            raise FewSpikesError(f"{row.label} is not true of {call.node.where}: {found}")

    def warn_of_unused(self, calls: Iterable[Call]) -> None:
        """Warn of rules that are true of a call and were not asked, as rows of the library's came first."""
        asked = {name for row in self.used for name in row.operators}
        for row in self.own - self.used:
            if not asked.isdisjoint(row.operators):  # another of the user's own
                continue
            call = next((c for c in calls if c.signals and c.node.short in row.operators and row.applies(c)), None)
            if call is not None:
                warn(f"{row.label} was never asked: a row of the library's came before it at {call.node.where}")
