"""Stochastic descent in epochs, a checkpoint after each."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.progress import track
from fewspikes.base.seals import Kind
from fewspikes.base.tensors import read_tensors, write_tensors
from fewspikes.paper.training.images import TrainingImages
from fewspikes.paper.training.muon import KernelMuon

_CHECKPOINT = Kind("fewspikes-training", 1, "checkpoint of a training", "remove it to begin again")
OPTIMIZERS, PRECISIONS = ("sgd", "muon"), ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """Descent with Nesterov momentum and one cycle of the learning rate.

    Attributes:
        epochs: passes over the training images.
        batch: images a step.
        rate: the highest learning rate; reached after `warmup` of all steps, then it falls to 0 as a cosine.
        warmup: share of the steps.
        momentum, decay: of the weights; biases and batch norms do not decay.
        smoothing: of the labels.
        seed: of weights, order and augmentation.
        optimizer: "sgd", or "muon": convolutions take orthogonal steps (Jordan et al. 2024), all else SGD's.
        kernel_rate, kernel_decay: of the convolutions under muon, in place of `rate` and `decay`.
        precision: "float32", or "bfloat16": products and activations in half the bits, weights and sums in float32.

    Raises:
        FewSpikesError: a number out of range, or an unknown optimizer or precision.
    """

    epochs: int = 28
    batch: int = 128
    rate: float = 0.2
    warmup: float = 0.2
    momentum: float = 0.9
    decay: float = 5e-4
    smoothing: float = 0.05
    seed: int = 0
    optimizer: str = "sgd"
    kernel_rate: float = 0.05
    kernel_decay: float = 0.02
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise FewSpikesError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        if self.epochs < 1 or self.batch < 1:
            raise FewSpikesError(f"epochs and batch must be >= 1; got {self.epochs} and {self.batch}")
        if not self.rate > 0 or not self.kernel_rate > 0:
            raise FewSpikesError(f"learning rates must be > 0; got {self.rate} and {self.kernel_rate}")


def train(
    model: nn.Module,
    images: TrainingImages,
    recipe: Recipe,
    checkpoint: Path,
    compiled: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, float]]:
    """Train `model` in place; after each epoch write a checkpoint and yield its loss, its seconds and those left.

    Args:
        model: the network, anywhere.
        images: batches, the same in each run.
        recipe: the settings; a checkpoint of other settings or images is refused.
        checkpoint: a .safetensors file, written aside and renamed; where it exists, training goes on from it.
        compiled: train through torch.compile, which needs a C++ compiler.
        about: more that the checkpoint must agree with, such as the network's name.

    Raises:
        FewSpikesError: too few images for a step, a checkpoint of another run, or a loss that is not finite.
    """
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)
    optimizers = _optimizers(model, recipe)
    made_by = {**asdict(recipe), **images.about, **(about or {})}
    done = _resume(model, optimizers, made_by, checkpoint)
    network = torch.compile(model) if compiled else model
    steps = images.steps
    if steps < 1:
        raise FewSpikesError(f"fewer images than the {recipe.batch} of one step; give more, or a smaller batch")
    for epoch in range(done, recipe.epochs):
        started, total = time.perf_counter(), 0.0
        model.train()
        batches = track(images.epoch(epoch), f"epoch {epoch + 1} of {recipe.epochs}", steps)
        for step, (inputs, labels) in enumerate(batches):
            share = cycle(recipe, (epoch * steps + step) / (recipe.epochs * steps))
            inputs = inputs.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                logits = network(inputs)
            loss = F.cross_entropy(logits.float(), labels.to(device), label_smoothing=recipe.smoothing)
            model.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = share * group["highest"]
                optimizer.step()
            total += float(loss.detach())
        if not total < float("inf"):
            raise FewSpikesError(f"the loss is {total} in epoch {epoch + 1}; lower the learning rate")
        _save(model, optimizers, made_by, epoch + 1, checkpoint)
        seconds = time.perf_counter() - started
        left = seconds * (recipe.epochs - epoch - 1)
        yield {"epoch": epoch + 1, "loss": total / steps, "seconds": seconds, "seconds_left": left}


def cycle(recipe: Recipe, progress: float) -> float:
    """The share of the highest learning rate, 0 to 1, when `progress` (0 to 1) of the training is done."""
    if progress < recipe.warmup:
        return progress / recipe.warmup
    share = (progress - recipe.warmup) / (1 - recipe.warmup)
    return (1 + math.cos(math.pi * share)) / 2


@torch.inference_mode()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, int]:
    """Percent of the images that `model`, put in eval mode, classifies right, and how many there were."""
    model.eval()
    device = next(model.parameters()).device
    right = images = 0
    for x, y in batches:
        right += int((model(x.to(device)).argmax(1).cpu() == y).sum())
        images += len(x)
    return 100.0 * right / images, images


def _optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Each with its groups' highest learning rate under "highest"; one momentum a parameter."""
    is_muon = recipe.optimizer == "muon"
    kernels = [p for p in model.parameters() if is_muon and p.ndim == 4]
    weights = [p for p in model.parameters() if p.ndim > 1 and not (is_muon and p.ndim == 4)]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    found: list[torch.optim.Optimizer] = [
        torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, nesterov=True)
    ]
    if kernels:
        found.append(KernelMuon(kernels, recipe.kernel_rate, recipe.momentum, recipe.kernel_decay))
    for optimizer in found:
        for group in optimizer.param_groups:
            group["highest"] = group["lr"]
    return found


def _momenta(optimizers: Sequence[torch.optim.Optimizer]) -> list[tuple[torch.optim.Optimizer, nn.Parameter]]:
    """Whose momentum the checkpoint's tensors momentum.0, momentum.1, ... are."""
    return [(optimizer, p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]


def _save(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], made_by: Mapping[str, Any], epoch: int, path: Path
) -> None:
    states = [optimizer.state[parameter]["momentum_buffer"] for optimizer, parameter in _momenta(optimizers)]
    momentum = {f"momentum.{i}": tensor for i, tensor in enumerate(states)}
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | momentum
    write_tensors(path, _CHECKPOINT, {"made_by": dict(made_by), "epoch": epoch}, tensors)


def _resume(
    model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], made_by: Mapping[str, Any], path: Path
) -> int:
    """The epochs that a checkpoint holds, after it was put into model and optimizers; 0 without one."""
    if not path.is_file():
        return 0
    content, tensors = read_tensors(path, _CHECKPOINT)
    theirs = content["made_by"]
    if theirs != made_by:
        names = sorted(name for name in {*theirs, *made_by} if theirs.get(name) != made_by.get(name))
        differ = ", ".join(f"{name} {theirs.get(name)}, now {made_by.get(name)}" for name in names)
        raise FewSpikesError(f"{path} is of another run ({differ}); remove it to begin again")
    model.load_state_dict({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
    for i, (optimizer, parameter) in enumerate(_momenta(optimizers)):
        buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{i}"])
        optimizer.state[parameter] = {"momentum_buffer": buffer}
    return int(content["epoch"])
