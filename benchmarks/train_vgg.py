"""Train the tests' small VGG with max pools on CIFAR-10; a run that was cut goes on where it was.

python benchmarks/train_vgg.py --data DIR -o docs/results/vgg.json

The weights go into tests/data/, with what made them; a line an epoch is printed.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch

from fewspikes.base.files import write_aside, write_json
from fewspikes.bench import conditions
from fewspikes.paper.training import InMemory, Recipe, accuracy, read_split, train

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from vgg import PREPROCESSING, WEIGHTS, vgg

_RECIPE = Recipe(epochs=24, rate=0.05, decay=3e-4, smoothing=0.0, optimizer="muon", precision="bfloat16")


def main() -> None:
    """Train, measure on the test images, and write weights and results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of CIFAR-10")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/vgg.json"))
    arguments = parser.parse_args()
    torch.manual_seed(_RECIPE.seed)
    model, started = vgg(), time.perf_counter()
    images = InMemory(*read_split(arguments.data, "train", PREPROCESSING, 10), _RECIPE.batch, _RECIPE.seed)
    losses = []
    for line in train(model, images, _RECIPE, WEIGHTS.with_suffix(".checkpoint.safetensors")):
        losses.append(line["loss"])
        print(json.dumps(line), flush=True)
    seconds = time.perf_counter() - started
    test = (tensor.split(250) for tensor in read_split(arguments.data, "evaluation", PREPROCESSING, 10))
    top1, n = accuracy(model, zip(*test, strict=True))
    command = "python benchmarks/train_vgg.py --data DIR"
    made = {"top1": top1, "images": n, "recipe": asdict(_RECIPE), "command": command}
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": "pt", **{key: json.dumps(value) for key, value in made.items()}}
    write_aside(WEIGHTS, safetensors.torch.save(tensors, metadata))
    parameters = sum(p.numel() for p in model.parameters())
    content = {"name": "vgg", **made, "parameters": parameters, "seconds": seconds, "losses": losses}
    write_json(arguments.output, {**content, "conditions": conditions()})
    print(json.dumps(made))


if __name__ == "__main__":
    main()
