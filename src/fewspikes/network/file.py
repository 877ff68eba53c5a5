"""A converted network in one file: safetensors for the weights, JSON for the rest, never pickle."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path, shown
from fewspikes.base.seals import Kind
from fewspikes.base.tensors import has_channels_last, read_tensors, write_tensors
from fewspikes.graph.encoding import graph_from_json, graph_to_json
from fewspikes.graph.graph import CONSTANT, SITE, Graph, short_name, sizes
from fewspikes.graph.inputs import InputSpec, check_finite
from fewspikes.network.sites import SiteDiagnosis
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.network.structure import Structure
from fewspikes.neuron.layer import PER_CHANNEL, FSNeuron
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.call import fixed_of
from fewspikes.operators.expressions import activation_from_json, operators_in
from fewspikes.operators.given import rules_with
from fewspikes.operators.rewriting import Site, with_sizes
from fewspikes.operators.rule import Rule, Rules
from fewspikes.operators.rules import is_function, is_known

K = TypeVar("K")
NETWORK = Kind("fewspikes-network", 2, "saved network", "convert the model again")
_SITES = "sites"
_TENSOR = re.compile(r"(weights|constants)(\.[A-Za-z0-9_]+)+")
_DTYPES = (torch.float32, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_MOST_ELEMENTS = 1 << 33  # of one tensor for one image, 32 GiB: no network has it, a forged file may ask for it
_SHOWN, _LONGEST = 20, 80  # operators in a message, and characters of one
_MOST_AXES = 64  # torch has no more


def save(snn: SpikingNetwork, path: str | os.PathLike[str], preprocessing: Mapping[str, Any] | None = None) -> None:
    """Write a converted network to one file that loads without the model's own code.

    Args:
        snn: the converted network.
        path: the file; its name usually ends in .fs. It is written aside and renamed; equal networks give equal bytes.
        preprocessing: how images become inputs, as plain JSON data; by default what the network already carries.

    Raises:
        FewSpikesError: the folder does not exist, or `snn` is not a converted network.
    """
    if not isinstance(snn, SpikingNetwork):
        raise FewSpikesError(
            f"save takes a SpikingNetwork; got {type(snn).__name__}. An integer network is not saved: save the spiking "
            "network that it came from, and make it again"
        )
    snn.check_clean("save")
    if any(tensor.is_meta for tensor in snn.tensors.values()):
        raise FewSpikesError("this network is on the meta device and has no weights to save; convert one that has")
    given = snn.preprocessing if preprocessing is None else preprocessing
    if not isinstance(given, Mapping | None):
        raise FewSpikesError(f"the preprocessing must be plain JSON data, a dict; got {type(given).__name__}")
    write_tensors(path, NETWORK, _describe(snn, given), snn.tensors | _of_sites(snn))


def load(path: str | os.PathLike[str], *, rules: Sequence[Rule] = ()) -> SpikingNetwork:
    """Read a network written by `save`, on the CPU. Nothing in the file is executed.

    It computes what was saved bit for bit, and may be loaded within `torch.inference_mode`.

    Args:
        path: the file.
        rules: those that the network was converted with. A file can call no operator outside of ATen but those that
            these name.

    Raises:
        FewSpikesError: no such file, truncated, changed since it was written, of another kind or version; rules that
            it was converted with and that are not given, or that clash.
    """
    known = rules_with(rules)
    path = as_path(path)
    if not path.is_file():
        raise FewSpikesError(
            f"no saved network at {shown(path)}; give the file that fewspikes.save or `fewspikes convert -o` wrote"
        )
    content, tensors = read_tensors(path, NETWORK)
    with NETWORK.reading(path), torch.inference_mode(False):
        return _rebuild(content, tensors, known)


def _of_sites(snn: SpikingNetwork) -> dict[str, Tensor]:
    """The shifts, scales and gains per channel, by node and kind."""
    own = {site.node: snn.neurons[site.name].by_channel for site in snn.sites}
    return {f"{_SITES}.{node}.{kind}": values for node, kinds in own.items() for kind, values in kinds.items()}


def _neuron(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FSNeuron:
    own = {kind: tensors.get(f"{_SITES}.{entry['node']}.{kind}") for kind in PER_CHANNEL}
    axis = checks.whole("the axis of the channels", entry["axis"], 0, _MOST_AXES)
    return FSNeuron(FSParameters.from_json(entry["parameters"]), axis=axis, **own)


def _describe(snn: SpikingNetwork, preprocessing: Mapping[str, Any] | None) -> dict[str, Any]:
    neurons = snn.neurons
    return {
        "inputs": [_as_computed(spec, snn.dtype).to_json() for spec in snn.inputs],
        "keywords": snn.keywords,
        "graph": graph_to_json(snn.graph),
        "channels_last": [name for name, tensor in snn.tensors.items() if has_channels_last(tensor)],
        "sites": [
            {
                "name": site.name,
                "node": site.node,
                "activation": site.activation.to_json(),
                **({"part": site.part} if site.part else {}),
                "parameters": neurons[site.name].code.to_json(),
                "axis": neurons[site.name].axis,
            }
            for site in snn.sites
        ],
        "diagnosis": {name: found.to_json() for name, found in snn.diagnosis.items()},
        "notes": list(snn.notes),
        "calibration_images": snn.calibration_images,
        "settings": snn.settings,
        "preprocessing": None if preprocessing is None else dict(preprocessing),
        **_rules_of(snn),
    }


def _rules_of(snn: SpikingNetwork) -> dict[str, Any]:
    """The operators that a file of the network needs a user's rules for, if there are any."""
    calls = [node.operator for node in snn.graph]
    calls += [operator for site in snn.sites for operator in operators_in(site.activation)]
    needed = sorted({short_name(name) for name in calls if "." in name and not (is_known(name) or is_function(name))})
    return {"rules": needed} if needed else {}


