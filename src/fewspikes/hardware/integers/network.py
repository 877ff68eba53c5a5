"""From a spiking network of ReLU codes to one whose layers are products of whole numbers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.builder import Builder
from fewspikes.graph.functions import function, in_order
from fewspikes.graph.graph import CONSTANT, SITE, Node, Ref
from fewspikes.graph.inputs import bound, check_autocast, check_finite, check_inputs
from fewspikes.graph.interpreter import Running
from fewspikes.hardware.integers.codes import CodeNeuron, Values, is_binary, unit
from fewspikes.hardware.integers.products import MaxPool, Product
from fewspikes.network.report import ConversionReport
from fewspikes.network.spiking import Countable, SpikingNetwork
from fewspikes.neuron.tracing import check_tracing
from fewspikes.operators.rule import Digital, Linear

_AXIS = 1  # of the channels
_LARGEST = 127  # of an 8-bit weight
_SETTINGS = ("stride", "padding", "dilation", "groups")  # of a convolution


class IntegerNetwork(Countable):
    """A network in which spikes are whole numbers and so are the weights that they meet.

    Attributes:
        running_graph: the graph with its layers.
        report: of the spiking network that it came from.
        engines: by the name of the weights, what computes each product: "onednn", "reference", or "float" and why.
    """

    def __init__(
        self, snn: SpikingNetwork, running: Running, neurons: Mapping[str, nn.Module], engines: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.running_graph, self.inputs, self.sites = running, snn.inputs, snn.sites
        self._places = {name: list(running.layers).index(layer) for name, layer in neurons.items()}
        self._report = snn.report
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
    def report(self) -> ConversionReport:
        """Of the spiking network that it came from."""
        return self._report

    @property
    def neurons(self) -> dict[str, Any]:
        """The layers of neurons by site name."""
        return {name: self.running_graph.layers[at] for name, at in self._places.items()}

    def forward(self, *args: Any, **kwargs: Tensor) -> Any:
        """The output for a batch of float32 inputs, given like the spiking network's.

        Raises:
            FewSpikesError: another shape or dtype than the network was made for, NaN or inf, autocast, or a tracer.
        """
        check_tracing(args)
        check_autocast()
        values = bound(self.inputs, args, kwargs)
        check_inputs(self.inputs, values, torch.float32, "this network")
        check_finite(values, "an input of this network of whole numbers")
        return self.running_graph(*values)


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
    snn.check_clean("to_integer")
    if not isinstance(engine, str) or engine not in ("auto", "reference"):
        raise FewSpikesError(f"unknown engine {said(engine)}; there are auto and reference")
    if snn.dtype != torch.float32 or snn.device.type != "cpu":
        raise FewSpikesError(f"to_integer takes float32 on the CPU; got {snn.dtype} on {snn.device}")
    if snn.graph.loops:
        raise FewSpikesError("to_integer takes no loops over time (LSTM, GRU, RNN); use the spiking network itself")
    with torch.inference_mode(False), torch.no_grad():
        work = _Work(snn, engine)
        running = work.running()
    if not work.engines or all(engine.startswith("float") for engine in work.engines.values()):
        raise FewSpikesError(
            "no convolution or linear map of this network follows ReLU codes of at most 8 steps without an "
            "average pool or a product between; use the spiking network itself"
        )
    return IntegerNetwork(snn, running, work.neurons, work.engines)


class _Codes(NamedTuple):
    """What gives an old node's values as codes, what a code of 1 is by channel, and the largest code."""

    ref: Ref
    unit: Tensor
    largest: int


class _Sum(NamedTuple):
    """What gives an old node's products of whole numbers, their scale and their bias by channel."""

    ref: Ref
    scale: Tensor
    bias: Tensor | None


