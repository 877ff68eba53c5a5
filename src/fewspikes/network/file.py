"""A converted network in one file: safetensors for the weights, JSON for the rest, never pickle."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import write_aside
from fewspikes.graph.encoding import graph_from_json, graph_to_json
from fewspikes.graph.graph import CONSTANT, SITE, Graph
from fewspikes.graph.inputs import InputSpec, check_finite
from fewspikes.network.sites import SiteDiagnosis
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.network.structure import Structure
from fewspikes.neuron.layer import PER_CHANNEL, FSNeuron
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.expressions import activation_from_json
from fewspikes.operators.rewriting import Site, with_sizes
from fewspikes.operators.rules import is_known

_FORMAT, _VERSION = "fewspikes-network", 2
_SITES = "sites"
_TENSOR = re.compile(r"(weights|constants)(\.[A-Za-z0-9_]+)+")


def save(snn: SpikingNetwork, path: str | os.PathLike[str], preprocessing: Mapping[str, Any] | None = None) -> None:
    """Write a converted network to one file that loads without the model's own code.

    Args:
        snn: the converted network.
        path: the file; by custom it ends in .fs. It is written aside and renamed.
        preprocessing: how images become inputs, as plain JSON data; by default what the network already carries.

    Raises:
        FewSpikesError: the folder does not exist, or `snn` is not a converted network.
    """
    if not isinstance(snn, SpikingNetwork):
        raise FewSpikesError(
            f"save takes a SpikingNetwork; got {type(snn).__name__}. An integer network is not saved: save the spiking "
            "network that it came from, and make it again"
        )
    if any(tensor.is_meta for tensor in snn.tensors.values()):
        raise FewSpikesError("this network is on the meta device and has no weights to save; convert one that has")
    try:
        described = json.dumps(_describe(snn, preprocessing), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FewSpikesError(f"the preprocessing must be plain JSON data: {error}") from None
    tensors = {name: t.detach().cpu().contiguous() for name, t in (snn.tensors | _of_sites(snn)).items()}
    metadata = {"format": _FORMAT, "network": described, "sha256": _digest(described, tensors)}
    write_aside(path, safetensors.torch.save(tensors, metadata))


def load(path: str | os.PathLike[str]) -> SpikingNetwork:
    """Read a network written by `save`, on the CPU. Nothing in the file is executed.

    Raises:
        FewSpikesError: no such file, truncated, changed since it was written, of another kind or a later version.
    """
    tensors, metadata = _read(Path(path))
    described = metadata.get("network", "")
    if metadata.get("format") != _FORMAT:
        raise FewSpikesError(f"{path} is a safetensors file, but no converted network; write one with fewspikes.save")
    if metadata.get("sha256") != _digest(described, tensors):
        raise FewSpikesError(f"{path} was changed or damaged after it was written: its checksum differs; save it again")
    try:
        content = json.loads(described)
        if content["version"] != _VERSION:
            raise FewSpikesError(
                f"it has version {content['version']}, this library reads {_VERSION}: convert the model again"
            )
        return _rebuild(content, tensors)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise FewSpikesError(f"{path} does not hold a valid network: {reason}") from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise FewSpikesError(
            f"no saved network at {path}; give the file that fewspikes.save or `fewspikes convert -o` wrote"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise FewSpikesError(f"{path} is no complete saved network ({error}); save it again") from None


def _of_sites(snn: SpikingNetwork) -> dict[str, Tensor]:
    """The shifts, scales and gains per channel, by node and kind."""
    own = {site.node: snn.neurons[site.name].by_channel for site in snn.sites}
    return {f"{_SITES}.{node}.{kind}": values for node, kinds in own.items() for kind, values in kinds.items()}


def _neuron(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FSNeuron:
    own = {kind: tensors.get(f"{_SITES}.{entry['node']}.{kind}") for kind in PER_CHANNEL}
    return FSNeuron(FSParameters.from_json(entry["parameters"]), axis=int(entry.get("axis", 1)), **own)


def _digest(described: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _describe(snn: SpikingNetwork, preprocessing: Mapping[str, Any] | None) -> dict[str, Any]:
    neurons = snn.neurons
    return {
        "version": _VERSION,
        "inputs": [_as_computed(spec, snn.dtype).to_json() for spec in snn.inputs],
        "keywords": snn.keywords,
        "graph": graph_to_json(snn.graph),
        "sites": [
            {
                "name": site.name,
                "node": site.node,
                "activation": site.activation.to_json(),
                "parameters": neurons[site.name].code.to_json(),
                "axis": neurons[site.name].axis,
            }
            for site in snn.sites
        ],
        "diagnosis": {name: found.to_json() for name, found in snn.diagnosis.items()},
        "notes": list(snn.notes),
        "calibration_images": snn.calibration_images,
        "settings": snn.settings,
        "preprocessing": snn.preprocessing if preprocessing is None else dict(preprocessing),
    }


def _as_computed(spec: InputSpec, dtype: torch.dtype) -> InputSpec:
    """The input in the dtype that the network now computes in, after .double() or .float()."""
    return replace(spec, dtype=dtype) if spec.dtype.is_floating_point else spec


def _rebuild(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SpikingNetwork:
    entries = content["sites"]
    sites = tuple(Site(str(e["name"]), str(e["node"]), activation_from_json(e["activation"])) for e in entries)
    neurons = {str(entry["name"]): _neuron(entry, tensors) for entry in entries}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{_SITES}.")}
    graph = graph_from_json(content["graph"], is_known)
    _check_names(graph, sites, tensors)
    inputs = tuple(InputSpec.from_json(spec) for spec in content["inputs"])
    check_finite(tensors.values(), "a weight in the file")
    structure = Structure(with_sizes(graph, inputs, tensors), inputs, sites, bool(content["keywords"]))
    notes, settings = [str(note) for note in content["notes"]], dict(content["settings"])
    snn = SpikingNetwork(structure, tensors, neurons, notes, int(content["calibration_images"]), settings)
    diagnosis = {str(k): SiteDiagnosis.from_json(v) for k, v in content.get("diagnosis", {}).items()}
    snn = snn.with_diagnosis(diagnosis) if diagnosis else snn
    snn.preprocessing = content["preprocessing"]
    return snn


def _check_names(graph: Graph, sites: Sequence[Site], tensors: Mapping[str, Tensor]) -> None:
    """Sites and constants of the graph must be those in the file, in this order, and their names plain."""
    if [node.name for node in graph.of(SITE)] != [site.node for site in sites]:
        raise FewSpikesError("the sites of its graph are not those that it lists")
    missing = [node.arguments["tensor"] for node in graph.of(CONSTANT) if node.arguments["tensor"] not in tensors]
    wrong = [name for name in tensors if not _TENSOR.fullmatch(name)]
    if missing or wrong:
        raise FewSpikesError(f"its graph refers to {(missing + wrong)[0]!r}, which is not in the file or no name")
