"""Why some trained networks need more spikes per neuron in the paper's setting than others: their outputs are larger.

python benchmarks/activity.py --data DIR -o docs/results/activity.json
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import load_model
from fewspikes.models.loading import trained_weights
from fewspikes.network.spiking import ExactActivation
from fewspikes.paper import published

_NETWORKS = ("resnet8", "resnet14", "resnet20", "resnet44")


def activity(model: nn.Module, batches: Any) -> dict[str, float]:
    """Over all ReLUs and images: spikes per neuron, the share that fires, spikes of those, root mean square output."""
    K, alpha = published.RELU_SETTING["K"], published.RELU_SETTING["alpha"]
    code = fs.relu_parameters(K, alpha, published.RELU_SETTING["rounding"])
    ann = fs.convert(model, torch.zeros(1, 3, 32, 32), **published.RELU_SETTING).as_ann()
    sums = torch.zeros(4, dtype=torch.float64)

    def add(y: Tensor) -> None:
        spikes = fs.apply(y, code)[1]
        sums.add_(torch.tensor([y.numel(), int((spikes > 0).sum()), int(spikes.sum()), float(y.square().sum())]))

    for module in ann.modules():
        if isinstance(module, ExactActivation):
            module.register_forward_hook(lambda _module, _inputs, y: add(y))
    with torch.inference_mode():
        for x, _ in batches:
            ann(x)
    neurons, active, spikes, squares = sums.tolist()
    return {
        "spikes_per_neuron": spikes / neurons,
        "active": active / neurons,
        "spikes_per_active": spikes / active,
        "rms": (squares / neurons) ** 0.5,
    }


def rows(data: Path, limit: int) -> Iterator[dict[str, Any]]:
    """One row for each network and weights."""
    for name in _NETWORKS:
        files = {"ours": trained_weights(name), "third-party": data / "weights" / f"cifar10-{name}.safetensors"}
        for whose, file in files.items():
            if file.is_file():
                loaded = load_model(f"fewspikes:{name}", str(file))
                assert loaded.preprocessing is not None
                images = open_images(data / "cifar10", "test", loaded.preprocessing, 10, limit)
                yield {"network": name, "weights": whose, **activity(loaded.model, loader(images, 250))}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/ and weights/")
    parser.add_argument("--limit", type=int, default=500, help="test images, a random subset (seed 0)")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/activity.json"))
    arguments = parser.parse_args()
    found = list(rows(arguments.data, arguments.limit))
    for row in found:
        print(*row.values())
    content = {"name": "activity", "seed": 0, "images": arguments.limit, "rows": found, "conditions": conditions()}
    write_json(arguments.output, content)


if __name__ == "__main__":
    main()
