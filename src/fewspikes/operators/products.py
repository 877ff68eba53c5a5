"""Rows of operators that sum products with constants, written in one matrix product with the constant on the right."""

from collections.abc import Sequence
from math import prod
from typing import Any

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Batch, Ref, Shape
from fewspikes.operators.call import Call
from fewspikes.operators.indexing import length, permuted, reshaped
from fewspikes.operators.rule import circuit

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _only(call: Call, name: str) -> bool:
    return call.signals == {name}


@circuit("matmul", takes=lambda call: _only(call, "other") and len(call.shape_of("other")) > 1)
def constant_on_the_left(call: Call, g: Builder) -> Ref:
    """A x, as (x' A')' with the axes of the matrices the other way round."""
    matrix, x = (g.now(call.node.arguments[name]) for name in ("self", "other"))
    if len(call.shape_of("self")) == 1:  # a vector of weights for the rows of each matrix
        return g.put("matmul", g.put("transpose.int", x, -1, -2), matrix)
    turned = [g.put("transpose.int", value, -1, -2) for value in (x, matrix)]
    return g.put("transpose.int", g.put("matmul", *turned), -1, -2)


@circuit("mm", "bmm")
def matrices_multiplied(call: Call, g: Builder) -> Ref:
    """A product of matrices, one or a stack of them."""
    first, second = (g.now(call.node.arguments[name]) for name in ("self", "mat2"))
    return g.call("matmul", first, second, like=call.node.shape)


@circuit("mv", "inner", "linalg_vecdot")
def vectors_multiplied(call: Call, g: Builder) -> Ref | None:
    """A product of matrices with a vector, or of all vectors in two tensors."""
    first, second = (g.now(value) for value in list(call.node.arguments.values())[:2])
    if call.node.short == "linalg_vecdot":
        axis = call["dim"]
        return g.put("sum.dim_IntList", g.put("mul.Tensor", first, second), [axis])
    if call.node.short == "mv":
        return g.call("matmul", first, second, like=call.node.shape)
    axes = [len(g.shape(value)) for value in (first, second)]
    if min(axes) == 0:
        return None
    left = _LETTERS[: axes[0]]
    right = _LETTERS[axes[0] : axes[0] + axes[1] - 1]
    equation = f"{left},{right}{left[-1]}->{left[:-1]}{right}"
    return g.call("einsum", equation, [first, second], like=call.node.shape)


@circuit("addmm", "addmv", "baddbmm")
def product_added(call: Call, g: Builder) -> Ref:
    """beta times a tensor plus alpha times a product of matrices."""
    own, *factors = (g.now(value) for value in list(call.node.arguments.values())[:3])
    beta, alpha = call["beta"], call["alpha"]
    product = g.put("matmul", *factors)
    product = product if alpha == 1 else g.put("mul.Scalar", product, alpha)
    own = own if beta == 1 else g.put("mul.Scalar", own, beta)
    return g.call("add.Tensor", own, product, like=call.node.shape)


@circuit("bilinear")
def bilinear(call: Call, g: Builder) -> Ref:
    """x' W y + b: a matrix product with one of the two, a product with the other, and a sum."""
    given = call.node.arguments
    first, second, weight = (g.now(given[name]) for name in ("input1", "input2", "weight"))
    if "input1" not in call.signals:
        first, second, weight = second, first, g.put("transpose.int", weight, 1, 2)
    outputs, own, other = (length(g, weight, axis) for axis in range(3))
    matrix = reshaped(g, permuted(g, weight, [1, 0, 2]), (own, outputs * other))
    image = g.shape(first)[:-1]
    product = reshaped(g, g.put("matmul", first, matrix), (*image, outputs, other))
    result = g.put("sum.dim_IntList", g.put("mul.Tensor", product, g.put("unsqueeze", second, -2)), [-1])
    return result if given["bias"] is None else g.put("add.Tensor", result, g.now(given["bias"]))


@circuit("tensordot", takes=lambda call: call.get("dims_self") is not None)
def contracted_axes(call: Call, g: Builder) -> Ref:
    """A sum over some axes of each of two tensors."""
    names = ("self", "other")
    axes = [[axis % len(call.shape_of(name)) for axis in call[f"dims_{name}"]] for name in names]
    count = len(call.shape_of("self"))
    left = list(_LETTERS[:count])
    right = list(_LETTERS[count : count + len(call.shape_of("other"))])
    for a, b in zip(*axes, strict=True):
        right[b] = left[a]
    kept = [c for c in (*left, *right) if c not in left or c not in right]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(kept)}"
    return g.call("einsum", equation, [g.now(call.node.arguments[name]) for name in names], like=call.node.shape)


