"""Rows of named activations, and of the ways to write them out. Any other elementwise function needs no row."""

from collections.abc import Callable, Iterable

from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import Ref
from fewspikes.neuron.activation import Activation
from fewspikes.operators.call import Call
from fewspikes.operators.rule import Elementwise, Written, neurons


def _has(**wanted: float) -> Callable[[Call], bool]:
    """Whether a call has these settings, torch's defaults."""
    return lambda call: all(call[name] == value for name, value in wanted.items())


@neurons("relu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "mish")
def plain(call: Call) -> Activation:
    """One of torch's activations without settings."""
    return Activation(call.node.short)


@neurons("gelu")
def gelu(call: Call) -> Activation:
    """GELU, exact or by tanh."""
    return Activation("gelu_tanh" if call["approximate"] == "tanh" else "gelu")


@neurons("elu", takes=_has(alpha=1, scale=1, input_scale=1))
def elu(call: Call) -> Activation:
    """ELU with its usual settings; with others it is fitted like any function."""
    return Activation("elu")


@neurons("leaky_relu")
def leaky_relu(call: Call) -> Activation:
    """Leaky ReLU of any slope: homogeneous, so that a scale per channel is free."""
    slope = float(call["negative_slope"])
    return Activation("leaky_relu", settings=() if slope == 0.01 else (("negative_slope", slope),))


@neurons("rrelu", takes=lambda call: not call["training"])
def rrelu(call: Call) -> Activation:
    """A ReLU of random slopes in eval mode: leaky by their mean."""
    return Activation("leaky_relu", settings=(("negative_slope", (call["lower"] + call["upper"]) / 2),))


@neurons("softplus", takes=_has(beta=1, threshold=20))
def softplus(call: Call) -> Activation:
    """Softplus with its usual settings."""
    return Activation("softplus")


@neurons("relu6")
def relu6(call: Call) -> Activation:
    """min(max(x, 0), 6)."""
    return Activation("relu", cap=6.0)


@neurons("threshold", takes=_has(threshold=0, value=0))
def threshold(call: Call) -> Activation:
    """x above 0, else 0."""
    return Activation("relu")


def _limits(call: Call) -> tuple[object, object]:
    names = call.node.arguments
    low, high = ("min_val", "max_val") if "min_val" in names else ("min", "max")
    return call.get(low), call.get(high)


def _starts_at_0(call: Call) -> bool:
    low, high = _limits(call)
    return type(low) in (int, float) and low == 0 and (high is None or (type(high) in (int, float) and high > 0))  # type: ignore[operator]


@neurons("hardtanh", "clamp", "clip", "clamp_min", takes=_starts_at_0)
def clamped(call: Call) -> Activation:
    """A lower limit of 0, and perhaps a cap: a (capped) ReLU."""
    high = _limits(call)[1]
    return Activation("relu", None if high is None else float(high))  # type: ignore[arg-type]


def _silu(g: Builder, x: Ref) -> Iterable[Ref]:
    yield g.call("mul.Tensor", x, g.call("sigmoid", x))
    yield g.call("mul.Tensor", g.call("sigmoid", x), x)


written_silu = Written(("silu",), activation=Activation("silu"), expressions=_silu)


def _softsign(g: Builder, x: Ref) -> Iterable[Ref]:
    yield g.call("div.Tensor", x, g.call("add.Tensor", g.call("abs", x), 1))


written_softsign = Written(("softsign",), expressions=_softsign)

# Torch has no mark on these.
unmarked = Elementwise(("where", "log_sigmoid", "special_ndtr", "floor_divide", "__and__", "__or__", "__xor__"))
# A truth as a number, a number in the place of a tensor.
inner = Elementwise(("_to_copy", "full_like"), alone=False)

_NAMED = (plain, gelu, elu, leaky_relu, rrelu, softplus, relu6, threshold, clamped)
ROWS = (*_NAMED, written_silu, written_softsign, unmarked, inner)
