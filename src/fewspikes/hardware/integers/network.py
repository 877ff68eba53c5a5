"""From a spiking network of ReLU codes to one whose layers are products of whole numbers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, fx, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.inputs import check_autocast, check_inputs
from fewspikes.graph.shapes import spread
from fewspikes.hardware.integers.codes import CodeNeuron, Values, is_binary, unit
from fewspikes.hardware.integers.products import MaxPool, Product
from fewspikes.network.report import ConversionReport
from fewspikes.network.spiking import SpikingNetwork, build
from fewspikes.operators.rewriting import Site

_PRODUCTS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
_SUM = torch.ops.aten.add.Tensor
_MAX_POOL = torch.ops.aten.max_pool2d.default  # units are positive: the largest code stands for the largest value
_RESHAPE = torch.ops.aten.reshape.default
_PAD = torch.ops.aten.pad.default  # with zeros, which is the code of 0
_AXIS = 1  # of the channels
_LARGEST = 127  # of an 8-bit weight


class IntegerNetwork(nn.Module):
    """A network in which spikes are whole numbers and so are the weights that they meet.

    Attributes:
        body: the graph.
        report: of the spiking network that it came from.
        engines: by the name of the weights, what computes each product: "onednn", "reference", or "float" and why.
    """

    def __init__(self, snn: SpikingNetwork, body: fx.GraphModule, engines: Mapping[str, str]) -> None:
        super().__init__()
        self.body, self.inputs, self.sites = body, snn.inputs, snn.sites
        self.report: ConversionReport = snn.report
        self.engines = dict(engines)
        self.eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to()`, `.half()` and the like run on every tensor."""
        probe = fn(torch.empty(0))
        if probe.dtype != torch.float32 or probe.device.type != "cpu":
            raise FewSpikesError(
                f"an integer network stays in float32 on the CPU; it cannot go to {probe.dtype} on {probe.device}: "
                "move the spiking network that it came from"
            )
        changed: Self = super()._apply(fn, recurse)
        return changed

    @property
    def neurons(self) -> dict[str, Any]:
        """The layers of neurons by site name."""
        return {site.name: self.body.get_submodule(site.target) for site in self.sites}

    def forward(self, *args: Tensor) -> Any:
        """The output for a batch of float32 inputs.

        Raises:
            FewSpikesError: another shape or dtype than the network was made for, or autocast.
        """
        check_autocast()
        check_inputs(self.inputs, list(args), torch.float32, "this network")
        return self.body(*args)


def to_integer(snn: SpikingNetwork, engine: str = "auto") -> IntegerNetwork:
    """The network with 8-bit weights wherever spikes of a binary code meet them: products of whole numbers, exact.

    A ReLU's output is a whole number q < 2^K times a constant. Convolutions and linear maps of such outputs get
    weights of 8 bits, one scale per output channel, into which the constants of the input's channels went before; the
    products are exact, and the constants after them go into the gate of the next neuron. What meets no such spikes
    (the first layer, whose input is an image; what follows an average pool; other codes) stays as it is.

    Args:
        snn: float32, on the CPU.
        engine: "auto" (oneDNN's 8-bit products where they prove exact here) or "reference" (float64, plain loops);
            both give the same bits.

    Raises:
        FewSpikesError: no layer to gain from, another dtype or device, or an unknown engine.

    >>> import fewspikes as fs
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> x = torch.rand(5, 4)
    >>> whole = fs.to_integer(fs.convert(net, x, calibration=x, K=4))
    >>> torch.equal(whole(x), fs.to_integer(fs.convert(net, x, calibration=x, K=4), engine="reference")(x))
    True
    """
    if not isinstance(snn, SpikingNetwork):
        raise FewSpikesError(f"to_integer needs a converted network; got {type(snn).__name__}")
    if engine not in ("auto", "reference"):
        raise FewSpikesError(f"unknown engine {engine!r}; there are auto and reference")
    if snn.dtype != torch.float32 or snn.device.type != "cpu":
        raise FewSpikesError(f"to_integer takes float32 on the CPU; got {snn.dtype} on {snn.device}")
    with torch.inference_mode(False), torch.no_grad():
        work = _Work(snn, engine)
        body = work.body()
    if not work.products:
        raise FewSpikesError(
            "no convolution or linear map of this network follows ReLU codes of at most 8 steps without an "
            "average pool or a product between; use the spiking network itself"
        )
    return IntegerNetwork(snn, body, work.engines)


