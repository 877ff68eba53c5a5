"""A model on its way: captured and calibrated once, built with any K."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fewspikes.base.collecting import uncollected
from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.progress import track
from fewspikes.conversion import repairs
from fewspikes.conversion.lengths import with_free_lengths
from fewspikes.conversion.pricing import priced
from fewspikes.conversion.repairs import stretched
from fewspikes.conversion.settings import Codes, Settings, circuits_of
from fewspikes.conversion.tables import Tables
from fewspikes.graph.capture import captured_model
from fewspikes.measure.calibration import Calibration, calibrate
from fewspikes.measure.constants import measured_constants
from fewspikes.measure.deal import Deal, Images, batch_size
from fewspikes.measure.diagnosis import diagnose
from fewspikes.measure.gradients import no_gradient, without_gradient
from fewspikes.measure.levels import BITS
from fewspikes.measure.measurement import classes_of
from fewspikes.measure.source import Source
from fewspikes.measure.weighing import ranged, weighed
from fewspikes.network.spiking import Countable, SpikingNetwork
from fewspikes.network.structure import Structure
from fewspikes.neuron.known_codes import levels_parameters, relu_parameters
from fewspikes.neuron.layer import FSNeuron
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.call import fixed_of
from fewspikes.operators.given import rules_with
from fewspikes.operators.rewriting import prepared
from fewspikes.operators.rule import Rule, Rules
from fewspikes.operators.rules import RULES

_QUICK_REPAIR = 64  # images, while a budget is looked for
_SENSITIVITY_IMAGES = 64


class Conversion:
    """A model with its images, each of them dealt its role in one pass: fitted on, proposing and deciding, held out.

    Args:
        model, example: as for `convert`.
        images: as for `convert`, perhaps a `Calibration`, or None.
        settings: of the conversion.
        labels: whether the labels of images held out are wanted, if the network tells classes apart.
        progress: bars on stderr; None shows them when stderr is a terminal.
        rules: the rows.

    Attributes:
        images: those that may be fitted on and are in memory; none without images.
        held: those that nothing else may see.
        left_out: images that there was no memory for.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        images: Any,
        settings: Settings,
        labels: bool = False,
        progress: bool | None = None,
        rules: Rules = RULES,
    ) -> None:
        self.settings, self.progress = settings, progress
        if isinstance(model, Countable):
            raise FewSpikesError("this is a spiking network already; give the model that it was converted from")
        with uncollected():
            captured = captured_model(model, example)
            self.prepared = prepared(captured, settings.circuits, rules)
        graph, fixed = self.prepared.graph, fixed_of(self.prepared.tensors)
        inputs = with_free_lengths(model, example, captured, self.prepared)
        self.structure = Structure(graph, inputs, self.prepared.sites, fixed, captured.keywords, rules)
        self.sites = self.prepared.sites
        given = images if isinstance(images, Calibration) else None
        self.calibration = given.without_ranges() if given and settings.codes.repair is False else given
        self.images, self.held, self.left_out = Images(()), Images(()), 0
        self.notes, self._fixed = self.prepared.notes, dict[str, FSNeuron]()
        if images is not None and self.calibration is None:
            self._deal(images, labels)
        elif self.calibration is not None:
            self._settle(self.calibration.constants)
        self._enter()

    def network(self, K: Mapping[str, int] | None = None, quick: bool = False) -> SpikingNetwork:
        """The network with these settings, its spikes priced by what they do for its output, repaired.

        Args:
            K: by site, in place of the settings'.
            quick: with less effort.
        """
        codes = self.settings.codes
        codes = codes if K is None else replace(codes, K=K, effort="quick" if quick else codes.effort)
        tables = self._tables(codes)
        made = self._built(tables.all(None if K is None else False))
        prices = None
        if codes.spike_price:
            few = self.images.take(slice(_SENSITIVITY_IMAGES))

            def fit(name: str, price: float) -> FSParameters:
                return tables.of(name, price=price)

            chosen, prices = priced(made, fit, few, codes.spike_price, self.progress)
            free = {name: self._neuron(name, table) for name, table in chosen.items() if name not in self._fixed}
            made = made.with_neurons(free)
        seen = self.images.take(slice(_QUICK_REPAIR if quick else None)) if len(self.images) else self.images
        if len(seen) < 2 or codes.repair is False or codes.alpha is not None:
            return made
        return repairs.repair(made, seen, codes.spike_price, prices, progress=self.progress)[0]

    def parameters(self, name: str, K: int) -> FSParameters:
        """Of a site for a K, quickly and without a price."""
        return self._quick.of(name, K)

    @property
    def sensitive(self) -> Images:
        """What the output's sensitivity is measured on."""
        return self.images.take(slice(_SENSITIVITY_IMAGES))

    def base(self) -> SpikingNetwork:
        """A network of these sites whose codes nobody uses, on the model's own weights as far as they lie in order."""
        tables = {site.name: relu_parameters(1, 1.0) for site in self.sites}
        return self._on({name: tensor.contiguous() for name, tensor in self.prepared.tensors.items()}, tables)

    def diagnosed(self, snn: SpikingNetwork) -> SpikingNetwork:
        """The network with a diagnosis of each site in its report, if there are images, and with its settings."""
        missing = without_gradient(snn) if len(self.images) else ()
        if missing:
            snn = snn.with_neurons({}, [f"not diagnosed, which needs gradients: {no_gradient(missing)}"])
        elif len(self.images):
            snn = snn.with_diagnosis(diagnose(snn, self.images, self.progress))
        snn.settings = self.settings.to_json()
        return snn

    def _deal(self, given: Any, labels: bool) -> None:
        base, budget, learns = self.base(), self.settings.budget, self.settings.distil is not None
        classes = classes_of(base) if labels else None
        source = Source(given, base.inputs, base.dtype, "calibration data", base.device, classes)
        constants: dict[str, Tensor] = {}
        if self.prepared.measured:
            constants = measured_constants(base, self.prepared.measured, source)
            self._settle(constants)
            base = self.base()
        every = 0 if budget is None else budget.held_out_every
        size = batch_size(base.structure.neuron_count)
        batches = track(source, "calibrating", source.total, self.progress)
        deal = Deal(batches, size, None if learns else repairs.IMAGES, every, outliers=True)
        entries = {name: entry.axis for name, entry in self.prepared.entries.items()}
        axes = {} if self.settings.codes.repair is False else ranged(base)
        counted = calibrate(base, deal, entries, axes)
        counted = replace(counted, constants=constants)
        self.calibration = weighed(base, counted, deal.kept, axes, self.progress)
        if deal.outliers:
            warn(f"calibration: {deal.outliers}")
            self.notes += (f"calibration: {deal.outliers}",)
        self.images, self.held, self.left_out = deal.kept, deal.held, deal.left_out
        quick = replace(self.settings.codes, effort="quick", K=None)
        self._quick = self._tables(quick)

    def _settle(self, values: Mapping[str, Tensor]) -> None:
        """Put the constants that images tell into the network."""
        names = [name for one in self.prepared.measured for name in one.constants]
        if set(names) != set(values):
            raise FewSpikesError("the calibration is for another network: its constants are others; calibrate again")
        for name in names:
            self.prepared.tensors[name].copy_(values[name])

    def _tables(self, codes: Codes) -> Tables:
        leaders = {name: follower.leader for name, follower in self.structure.followers.items()}
        fixed = {name: neuron.code for name, neuron in self._fixed.items()}
        return Tables(self.sites, codes, self.calibration, self.settings.seed, leaders, fixed)

    def _enter(self) -> None:
        """Inputs of 8 bits get the code of their levels, which no setting changes; others are fitted."""
        given = self.settings.codes.K
        levels = {} if self.calibration is None else self.calibration.levels
        for name, entry in self.prepared.entries.items():
            spacing = levels[name].spacing if name in levels else None
            if spacing is None or (isinstance(given, Mapping) and name in given):
                self.notes += (
                    f"input {entry.input}: its values are not those of 8 bits, so its spikes are fitted to them",
                )
                continue
            for tensor in (self.prepared.tensors[constant] for constant in entry.lowest):
                tensor.copy_(torch.from_numpy(spacing.lowest).view_as(tensor))
            self._fixed[name] = FSNeuron(
                levels_parameters(), scale=torch.from_numpy(spacing.step).to(tensor), axis=entry.axis
            )
            self.notes += (f"input {entry.input}: 8-bit values, exact in {BITS} steps",)

    def _built(self, tables: Mapping[str, FSParameters]) -> SpikingNetwork:
        tensors = {n: t.clone(memory_format=torch.contiguous_format) for n, t in self.prepared.tensors.items()}
        return self._on(tensors, tables)

    def _on(self, tensors: Mapping[str, Tensor], tables: Mapping[str, FSParameters]) -> SpikingNetwork:
        neurons = {name: self._neuron(name, table) for name, table in tables.items()} | self._fixed
        images = 0 if self.calibration is None else self.calibration.images
        return SpikingNetwork(self.structure, tensors, neurons, self.notes, images)

    def _neuron(self, name: str, table: FSParameters) -> FSNeuron:
        """A site's neurons, each channel with the range that it was calibrated to, if there are such."""
        ranges = {} if self.calibration is None else self.calibration.ranges
        axis = self.structure.channel_axis(name) if name in ranges else None
        if axis is None:
            return FSNeuron(table)
        return stretched(FSNeuron(table), self.structure.site(name).activation, None, torch.tensor(ranges[name]), axis)


def calibrate_model(
    model: nn.Module,
    example: Any,
    images: Any,
    *,
    circuits: str | Mapping[str, str] | None = None,
    rules: Sequence[Rule] = (),
    progress: bool | None = None,
) -> Calibration:
    """Collect what each site of `model` sees over `images`, to convert with several K from one pass.

    Args and Raises: as for `convert`.
    """
    known = rules_with(rules)
    settings = Settings(circuits=circuits_of(circuits, known))
    with torch.inference_mode(False), torch.no_grad():
        work = Conversion(model, example, images, settings, progress=progress, rules=known)
    assert work.calibration is not None
    return work.calibration
