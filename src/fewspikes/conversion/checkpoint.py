"""Distilling that was cut goes on: what a run has reached, in one safetensors file."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import write_aside
from fewspikes.base.sums import total
from fewspikes.conversion.trainer import Stage, Trainer
from fewspikes.neuron.layer import FSNeuron

_FORMAT = "fewspikes-distilling"


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
    """A digest of the network's code, its weights, the images, what the ANN makes of those held out, and settings."""
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for site in trainer.snn.sites:
        neuron = trainer.snn.neurons[site.name]
        digest.update(json.dumps(neuron.code.to_json(), sort_keys=True).encode())
        for kind, values in neuron.by_channel.items():
            digest.update(kind.encode() + values.detach().cpu().numpy().tobytes())
    with torch.no_grad():
        held = [tensor for inputs, _, wanted in trainer.beside for tensor in (*inputs, *wanted)]
    for tensor in (*trainer.images, *held, *trainer.snn.tensors.values()):
        summed = tensor.detach().double()
        digest.update(f"{tuple(tensor.shape)} {float(total(summed))} {float(total(summed.square()))}".encode())
    return digest.hexdigest()


def write(path: str | os.PathLike[str], trainer: Trainer, done: Checkpoint) -> None:
    """Write what the run has reached, aside and renamed."""
    tensors = {f"stage.{i}.{name}": value for i, kept in enumerate(done.learned) for name, value in kept.items()}
    for name, parameter in trainer.parameters().items():
        for kind, value in _optimizer(trainer).state.get(parameter, {}).items():
            tensors[f"adam.{kind}.{name}"] = torch.as_tensor(value)
    tensors["random"] = trainer.random.get_state()
    described = {"run": done.run, "stages": [stage.to_json() for stage in done.stages]}
    metadata = {"format": _FORMAT, "progress": json.dumps(described)}
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_aside(path, safetensors.torch.save(whole, metadata))


def restore(path: str | os.PathLike[str], trainer: Trainer, done: Checkpoint) -> None:
    """Put trainer and checkpoint where the file left them; without a file nothing happens.

    Raises:
        FewSpikesError: the file is of another run or of another kind.
    """
    if not Path(path).is_file():
        return
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(metadata.get("progress", "null"))
        if metadata.get("format") != _FORMAT or described["run"] != done.run:
            raise _another(path)
        stages = [Stage.from_json(stage) for stage in described["stages"]]
        names = list(trainer.parameters())
        learned = [{name: tensors[f"stage.{i}.{name}"] for name in names} for i in range(len(stages))]
        random = tensors["random"]
    except FewSpikesError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FewSpikesError(f"{path} is no complete checkpoint ({error}); remove it to begin again") from None
    done.stages, done.learned = stages, learned
    _fill(trainer, learned[-1])
    for name, parameter in trainer.parameters().items():
        state = {kind: tensors.get(f"adam.{kind}.{name}") for kind in ("step", "exp_avg", "exp_avg_sq")}
        if all(value is not None for value in state.values()):
            _optimizer(trainer).state[parameter] = {
                kind: value if kind == "step" else value.to(parameter.device)  # type: ignore[union-attr]
                for kind, value in state.items()
            }
    trainer.random.set_state(random)


def _another(path: str | os.PathLike[str]) -> FewSpikesError:
    return FewSpikesError(
        f"{path} is the checkpoint of another run (network, images, reference or settings differ); remove it to begin "
        "again"
    )


def _optimizer(trainer: Trainer) -> torch.optim.Optimizer:
    assert trainer.optimizer is not None
    return trainer.optimizer


@torch.no_grad()
def _fill(trainer: Trainer, values: Mapping[str, Tensor]) -> None:
    for name, parameter in trainer.parameters().items():
        parameter.copy_(values[name])
