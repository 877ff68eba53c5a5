"""Distilling that was cut goes on: what a run has reached, in one safetensors file."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path, shown
from fewspikes.base.seals import Kind, digest
from fewspikes.base.tensors import read_tensors, write_tensors
from fewspikes.conversion.trainer import Stage, Trainer
from fewspikes.graph.encoding import graph_to_json
from fewspikes.neuron.layer import FSNeuron

_KIND = Kind("fewspikes-distilling", 1, "checkpoint", "remove it to begin again")


@dataclass
class Checkpoint:
    """The stages so far, and what was learned at each.

    Attributes:
        run: which run it is, see `fingerprint`.
        stages: measurements, the first before learning.
        learned: the values at each stage, by site and kind.
    """

    run: str
    stages: list[Stage] = field(default_factory=list)
    learned: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, stage: Stage, trainer: Trainer) -> None:
        """Append a stage with the trainer's present values."""
        self.stages.append(stage)
        self.learned.append({name: value.detach().clone() for name, value in trainer.parameters().items()})

    def best(self, spike_price: float, allowed: Callable[[Stage], bool] = lambda _: True) -> Stage:
        """The stage with the least score on the held-out images among those that are allowed; the first always is."""
        return min(
            (stage for stage in self.stages if stage is self.stages[0] or allowed(stage)),
            key=lambda stage: stage.score(spike_price),
        )

    def neurons_at(self, stage: Stage, trainer: Trainer) -> dict[str, FSNeuron]:
        """The neurons as they were at a stage."""
        _fill(trainer, self.learned[self.stages.index(stage)])
        return trainer.learned()


def fingerprint(trainer: Trainer, settings: Mapping[str, Any]) -> str:
    """A digest of the network, the images, what the ANN makes of those held out, and the settings, bit by bit."""
    snn = trainer.snn
    codes = [(site.name, site.activation.to_json(), snn.neurons[site.name].code.to_json()) for site in snn.sites]
    tensors = {f"weight {name}": tensor for name, tensor in snn.tensors.items()}
    for name, neuron in snn.neurons.items():
        tensors |= {f"{kind} {name}": values for kind, values in neuron.by_channel.items()}
    tensors |= {f"image {i}": images for i, images in enumerate(trainer.images)}
    with torch.no_grad():
        for i, (inputs, _, wanted) in enumerate(trainer.beside):
            tensors |= {f"held out {i} {j}": tensor for j, tensor in enumerate((*inputs, *wanted))}
    return digest([dict(settings), graph_to_json(snn.graph), codes], tensors)


def write(path: str | os.PathLike[str], trainer: Trainer, done: Checkpoint) -> None:
    """Write what the run has reached, aside and renamed."""
    tensors = {f"stage.{i}.{name}": value for i, kept in enumerate(done.learned) for name, value in kept.items()}
    for name, parameter in trainer.parameters().items():
        for kind, value in _optimizer(trainer).state.get(parameter, {}).items():
            tensors[f"adam.{kind}.{name}"] = torch.as_tensor(value)
    tensors["random"] = trainer.random.get_state()
    write_tensors(path, _KIND, {"run": done.run, "stages": [stage.to_json() for stage in done.stages]}, tensors)


def restore(path: str | os.PathLike[str], trainer: Trainer, done: Checkpoint) -> None:
    """Put trainer and checkpoint where the file left them; without a file nothing happens.

    Raises:
        FewSpikesError: the file is of another run or of another kind, or was changed since it was written.
    """
    path = as_path(path)
    if not path.is_file():
        return
    content, tensors = read_tensors(path, _KIND)
    if content.get("run") != done.run:
        raise FewSpikesError(
            f"{shown(path)} is the checkpoint of another run (network, images, reference or settings differ); "
            f"{_KIND.again}"
        )
    with _KIND.reading(path):
        stages = [Stage.from_json(stage) for stage in content["stages"]]
        own = trainer.parameters()
        learned = [{n: _like(tensors[f"stage.{i}.{n}"], p) for n, p in own.items()} for i in range(len(stages))]
        states = {name: _adam(tensors, name, parameter) for name, parameter in own.items()}
        trainer.random.set_state(tensors["random"])
        _fill(trainer, learned[-1])
        _optimizer(trainer).state.update({own[name]: state for name, state in states.items() if state})
        done.stages, done.learned = stages, learned


def _adam(tensors: Mapping[str, Tensor], name: str, parameter: Tensor) -> dict[str, Tensor]:
    """What the optimizer remembers of a parameter; nothing before its first step."""
    if f"adam.step.{name}" not in tensors:
        return {}
    own = {kind: _like(tensors[f"adam.{kind}.{name}"], parameter) for kind in ("exp_avg", "exp_avg_sq")}
    return {"step": tensors[f"adam.step.{name}"], **own}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    if value.shape != parameter.shape or value.dtype != parameter.dtype:
        raise FewSpikesError(f"a value of {value.dtype} {tuple(value.shape)} for {tuple(parameter.shape)}")
    return value.to(parameter.device)


def _optimizer(trainer: Trainer) -> torch.optim.Optimizer:
    assert trainer.optimizer is not None
    return trainer.optimizer


@torch.no_grad()
def _fill(trainer: Trainer, values: Mapping[str, Tensor]) -> None:
    for name, parameter in trainer.parameters().items():
        parameter.copy_(values[name])
