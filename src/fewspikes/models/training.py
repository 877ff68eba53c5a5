"""The recipe that trained the library's own CIFAR networks; a run that was cut goes on where it was.

python -m fewspikes.models.training cifar_efficientnet --data DIR -o weights.safetensors --epochs 28 --seed 0
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewspikes.data import loader, open_images
from fewspikes.errors import FewSpikesError
from fewspikes.files import write_aside
from fewspikes.models.loading import load_model
from fewspikes.progress import track

_PADDING = 4  # pixels that a crop may be moved by


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with Nesterov momentum and one cycle of the learning rate.

    Attributes:
        epochs: passes over the training images; each image is moved by up to 4 pixels and mirrored at random.
        batch: images a step.
        rate: the highest learning rate; reached after `warmup` of all steps, then it falls to 0 as a cosine.
        warmup: share of the steps.
        momentum, decay: of the weights; biases and batch norms do not decay.
        smoothing: of the labels.
        seed: of weights, order and augmentation.
    """

    epochs: int = 28
    batch: int = 128
    rate: float = 0.2
    warmup: float = 0.2
    momentum: float = 0.9
    decay: float = 5e-4
    smoothing: float = 0.05
    seed: int = 0


def train(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, checkpoint: Path, compiled: bool = False
) -> Iterator[dict[str, float]]:
    """Train `model` in place; after each epoch write a checkpoint and yield its loss and seconds.

    Args:
        model: the network, anywhere.
        images: normalised, [n, channels, height, width].
        labels: [n], int64.
        recipe: the settings; a checkpoint of other settings is refused.
        checkpoint: a .safetensors file, written aside and renamed; where it exists, training goes on from it.
        compiled: train through torch.compile, which needs a C++ compiler.

    Raises:
        FewSpikesError: a checkpoint of another recipe, or a loss that is not finite.
    """
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, recipe)
    done = _resume(model, optimizer, recipe, checkpoint)
    network = torch.compile(model) if compiled else model
    steps = len(images) // recipe.batch
    for epoch in range(done, recipe.epochs):
        started, total = time.perf_counter(), 0.0
        model.train()
        random = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        order = torch.randperm(len(images), generator=random)[: steps * recipe.batch].view(steps, recipe.batch)
        for step, chosen in track(list(enumerate(order)), f"epoch {epoch + 1} of {recipe.epochs}", steps):
            for group in optimizer.param_groups:
                group["lr"] = rate(recipe, (epoch * steps + step) / (recipe.epochs * steps))
            batch = augment(images[chosen], random).to(device, memory_format=torch.channels_last)
            loss = F.cross_entropy(network(batch), labels[chosen].to(device), label_smoothing=recipe.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        if not total < float("inf"):
            raise FewSpikesError(f"the loss is {total} in epoch {epoch + 1}; lower the learning rate")
        _save(model, optimizer, recipe, epoch + 1, checkpoint)
        yield {"epoch": epoch + 1, "loss": total / steps, "seconds": time.perf_counter() - started}


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image moved by up to 4 pixels (mirrored at its borders) and turned left to right at random."""
    n, _, height, width = images.shape
    padded = F.pad(images, [_PADDING] * 4, mode="reflect")
    top, left = (torch.randint(0, 2 * _PADDING + 1, (n, 1, 1, 1), generator=random) for _ in range(2))
    flipped = torch.rand(n, 1, 1, 1, generator=random) < 0.5
    columns = torch.arange(width).view(1, 1, 1, width)
    columns = left + torch.where(flipped, width - 1 - columns, columns)
    rows = top + torch.arange(height).view(1, 1, height, 1)
    picked: Tensor = padded[torch.arange(n).view(n, 1, 1), :, rows[:, 0], columns[:, 0]]
    return picked.permute(0, 3, 1, 2)


def rate(recipe: Recipe, progress: float) -> float:
    """The learning rate when `progress` (0 to 1) of the training is done."""
    if progress < recipe.warmup:
        return recipe.rate * progress / recipe.warmup
    share = (progress - recipe.warmup) / (1 - recipe.warmup)
    return recipe.rate * (1 + float(torch.cos(torch.tensor(torch.pi * share)))) / 2


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of the images that `model`, put in eval mode, classifies right."""
    model.eval()
    device = next(model.parameters()).device
    right = sum(
        int((model(x.to(device)).argmax(1).cpu() == y).sum())
        for x, y in zip(images.split(250), labels.split(250), strict=True)
    )
    return 100.0 * right / len(images)


def read_split(data: Path, split: str, preprocessing: Any, classes: int) -> tuple[Tensor, Tensor]:
    """All images of a split as one normalised tensor, and their labels."""
    batches = list(track(loader(open_images(data, split, preprocessing, classes), 500), f"reading {split}", None))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.rate, momentum=recipe.momentum, nesterov=True)


def _save(model: nn.Module, optimizer: torch.optim.SGD, recipe: Recipe, epoch: int, path: Path) -> None:
    momentum = {f"momentum.{i}": state["momentum_buffer"] for i, state in enumerate(optimizer.state.values())}
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()} | momentum
    metadata = {"recipe": json.dumps(asdict(recipe)), "epoch": str(epoch)}
    write_aside(path, safetensors.torch.save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, metadata))


def _resume(model: nn.Module, optimizer: torch.optim.SGD, recipe: Recipe, path: Path) -> int:
    """The epochs that a checkpoint holds, after it was put into model and optimizer; 0 without one."""
    if not path.is_file():
        return 0
    with safetensors.safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if json.loads(metadata["recipe"]) != asdict(recipe):
        raise FewSpikesError(f"{path} was made with {metadata['recipe']}; remove it to begin again")
    model.load_state_dict({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, parameter in enumerate(parameters):
        buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{i}"])
        optimizer.state[parameter] = {"momentum_buffer": buffer}
    return int(metadata["epoch"])


def _write_weights(model: nn.Module, path: Path, described: Mapping[str, Any]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": "pt", **{key: json.dumps(value) for key, value in described.items()}}
    write_aside(path, safetensors.torch.save(tensors, metadata))


def main() -> None:
    """Train, print one line an epoch, and write the weights with their accuracy, recipe and command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a network of models/, such as cifar_efficientnet")
    parser.add_argument("--data", type=Path, required=True, help="the folder of CIFAR-10")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--decay", type=float, default=Recipe.decay, help="of the weights")
    parser.add_argument("--smoothing", type=float, default=Recipe.smoothing, help="of the labels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="a third faster on a CPU; needs a C++ compiler")
    arguments = parser.parse_args()
    chosen = {name: getattr(arguments, name) for name in ("epochs", "seed", "decay", "smoothing")}
    recipe = Recipe(**chosen)
    torch.manual_seed(recipe.seed)
    loaded = load_model(f"fewspikes:{arguments.name}", random=True)
    model = loaded.model.to(arguments.device)
    images, labels = read_split(arguments.data, "train", loaded.preprocessing, 10)
    checkpoint = arguments.output.with_suffix(".checkpoint.safetensors")
    for line in train(model, images, labels, recipe, checkpoint, arguments.compile):
        print(json.dumps(line), flush=True)  # noqa: T201
    test = accuracy(model, *read_split(arguments.data, "test", loaded.preprocessing, 10))
    said = " ".join(f"--{name} {value:g}" for name, value in chosen.items())
    command = f"python -m fewspikes.models.training {arguments.name} {said}"
    described = {"top1": test, "images": 10_000, "recipe": asdict(recipe), "command": command}
    _write_weights(model, arguments.output, described)
    print(json.dumps(described))  # noqa: T201


if __name__ == "__main__":
    main()