def terms_of(call: Call) -> tuple[list[str], str] | None:
    """The letters of each operand and of the result; None where a letter stands twice in one operand."""
    equation = call["equation"].replace(" ", "")
    shapes = [call.graph[ref.name].shape or () for ref in call.node.arguments["tensors"]]
    left, arrow, result = equation.partition("->")
    free = [c for c in reversed(_LETTERS) if c not in equation]
    hidden = [len(shape) - len(term.replace("...", "")) for term, shape in zip(left.split(","), shapes, strict=True)]
    dots = "".join(free[: max(hidden)][::-1]) if "..." in equation else ""
    terms = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(left.split(","), hidden, strict=True)]
    every = "".join(terms)
    once = "".join(c for c in sorted(set(every) - set(dots)) if every.count(c) == 1)
    result = result.replace("...", dots) if arrow else dots + once
    return None if any(len(set(term)) < len(term) for term in (*terms, result)) else (terms, result)


@circuit("einsum", takes=lambda call: sum(ref.name in call.carriers for ref in call.node.arguments["tensors"]) == 1)
def summed_products(call: Call, g: Builder) -> Ref | None:
    """A sum of products of one signal and constants: the constants become one, their product a matrix product."""
    tensors, found = call.node.arguments["tensors"], terms_of(call)
    if found is None:
        return None
    terms, result = found
    at = next(at for at, ref in enumerate(tensors) if ref.name in call.carriers)
    x, letters = g.now(tensors[at]), terms[at]
    sizes = dict(zip(letters, g.shape(x), strict=True))
    others = [(terms[i], g.now(ref)) for i, ref in enumerate(tensors) if i != at]
    image = [letter for letter, size in sizes.items() if isinstance(size, Batch)]
    if any(letter not in result or any(letter in term for term, _ in others) for letter in image):
        return None
    if _stretched(sizes, g, others):
        return None
    if not others:
        return ordered(g, without(g, x, letters, result), [c for c in letters if c in result], result)
    constant, own = _one_constant(g, others, letters + result)
    x = without(g, x, letters, own + result)
    letters = "".join(c for c in letters if c in own + result)
    return _product(g, x, letters, constant, own, result)


def _stretched(sizes: dict[str, Any], g: Builder, others: Sequence[tuple[str, Ref]]) -> bool:
    """Whether an axis of one position stands for several."""
    pairs = ((sizes.get(c, n), n) for term, ref in others for c, n in zip(term, g.shape(ref), strict=True))
    return any(a != b for a, b in pairs)


def _one_constant(g: Builder, others: Sequence[tuple[str, Ref]], wanted: str) -> tuple[Ref, str]:
    """The product of all constants, over the letters that are wanted."""
    letters = "".join(dict.fromkeys(c for term, _ in others for c in term if c in wanted))
    equation = f"{','.join(term for term, _ in others)}->{letters}"
    if equation == f"{letters}->{letters}":
        return others[0][1], letters
    return g.put("einsum", equation, [ref for _, ref in others]), letters


def without(g: Builder, x: Ref, letters: str, kept: str) -> Ref:
    """The tensor summed over all letters but those to be kept."""
    gone = [axis for axis, c in enumerate(letters) if c not in kept]
    return g.put("sum.dim_IntList", x, gone) if gone else x


def ordered(g: Builder, x: Ref, letters: Sequence[str], wanted: str) -> Ref:
    """The tensor with its axes in the order of the letters wanted."""
    return permuted(g, x, ["".join(letters).index(c) for c in wanted])


def _product(g: Builder, x: Ref, letters: str, constant: Ref, own: str, result: str) -> Ref:
    """The signal's axes as (its own, shared, summed), the constant's as (shared, summed, its own)."""
    free = [c for c in letters if c not in own]
    shared = [c for c in letters if c in own and c in result]
    summed = [c for c in letters if c in own and c not in result]
    new = [c for c in own if c not in letters]
    x = ordered(g, x, letters, "".join([*free, *shared, *summed]))
    constant = ordered(g, constant, own, "".join([*shared, *summed, *new]))
    sizes: dict[str, Any] = dict(zip([*free, *shared, *summed], g.shape(x), strict=True))
    sizes |= dict(zip([*shared, *summed, *new], g.shape(constant), strict=True))
    images, stack, width = ([sizes[c] for c in cs] for cs in (free, shared, new))
    if not summed:
        x = reshaped(g, x, (*images, *stack, *[1] * len(new)))
        product = g.put("mul.Tensor", x, constant)
        return ordered(g, product, [*free, *shared, *new], result)
    depth = prod(sizes[c] for c in summed)
    x = reshaped(g, x, (*images, *stack, *([1] if stack else []), depth))
    product = g.put("matmul", x, reshaped(g, constant, (*stack, depth, prod(width))))
    shape: Shape = (*images, *stack, *width)
    return ordered(g, reshaped(g, product, shape), [*free, *shared, *new], result)


ROWS = (
    constant_on_the_left,
    matrices_multiplied,
    vectors_multiplied,
    product_added,
    bilinear,
    contracted_axes,
    summed_products,
)
