"""Whether an image's output depends on the batch that it comes in: floating sums are added in another order there.

python benchmarks/batches.py --data DIR -o docs/results/batches.json
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import load_model

_NETWORKS = {"resnet20": {"K": 6}, "cifar_efficientnet": {"K": 8, "effort": "quick"}}
_USUAL, _OTHERS = 64, (1, 7, 16, 250)


def rows(data: Path, limit: int) -> Iterator[dict[str, Any]]:
    """For each network, dtype and batch size, the shares of images that differ from those in batches of 64."""
    for name, options in _NETWORKS.items():
        file = data / "weights" / f"cifar10-{name}.safetensors"
        loaded = load_model(f"fewspikes:{name}", str(file) if file.is_file() else None)
        assert loaded.preprocessing is not None
        test = _images(data, "test", loaded.preprocessing, limit)
        train = _images(data, "train", loaded.preprocessing, 512)
        for dtype in (torch.float32, torch.float64):
            model = loaded.model.to(dtype)
            snn = fs.convert(model, train[:2].to(dtype), train.to(dtype), progress=False, **options)  # type: ignore[arg-type]
            usual, spikes = _run(snn, test.to(dtype), _USUAL)
            for size in _OTHERS:
                got, others = _run(snn, test.to(dtype), size)
                yield {
                    "network": name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "batch": size,
                    "images_with_other_spikes": float((spikes != others).double().mean()),
                    "images_of_another_class": float((usual.argmax(1) != got.argmax(1)).double().mean()),
                    "largest_difference": float((usual - got).abs().max()),
                }


def _images(data: Path, split: str, preprocessing: Any, limit: int) -> Tensor:
    return torch.cat([x for x, _ in loader(open_images(data / "cifar10", split, preprocessing, 10, limit), 250)])


def _run(snn: Any, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Outputs, and a number for each image's spikes: those of each neuron, each with a weight of its own."""
    prints = torch.zeros(len(x), dtype=torch.int64)
    outputs, begun = [], 0

    def add(at: int, spikes: Tensor) -> None:
        rows = spikes.reshape(len(spikes), -1).long()
        weights = torch.arange(1, rows.shape[1] + 1) * (2 * at + 1)
        prints[begun : begun + len(rows)] += (rows * weights).sum(1)

    for at, neuron in enumerate(snn.neurons.values()):
        neuron.spike_hooks.append(lambda _, spikes, at=at: add(at, spikes))
    with torch.inference_mode():
        for batch in x.split(size):
            outputs.append(snn(batch))
            begun += len(batch)
    for neuron in snn.neurons.values():
        neuron.spike_hooks.clear()
    return torch.cat(outputs), prints


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/ and weights/")
    parser.add_argument("--limit", type=int, default=1000, help="test images, a random subset (seed 0)")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/batches.json"))
    arguments = parser.parse_args()
    found = []
    for row in rows(arguments.data, arguments.limit):
        found.append(row)
        print(*row.values(), flush=True)
    content = {"name": "batches", "seed": 0, "images": arguments.limit, "rows": found, "conditions": conditions()}
    write_json(arguments.output, content)


if __name__ == "__main__":
    main()
