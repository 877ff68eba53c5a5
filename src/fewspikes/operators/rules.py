"""All rows, and what becomes of each operator of a graph by them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.functions import PYTHON, is_aten, is_elementwise
from fewspikes.graph.graph import CONSTANT, INPUT, NEXT, OUTPUT, PASSING, SITE, Graph, Node, short_name
from fewspikes.operators import (
    attention,
    bookkeeping,
    circuits,
    composed,
    distances,
    driven,
    filling,
    gating,
    identities,
    indexing,
    limits,
    maxima,
    moving,
    multiplying,
    neurons,
    norms,
    products,
    quarter_squares,
    rearranging,
    recurrent,
    signals,
    softmaxes,
    squares,
    summing,
    weighted,
)
from fewspikes.operators.call import Call
from fewspikes.operators.choices import WITHOUT_ROWS
from fewspikes.operators.constants import GROUPS
from fewspikes.operators.rule import (
    Bookkeeping,
    Circuit,
    Digital,
    Elementwise,
    Kind,
    Linear,
    Lookup,
    Neurons,
    Rule,
    Rules,
    Shapes,
)


class _Library(Rules):
    """The rows that the library has of itself."""

    def __reduce__(self) -> str:
        """What pickle takes: where they stand."""
        return "RULES"


_ROOMS = (
    driven,  # before the rows of constant masks
    weighted,
    summing,
    moving,
    indexing,
    filling,
    norms,
    softmaxes,
    attention,
    distances,
    products,
    rearranging,
    recurrent,
    neurons,
    circuits,
    composed,
    limits,
    maxima,
    multiplying,
    squares,
    gating,
    quarter_squares,
    identities,
    bookkeeping,
)
RULES = _Library(row for room in _ROOMS for row in room.ROWS)
_KNOWN = (Linear, Digital, Lookup, Shapes, Bookkeeping)
_SHOWN = 3  # paths in a message
_NOTHING = frozenset((INPUT, CONSTANT, OUTPUT, NEXT))
_DROPOUT = "active in eval mode: call F.dropout(x, training=self.training), or take it out"
_NORM = "it uses the batch's own statistics, which mixes its images: train it with running statistics"
_NORMS = ("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional")
_DROPOUTS = ("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "bernoulli")
_ORDER = "an order is no weighted sum of spikes: return it, or leave it to the code that calls the network"
_WHOLE = (
    "a signal becomes whole numbers here, or floats of half precision: return whole numbers, or leave them to the code "
    "that calls the network, and keep floats in float32"
)
_COMPLEX = "complex numbers: compute with the real and the imaginary parts as two real tensors"
_ANYWHERE = dict.fromkeys(_DROPOUTS, _DROPOUT) | dict.fromkeys(_NORMS, _NORM) | {"_to_copy": _WHOLE}
_ANYWHERE |= dict.fromkeys(("argmax", "argmin", "topk", "sort", "argsort"), _ORDER)
_MASK = "a mask that is constant and a number that is finite convert: -inf does right in front of a softmax"
_ANYWHERE |= dict.fromkeys(("masked_fill", "where"), _MASK)


class Fate(NamedTuple):
    """What becomes of a node, by which row, and why if it stays digital."""

    kind: Kind
    rule: Rule | None = None
    reason: str = ""


def carriers(graph: Graph, rules: Rules = RULES) -> frozenset[str]:
    """The nodes that carry a signal."""
    return signals.carriers(graph, rules)


def fates(
    graph: Graph,
    tensors: Mapping[str, Tensor],
    rules: Rules = RULES,
    problems: Mapping[str, Sequence[Node]] | None = None,
    carrying: frozenset[str] | None = None,
) -> dict[str, Fate]:
    """What becomes of each node that is a call; inputs, constants and the output are left out.

    Args:
        graph: with shapes.
        tensors: its constants, those that are structure at least.
        rules: the rows.
        problems: what else is wrong, in words with {} for the nodes where it is.
        carrying: the nodes that carry a signal, where the graph alone does not tell.

    Raises:
        FewSpikesError: problems, and operators that no row covers, all of them, with how often and where.
    """
    carrying = carriers(graph, rules) if carrying is None else carrying
    found, refused = {}, list[Call]()
    for node in graph:
        if node.operator not in _NOTHING:
            call = Call(node, graph, rules, carrying, tensors=tensors)
            fate = _fate(call)
            if fate is None:
                refused.append(call)
            else:
                found[node.name] = fate
    problems = problems or {}
    told = [words.format(_named(nodes)) for words, nodes in problems.items()]
    elsewhere = {node.name for nodes in problems.values() for node in nodes}
    unknown = [call for call in refused if call.node.name not in elsewhere]
    if unknown:
        told.append(f"no rule for {_listed(unknown)}; {remedy(rules)}")
    if told:
        raise FewSpikesError("; ".join(told))
    return found


def _fate(call: Call) -> Fate | None:
    node, rules = call.node, call.rules
    if node.dtype is not None and node.dtype.is_complex:
        return None
    if node.operator == SITE:
        return Fate(Kind.NEURON)
    if node.operator == "getitem" or node.operator in PASSING:
        return Fate(Kind.SYNAPTIC if node.name in call.carriers else Kind.BOOKKEEPING)
    if node.operator in PYTHON or rules.has(Shapes, node.short):
        return Fate(Kind.BOOKKEEPING)
    if not call.signals:
        begins, known = node.name in call.carriers, is_known(node.operator, rules)
        fate = Fate(Kind.LOOKUP, rules.find(Lookup, call)) if begins else Fate(Kind.BOOKKEEPING)
        return fate if known else None
    rule = rules.find(Linear, call)
    if rule is not None:
        return Fate(Kind.SYNAPTIC, rule)
    digital = rules.find(Digital, call)
    return None if digital is None else Fate(Kind.DIGITAL, digital, digital.reason)


def is_known(operator: str, rules: Rules = RULES) -> bool:
    """Whether a converted network may hold an operator: what a file of one is checked by."""
    if operator in PYTHON:
        return True
    name = short_name(operator) if operator.count(".") == 2 else ""
    return any(rules.has(kind, name) for kind in _KNOWN) or (is_aten(operator) and is_elementwise(operator))


def is_function(operator: str, rules: Rules = RULES) -> bool:
    """Whether an operator may stand in an activation's expression: elementwise, and nothing else."""
    if operator in PYTHON or operator.count(".") != 2:
        return False
    name = short_name(operator)
    known = rules.has(Elementwise, name) or rules.has(Neurons, name)
    return known or (is_aten(operator) and is_elementwise(operator))


