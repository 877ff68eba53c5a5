"""The converted network: a graph of operators with layers of FS-neurons between them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.moments import at_moment
from fewspikes.graph.graph import Graph
from fewspikes.graph.inputs import InputSpec, bound, check_autocast, check_inputs
from fewspikes.graph.interpreter import Running
from fewspikes.network.grids import followed
from fewspikes.network.macs import Macs, with_gating
from fewspikes.network.report import FAULTY, ConversionReport, report_of
from fewspikes.network.sites import SiteDiagnosis
from fewspikes.network.structure import Structure
from fewspikes.network.synapses import FanOut
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.chance import noisy_weight
from fewspikes.neuron.faults import Faults
from fewspikes.neuron.faulty import FaultyNeuron
from fewspikes.neuron.kernels import engine_for
from fewspikes.neuron.known_codes import EXACT
from fewspikes.neuron.layer import FSNeuron, overwriting
from fewspikes.neuron.recurrence import check_fits
from fewspikes.neuron.tracing import check_tracing, refuse_script
from fewspikes.operators.rewriting import Site


def _following(structure: Structure, neurons: Mapping[str, FSNeuron]) -> dict[str, FSNeuron]:
    """The layers that take another one's grid, whatever was given for them."""
    made = {name: followed(one, neurons[one.leader]) for name, one in structure.followers.items()}
    return {name: neuron for name, neuron in made.items() if neuron is not None}


def _noisy(tensors: Mapping[str, Tensor], weights: frozenset[str], faults: Faults) -> dict[str, Tensor]:
    """Weights with noise that is drawn once, if there is such."""
    if not faults.weight_noise or faults.weighs_anew:
        return dict(tensors)
    drawn = {n: noisy_weight(tensors[n], faults.weight_noise, faults.seed, "weight", n) for n in sorted(weights)}
    return {**tensors, **drawn}


class ExactActivation(nn.Module):
    """The activation that a site imitates, for running the ANN on the same graph."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """f(x), elementwise."""
        return self.activation(x)


class Countable(nn.Module, ABC):
    """A network with layers of neurons that tell their spikes."""

    @property
    @abstractmethod
    def neurons(self) -> Mapping[str, Any]:
        """The layers by site name."""

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script calls first."""
        refuse_script()

    @property
    @abstractmethod
    def report(self) -> ConversionReport:
        """What the conversion did."""


