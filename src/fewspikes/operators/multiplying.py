"""Rows of products of two signals, which are no weighted sums: left digital unless the user chooses a circuit."""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Batch, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.choices import Choices
from fewspikes.operators.indexing import permuted, reshaped
from fewspikes.operators.products import ordered, terms_of, without
from fewspikes.operators.rule import Digital, circuit
from fewspikes.operators.summing import broadcast
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box

PRODUCT = "product"  # the kind in `circuits=`
GATED, SHIFTED = "gated", "shifted"  # what operators.gating makes of it: by any code, by powers of two alone
NEURONS = "neurons"  # what operators.quarter_squares makes of it
REASON = (  # why it is left digital
    "a product of two signals is not a weighted sum of spikes; the paper leaves it to the digital processor, "
    "circuits={'product': 'gated'} or 'neurons' makes it of spikes"
)


def elements_multiplied(call: Call) -> Iterable[Box]:
    """Both factors, broadcast to the shape of the result."""
    return broadcast(call, "self", "other")


def matrices(call: Call, first: str = "self", second: str = "other") -> Iterable[Box]:
    """Rows of the first factor, columns of the second, stacks of them broadcast."""
    rows, columns = call.shape[-2:]
    count = {name: len(call.shape_of(name)) for name in (first, second)}
    for box in call.connected(call.node.arguments[first]):
        yield boxes.broadcast(boxes.dense(box, count[first] - 1, columns), call.shape)
    for box in call.connected(call.node.arguments[second]):
        yield boxes.broadcast(boxes.dense(box, count[second] - 2, rows), call.shape)


def _are_signals(call: Call) -> bool:
    """Whether both factors are: a constant, or a mask that whole numbers tell, only weighs."""
    return len(call.signals) == 2


def _are_matrices(call: Call) -> bool:
    """Whether both factors are signals, and matrices or stacks of them."""
    return _are_signals(call) and min(len(call.shape_of(name)) for name in ("self", "other")) > 1


def one_for_each(call: Call) -> int:
    """One multiplication for each element of the result."""
    return prod(call.shape)


def _terms(call: Call) -> int:
    return prod(call.shape) * call.shape_of("self")[-1]


product = Digital(
    ("mul",),
    kind=PRODUCT,
    also=(GATED, SHIFTED, NEURONS),
    multiplications=one_for_each,
    reach=elements_multiplied,
    reason=REASON,
    takes=_are_signals,
)
matrix_product = Digital(
    ("matmul",),
    kind=PRODUCT,
    also=(GATED, SHIFTED, NEURONS),
    multiplications=_terms,
    reach=matrices,
    reason=REASON,
    takes=_are_matrices,
)


def product_to_be(call: Call, choices: Choices) -> tuple[Digital, str] | None:
    """The row of a product of two signals, and what is to become of it at its place; None for anything else."""
    row = call.rules.find(Digital, call)
    return (row, choices.of(PRODUCT, call.node.path)) if row is not None and row.kind == PRODUCT else None


@circuit("einsum", takes=lambda call: sum(ref.name in call.carriers for ref in call.node.arguments["tensors"]) > 1)
def summed_over_letters(call: Call, g: Builder) -> Ref | None:
    """A sum of products of several signals: the first two become one, until two are left: a product of matrices."""
    tensors, found = call.node.arguments["tensors"], terms_of(call)
    if found is None:
        return None
    terms, result = found
    if len(tensors) == 2:
        return _of_two(g, [g.now(ref) for ref in tensors], terms, result)
    wanted = "".join(dict.fromkeys(c for c in terms[0] + terms[1] if c in "".join([*terms[2:], result])))
    first, second, *others = (g.now(ref) for ref in tensors)
    both = g.put("einsum", f"{terms[0]},{terms[1]}->{wanted}", [first, second])
    equation = f"{','.join([wanted, *terms[2:]])}->{result}"
    return g.call("einsum", equation, [both, *others], like=call.node.shape)


def _of_two(g: Builder, tensors: list[Ref], terms: list[str], result: str) -> Ref | None:
    """The axes of both as (those that they share, their own and summed ones), and back into the order of the result."""
    tensors = [without(g, x, own, other + result) for x, own, other in zip(tensors, terms, terms[::-1], strict=True)]
    first, second = (
        "".join(c for c in own if c in other + result) for own, other in ((terms[0], terms[1]), terms[::-1])
    )
    sizes = [dict(zip(own, g.shape(x), strict=True)) for own, x in zip((first, second), tensors, strict=True)]
    shared = [c for c in result if c in first and c in second]
    if any(sizes[0][c] != sizes[1][c] for c in first if c in second):
        return None
    if any(isinstance(size, Batch) and c not in shared for own in sizes for c, size in own.items()):
        return None
    summed = [c for c in first if c in second and c not in result]
    rows, columns = ([c for c in own if c not in shared and c not in summed] for own in (first, second))
    left, right = (
        ordered(g, tensors[0], first, "".join([*shared, *rows, *summed])),
        ordered(g, tensors[1], second, "".join([*shared, *summed, *columns])),
    )
    known = sizes[0] | sizes[1]
    stack = tuple(known[c] for c in shared)
    if summed:
        height, depth, width = (_length(known, letters) for letters in (rows, summed, columns))
        left, right = reshaped(g, left, (*stack, height, depth)), reshaped(g, right, (*stack, depth, width))
        made = g.put("matmul", left, right)
    else:
        left = reshaped(g, left, (*stack, *(known[c] for c in rows), *(1 for _ in columns)))
        made = g.put("mul.Tensor", left, reshaped(g, right, (*stack, *(1 for _ in rows), *(known[c] for c in columns))))
    made = reshaped(g, made, (*stack, *(known[c] for c in (*rows, *columns))))
    return permuted(g, made, ["".join([*shared, *rows, *columns]).index(c) for c in result])


def _length(sizes: Mapping[str, Any], letters: Sequence[str]) -> int:
    return prod(sizes[letter] for letter in letters)


ROWS = (product, matrix_product, summed_over_letters)
