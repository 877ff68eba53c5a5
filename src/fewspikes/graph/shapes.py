"""Each node's shape in a graph, without running it.

torch's meta device knows every operator, but its rules in Python load a symbolic algebra and a compiler: 80 MiB and a
second for a file that is only to be run. So the commonest operators have a rule here; all others go to torch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fewspikes.graph.inputs import InputSpec

CONVOLUTIONS = {"aten.conv1d.default": 1, "aten.conv2d.default": 2, "aten.conv3d.default": 3}  # and their axes
_BROADCAST = frozenset(("aten.add.Tensor", "aten.sub.Tensor", "aten.mul.Tensor"))


class ShapeRun(fx.Interpreter):
    """Runs a graph on the meta device (shapes only, no arithmetic) and keeps each node's shape.

    A site stands for the identity, because a neuron keeps its input's shape.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and note the shape of what came out."""
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = result.shape
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A weight's shape is enough."""
        return super().get_attr(target, args, kwargs).to("meta")

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A neuron keeps the shape."""
        return args[0]

    def call_function(self, target: Callable[..., Any], args: Any, kwargs: Any) -> Any:  # type: ignore[override]
        """Any operator; what it creates is created on the meta device."""
        found = _shape(str(target), args) if not kwargs else None
        if found is not None:
            return torch.empty(found, dtype=args[0].dtype, device="meta")
        if "device" in kwargs:
            kwargs = {**kwargs, "device": "meta"}
        return super().call_function(target, args, kwargs)


def shapes(module: fx.GraphModule, inputs: tuple[InputSpec, ...], batch: int) -> dict[fx.Node, torch.Size]:
    """Each node's shape for a batch of `batch` images, without running the network."""
    run = ShapeRun(module)
    with torch.no_grad():
        run.run(*(torch.empty(batch, *spec.shape, dtype=spec.dtype, device="meta") for spec in inputs))
    return run.shapes


def _shape(name: str, args: Sequence[Any]) -> Sequence[int] | None:
    """The shape that an operator gives where it is plain; None leaves it to torch, which also says what is wrong."""
    if name in CONVOLUTIONS:
        return _convolved(CONVOLUTIONS[name], *args)
    if name in _BROADCAST and len(args) == 2 and all(isinstance(value, Tensor) for value in args):
        return _broadcast(*args)
    if name == "aten.linear.default":
        x, weight, *bias = args
        same = x.ndim and weight.ndim == 2 and x.shape[-1] == weight.shape[1] and x.dtype == weight.dtype
        plain = bias in ([], [None]) or tuple(bias[0].shape) == tuple(weight.shape[:1])
        return (*x.shape[:-1], weight.shape[0]) if same and plain else None
    if name == "aten.adaptive_avg_pool2d.default" and args[0].ndim == 4:
        return (*args[0].shape[:2], *args[1]) if len(args[1]) == 2 and min(args[1]) > 0 else None
    return None


def _broadcast(a: Tensor, b: Tensor) -> Sequence[int] | None:
    ndim = max(a.ndim, b.ndim)
    sizes = [(1,) * (ndim - value.ndim) + tuple(value.shape) for value in (a, b)]
    pairs = list(zip(*sizes, strict=True))
    same = a.dtype == b.dtype and all(m == n or 1 in (m, n) for m, n in pairs)
    return [n if m == 1 else m for m, n in pairs] if same else None


def _convolved(
    axes: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Sequence[int] | None:
    if x.ndim != axes + 2 or weight.ndim != axes + 2 or x.shape[1] != weight.shape[1] * groups:
        return None
    if x.dtype != weight.dtype or (bias is not None and tuple(bias.shape) != tuple(weight.shape[:1])):
        return None
    strides, paddings, dilations = (spread(value, axes) for value in (stride, padding, dilation))
    given = zip(x.shape[2:], weight.shape[2:], strides, paddings, dilations, strict=True)
    sizes = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in given]
    return (x.shape[0], weight.shape[0], *sizes) if min(sizes) > 0 and len(weight) % groups == 0 else None


def spread(value: Any, count: int) -> tuple[int, ...]:
    """One number for each of `count` axes, from a number or a list of one or `count` numbers."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * count if len(values) == 1 else values
