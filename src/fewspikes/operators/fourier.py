"""Complex tensors as two real ones, and Fourier transforms as constant matrices: real to real, they are linear."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewspikes.graph.builder import Builder, rebuilt
from fewspikes.graph.graph import CONSTANT, Graph, Node, Ref, refs, replaced
from fewspikes.operators.indexing import length
from fewspikes.operators.rule import Linear, Rules, Shapes

_TRANSFORM = re.compile(r"fft_(i?)(r?)fft(2|n|)")
_MOST = 4096  # positions of an axis that is transformed: a matrix of 64 MiB
_TERMS = ("add", "sub", "copy", "slice_scatter", "select_scatter", "cat")
_BOTH_ALIKE = (*_TERMS, "neg", "sum", "mean", "index", "gather", "fft_fftshift", "fft_ifftshift")
_PRODUCTS = ("mul", "matmul", "mm", "bmm", "einsum")
_REAL = ("view_as_real", "real", "imag")


class Pair(NamedTuple):
    """A complex tensor."""

    real: Ref
    imaginary: Ref


class Step(NamedTuple):
    """A transform along one axis: of what length, and whether its first or its last values are real."""

    axis: int
    n: int
    inverse: bool
    real: bool
    norm: str


def with_real_pairs(graph: Graph, tensors: dict[str, Tensor], rules: Rules, dtype: torch.dtype) -> Graph:
    """The graph with each complex tensor as two real ones; as it is where an operator is not known for them.

    Args:
        graph: with shapes.
        tensors: its constants; new ones are added.
        rules: the rows.
        dtype: of the network.
    """
    complex_ = _complex(graph, tensors)
    transforms = {node.name: _steps(node, graph) for node in graph if _TRANSFORM.fullmatch(node.short)}
    known = all(
        _is_known(node, complex_, rules) if node.name not in transforms else transforms[node.name] for node in graph
    )
    if not known or not (complex_ or transforms):
        return graph
    return rebuilt(graph, tensors, _Split(complex_, transforms, rules, tensors, dtype))


def _complex(graph: Graph, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """The nodes whose results are complex."""
    found: set[str] = set()
    for node in graph:
        kind, transform = node.arguments.get("dtype"), _TRANSFORM.fullmatch(node.short)
        if node.operator == CONSTANT:
            is_complex = tensors[node.arguments["tensor"]].is_complex()
        elif transform:
            is_complex = not (transform[1] and transform[2])
        elif isinstance(kind, torch.dtype):
            is_complex = kind.is_complex
        else:
            is_complex = node.short == "view_as_complex" or not found.isdisjoint(node.reads)
            is_complex = is_complex and node.short not in _REAL and node.shape is not None
        if is_complex:
            found.add(node.name)
    return frozenset(found)


def _steps(node: Node, graph: Graph) -> list[Step] | None:
    """The transforms along the axes, in order; None where images or very long axes are transformed."""
    transform = _TRANSFORM.fullmatch(node.short)
    assert transform is not None
    inverse, real = bool(transform[1]), bool(transform[2])
    given, shape = node.arguments, graph.sizes(node.arguments["self"].name, 2)
    lengths, axes = (given["s"], given["dim"]) if transform[3] else ([given["n"]], [given["dim"]])
    axes = axes if axes is not None else list(range(len(shape)))[-len(lengths or shape) :]
    axes = [axis % len(shape) for axis in axes]
    sizes = dict(zip(axes, lengths or [None] * len(axes), strict=True))
    found = []
    for axis in axes:
        usual = 2 * (shape[axis] - 1) if real and inverse and axis == axes[-1] else shape[axis]
        n = sizes[axis] if sizes[axis] not in (None, -1) else usual
        found.append(Step(axis, n, inverse, real and axis == axes[-1], given["norm"] or "backward"))
    if 0 in axes or not all(isinstance(step.n, int) and 0 < step.n <= _MOST for step in found):
        return None
    return found if inverse else found[::-1]


def _is_known(node: Node, complex_: frozenset[str], rules: Rules) -> bool:
    """Whether an operator that reads or makes complex tensors can do so in pairs."""
    given = {ref.name for ref in refs(node.arguments)}
    reads = given & complex_
    if not reads and node.name not in complex_:
        return True
    if node.operator == CONSTANT or node.short in (*_REAL, "view_as_complex", "div", "_conj", *_PRODUCTS):
        return True
    if rules.has(Shapes, node.short):
        return True
    moves = any(row.moves and not row.several for row in rules.of(Linear, node.short))
    return node.short in _BOTH_ALIKE or moves


@dataclass(frozen=True, eq=False)
class _Split:
    """What stands for each node."""

    complex_: frozenset[str]
    transforms: Mapping[str, Any]
    rules: Rules
    tensors: Mapping[str, Tensor]
    dtype: torch.dtype

    def __call__(self, node: Node, g: Builder) -> Any:
        given = node.arguments
        if node.name in self.transforms:
            return self._transformed(node, g)
        if node.name not in self.complex_ and self.complex_.isdisjoint(node.reads):
            return None
        if node.operator == CONSTANT:
            value = self.tensors[given["tensor"]]
            return Pair(*(g.constant(part.to(self.dtype).contiguous()) for part in (value.real, value.imag)))
        if node.short == "view_as_complex":
            return Pair(*(g.put("select.int", g.now(given["self"]), -1, at) for at in (0, 1)))
        if node.short in _REAL:
            return self._real(node, g)
        if self.rules.has(Shapes, node.short):
            return self._shaped(node, g)
        if node.short == "_conj":
            pair = g.now(given["self"])
            return Pair(pair.real, g.put("neg", pair.imaginary))
        if node.short in _PRODUCTS:
            return self._product(node, g)
        return Pair(*(self._part(node, g, at) for at in (0, 1)))

    def _real(self, node: Node, g: Builder) -> Any:
        pair = g.now(node.arguments["self"])
        if node.short == "view_as_real":
            return g.put("stack", list(pair), -1)
        return pair.real if node.short == "real" else pair.imaginary

    def _shaped(self, node: Node, g: Builder) -> Any:
        """A constant tensor of a shape."""
        given = replaced(node.arguments, lambda ref: self._first(g.now(ref)))
        if node.name not in self.complex_:
            return g.append(node.operator, given, node.shape)
        real = g.append(node.operator, given | {"dtype": self.dtype}, node.shape)
        return Pair(real, g.call("mul.Scalar", real, 0, like=node.shape))

    def _first(self, value: Any) -> Any:
        return value.real if isinstance(value, Pair) else value

    def _part(self, node: Node, g: Builder, at: int) -> Ref:
        """A call that treats the real and the imaginary part alike: one of the two."""

        def own(ref: Ref) -> Any:
            value = g.now(ref)
            if isinstance(value, Pair):
                return value[at]
            is_term = g.shape(value) and node.short in _TERMS
            return g.call("mul.Scalar", value, 0, like=g.shape(value)) if at and is_term else value

        given = replaced(node.arguments, own)
        numbers = {name for name in ("value", "other") if isinstance(given.get(name), int | float) and at}
        given |= {name: 0 for name in numbers if node.short != "div"}
        return g.append(node.operator, given, node.shape)

    def _product(self, node: Node, g: Builder) -> Pair | None:
        """(a + ib)(c + id) of two complex factors, or a product of one with a real tensor."""
        factors = [ref.name for ref in refs(node.arguments) if ref.name in self.complex_]

        def product(parts: Mapping[str, int]) -> Ref:
            def own(ref: Ref) -> Any:
                value = g.now(ref)
                return value[parts[ref.name]] if isinstance(value, Pair) else value

            return g.append(node.operator, replaced(node.arguments, own), node.shape)

        if len(factors) == 1:
            return Pair(*(product({factors[0]: at}) for at in (0, 1)))
        first, second = factors
        corners = {(a, b): product({first: a, second: b}) for a in (0, 1) for b in (0, 1)}
        return Pair(
            g.call("sub.Tensor", corners[0, 0], corners[1, 1], like=node.shape),
            g.call("add.Tensor", corners[0, 1], corners[1, 0], like=node.shape),
        )

    def _transformed(self, node: Node, g: Builder) -> Any:
        value = g.now(node.arguments["self"])
        for step in self.transforms[node.name]:
            value = _through(g, value, step, self.dtype)
        return value


def _through(g: Builder, value: Any, step: Step, dtype: torch.dtype) -> Any:
    """A transform along one axis."""
    first = value.real if isinstance(value, Pair) else value
    size = length(g, first, step.axis)
    cosine, sine = _matrices(size, step, dtype)

    def along(x: Ref, matrix: Tensor) -> Ref:
        if matrix.shape[0] < size:
            x = g.put("slice.Tensor", x, step.axis, 0, matrix.shape[0])
        last = len(g.shape(x)) - 1
        turned = x if step.axis == last else g.put("transpose.int", x, step.axis, last)
        product = g.put("matmul", turned, g.constant(matrix))
        return product if step.axis == last else g.put("transpose.int", product, step.axis, last)

    if step.real and step.inverse:
        cosines = along(first, cosine)
        return g.put("sub.Tensor", cosines, along(value.imaginary, sine)) if isinstance(value, Pair) else cosines
    if not isinstance(value, Pair):
        return Pair(along(value, cosine), along(value, sine))
    real = g.put("sub.Tensor", along(value.real, cosine), along(value.imaginary, sine))
    return Pair(real, g.put("add.Tensor", along(value.real, sine), along(value.imaginary, cosine)))


def _matrices(size: int, step: Step, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the transform's angles, scaled: a row for each position that is read, a column for each made."""
    n = step.n
    half = n // 2 + 1
    rows = min(size, half if step.real and step.inverse else n)
    columns = half if step.real and not step.inverse else n
    steps = torch.arange(rows)[:, None] * torch.arange(columns) % n
    angles = steps.double() * (2 * pi / n) * (1 if step.inverse else -1)
    divided = {"ortho": sqrt(n), "backward": n if step.inverse else 1, "forward": 1 if step.inverse else n}[step.norm]
    cosine, sine = angles.cos() / divided, angles.sin() / divided
    if step.real and step.inverse:  # each frequency stands for its mirror image, too
        twice = torch.full((rows, 1), 2.0, dtype=torch.float64)
        twice[0] = 1.0
        if n % 2 == 0 and rows == half:
            twice[-1] = 1.0
        cosine, sine = cosine * twice, sine * twice
    return cosine.to(dtype), sine.to(dtype)
