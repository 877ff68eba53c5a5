"""Which class every operator falls into. What is not listed here raises."""

from enum import StrEnum

from torch import fx

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.capture import op_name
from fewspikes.neuron.activation import Activation


class Kind(StrEnum):
    """What becomes of an operator in the spiking network."""

    SYNAPTIC = "synaptic"  # a linear map (with constants), part of the weighted sums between neurons
    NEURON = "neuron"  # replaced by FS-neurons
    DIGITAL = "digital"  # left to a digital processor, with the reason
    BOOKKEEPING = "bookkeeping"  # shapes and constants; carries no value from neuron to neuron


def _aten(names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names.split())


# Linear in the first operand; weights and biases, if any, are constants.
LINEAR = _aten(
    "conv1d.default conv1d.padding conv2d.default conv2d.padding linear.default "
    "avg_pool1d.default avg_pool2d.default adaptive_avg_pool1d.default adaptive_avg_pool2d.default "
    "mean.dim sum.dim_IntList neg.default mul.Scalar div.Scalar add.Scalar sub.Scalar rsub.Scalar "
    "flatten.using_ints reshape.default permute.default transpose.int t.default squeeze.dim squeeze.dims "
    "unsqueeze.default expand.default slice.Tensor select.int split.Tensor split_with_sizes.default "
    "chunk.default unbind.int pad.default constant_pad_nd.default"
)
SUMS = _aten("add.Tensor sub.Tensor rsub.Tensor cat.default stack.default")  # linear in all operands together
PRODUCTS = _aten("mul.Tensor div.Tensor matmul.default mm.default")  # linear if all operands but one are constant
MAX_POOLS = _aten("max_pool1d.default max_pool2d.default")
SHAPES = _aten(
    "sym_size.int ones_like.default zeros_like.default full_like.default zeros.default ones.default full.default"
)
PYTHON = frozenset(("add", "sub", "mul", "floordiv", "truediv", "mod", "neg"))  # arithmetic on sizes
KNOWN = LINEAR | SUMS | PRODUCTS | MAX_POOLS | SHAPES | PYTHON | {"getitem"}

DIGITAL_REASONS = {
    "product": "a product of two signals is not a weighted sum of spikes; the paper leaves it to the digital processor",
    "max pool": "a maximum is not a weighted sum of spikes; max_pool='average' changes the network instead",
}
REMEDY = (
    "replace it by supported operators (relu, relu6, silu, sigmoid, tanh, gelu, hardswish, ...; convolution, linear, "
    "batch norm, average pool, sums, reshapes), or convert the part of the network without it"
)


def classify(node: fx.Node) -> tuple[Kind, str]:
    """The class of a node and, for what stays digital, the reason.

    `meta["signal"]` must be set on the nodes it reads: whether the value depends on the input's values.

    Raises:
        FewSpikesError: an operator that no rule covers, with its module path and the remedy.
    """
    name = op_name(node)
    signals = [n for n in node.all_input_nodes if n.meta["signal"]]
    if node.op == "call_module":
        return Kind.NEURON, ""
    if name in SHAPES or name in PYTHON or (not signals and name in KNOWN):
        return Kind.BOOKKEEPING, ""
    if name == "getitem" or (name in SUMS and not _unclear_pad(node)):
        return Kind.SYNAPTIC, ""
    if name in LINEAR and signals == [node.args[0]] and not _unclear_pad(node):
        return Kind.SYNAPTIC, ""
    if name in PRODUCTS and len(signals) == 1 and _is_linear_product(node, signals[0]):
        return Kind.SYNAPTIC, ""
    if name == "aten.mul.Tensor":
        return Kind.DIGITAL, DIGITAL_REASONS["product"]
    if name in MAX_POOLS:
        return Kind.DIGITAL, DIGITAL_REASONS["max pool"]
    what = f"padding by anything but a constant, {describe(node)}" if _unclear_pad(node) else describe(node)
    raise FewSpikesError(f"no rule for {what}; {REMEDY}")


def activation_of(node: fx.Node) -> Activation | None:
    """The activation that a node computes, or None if it is none of ours.

    Raises:
        FewSpikesError: a clamp or hardtanh that is not a (capped) ReLU.
    """
    name = op_name(node)
    if name in _PLAIN:
        return Activation(name.split(".")[1])
    if name == "aten.gelu.default":
        return Activation("gelu_tanh" if node.kwargs.get("approximate") == "tanh" else "gelu")
    if name in _WITH_SETTINGS:
        _check_settings(node, _WITH_SETTINGS[name])
        return Activation(name.split(".")[1])
    if name == "aten.relu6.default":
        return Activation("relu", cap=6.0)
    if name == "aten.threshold.default" and tuple(node.args[1:3]) == (0, 0):
        return Activation("relu")
    limits = _limits(node, name)
    if limits is None:
        return None
    low, high = limits
    cap = float(high) if isinstance(high, int | float) else None
    if low != 0 or (high is not None and cap is None):
        raise FewSpikesError(
            f"{describe(node)} limits to [{low}, {high}]; only a lower limit of 0 makes a (capped) ReLU neuron"
        )
    return Activation("relu", cap)


_PLAIN = _aten(
    "relu.default silu.default sigmoid.default tanh.default hardswish.default hardsigmoid.default mish.default"
)
# The settings that a fit is made for, as torch's defaults have them.
_WITH_SETTINGS = {
    "aten.elu.default": (1, 1, 1),
    "aten.leaky_relu.default": (0.01,),
    "aten.softplus.default": (1, 20),
}


def _check_settings(node: fx.Node, wanted: tuple[float, ...]) -> None:
    given = (*node.args[1:], *node.kwargs.values())
    if any(value != default for value, default in zip(given, wanted, strict=False)):
        raise FewSpikesError(
            f"{describe(node)} has the settings {given}; only torch's defaults {wanted} have a fitted neuron"
        )


def describe(node: fx.Node) -> str:
    """Operator and module path, for messages."""
    return f"operator {op_name(node)} at {node.meta.get('path') or 'the top of the model'}"


def _limits(node: fx.Node, name: str) -> tuple[object, object] | None:
    if name == "aten.hardtanh.default":
        return _two(node, -1.0, 1.0)
    if name in ("aten.clamp.default", "aten.clip.default"):
        low, high = _two(node, None, None)
        return node.kwargs.get("min", low), node.kwargs.get("max", high)
    if name == "aten.clamp_min.default":
        return node.args[1], None
    return None


def _two(node: fx.Node, first: object, second: object) -> tuple[object, object]:
    given = node.args[1:3]
    return (given + (first, second)[len(given) :])[0:2]  # type: ignore[return-value]


def _unclear_pad(node: fx.Node) -> bool:
    """Padding with anything but constants (reflect, replicate, circular) has no rule yet."""
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    return op_name(node) == "aten.pad.default" and str(mode) != "constant"


def _is_linear_product(node: fx.Node, signal: fx.Node) -> bool:
    if op_name(node) == "aten.mul.Tensor":
        return node.args[0] is not node.args[1]
    return node.args[0] is signal and (len(node.args) < 2 or node.args[1] is not signal)