class _Codes(NamedTuple):
    """The new node that gives an old one's values as codes, what a code of 1 is by channel, and the largest code."""

    node: fx.Node
    unit: Tensor
    largest: int


class _Work:
    """The graph rewritten node by node."""

    def __init__(self, snn: SpikingNetwork, engine: str) -> None:
        self.snn, self.engine, self.tensors = snn, engine, snn.tensors
        self.graph = fx.Graph()
        self.sites: dict[str, Site] = {site.target: site for site in snn.sites}
        self.new: dict[fx.Node, fx.Node] = {}  # values, as in the old graph
        self.codes: dict[fx.Node, _Codes] = {}
        self.sums: dict[fx.Node, tuple[fx.Node, Tensor, Tensor | None]] = {}  # products, their scale and their bias
        self.modules: dict[str, nn.Module] = {}
        self.products: dict[str, Product] = {}
        self.engines: dict[str, str] = {}

    def body(self) -> fx.GraphModule:
        for node in self.snn.body.graph.nodes:
            if node.op == "call_module":
                self._site(node)
            elif not (node.target in _PRODUCTS and self._product(node)) and not self._kept(node):
                self.new[node] = self.graph.node_copy(node, self._value)
        for node in reversed(list(self.graph.nodes)):
            if node.op not in ("placeholder", "output") and not node.users:  # weights and sums that went elsewhere
                self.graph.erase_node(node)
        used = {str(node.target) for node in self.graph.nodes}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        return build(self.graph, tensors, self.modules).eval()

    def _site(self, node: fx.Node) -> None:
        site = self.sites[str(node.target)]
        neuron, source = self.snn.neurons[site.name], node.all_input_nodes[0]
        shape = self.snn.shape_at(site.name)
        axis_ok = len(shape) in (2, 4) and (not neuron.by_channel or neuron.axis == _AXIS)
        if not (is_binary(neuron) and axis_ok):
            self.modules[str(node.target)] = neuron.replace()
            self.new[node] = self.graph.call_module(str(node.target), (self._value(source),))
            return
        channels = shape[_AXIS]
        add = torch.zeros(channels, dtype=torch.float64) if neuron.shift is None else neuron.shift.double()
        divide = torch.ones(channels, dtype=torch.float64) if neuron.scale is None else neuron.scale.double()
        factors: tuple[Tensor, Tensor] | None = None
        given: tuple[fx.Node, ...]
        if source.target is _SUM and len(source.users) == 1 and self._joins(source, shape):
            (first, f, b), (second, g, c) = (self._term(term, channels) for term in source.args)
            add, factors, given = add + b + c, (f, g), (first, second)
        elif source in self.sums and len(source.users) == 1:
            product, scale, bias = self.sums[source]  # (p s + b + add) / divide = (p + (b + add) / s) / (divide / s)
            add, divide, given = (add if bias is None else add + bias) / scale, divide / scale, (product,)
        else:
            given = (self._value(source),)
        self.modules[str(node.target)] = CodeNeuron(neuron, add, divide, factors, _AXIS, self.engine)
        made = self.graph.call_module(str(node.target), given)
        self.codes[node] = _Codes(made, unit(neuron, channels), (1 << neuron.code.K) - 1)

    def _kept(self, node: fx.Node) -> bool:
        """Rewrite what leaves codes codes: max pools, flattening, zeros around them; False if it is none of these."""
        source = node.args[0] if node.args else None
        known = node.target in (_MAX_POOL, _RESHAPE, _PAD) and not node.kwargs
        if not known or not isinstance(source, fx.Node) or source not in self.codes:
            return False
        given = self.codes[source]
        units = given.unit
        if node.target is _PAD:
            _, amounts, *how = node.args
            if how not in ([], ["constant"], ["constant", 0], ["constant", None]) or len(amounts) > 4:  # type: ignore[arg-type]
                return False
            made = self.graph.call_function(torch.ops.aten.constant_pad_nd.default, (given.node, amounts, 0))
        elif node.target is _RESHAPE:
            before, after = self.snn.shape_of(source), self.snn.shape_of(node)
            if len(after) != 2 or after[0] != before[0]:
                return False
            units = units.repeat_interleave(after[1] // len(units))
            made = self.graph.node_copy(node, lambda n: given.node if n is source else self._value(n))
        else:
            target = f"pools.{len(self.modules)}"
            self.modules[target] = MaxPool(node.args[1:], self.engine)
            made = self.graph.call_module(target, (given.node,))
        self.codes[node] = _Codes(made, units, given.largest)
        return True

    def _joins(self, node: fx.Node, shape: tuple[int, ...]) -> bool:
        """Whether a sum of two maps can be made inside the neuron: codes or products, alike in shape."""
        terms = [term for term in node.args if isinstance(term, fx.Node)]
        same = all(tuple(self.snn.shape_of(term)[1:]) == tuple(shape[1:]) for term in terms)
        return len(terms) == 2 and not node.kwargs and same and any(t in self.sums or t in self.codes for t in terms)

    def _term(self, node: Any, channels: int) -> tuple[fx.Node, Tensor, Tensor]:
        """The new node of one map of a sum, with its factor and constant by channel."""
        zeros, ones = torch.zeros(channels, dtype=torch.float64), torch.ones(channels, dtype=torch.float64)
        if node in self.sums and len(node.users) == 1:
            given, scale, bias = self.sums[node]
            return given, scale, zeros if bias is None else bias
        if node in self.codes:
            return self.codes[node].node, self.codes[node].unit, zeros
        return self._value(node), ones, zeros

    def _product(self, node: fx.Node) -> bool:
        """Rewrite a convolution or linear map of codes; False if it is not one."""
        given: list[Any] = list(node.args)
        source, weight_node, bias_node, *rest = given + [None] * (3 - len(given))
        if source not in self.codes or weight_node.op != "get_attr":
            return False
        name = str(weight_node.target)
        weight = self.tensors[name].double()
        bias = None if bias_node is None else self.tensors[str(bias_node.target)].double()
        convolution = node.target is _PRODUCTS[0]
        settings = _settings(rest) if convolution else ()
        if settings is None:
            self.engines[name] = "float: its padding is given by name"
            return False
        codes, units, largest = self.codes[source]
        groups = settings[3] if settings else 1
        units = units.view(groups, weight.shape[1])
        units = units.repeat_interleave(len(weight) // groups, 0)
        whole, scale = _quantised(weight * units.view(*units.shape, *[1] * (weight.ndim - 2)))
        product = Product(whole, largest, settings, self.engine)
        if not product.fits(largest):
            self.engines[name] = "float: its sums may reach 2^24"
            return False
        target = f"products.{len(self.products)}"
        self.modules[target] = self.products[target] = product
        self.engines[name] = product.engine
        self.sums[node] = (self.graph.call_module(target, (codes,)), scale, bias)
        return True

    def _value(self, node: Any) -> Any:
        """The new node that gives an old node's values; made where only codes or products are there yet."""
        if node not in self.new:
            if node in self.sums:
                given, scale, bias = self.sums[node]
            else:
                given, scale, bias = self.codes[node].node, self.codes[node].unit, None
            target = f"values.{len(self.modules)}"
            self.modules[target] = Values(scale, bias, _AXIS)
            self.new[node] = self.graph.call_module(target, (given,))
        return self.new[node]


def _settings(given: list[Any]) -> tuple[Any, ...] | None:
    """Stride, padding and dilation as two numbers each, and groups; None if the padding is a word."""
    defaults: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)
    stride, padding, dilation, groups = (*given, *defaults[len(given) :])
    if isinstance(padding, str):
        return None
    return (*(list(spread(value, 2)) for value in (stride, padding, dilation)), groups)


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit weights and the scale of each output channel, so that their product is nearest to the weight."""
    largest = weight.abs().flatten(1).amax(1)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest)) / _LARGEST
    return (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8), scale
