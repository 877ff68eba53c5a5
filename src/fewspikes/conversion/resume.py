"""Distilling that was cut goes on: what a run has reached, in one safetensors file."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import write_aside
from fewspikes.conversion.learner import Learner, Stage
from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.layer import FSNeuron

_FORMAT = "fewspikes-distilling"


@dataclass
class Progress:
    """The stages so far, and what was learned at each.

    Attributes:
        run: which run it is, see `fingerprint`.
        stages: measurements, the first before learning.
        learned: the values at each stage, by site and kind.
    """

    run: str
    stages: list[Stage] = field(default_factory=list)
    learned: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, stage: Stage, learner: Learner) -> None:
        """Append a stage with the learner's present values."""
        self.stages.append(stage)
        self.learned.append({name: value.detach().clone() for name, value in learner.parameters().items()})

    def best(self, spike_weight: float) -> Stage:
        """The stage with the least score on the held-out images."""
        return min(self.stages, key=lambda stage: stage.score(spike_weight))

    def neurons_at(self, stage: Stage, learner: Learner) -> dict[str, FSNeuron]:
        """The neurons as they were at a stage."""
        _fill(learner, self.learned[self.stages.index(stage)])
        return learner.learned()


def fingerprint(snn: SpikingNetwork, images: tuple[Tensor, ...], settings: Mapping[str, Any]) -> str:
    """A digest of the network's code, the images and the settings."""
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for site in snn.sites:
        neuron = snn.neurons[site.name]
        digest.update(json.dumps(neuron.code.to_json(), sort_keys=True).encode())
        for kind, values in neuron.by_channel.items():
            digest.update(kind.encode() + values.detach().cpu().numpy().tobytes())
    for tensor in (*images, *snn.tensors.values()):
        summed = tensor.detach().double()
        digest.update(f"{tuple(tensor.shape)} {float(summed.sum())} {float(summed.square().sum())}".encode())
    return digest.hexdigest()


def keep(path: str | os.PathLike[str], learner: Learner, done: Progress) -> None:
    """Write what the run has reached, aside and renamed."""
    tensors = {f"stage.{i}.{name}": value for i, kept in enumerate(done.learned) for name, value in kept.items()}
    for name, parameter in learner.parameters().items():
        for kind, value in learner.optimizer.state.get(parameter, {}).items():
            tensors[f"adam.{kind}.{name}"] = torch.as_tensor(value)
    tensors["random"] = learner.random.get_state()
    described = {"run": done.run, "stages": [stage.to_json() for stage in done.stages]}
    metadata = {"format": _FORMAT, "progress": json.dumps(described)}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_aside(path, safetensors.torch.save(whole, metadata))


def look_up(path: str | os.PathLike[str], learner: Learner, done: Progress) -> None:
    """Put learner and progress where the file left them; without a file nothing happens.

    Raises:
        FewSpikesError: the file is of another run or of another kind.
    """
    if not Path(path).is_file():
        return
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(metadata.get("progress", "null"))
    except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
        raise FewSpikesError(f"{path} is no complete checkpoint ({error}); remove it to begin again") from None
    if metadata.get("format") != _FORMAT or described["run"] != done.run:
        raise FewSpikesError(
            f"{path} is the checkpoint of another run (network, images or settings differ); remove it to begin again"
        )
    done.stages = [Stage(**stage) for stage in described["stages"]]
    parameters = learner.parameters()
    done.learned = [{name: tensors[f"stage.{i}.{name}"] for name in parameters} for i in range(len(done.stages))]
    _fill(learner, done.learned[-1])
    for name, parameter in parameters.items():
        state = {kind: tensors.get(f"adam.{kind}.{name}") for kind in ("step", "exp_avg", "exp_avg_sq")}
        if all(value is not None for value in state.values()):
            learner.optimizer.state[parameter] = {
                kind: value if kind == "step" else value.to(parameter.device)  # type: ignore[union-attr]
                for kind, value in state.items()
            }
    learner.random.set_state(tensors["random"])


@torch.no_grad()
def _fill(learner: Learner, values: Mapping[str, Tensor]) -> None:
    for name, parameter in learner.parameters().items():
        parameter.copy_(values[name])