def is_elementwise_call(call: Call) -> bool:
    """Whether a call is of such an operator, and what the row leaves out is not among it."""
    rows = call.rules.of(Elementwise, call.node.short)
    return is_function(call.node.operator, call.rules) and (not rows or any(row.applies(call) for row in rows))


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


def _named(nodes: Sequence[Node]) -> str:
    """The operators with their places, each once."""
    names = list(dict.fromkeys(node.where for node in nodes))
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _hint(call: Call) -> str:
    """What to do about an operator where that is known."""
    nodes = (call.node, *(call.graph[name] for name in call.node.reads))
    if any(node.dtype is not None and node.dtype.is_complex for node in nodes):
        return f" ({_COMPLEX})"
    if not call.signals:
        return " (it computes on whole numbers alone: compute it before the network, and give it as an input)"
    values = _different_values(call) if is_function(call.node.operator, call.rules) else 0
    if values > GROUPS:
        return (
            f" (beside a constant of {values} different values; up to {GROUPS} get a code each: use fewer, or sums and "
            "products with constants around a function of numbers)"
        )
    known = _ANYWHERE.get(call.node.short)
    return "" if known is None else f" ({known})"


def _different_values(call: Call) -> int:
    """Of the constant beside the signal that has most."""
    constants = (call.graph[name] for name in call.node.reads if call.graph[name].operator == CONSTANT)
    return max((len(call.tensors[node.arguments["tensor"]].unique()) for node in constants), default=0)


def _how(call: Call) -> str:
    """Why a row that the operator has is not for this call."""
    if not any(call.rules.has(kind, call.node.short) for kind in (Linear, Digital)):
        return ""
    return " of several signals" if len(call.signals) > 1 else " with these arguments"


def choices(rules: Rules = RULES) -> dict[str, tuple[str, ...]]:
    """What may become of each kind of thing that is no weighted sum, or need not stay one; the first is the default."""
    found = {
        row.kind: ["digital"]
        for row in rules.rows
        if isinstance(row, Digital) and row.kind and row.kind not in WITHOUT_ROWS
    }
    for row in rules.rows:
        if isinstance(row, Circuit) and row.kind is not None and row.choice not in found.setdefault(row.kind, []):
            found[row.kind].append(str(row.choice))
    for row in rules.rows:
        if isinstance(row, Digital) and row.kind in found:
            found[row.kind] += [choice for choice in row.also if choice not in found[row.kind]]
    return {kind: tuple(values) for kind, values in found.items()} | WITHOUT_ROWS


def remedy(rules: Rules = RULES) -> str:
    """What to do about an operator without a row."""
    sums = len(listed(rules)["weighted sums"])
    return (
        f"write it in operators that have one (docs/operators.md lists the {sums} weighted sums; anything elementwise "
        "of one signal is a neuron), convert the part of the network without it, or register a rule: rules=[...]; "
        "see docs/rules.md"
    )


def _is_for_users(name: str) -> bool:
    """Whether models have an operator: not those that conversion alone puts into a graph."""
    return name[0] != "_" and not name.startswith("fewspikes::")


def listed(rules: Rules = RULES) -> dict[str, list[str]]:
    """The operators by what becomes of them, for README and messages."""
    kinds: Mapping[str, type[Any]] = {"weighted sums": Linear, "neurons": Neurons, "left digital": Digital}
    return {word: sorted(filter(_is_for_users, rules.names(kind))) for word, kind in kinds.items()}