def _as_computed(spec: InputSpec, dtype: torch.dtype) -> InputSpec:
    """The input in the dtype that the network now computes in, after .double() or .float()."""
    return replace(spec, dtype=dtype) if spec.dtype.is_floating_point else spec


def _rebuild(content: Mapping[str, Any], tensors: Mapping[str, Tensor], rules: Rules) -> SpikingNetwork:
    _check_rules(content, rules)
    entries = _of_kind(list, content, "sites")
    names = [(_of_kind(str, entry, "name"), _of_kind(str, entry, "node")) for entry in entries]
    if len(dict(names)) < len(names):
        raise FewSpikesError("two of its sites have one name")
    sites = tuple(
        Site(*n, activation_from_json(e["activation"], rules), str(e.get("part", "")))
        for n, e in zip(names, entries, strict=True)
    )
    neurons = {site.name: _neuron(entry, tensors) for site, entry in zip(sites, entries, strict=True)}
    last = _of_kind(list, content, "channels_last")
    tensors = {name: _laid(tensor, name in last) for name, tensor in tensors.items() if name.split(".")[0] != _SITES}
    graph = graph_from_json(_of_kind(list, content, "graph"), lambda operator: is_known(operator, rules))
    _check_names(graph, sites, tensors)
    inputs = tuple(InputSpec.from_json(spec) for spec in _of_kind(list, content, "inputs"))
    odd = next((t.dtype for t in tensors.values() if t.dtype not in _DTYPES), None)
    if odd is not None:
        raise FewSpikesError(f"a weight of {odd}, which no converted network has")
    check_finite(tensors.values(), "a weight in the file")
    sized, keywords = with_sizes(graph, inputs, tensors, rules), _of_kind(bool, content, "keywords")
    structure = Structure(sized, inputs, sites, fixed_of(tensors), keywords, rules)
    _check_sizes(structure.graph)
    notes, settings = [str(note) for note in _of_kind(list, content, "notes")], _of_kind(dict, content, "settings")
    images = checks.whole("the number of calibration images", content["calibration_images"], 0)
    snn = SpikingNetwork(structure, tensors, neurons, notes, images, settings)
    diagnosis = {k: SiteDiagnosis.from_json(v) for k, v in _of_kind(dict, content, "diagnosis").items()}
    if not set(diagnosis) <= set(neurons):
        raise FewSpikesError("its diagnosis is of other sites")
    snn = snn.with_diagnosis(diagnosis) if diagnosis else snn
    snn.preprocessing = None if content["preprocessing"] is None else _of_kind(dict, content, "preprocessing")
    return snn


def _check_rules(content: Mapping[str, Any], rules: Rules) -> None:
    """The rules that the network was converted with must be there again."""
    missing = [str(name)[:_LONGEST] for name in content.get("rules", ()) if not rules.covers(str(name))]
    if missing:
        raise FewSpikesError(
            f"it was converted with rules for {', '.join(missing[:_SHOWN])}{', ...' * (len(missing) > _SHOWN)}; give "
            "them again, load(path, rules=[...]): see docs/rules.md"
        )


def _of_kind(kind: type[K], content: Mapping[str, Any], name: str) -> K:
    value = content[name]
    if type(value) is not kind:
        raise FewSpikesError(f"its {name} must be a {kind.__name__}; got {value!r:.50}")
    return value


def _laid(tensor: Tensor, channels_last: bool) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def _check_sizes(graph: Graph) -> None:
    """No tensor may be larger than a machine holds, and none without elements."""
    for node in graph:
        elements = None if node.shape is None else sizes(node.shape, 1).numel()
        if elements is not None and not 0 < elements <= _MOST_ELEMENTS:
            raise FewSpikesError(f"{node.where} gives {elements:,} elements an image")


def _check_names(graph: Graph, sites: Sequence[Site], tensors: Mapping[str, Tensor]) -> None:
    """Sites and constants of the graph must be those in the file, in this order, and their names plain."""
    if [node.name for node in graph.of(SITE)] != [site.node for site in sites]:
        raise FewSpikesError("the sites of its graph are not those that it lists")
    missing = [node.arguments["tensor"] for node in graph.of(CONSTANT) if node.arguments["tensor"] not in tensors]
    wrong = [name for name in tensors if not _TENSOR.fullmatch(name)]
    if missing or wrong:
        raise FewSpikesError(f"its graph refers to {(missing + wrong)[0]!r}, which is not in the file or no name")
