"""All rows, and what becomes of each operator of a graph by them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.functions import PYTHON, is_elementwise
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT, SITE, Graph, Node
from fewspikes.operators import bookkeeping, circuits, moving, neurons, summing, weighted
from fewspikes.operators.call import Call
from fewspikes.operators.rule import Circuit, Digital, Elementwise, Kind, Linear, Neurons, Rule, Rules, Shapes

RULES = Rules(row for room in (weighted, summing, moving, neurons, circuits, bookkeeping) for row in room.ROWS)
_SHOWN = 3  # paths in a message
_NOTHING = frozenset((INPUT, CONSTANT, OUTPUT))
_LOGITS = "a classifier that ends here: return the logits, which name the same class"
_AT_THE_END = dict.fromkeys(("softmax", "log_softmax", "argmax"), _LOGITS)
_DROPOUT = "active in eval mode: call F.dropout(x, training=self.training), or take it out"
_ANYWHERE = dict.fromkeys(("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "bernoulli"), _DROPOUT)


class Fate(NamedTuple):
    """What becomes of a node, by which row, and why if it stays digital."""

    kind: Kind
    rule: Rule | None = None
    reason: str = ""


def carriers(graph: Graph, rules: Rules = RULES) -> frozenset[str]:
    """The nodes whose values depend on the inputs' values."""
    found: set[str] = set()
    for node in graph:
        if node.operator == INPUT or (found.intersection(node.reads) and not rules.has(Shapes, node.short)):
            found.add(node.name)
    return frozenset(found)


def fates(graph: Graph, rules: Rules = RULES) -> dict[str, Fate]:
    """What becomes of each node that is a call; inputs, constants and the output are left out.

    Raises:
        FewSpikesError: operators that no row covers, all of them, with how often and where.
    """
    signals = carriers(graph, rules)
    found, refused = {}, list[Node]()
    for node in graph:
        if node.operator not in _NOTHING:
            fate = _fate(Call(node, graph, rules, signals))
            if fate is None:
                refused.append(node)
            else:
                found[node.name] = fate
    if refused:
        raise FewSpikesError(
            f"no rule for {_listed([Call(n, graph, rules, signals) for n in refused])}; {remedy(rules)}"
        )
    return found


def _fate(call: Call) -> Fate | None:
    node, rules = call.node, call.rules
    if node.operator == SITE:
        return Fate(Kind.NEURON)
    if node.operator == "getitem":
        return Fate(Kind.SYNAPTIC if call.signals else Kind.BOOKKEEPING)
    if (
        node.operator in PYTHON
        or rules.has(Shapes, node.short)
        or (not call.signals and is_known(node.operator, rules))
    ):
        return Fate(Kind.BOOKKEEPING)
    rule = rules.find(Linear, call)
    if rule is not None:
        return Fate(Kind.SYNAPTIC, rule)
    digital = rules.find(Digital, call)
    return None if digital is None else Fate(Kind.DIGITAL, digital, digital.reason)


def is_known(operator: str, rules: Rules = RULES) -> bool:
    """Whether a converted network may hold an operator: what a file of one is checked by."""
    if operator in PYTHON:
        return True
    name = operator.split(".")[1] if operator.count(".") == 2 else ""
    return any(rules.has(kind, name) for kind in (Linear, Digital, Shapes))


def is_function(operator: str, rules: Rules = RULES) -> bool:
    """Whether an operator may stand in an activation's expression: elementwise, and nothing else."""
    if operator in PYTHON or operator.count(".") != 2 or not operator.startswith("aten."):
        return False
    name = operator.split(".")[1]
    return rules.has(Elementwise, name) or rules.has(Neurons, name) or is_elementwise(operator)


def _listed(refused: Sequence[Call]) -> str:
    """The operators with how often and where, the commonest first; those that have a row, with what it is not for."""
    lines = []
    names = [f"{call.node.operator}{_how(call)}" for call in refused]
    for operator, times in Counter(names).most_common():
        calls = [call for call, name in zip(refused, names, strict=True) if name == operator]
        paths = list(dict.fromkeys(call.node.path or "the top of the model" for call in calls))
        shown = ", ".join(paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
        hint = next((hint for call in calls if (hint := _hint(call))), "")
        lines.append(f"operator {operator}{f' ({times} times)' if times > 1 else ''} at {shown}{hint}")
    return "; ".join(lines)


def _hint(call: Call) -> str:
    """What to do about an operator where that is known."""
    ends = all(user.operator == OUTPUT for user in call.graph.users(call.node.name))
    known = _ANYWHERE.get(call.node.short) or (_AT_THE_END.get(call.node.short) if ends else None)
    return "" if known is None else f" ({known})"


def _how(call: Call) -> str:
    """Why a row that the operator has is not for this call."""
    if not is_known(call.node.operator, call.rules):
        return ""
    return " of several signals" if len(call.signals) > 1 else " with these arguments"


def choices(rules: Rules = RULES) -> dict[str, tuple[str, ...]]:
    """What may become of each kind of operator that is no weighted sum; the first is the default."""
    found = {row.kind: ["digital"] for row in rules.rows if isinstance(row, Digital)}
    for row in rules.rows:
        if isinstance(row, Circuit) and row.kind is not None and row.choice not in found[row.kind]:
            found[row.kind].append(str(row.choice))
    return {kind: tuple(values) for kind, values in found.items()}


def remedy(rules: Rules = RULES) -> str:
    """What to do about an operator without a row."""
    sums = len(listed(rules)["weighted sums"])
    return (
        f"write it in operators that have one (docs/operators.md lists the {sums} weighted sums; anything elementwise "
        "of one signal is a neuron), or convert the part of the network without it: what has no rule cannot be left "
        "digital yet"
    )


def listed(rules: Rules = RULES) -> dict[str, list[str]]:
    """The operators by what becomes of them, for README and messages."""
    kinds: Mapping[str, type[Any]] = {"weighted sums": Linear, "neurons": Neurons, "left digital": Digital}
    return {word: sorted(name for name in rules.names(kind) if name[0] != "_") for word, kind in kinds.items()}
