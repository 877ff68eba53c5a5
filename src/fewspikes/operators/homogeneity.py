"""Which expressions are positively homogeneous, f(a x) = a^n f(x) for every a > 0, and of which degree n.

Read off the expression's graph: |x| has degree 1, x |x| degree 2, where(x > 0, x, 0.1 x) degree 1, exp(x) none.
"""

from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from fewspikes.graph.graph import INPUT, OUTPUT, Graph, Node, Ref, refs

_ZERO = inf  # 0 has every degree
Degrees = dict[str, float | None]  # by argument; None: it has none
Rule = Callable[[Node, Degrees], float | None]


def degree(graph: Graph) -> float | None:
    """The degree of an expression's value in x; None where it has none that can be told."""
    known: dict[str, float | None] = {}
    for node in graph:
        if node.operator == INPUT:
            known[node.name] = 1.0
        elif node.operator != OUTPUT:
            known[node.name] = _of(node, {key: _argument(value, known) for key, value in node.arguments.items()})
    found = known[graph.output.arguments["value"].name]
    return None if found == _ZERO else found


def _argument(value: Any, known: dict[str, float | None]) -> float | None:
    if isinstance(value, Ref):
        return known[value.name]
    if next(refs(value), None) is not None:
        return None
    return _ZERO if isinstance(value, int | float) and value == 0 else 0.0


def _of(node: Node, given: Degrees) -> float | None:
    rule = _RULES.get(node.short)
    found = None if rule is None else rule(node, given)
    return found if found is not None else _invariant(given.values())


def _invariant(degrees: Iterable[float | None]) -> float | None:
    """Any function of what does not change with a does not."""
    return 0.0 if all(one in (0.0, _ZERO) for one in degrees) else None


def _same(*names: str) -> Rule:
    """A choice among some arguments, or their sum: of one degree if they are."""

    def rule(node: Node, given: Degrees) -> float | None:
        found = {given[name] for name in names if name in given} - {_ZERO}
        return found.pop() if len(found) == 1 else None if found else _ZERO

    return rule


def _compared(node: Node, given: Degrees) -> float | None:
    """A comparison of two values of one degree."""
    return None if _same("self", "other")(node, given) is None else 0.0


def _chosen(node: Node, given: Degrees) -> float | None:
    return _same("self", "other")(node, given) if given["condition"] == 0 else None


def _masked(node: Node, given: Degrees) -> float | None:
    return _same("self", "value")(node, given) if given["mask"] == 0 else None


def _product(node: Node, given: Degrees) -> float | None:
    a, b = given["self"], given["other"]
    return None if a is None or b is None else a + b


def _quotient(node: Node, given: Degrees) -> float | None:
    a, b = given["self"], given["other"]
    return None if a is None or b in (None, _ZERO) or node.arguments.get("rounding_mode") is not None else a - b


def _times(factor: float) -> Rule:
    def rule(node: Node, given: Degrees) -> float | None:
        return None if given["self"] in (None, _ZERO) else given["self"] * factor  # type: ignore[operator]

    return rule


def _cast(node: Node, given: Degrees) -> float | None:
    dtype = node.arguments["dtype"]
    return given["self"] if dtype is None or dtype.is_floating_point else None


def _power(node: Node, given: Degrees) -> float | None:
    exponent = node.arguments["exponent"]
    number = isinstance(exponent, int | float) and given["self"] not in (None, _ZERO)
    return given["self"] * exponent if number else None  # type: ignore[operator]


def _limited(*limits: str) -> Rule:
    """What is the same within limits of 0 alone."""

    def rule(node: Node, given: Degrees) -> float | None:
        return given["self"] if all(node.arguments.get(name) in (None, 0) for name in limits) else None

    return rule


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "rsub", "maximum", "minimum", "fmax", "fmin", "max", "min"), _same("self", "other")),
    **dict.fromkeys(("gt", "lt", "ge", "le", "eq", "ne"), _compared),
    **dict.fromkeys(("abs", "neg", "relu", "leaky_relu", "nan_to_num"), _same("self")),
    "_to_copy": _cast,
    **dict.fromkeys(("clamp_min", "clamp", "clip", "clamp_max"), _limited("min", "max")),
    "threshold": _limited("threshold", "value"),
    "full_like": _same("fill_value"),
    "where": _chosen,
    "masked_fill": _masked,
    "mul": _product,
    "div": _quotient,
    "pow": _power,
    **dict.fromkeys(("sign", "sgn"), _times(0.0)),
    "square": _times(2.0),
    "sqrt": _times(0.5),
    "rsqrt": _times(-0.5),
    "reciprocal": _times(-1.0),
}