class SpikingNetwork(Countable):
    """A network of FS-neurons. Call it like the model it came from; it takes the same inputs.

    Several inputs go by position in the order of the model's forward, by name, or as one dict by name.

    Its weights ask for no gradient, so inference keeps no record for backpropagation.

    Args:
        structure: graph, inputs and sites.
        tensors: the graph's constants by name.
        neurons: a layer for each site, by its name; those that take another one's grid get it.
        notes: of the conversion, for the report.
        calibration_images: how many images the codes were fitted on.
        settings: how it was made, as plain JSON data.
        faults: what goes wrong in it; see `perturb`.

    Attributes:
        structure: what follows from the graph without running it: segments, fan-out, multiply-adds, latency.
        preprocessing: how images become inputs, as plain JSON data, or None.
        diagnosis: what goes wrong at each site, by name, if it was measured.
        exact: the sites that add no error: they take another one's grid, or that of 8-bit images.

    Raises:
        FewSpikesError: a shift, scale or gain that does not fit its site, or a code beyond the network's dtype.
    """

    def __init__(
        self,
        structure: Structure,
        tensors: Mapping[str, Tensor],
        neurons: Mapping[str, FSNeuron],
        notes: Sequence[str] = (),
        calibration_images: int = 0,
        settings: Mapping[str, Any] | None = None,
        faults: Faults | None = None,
    ) -> None:
        super().__init__()
        self.structure = structure
        following = _following(structure, neurons)
        layers = {**neurons, **following}
        self.exact = frozenset(following) | {name for name, one in layers.items() if one.code.provenance.get(EXACT)}
        self.faults, self._clean = faults, None if faults is None else dict(tensors)
        if faults is not None:
            layers = {
                name: FaultyNeuron(one, faults, name, structure.image_axes.get(name)) for name, one in layers.items()
            }
            tensors = _noisy(tensors, structure.weights, faults)
        self.running_graph = Running(structure.graph, tensors, {s.node: layers[s.name] for s in structure.sites})
        self.notes, self.calibration_images = tuple(notes), calibration_images
        self.settings: dict[str, Any] = dict(settings or {})
        self.preprocessing: dict[str, Any] | None = None
        self.diagnosis: dict[str, SiteDiagnosis] = {}
        self._report: ConversionReport | None = None
        self._structures: dict[tuple[tuple[int, ...], ...], Structure] = {}
        self._overwritable = tuple(
            i for i, site in enumerate(structure.sites) if site.node in structure.segments.overwritable
        )
        self._check_channels()
        self._check_codes(self.dtype)
        self.eval()

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        """The network's output for a batch, in the structure of the original model's.

        Named tuples and dataclasses come as what the model returned; loaded or unpickled, where its code may not be, as
        named tuples and records with the same fields. Other dicts come as plain ones.

        Raises:
            FewSpikesError: an input of another shape or dtype than the network was converted for, autocast, or
                a tracer that cannot see neurons.
        """
        check_tracing(args)
        check_autocast()
        values = bound(self.inputs, args, kwargs)
        check_inputs(self.inputs, values, self.dtype, "this network")
        wrong = next((value.device for value in values if value.device != self.device), None)
        if wrong is not None:
            raise FewSpikesError(f"this network is on {self.device}, an input on {wrong}; move one with .to(device)")
        if torch.compiler.is_compiling():
            return self.running_graph(*values)
        if self.faults is not None:
            with at_moment(images=self.structure_for(values).image_axes):
                return self.running_graph(*values)
        layers = self.running_graph.layers
        with overwriting(frozenset(layers[i] for i in self._overwritable)):  # type: ignore[misc]
            return self.running_graph(*values)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `.to()`, `.half()` and the like run on every tensor."""
        dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        if dtype not in (torch.float32, torch.float64):
            raise FewSpikesError(f"FS-neurons compute in float32 or float64; {dtype} cannot hold the code")
        self._check_codes(dtype)
        changed: Self = super()._apply(fn, recurse)
        changed._report = None  # it says what runs the neurons
        return changed

    @property
    def graph(self) -> Graph:
        """The operators between the sites."""
        return self.structure.graph

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What it takes, per image."""
        return self.structure.inputs

    @property
    def sites(self) -> tuple[Site, ...]:
        """The layers of neurons, in the order of the graph."""
        return self.structure.sites

    def structure_for(self, values: Sequence[Tensor]) -> Structure:
        """The structure for inputs that may have other lengths than the example's."""
        shapes = tuple(tuple(value.shape[1:]) for value in values)
        if shapes == tuple(spec.shape for spec in self.inputs):
            return self.structure
        if shapes not in self._structures:
            self._structures.clear()  # few are asked for in turn
            self._structures[shapes] = self.structure.resized(shapes, self.tensors)
        return self._structures[shapes]

    def by_name(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Inputs in the network's order, by their names."""
        return dict(zip((spec.name for spec in self.inputs), batch, strict=True))

    @property
    def keywords(self) -> bool:
        """Whether the original model is called with its inputs by name."""
        return self.structure.keywords

    @property
    def report(self) -> ConversionReport:
        """What the conversion did."""
        if self._report is None:
            self._report = report_of(
                self.structure,
                self.neurons,
                self.notes
                if self.faults is None
                else (*self.notes, f"{FAULTY} {self.faults}; neurons run step by step"),
                self.calibration_images,
                self.engine,
                self.diagnosis,
                self.exact,
            )
        return self._report

    @property
    def dtype(self) -> torch.dtype:
        """The floating dtype that it computes in."""
        floats = (t.dtype for t in self.running_graph.constants.parameters() if t.is_floating_point())
        return next(floats, next((s.dtype for s in self.inputs if s.dtype.is_floating_point), torch.float32))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        tensors = sorted(self.running_graph.constants.parameters(), key=lambda t: not t.ndim)  # numbers go anywhere
        return next((t.device for t in tensors), torch.device("cpu"))

    @property
    def engine(self) -> str:
        """What runs its neurons where it is now: "compiled", "triton", or "reference", the plain loop."""
        if self.faults is not None:
            return "reference"
        return engine_for(torch.empty(0, dtype=self.dtype, device=self.device))

    @property
    def neurons(self) -> dict[str, FSNeuron]:
        """The layers of neurons by site name."""
        return dict(zip((site.name for site in self.sites), self.running_graph.layers, strict=True))  # type: ignore[arg-type]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights and constants, by their names in the graph; what belongs to a site is in `neurons`."""
        return self.running_graph.tensors

    @property
    def fan_out(self) -> dict[str, FanOut]:
        """By site name: how many synapses a spike reaches from each position."""
        return self.structure.fan_out

    @property
    def macs(self) -> Macs:
        """Multiply-adds of the ANN, and those left in the spiking network."""
        found = self.structure.macs
        return with_gating(found, {site.node: self.neurons[site.name] for site in self.sites})

    def as_ann(self) -> Running:
        """The same graph with its original activations and without faults; it shares the weights."""
        exact = {site.node: ExactActivation(site.activation) for site in self.sites}
        return Running(self.graph, self._clean_tensors(), exact).eval()

    def running(self, layers: Mapping[str, nn.Module]) -> Running:
        """The same graph with these layers at the sites named, elsewhere the exact activations; it shares weights."""
        chosen = {site.node: layers.get(site.name) or ExactActivation(site.activation) for site in self.sites}
        return Running(self.graph, self.tensors, chosen).eval()

    def with_neurons(self, neurons: Mapping[str, FSNeuron], notes: Sequence[str] = ()) -> "SpikingNetwork":
        """A new network with other neurons at the sites named, and more notes; it shares the weights."""
        chosen = {name: m.replace() for name, m in self.neurons.items() if name not in neurons} | dict(neurons)
        told = (*self.notes, *notes)
        return self._made(chosen, told, self.faults)

    def with_faults(self, faults: Faults | None) -> "SpikingNetwork":
        """A new network in which this goes wrong, or nothing; it shares the weights that have no noise."""
        made = self._made({name: m.replace() for name, m in self.neurons.items()}, self.notes, faults)
        made.diagnosis = dict(self.diagnosis)
        return made

    def check_clean(self, what: str) -> None:
        """Raise FewSpikesError if it has faults."""
        if self.faults is not None:
            raise FewSpikesError(
                f"{what} takes a network without faults; keep the clean one, and its faults beside it "
                "(snn.faults.to_json())"
            )

    def _made(self, neurons: Mapping[str, FSNeuron], notes: Sequence[str], faults: Faults | None) -> "SpikingNetwork":
        tensors, images = self._clean_tensors(), self.calibration_images
        made = SpikingNetwork(self.structure, tensors, neurons, notes, images, self.settings, faults)
        made.preprocessing = self.preprocessing
        return made

    def _clean_tensors(self) -> dict[str, Tensor]:
        """The weights and constants without noise, where and of the dtype that they are now."""
        now = self.tensors
        return now if self._clean is None else {name: clean.to(now[name]) for name, clean in self._clean.items()}

    def with_diagnosis(self, found: Mapping[str, SiteDiagnosis]) -> "SpikingNetwork":
        """The same network with a diagnosis of each site in its report."""
        made = self.with_neurons({})
        made.diagnosis = dict(found)
        return made

    def channel_axis(self, site: str) -> int | None:
        """The axis of the channels of a site's gate inputs; None where the maps before it do not tell."""
        return self.structure.channel_axis(site)

    def scale_is_free(self, site: str) -> str:
        """Why a scale per channel would cost something at a site, or "" where it folds into the weights around it."""
        return self.structure.scale_is_free(site)

    def gain_is_free(self, site: str) -> str:
        """Why a gain per channel would cost something at a site, or "" where it folds into the weights after it."""
        return self.structure.gain_is_free(site)

    def shape_at(self, site: str) -> tuple[int, ...]:
        """Shape of a site's gate inputs for two images."""
        return self.structure.shape_at(site)

    def output_shape(self) -> tuple[int, ...] | None:
        """Shape per image of the output, or None if the network returns several tensors."""
        return self.structure.output_shape()

    def _check_codes(self, dtype: torch.dtype) -> None:
        for name, neuron in self.neurons.items():
            try:
                check_fits(neuron.code, dtype)
            except FewSpikesError as error:
                raise FewSpikesError(f"site {name}: {error}") from None

    def _check_channels(self) -> None:
        """Shifts, scales and gains must have one number per channel of their site."""
        for name, neuron in self.neurons.items():
            size = self.structure.shape_at(name)
            for kind, values in neuron.by_channel.items():
                if neuron.axis >= len(size) or len(values) != size[neuron.axis]:
                    raise FewSpikesError(
                        f"site {name}: a {kind} of {len(values)} channels for inputs {tuple(size[1:])} per image"
                    )
