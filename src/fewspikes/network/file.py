"""A converted network in one file: safetensors for the weights, JSON for the rest, never pickle."""

import hashlib
import json
import operator
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, fx

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import write_aside
from fewspikes.graph.capture import op_name
from fewspikes.graph.inputs import InputSpec, check_finite
from fewspikes.network.sites import SiteDiagnosis
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.layer import PER_CHANNEL, FSNeuron
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.classes import KNOWN, PYTHON
from fewspikes.operators.rewriting import Site, mark

_FORMAT, _VERSION = "fewspikes-network", 1
_NODE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TARGET = re.compile(r"(weights|constants|sites)(\.[A-Za-z0-9_]+)+")


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
            raise FewSpikesError(f"it has version {content['version']}; this library reads version {_VERSION}")
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
    """The shifts, ranges and gains per channel, by target and kind."""
    own = {site.target: snn.neurons[site.name].by_channel for site in snn.sites}
    return {f"{target}.{kind}": values for target, kinds in own.items() for kind, values in kinds.items()}


def _neuron(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FSNeuron:
    own = {kind: tensors.get(f"{entry['target']}.{kind}") for kind in PER_CHANNEL}
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
        "graph": [_node_to_json(node) for node in snn.body.graph.nodes],
        "sites": [
            {
                "name": site.name,
                "target": site.target,
                "activation": site.activation.to_json(),
                "parameters": neurons[site.name].code.to_json(),
                "axis": neurons[site.name].axis,
            }
            for site in snn.sites
        ],
        "diagnosis": {name: found.to_json() for name, found in snn.diagnosis.items()},
        "notes": list(snn.notes),
        "calibration_images": snn.calibration_images,
        "preprocessing": snn.preprocessing if preprocessing is None else dict(preprocessing),
    }


def _as_computed(spec: InputSpec, dtype: torch.dtype) -> InputSpec:
    """The input in the dtype that the network now computes in, after .double() or .float()."""
    return replace(spec, dtype=dtype) if spec.dtype.is_floating_point else spec


def _rebuild(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SpikingNetwork:
    sites = [Site(str(s["name"]), str(s["target"]), Activation.from_json(s["activation"])) for s in content["sites"]]
    neurons = {str(s["name"]): _neuron(s, tensors) for s in content["sites"]}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("sites.")}
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for entry in content["graph"]:
        nodes[entry["name"]] = _node_from_json(graph, entry, nodes, {*tensors, *(site.target for site in sites)})
    if [node.op for node in graph.nodes].index("output") != len(nodes) - 1:
        raise FewSpikesError("the graph does not end in its output")
    mark(graph)
    inputs = [InputSpec.from_json(spec) for spec in content["inputs"]]
    images, notes = int(content["calibration_images"]), [str(note) for note in content["notes"]]
    check_finite(tensors.values(), "a weight in the file")
    snn = SpikingNetwork(graph, tensors, inputs, sites, neurons, notes, images, bool(content["keywords"]))
    diagnosis = {str(k): SiteDiagnosis.from_json(v) for k, v in content.get("diagnosis", {}).items()}
    snn = snn.with_diagnosis(diagnosis) if diagnosis else snn
    snn.preprocessing = content["preprocessing"]
    return snn


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    target = op_name(node) if node.op == "call_function" else str(node.target)
    return {
        "name": node.name,
        "op": node.op,
        "target": target,
        "args": _encode(list(node.args)),
        "kwargs": {key: _encode(value) for key, value in node.kwargs.items()},
        "path": node.meta.get("path", ""),
    }


def _node_from_json(graph: fx.Graph, entry: Any, nodes: Mapping[str, fx.Node], names: set[str]) -> fx.Node:
    name, op, target = str(entry["name"]), entry["op"], str(entry["target"])
    if not _NODE_NAME.fullmatch(name) or name in nodes:
        raise FewSpikesError(f"{name!r} is no name for a node")
    resolved: Any = target
    if op == "call_function":
        resolved = _operator(target)
    elif op in ("get_attr", "call_module"):
        if target not in names or not _TARGET.fullmatch(target):
            raise FewSpikesError(f"node {name} refers to {target!r}, which is not in the file")
    elif op not in ("placeholder", "output") or (op == "placeholder" and not _NODE_NAME.fullmatch(target)):
        raise FewSpikesError(f"node {name} is a {op!r} named {target!r}")
    args = tuple(_decode(value, nodes) for value in entry["args"])
    kwargs = {str(key): _decode(value, nodes) for key, value in entry["kwargs"].items()}
    if not all(_NODE_NAME.fullmatch(key) for key in kwargs):
        raise FewSpikesError(f"node {name} has an argument that is no name")
    node = graph.create_node(op, resolved, args, kwargs, name=name)
    node.meta = {"path": str(entry["path"])}
    return node


def _operator(name: str) -> Any:
    """The function behind an operator's name, only if conversion has a rule for it."""
    if name not in KNOWN:
        raise FewSpikesError(f"operator {name!r} is none that this library converts")
    if name in PYTHON or name == "getitem":
        return getattr(operator, name)
    _, packet, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def _encode(value: Any) -> Any:
    """Arguments as JSON; what JSON has no word for becomes an object with one key that says what it is."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, float) and not isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {"dict": {str(key): _encode(item) for key, item in value.items()}}
    for kind in (torch.dtype, torch.layout, torch.memory_format):
        if isinstance(value, kind):
            return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": value.type}
    raise FewSpikesError(f"cannot save the argument {value!r} of a {type(value).__name__}")


def _decode(value: Any, nodes: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_decode(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, content), *more = value.items()
    if kind == "node" and not more:
        return nodes[content]
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(_decode(item, nodes) for item in content)
    if kind == "dict":
        return {str(key): _decode(item, nodes) for key, item in content.items()}
    if kind == "device":
        return torch.device(content)
    found = getattr(torch, str(content)) if kind == "torch" else None
    if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):
        raise FewSpikesError(f"unknown argument {value!r}")
    return found
