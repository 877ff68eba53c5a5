"""What a conversion did: every operator's class, every site, and the counts that follow from shapes alone."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fewspikes.base.wording import counted
from fewspikes.network.advice import oddities, worst
from fewspikes.network.sites import CircuitReport, LoopReport, SiteDiagnosis, SiteReport
from fewspikes.network.structure import Structure
from fewspikes.neuron.layer import FSNeuron
from fewspikes.operators.rewriting import Site
from fewspikes.operators.rule import Kind

_SHOWN = 3  # of the worst sites, in the report as text
FAULTY = "faults:"  # how the note of a perturbed network begins
_PLAIN_LOOP = (
    "note: on this device neurons run as a plain loop, K passes over each layer; on the CPU, and on NVIDIA GPUs with "
    "Triton, they are one pass"
)


@dataclass(frozen=True)
class OperatorReport:
    """One operator of the graph: its ATen name, module path, class, and the reason if it stays digital."""

    operator: str
    path: str
    kind: Kind
    reason: str = ""


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did. Counts are per image and follow from the graph's shapes, without running it.

    Attributes:
        neurons, layers: FS-neurons and sites in all.
        neurons_by_activation: neurons by the activation's label.
        latency_steps: sum of K over the longest chain of sites.
        interval_steps: between two images in the pipeline: the longest time that a membrane is busy with one image.
        paper_latency_steps: layers x K, the paper's way of counting (layers x largest K where K differs).
        sites: in the order of the graph.
        operators: every operator and its class.
        circuits: the sites that stand for one operator together, by operator and module.
        loops: over time, in the order of the graph.
        notes: what was changed or needs care.
        calibration_images: how many images the ranges were fitted on; 0 without data.
        engine: what runs its neurons where the network is now: "compiled", "triton" or "reference".
    """

    neurons: int
    layers: int
    neurons_by_activation: dict[str, int]
    latency_steps: int
    interval_steps: int
    paper_latency_steps: int
    sites: tuple[SiteReport, ...]
    operators: tuple[OperatorReport, ...]
    circuits: tuple[CircuitReport, ...]
    loops: tuple[LoopReport, ...]
    notes: tuple[str, ...]
    calibration_images: int
    engine: str

    @property
    def left_digital(self) -> tuple[OperatorReport, ...]:
        """The operators that a digital processor must do, with the reason."""
        return tuple(entry for entry in self.operators if entry.kind is Kind.DIGITAL)

    @property
    def k(self) -> int | dict[str, int]:
        """K, or K by site where it differs."""
        steps = {site.name: site.K for site in self.sites}
        return steps if len(set(steps.values())) > 1 else self.sites[0].K

    def worst(self, n: int = 5, item: str = "image") -> list[str]:
        """Where accuracy went: lines on the `n` sites that add most to the output's error, worst first.

        Each says the site's share of the output's error, why it errs (inputs outside its range, a range too wide,
        too few steps), whether it passes on more error than it adds, and what to try; sites of which all this is the
        same share a line. The shares are of what all sites add; a site's accumulated error says less, because it also
        counts what came from before. `item` is what one input is called.
        """
        return worst(self.sites, n, any(note.startswith("repair:") for note in self.notes), item)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON; infinite ends of domains become None."""
        content = asdict(self)
        for site in content["sites"]:
            site["domain"] = [end if abs(end) != float("inf") else None for end in site["domain"]]
        content["left_digital"] = [asdict(entry) for entry in self.left_digital]
        content["k"] = self.k
        return content

    def __str__(self) -> str:
        return self.text()

    def text(self, item: str = "image") -> str:
        """The report in lines.

        Args:
            item: what one input is called.
        """
        by_activation = ", ".join(f"{n:,} {label}" for label, n in self.neurons_by_activation.items())
        steps = Counter(site.K for site in self.sites)
        kinds = Counter(entry.kind for entry in self.operators)
        lines = [
            f"{counted(self.neurons, 'FS-neuron')} in {counted(self.layers, 'layer')} ({by_activation})",
            f"K = {', '.join(_layers_of(k, n) for k, n in sorted(steps.items()))}; "
            f"latency {self.latency_steps} steps, one {item} every {self.interval_steps} steps",
            f"operators: {', '.join(f'{kinds[kind]} {kind}' for kind in Kind if kinds[kind])}",
        ]
        if self.calibration_images:
            few = ": all is fitted to that one; give more" if self.calibration_images == 1 else ""
            lines.append(f"calibrated on {counted(self.calibration_images, item)}{few}")
        lines += _circuit_lines(self.circuits)
        lines += map(_loop_line, self.loops)
        digital = Counter((entry.operator, entry.reason) for entry in self.left_digital)
        lines += [f"left digital: {n} x {operator}: {reason}" for (operator, reason), n in digital.items()]
        if not digital:
            lines.append("nothing is left digital")
        lines += [f"note: {note}" for note in self.notes]
        if self.engine == "reference" and not any(note.startswith(FAULTY) for note in self.notes):
            lines.append(_PLAIN_LOOP)
        lines += [f"note: {line}" for line in oddities(self.sites, item)]
        if any(site.diagnosis is not None for site in self.sites):
            lines += [f"worst: {line}" for line in self.worst(_SHOWN, item)]
        return "\n".join(lines)


def report_of(
    structure: Structure,
    neurons: Mapping[str, FSNeuron],
    notes: Sequence[str],
    calibration_images: int,
    engine: str,
    diagnosis: Mapping[str, SiteDiagnosis],
    exact: frozenset[str] = frozenset(),
) -> ConversionReport:
    """The report of a network: what its structure and its codes come to."""
    sites = tuple(
        _site_report(site, structure.neurons[site.name], neurons[site.name], diagnosis) for site in structure.sites
    )
    by_activation: dict[str, int] = {}
    for entry in sites:
        by_activation[entry.activation] = by_activation.get(entry.activation, 0) + entry.neurons
    k = {entry.name: entry.K for entry in sites}
    return ConversionReport(
        neurons=structure.neuron_count,
        layers=len(sites),
        neurons_by_activation=by_activation,
        latency_steps=structure.latency_steps(k),
        interval_steps=structure.interval_steps(k),
        paper_latency_steps=len(sites) * max(k.values()),
        sites=sites,
        operators=_operator_reports(structure),
        circuits=_circuit_reports(structure, {site.name: site for site in sites}, exact),
        loops=tuple(_loop_reports(structure, {site.name: site for site in sites})),
        notes=tuple(notes),
        calibration_images=calibration_images,
        engine=engine,
    )


def _circuit_reports(
    structure: Structure, reports: Mapping[str, SiteReport], exact: frozenset[str]
) -> tuple[CircuitReport, ...]:
    groups: dict[tuple[str, str], list[str]] = {}
    for site in structure.sites:
        if site.part:
            groups.setdefault((site.part, structure.graph[site.node].path), []).append(site.name)
    found = []
    for (operator, path), names in groups.items():
        entries, within = [reports[name] for name in names], set(names)
        steps = structure.latency_steps({name: one.K if name in within else 0 for name, one in reports.items()})
        neurons, known = sum(one.neurons for one in entries), [one.diagnosis for one in entries if one.diagnosis]
        measured = len(known) == len(entries)
        fired = sum(d.spikes_per_neuron * one.neurons for d, one in zip(known, entries, strict=False))
        found.append(
            CircuitReport(
                operator.partition("@")[0],
                path,
                tuple(names),
                neurons,
                steps,
                within <= exact,
                fired / neurons if measured else None,
                sum(d.output_error for d in known) if measured else None,
            )
        )
    return tuple(found)


def _loop_reports(structure: Structure, reports: Mapping[str, SiteReport]) -> Iterator[LoopReport]:
    k = {name: one.K for name, one in reports.items()}
    for loop in structure.graph.loops.values():
        entries = [one for name, one in reports.items() if structure.loop(name) is loop]
        neurons = sum(one.neurons for one in entries)
        fired = [one.diagnosis.spikes_per_neuron * one.neurons for one in entries if one.diagnosis]
        yield LoopReport(
            loop.nodes[0].path,
            tuple(one.name for one in entries),
            neurons,
            loop.time_steps,
            structure.time_step_steps(loop, k),
            sum(fired) / neurons / loop.time_steps if fired and len(fired) == len(entries) else None,
        )


def _layers_of(k: int, count: int) -> str:
    return f"{k} ({counted(count, 'layer')})"


def _loop_line(loop: LoopReport) -> str:
    """A line for a loop over time."""
    where = loop.path or "the top of the model"
    text = f"loop over time at {where}: {counted(len(loop.sites), 'layer')}, {loop.time_steps} time steps"
    text += f", one every {loop.steps} steps"
    spikes = loop.spikes_per_neuron
    return text if spikes is None else f"{text}; {spikes:.3f} spikes per neuron and time step"


def _circuit_lines(circuits: Sequence[CircuitReport]) -> list[str]:
    """A line for each operator that circuits stand for."""
    lines = []
    for operator in dict.fromkeys(circuit.operator for circuit in circuits):
        same = [circuit for circuit in circuits if circuit.operator == operator]
        neurons = sum(circuit.neurons for circuit in same)
        sites = sum(len(circuit.sites) for circuit in same)
        text = f"circuits: {len(same)} x {operator}: {counted(neurons, 'neuron')} in {counted(sites, 'layer')}"
        text += f", {max(c.steps for c in same)} steps at most"
        spikes = [c.spikes_per_neuron * c.neurons for c in same if c.spikes_per_neuron is not None]
        errors = [c.output_error for c in same if c.output_error is not None]
        text += f", {sum(spikes) / neurons:.3f} spikes per neuron" if len(spikes) == len(same) else ""
        if all(c.exact for c in same):
            text += ", exact"
        elif len(errors) == len(same):
            text += f", their own errors are {sum(errors):.2g} of the output's variance"
        lines.append(text)
    return lines


def _site_report(site: Site, neurons: int, layer: FSNeuron, diagnosis: Mapping[str, SiteDiagnosis]) -> SiteReport:
    code = layer.code
    changed = {kind: int((v != (0 if kind == "shift" else 1)).sum()) for kind, v in layer.by_channel.items()}
    return SiteReport(
        site.name,
        site.activation.label,
        neurons,
        code.K,
        code.provenance.get("alpha"),
        code.domain,
        str(code.provenance.get("method", "given")),
        shifted=changed.get("shift", 0),
        scaled=changed.get("scale", 0),
        gained=changed.get("gain", 0),
        part=site.part.partition("@")[0],
        diagnosis=diagnosis.get(site.name),
    )


def _operator_reports(structure: Structure) -> tuple[OperatorReport, ...]:
    labels = {site.node: site.activation.label for site in structure.sites}
    return tuple(
        OperatorReport(
            labels.get(name, structure.graph[name].operator), structure.graph[name].path, fate.kind, fate.reason
        )
        for name, fate in structure.segments.fates.items()
    )