class _Work:
    """The graph rewritten node by node, by what the rows say of each operator."""

    def __init__(self, snn: SpikingNetwork, engine: str) -> None:
        self.snn, self.engine, self.graph, self.tensors = snn, engine, snn.graph, snn.tensors
        self.segments = snn.structure.segments
        self.sites = {site.node: site for site in snn.sites}
        self.made = Builder(self.graph, dict(self.tensors))
        self.new: dict[str, Ref] = {}  # values, as in the old graph
        self.codes: dict[str, _Codes] = {}
        self.sums: dict[str, _Sum] = {}
        self.layers: dict[str, nn.Module] = {}
        self.neurons: dict[str, nn.Module] = {}  # by site
        self.engines: dict[str, str] = {}

    def running(self) -> Running:
        """The new graph with its layers."""
        for node in self.graph:
            self.made.path = node.path
            if node.operator == SITE:
                self._site(node)
            elif not self._product(node) and not self._kept(node):
                for name in node.reads:
                    self.made.stands_for(self.graph[name], self._value(name))
                self.new[node.name] = self.made.copy(node)
        graph, tensors = self.made.graph(), self.made.tensors
        used = {node.name for node in graph}
        return Running(graph, tensors, {name: layer for name, layer in self.layers.items() if name in used}).eval()

    def _layer(self, layer: nn.Module, *given: Ref) -> Ref:
        """A new node for a layer."""
        ref = self.made.append(SITE, dict(zip(("input", "other"), given, strict=False)))
        self.layers[ref.name] = layer
        return ref

    def _site(self, node: Node) -> None:
        site = self.sites[node.name]
        neuron, source = self.snn.neurons[site.name], self.graph[node.arguments["input"].name]
        shape = self.snn.shape_at(site.name)
        axis_ok = len(shape) in (2, 4) and (not neuron.by_channel or neuron.axis == _AXIS)
        if not (is_binary(neuron) and axis_ok):
            self.neurons[site.name] = neuron.replace()
            self.new[node.name] = self._layer(self.neurons[site.name], self._value(source.name))
            return
        channels, alone = shape[_AXIS], len(self.graph.users(source.name)) == 1
        add = torch.zeros(channels, dtype=torch.float64) if neuron.shift is None else neuron.shift.double()
        divide = torch.ones(channels, dtype=torch.float64) if neuron.scale is None else neuron.scale.double()
        factors: tuple[Tensor, Tensor] | None = None
        given: tuple[Ref, ...]
        if alone and self._joins(source):
            (first, f, b), (second, g, c) = (self._term(ref.name, channels) for ref in _terms(source))
            add, factors, given = add + b + c, (f, g), (first, second)
        elif alone and source.name in self.sums:
            product, scale, bias = self.sums[source.name]
            # (p s + b + add) / divide = (p + (b + add) / s) / (divide / s)
            add, divide, given = (add if bias is None else add + bias) / scale, divide / scale, (product,)
        else:
            given = (self._value(source.name),)
        self.neurons[site.name] = CodeNeuron(neuron, add, divide, factors, _AXIS, self.engine)
        made = self._layer(self.neurons[site.name], *given)
        self.codes[node.name] = _Codes(made, unit(neuron, channels), (1 << neuron.code.K) - 1)

    def _kept(self, node: Node) -> bool:
        """Rewrite what leaves codes codes: maxima, and what moves elements; False if it is none of these."""
        fate = self.segments.fates.get(node.name)
        source = next((name for name in node.reads if name in self.codes), None)
        rule = None if fate is None or source is None else fate.rule
        if source is None or rule is None:
            return False
        given = self.codes[source]
        units = given.unit
        if isinstance(rule, Digital) and rule.kind == "max" and len(node.shape or ()) == 4:  # units are positive
            names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
            made = self._layer(MaxPool([node.arguments[name] for name in names], self.engine), given.ref)
        elif isinstance(rule, Linear) and rule.moves and not rule.terms and not rule.several:
            moved = self._moved(node, rule, source, given.unit)
            if moved is None:
                return False
            units = moved
            self.made.stands_for(self.graph[source], given.ref)
            for name in node.reads[1:]:
                self.made.stands_for(self.graph[name], self._value(name))
            made = self.made.append(node.operator, self.made.now(node.arguments))
        else:
            return False
        self.codes[node.name] = _Codes(made, units, given.largest)
        return True

    def _moved(self, node: Node, rule: Linear, source: str, units: Tensor) -> Tensor | None:
        """Units by channel after an operator that moves elements: those of what comes there, if they agree."""
        before = self.graph.sizes(source, 2)
        if {len(node.shape or ()), len(before)} - {2, 4} or any(node.arguments[name] for name in rule.zero):
            return None
        call = self.segments.call(node)
        first, *rest = node.arguments
        spread = units.view(1, -1, *[1] * (len(before) - 2)).expand(before).contiguous()
        args, kwargs = in_order(node.operator, {first: spread} | {name: call[name] for name in rest})
        there = function(node.operator)(*args, **kwargs).movedim(_AXIS, 0).flatten(1)
        largest = there.amax(1)
        agrees = bool(((there == largest[:, None]) | (there == 0)).all())
        return largest if agrees and self.graph.sizes(node.name, 2)[0] == before[0] else None

    def _joins(self, node: Node) -> bool:
        """Whether a sum of two maps can be made inside the neuron: codes or products, alike in shape."""
        terms = _terms(node)
        if not _is_plain_sum(node) or any(self.graph[ref.name].shape != node.shape for ref in terms):
            return False
        return any(ref.name in self.sums or ref.name in self.codes for ref in terms)

    def _term(self, name: str, channels: int) -> tuple[Ref, Tensor, Tensor]:
        """What gives one map of a sum, with its factor and constant by channel."""
        zeros, ones = torch.zeros(channels, dtype=torch.float64), torch.ones(channels, dtype=torch.float64)
        if name in self.sums and len(self.graph.users(name)) == 1:
            given, scale, bias = self.sums[name]
            return given, scale, zeros if bias is None else bias
        if name in self.codes:
            return self.codes[name].ref, self.codes[name].unit, zeros
        return self._value(name), ones, zeros

    def _product(self, node: Node) -> bool:
        """Rewrite a weighted sum of codes; False if it is not one."""
        weighs = self.segments.weighs(node)
        source = next(iter(node.reads), "")
        weight_node = None if weighs is None else self.graph[node.arguments[weighs].name]
        rule = self.segments.fates[node.name].rule if weighs else None
        known = isinstance(rule, Linear) and rule.outputs is not None and rule.outputs[0] == 0 and not rule.terms
        if weight_node is None or source not in self.codes or not known or weight_node.operator != CONSTANT:
            return False
        name = str(weight_node.arguments["tensor"])
        weight = self.tensors[name].double()
        settings = tuple(node.arguments[key] for key in _SETTINGS if key in node.arguments)
        if weight.ndim != (4 if settings else 2) or len(settings) not in (0, len(_SETTINGS)):
            self.engines[name] = "float: there is no product of whole numbers of this form"
            return False
        if any(isinstance(value, str) for value in settings):
            self.engines[name] = "float: its padding is given by name"
            return False
        codes, units, largest = self.codes[source]
        groups = settings[3] if settings else 1
        units = units.view(groups, weight.shape[1]).repeat_interleave(len(weight) // groups, 0)
        whole, scale = _quantised(weight * units.view(*units.shape, *[1] * (weight.ndim - 2)))
        product = Product(whole, largest, settings, self.engine)
        if not product.fits(largest):
            self.engines[name] = "float: its sums may reach 2^24"
            return False
        self.engines[name] = product.engine
        ref = node.arguments.get("bias")
        bias = None if ref is None else self.tensors[self.graph[ref.name].arguments["tensor"]].double()
        self.sums[node.name] = _Sum(self._layer(product, codes), scale, bias)
        return True

    def _value(self, name: str) -> Ref:
        """What gives an old node's values; made where only codes or products are there yet."""
        if name not in self.new:
            if name in self.sums:
                given, scale, bias = self.sums[name]
            else:
                given, scale, bias = self.codes[name].ref, self.codes[name].unit, None
            self.new[name] = self._layer(Values(scale, bias, _AXIS), given)
        return self.new[name]


def _terms(node: Node) -> list[Ref]:
    return [value for value in node.arguments.values() if isinstance(value, Ref)]


def _is_plain_sum(node: Node) -> bool:
    """Whether an operator of two terms adds them as they are."""
    if len(_terms(node)) != 2 or "alpha" not in node.arguments:
        return False
    one, zero = torch.ones(1), torch.zeros(1)
    found = [function(node.operator)(a, b, alpha=node.arguments["alpha"]) for a, b in ((one, zero), (zero, one))]
    return bool(found[0] == 1) and bool(found[1] == 1)


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8-bit weights and the scale of each output channel, so that their product is nearest to the weight."""
    largest = weight.abs().flatten(1).amax(1)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest)) / _LARGEST
    return (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8), scale
