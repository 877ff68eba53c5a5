"""The converted network: a graph of ATen operators with layers of FS-neurons between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.capture import op_name
from fewspikes.graph.inputs import InputSpec, check_autocast, check_inputs
from fewspikes.graph.shapes import shapes
from fewspikes.network.channels import channel_axis, gain_is_free, range_is_free
from fewspikes.network.fan import FanOut
from fewspikes.network.macs import Macs, macs
from fewspikes.network.paths import fan_out
from fewspikes.network.report import ConversionReport, OperatorReport
from fewspikes.network.sites import SiteDiagnosis, SiteReport
from fewspikes.network.steps import interval_steps, latency_steps
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.kernels import engine_for
from fewspikes.neuron.layer import FSNeuron, overwriting
from fewspikes.operators.rewriting import Site

_BATCH = 97  # for shapes: unlikely to be the size of any other axis, so that it can be told from them


class ExactActivation(nn.Module):
    """The activation that a site imitates, for running the ANN on the same graph."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """f(x), elementwise."""
        return self.activation(x)


def build(graph: fx.Graph, tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> fx.GraphModule:
    """A module that runs `graph`, with weights that ask for no gradient."""
    root: dict[str, Any] = dict(modules)
    for name, tensor in tensors.items():
        root[name] = nn.Parameter(tensor, requires_grad=False) if tensor.is_floating_point() else tensor
    return fx.GraphModule(root, graph, class_name="SpikingGraph")


_FRESH = frozenset(  # what these return is in memory of its own
    f"aten.{name}"
    for name in ("convolution", "conv1d", "conv2d", "conv3d", "linear", "addmm", "mm", "bmm", "add", "sub")
)


def _overwritable(graph: fx.Graph) -> tuple[str, ...]:
    """The sites whose gate inputs nothing else reads."""
    found = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" else None
        if isinstance(source, fx.Node) and source.op == "call_function" and len(source.users) == 1:
            found += [str(node.target)] if op_name(source).rpartition(".")[0] in _FRESH else []
    return tuple(found)


class SpikingNetwork(nn.Module):
    """A network of FS-neurons. Call it like the model it came from; it takes the same inputs.

    Its weights ask for no gradient, so inference keeps no record for backpropagation.

    Attributes:
        inputs: what it takes, per image.
        sites: the layers of neurons, in the order of the graph.
        report: what the conversion did.
        keywords: whether the original model is called with its inputs by name.
        preprocessing: how images become inputs, as plain JSON data, or None.
    """

    def __init__(
        self,
        graph: fx.Graph,
        tensors: Mapping[str, Tensor],
        inputs: Sequence[InputSpec],
        sites: Sequence[Site],
        neurons: Mapping[str, FSNeuron],
        notes: Sequence[str] = (),
        calibration_images: int = 0,
        keywords: bool = False,
    ) -> None:
        super().__init__()
        self.body = build(graph, tensors, {site.target: neurons[site.name] for site in sites})
        self.inputs = tuple(inputs)
        self.sites = tuple(sites)
        self.notes = tuple(notes)
        self.calibration_images = calibration_images
        self.preprocessing: dict[str, Any] | None = None
        self.keywords = keywords
        # By name, because a copy of the network has nodes of its own.
        self._sizes, self._sizes_one_more = (
            {node.name: size for node, size in shapes(self.body, self.inputs, batch).items()}
            for batch in (_BATCH, _BATCH + 1)
        )
        self._check_channels()
        free = _overwritable(self.body.graph)
        self._overwritable = tuple(site.name for site in self.sites if site.target in free)
        self.diagnosis: dict[str, SiteDiagnosis] = {}
        self.report = self._make_report()
        self.eval()

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The network's output for a batch, in the structure of the original model's (as plain dicts, tuples, lists).

        Raises:
            FewSpikesError: an input of another shape or dtype than the network was converted for, or autocast.
        """
        check_autocast()
        values = self._bind(args, kwargs)
        check_inputs(self.inputs, values, self.dtype, "this network")
        wrong = next((value.device for value in values if value.device != self.device), None)
        if wrong is not None:
            raise FewSpikesError(f"this network is on {self.device}, an input on {wrong}; move one with .to(device)")
        if torch.compiler.is_compiling():
            return self.body(*values)
        neurons = self.neurons
        with overwriting(frozenset(neurons[name] for name in self._overwritable)):
            return self.body(*values)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to()`, `.half()` and the like run on every tensor."""
        dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        if dtype not in (torch.float32, torch.float64):
            raise FewSpikesError(f"FS-neurons compute in float32 or float64; {dtype} cannot hold the code")
        changed: Self = super()._apply(fn, recurse)
        changed.report = replace(changed.report, engine=changed.engine)
        return changed

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype that it computes in."""
        floats = (t.dtype for t in self.body.parameters() if t.is_floating_point())
        return next(floats, next((s.dtype for s in self.inputs if s.dtype.is_floating_point), torch.float32))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((t.device for t in self.body.parameters()), torch.device("cpu"))

    @property
    def engine(self) -> str:
        """What runs its neurons where it is now: "compiled", "triton", or "reference", the plain loop."""
        return engine_for(torch.empty(0, dtype=self.dtype, device=self.device))

    @property
    def neurons(self) -> dict[str, FSNeuron]:
        """The layers of neurons by site name."""
        return {site.name: self.body.get_submodule(site.target) for site in self.sites}  # type: ignore[misc]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights and constants, by their names in the graph; what belongs to a site is in `neurons`."""
        named = dict(self.body.named_parameters()) | dict(self.body.named_buffers())
        return {name: tensor.detach() for name, tensor in named.items() if not name.startswith("sites.")}

    def as_ann(self) -> nn.Module:
        """The same graph with its original activations; it shares the weights."""
        return self.running({site.name: ExactActivation(site.activation) for site in self.sites})

    def running(self, layers: Mapping[str, nn.Module]) -> nn.Module:
        """The same graph with other layers at its sites, by name; it shares the weights."""
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.body.graph, {}))
        return build(graph, self.tensors, {site.target: layers[site.name] for site in self.sites}).eval()

    def channel_axis(self, site: str) -> int | None:
        """The axis of the channels of a site's gate inputs; None where the maps before it do not tell."""
        node = self._node(site)
        return channel_axis(node.all_input_nodes[0], len(self._sizes[node.name]))

    def scale_is_free(self, site: str) -> str:
        """Why a scale per channel would cost something at a site, or "" where it folds into the weights."""
        activation = next(s.activation for s in self.sites if s.name == site)
        return range_is_free(self._node(site), activation)

    def gain_is_free(self, site: str) -> str:
        """Why a gain per channel would cost something at a site, or "" where it folds into the weights after it."""
        return gain_is_free(self._node(site))

    def _node(self, site: str) -> fx.Node:
        target = next(s.target for s in self.sites if s.name == site)
        found: fx.Node = next(n for n in self.body.graph.nodes if n.op == "call_module" and n.target == target)
        return found

    def with_neurons(self, neurons: Mapping[str, FSNeuron], notes: Sequence[str] = ()) -> "SpikingNetwork":
        """A new network with other neurons at the sites named, and more notes; it shares the weights."""
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.body.graph, {}))
        own = {n: m.replace() for n, m in self.neurons.items() if n not in neurons}
        chosen = own | dict(neurons)
        made = SpikingNetwork(
            graph,
            self.tensors,
            self.inputs,
            self.sites,
            chosen,
            (*self.notes, *notes),
            self.calibration_images,
            self.keywords,
        )
        made.preprocessing = self.preprocessing
        return made

    def with_diagnosis(self, found: Mapping[str, SiteDiagnosis]) -> "SpikingNetwork":
        """The same network with a diagnosis of each site in its report."""
        made = self.with_neurons({})
        made.diagnosis = dict(found)
        made.report = made._make_report()
        return made

    @property
    def _shapes(self) -> dict[fx.Node, torch.Size]:
        return {node: self._sizes[node.name] for node in self.body.graph.nodes if node.name in self._sizes}

    def shape_at(self, site: str) -> tuple[int, ...]:
        """Shape of a site's gate inputs; axis 0 is the batch, of some size."""
        return tuple(self._sizes[self._node(site).name])

    def shape_of(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of what a node of the graph gives; axis 0 is the batch, of some size."""
        return tuple(self._sizes[node.name])

    def output_shape(self) -> tuple[int, ...] | None:
        """Shape per image of the output, or None if the network returns several tensors."""
        output = next(node for node in self.body.graph.nodes if node.op == "output").args[0]
        return tuple(self._shapes[output][1:]) if isinstance(output, fx.Node) else None

    @cached_property
    def fan_out(self) -> dict[str, FanOut]:
        """By site name: how many synapses a spike reaches from each position."""
        by_target = fan_out(self.body.graph, self._shapes)
        return {site.name: by_target[site.target] for site in self.sites}

    @cached_property
    def macs(self) -> Macs:
        """Multiply-adds of the ANN, and those left in the spiking network."""
        return macs(self.body.graph, self._shapes)

    def _bind(self, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> list[Tensor]:
        names = [spec.name for spec in self.inputs]
        unknown = set(kwargs) - set(names[len(args) :])
        missing = [name for name in names[len(args) :] if name not in kwargs]
        if unknown or missing or len(args) > len(names):
            raise FewSpikesError(
                f"this network takes the inputs {', '.join(names)}; got {len(args)} by position"
                + (f" and {', '.join(kwargs)} by name" if kwargs else "")
            )
        return [*args, *(kwargs[name] for name in names[len(args) :])]

    def _neurons_per_image(self, node: fx.Node) -> int:
        # The difference of two batch sizes, because a model may fold the batch into other axes.
        return self._sizes_one_more[node.name].numel() - self._sizes[node.name].numel()

    def _check_channels(self) -> None:
        """Shifts, ranges and gains must have one number per channel of their site."""
        nodes = {node.target: node for node in self.body.graph.nodes if node.op == "call_module"}
        for site in self.sites:
            neuron = self.neurons[site.name]
            size = self._sizes[nodes[site.target].name]
            for kind, values in neuron.by_channel.items():
                if neuron.axis >= len(size) or len(values) != size[neuron.axis]:
                    raise FewSpikesError(
                        f"site {site.name}: a {kind} of {len(values)} channels for inputs {tuple(size[1:])} per image"
                    )

    def _make_report(self) -> ConversionReport:
        nodes = {node.target: node for node in self.body.graph.nodes if node.op == "call_module"}
        entries = []
        neurons = self.neurons
        for site in self.sites:
            table = neurons[site.name].code
            method = str(table.provenance.get("method", "given"))
            size = self._neurons_per_image(nodes[site.target])
            alpha = table.provenance.get("alpha")
            own = neurons[site.name].by_channel
            changed = {kind: int((v != (0 if kind == "shift" else 1)).sum()) for kind, v in own.items()}
            entries.append(
                SiteReport(
                    site.name,
                    site.activation.label,
                    size,
                    table.K,
                    alpha,
                    table.domain,
                    method,
                    shifted=changed.get("shift", 0),
                    scaled=changed.get("scale", 0),
                    gained=changed.get("gain", 0),
                    diagnosis=self.diagnosis.get(site.name),
                )
            )
        by_activation: dict[str, int] = {}
        for entry in entries:
            by_activation[entry.activation] = by_activation.get(entry.activation, 0) + entry.neurons
        k = {site.target: entry.K for site, entry in zip(self.sites, entries, strict=True)}
        return ConversionReport(
            neurons=sum(entry.neurons for entry in entries),
            layers=len(entries),
            neurons_by_activation=by_activation,
            latency_steps=latency_steps(self.body.graph, k),
            interval_steps=interval_steps(self.body.graph, k),
            paper_latency_steps=len(entries) * max(k.values()),
            sites=tuple(entries),
            operators=self._operators(),
            notes=self.notes,
            calibration_images=self.calibration_images,
            engine=self.engine,
        )

    def _operators(self) -> tuple[OperatorReport, ...]:
        names = {site.target: site.activation.label for site in self.sites}
        return tuple(
            OperatorReport(names.get(str(n.target), op_name(n)), n.meta["path"], n.meta["kind"], n.meta["reason"])
            for n in self.body.graph.nodes
            if "kind" in n.meta
        )
