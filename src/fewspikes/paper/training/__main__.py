"""Train a network of the paper by our recipe; a run that was cut goes on where it was.

python -m fewspikes.paper.training resnet20 --data cifar10 -o resnet20.safetensors --optimizer muon --rate 0.05
python -m fewspikes.paper.training resnet50_average --data imagenet -o resnet50.safetensors --device cuda

It prints a line an epoch, and the file says at its end how accurate the network is and what made it.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fewspikes.base.devices import find_device
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import write_aside
from fewspikes.images import Preprocessing, loader
from fewspikes.models.loading import CIFAR_NETWORKS, LoadedModel, load_model
from fewspikes.models.names import did_you_mean
from fewspikes.paper.training.images import InMemory, OnDisk, TrainingImages, open_split, read_split
from fewspikes.paper.training.loop import OPTIMIZERS, PRECISIONS, Recipe, accuracy, train

AVERAGE = "resnet50_average"
_IMAGENET = Recipe(epochs=90, batch=256, rate=0.1, warmup=0.05, decay=1e-4, smoothing=0.1)
_CHOSEN = ("epochs", "seed", "batch", "rate", "decay", "smoothing", "optimizer", "precision")


def main() -> None:
    """Train, print one line an epoch, and write the weights with their accuracy, recipe and command."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        _run(arguments, find_device(arguments.device))
    except FewSpikesError as error:
        _leave(f"error: {error}", 2)
    except KeyboardInterrupt:
        _leave("interrupted; the same command goes on after the last whole epoch", 130)


def _leave(message: str, code: int) -> None:
    print(message, file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _check(arguments: argparse.Namespace) -> None:
    names = (*CIFAR_NETWORKS, AVERAGE)
    if arguments.name not in names:
        raise FewSpikesError(
            f"no recipe for {arguments.name!r}; there are {', '.join(names)}{did_you_mean(arguments.name, names)}"
        )
    if arguments.pretrained and arguments.name != AVERAGE:
        raise FewSpikesError(f"--pretrained goes with {AVERAGE}, which can begin with torchvision's weights")
    if arguments.output.suffix != ".safetensors":
        raise FewSpikesError(f"-o must name a .safetensors file; got {arguments.output}")
    if not arguments.output.parent.is_dir():
        raise FewSpikesError(f"cannot write {arguments.output}: make its folder first")


def _run(arguments: argparse.Namespace, device: torch.device) -> None:
    _check(arguments)
    is_average = arguments.name == AVERAGE
    usual = _IMAGENET if is_average else Recipe()
    given = {name: getattr(arguments, name) for name in _CHOSEN}
    recipe = Recipe(**{**asdict(usual), **{name: value for name, value in given.items() if value is not None}})
    torch.manual_seed(recipe.seed)
    loaded = (
        resnet50_average(arguments.pretrained) if is_average else load_model(f"fewspikes:{arguments.name}", random=True)
    )
    model, like = loaded.model.to(device), loaded.preprocessing
    assert like is not None  # every network here has its own
    images, test = (_on_disk if is_average else _in_memory)(arguments, like, recipe)
    checkpoint = arguments.output.with_suffix(".checkpoint.safetensors")
    about = {"network": arguments.name, "pretrained": arguments.pretrained}
    for line in train(model, images, recipe, checkpoint, arguments.compile, about):
        print(json.dumps(line), flush=True)  # noqa: T201
    top1, n = accuracy(model, test)
    said = "".join(
        f" --{name} {getattr(recipe, name)}" for name in _CHOSEN if getattr(recipe, name) != getattr(usual, name)
    )
    said += " --pretrained" * arguments.pretrained
    command = f"python -m fewspikes.paper.training {arguments.name} --data DIR -o FILE.safetensors{said}"
    described = {"top1": top1, "images": n, "recipe": asdict(recipe), "command": command}
    _write_weights(model, arguments.output, described)
    print(json.dumps(described))  # noqa: T201


def resnet50_average(pretrained: bool = False) -> LoadedModel:
    """torchvision's ResNet50 with an average pool in place of its max pool, as the paper's Table 1 has it.

    Its tensors are those of torchvision's network, so its weights go with `convert(..., circuits={"max": "average"})`.

    Args:
        pretrained: begin with torchvision's weights, made for the max pool; False: random ones.
    """
    loaded = load_model("torchvision:resnet50", random=not pretrained)
    pool = loaded.model.maxpool
    assert isinstance(pool, nn.MaxPool2d)
    loaded.model.maxpool = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, count_include_pad=False)
    return loaded


Images = tuple[TrainingImages, Iterable[tuple[Tensor, Tensor]]]  # to train on, and to test on


def _in_memory(arguments: argparse.Namespace, like: Preprocessing, recipe: Recipe) -> Images:
    train_images = read_split(arguments.data, "train", like, 10, arguments.skip_damaged)
    test_images = read_split(arguments.data, "evaluation", like, 10, arguments.skip_damaged)
    test = list(zip(*(tensor.split(250) for tensor in test_images), strict=True))
    return InMemory(*train_images, recipe.batch, recipe.seed), test


def _on_disk(arguments: argparse.Namespace, like: Preprocessing, recipe: Recipe) -> Images:
    data, test = (open_split(arguments.data, split, like, 1000) for split in ("train", "evaluation"))
    images = OnDisk(data, like, recipe.batch, recipe.seed, arguments.workers, arguments.skip_damaged)
    return images, loader(test, recipe.batch, arguments.workers, arguments.skip_damaged)


def _write_weights(model: nn.Module, path: Path, described: Mapping[str, Any]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": "pt", **{key: json.dumps(value) for key, value in described.items()}}
    write_aside(path, safetensors.torch.save(tensors, metadata))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m fewspikes.paper.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = {field.name: field.type for field in fields(Recipe)}
    parser.add_argument(
        "name", help=f"a CIFAR network of models/, such as resnet20 or cifar_efficientnet, or {AVERAGE}"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help=f"the folder of CIFAR-10, or for {AVERAGE} of ImageNet"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--pretrained", action="store_true", help=f"{AVERAGE}: begin with torchvision's weights")
    helps = {
        "batch": "images a step",
        "rate": "the highest learning rate; muon: of what is no convolution",
        "decay": "of the weights",
        "smoothing": "of the labels",
        "precision": "of products and activations",
    }
    choices = {"optimizer": OPTIMIZERS, "precision": PRECISIONS}
    for name in _CHOSEN:
        usual = f"{getattr(Recipe, name)}; {AVERAGE}: {getattr(_IMAGENET, name)}"
        words = f"{helps.get(name, '')} (default: {usual})".strip()
        parser.add_argument(f"--{name}", type=kinds[name], choices=choices.get(name), help=words)
    parser.add_argument("--workers", type=int, default=2, help=f"processes that read photographs, for {AVERAGE}")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged images out and name them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="faster on a CPU; needs a C++ compiler")
    return parser


if __name__ == "__main__":
    main()
