"""Firing rates, single spikes and FS-neurons on the same trained network and images: accuracy, spikes, time steps.

python benchmarks/baselines/compare.py --data DIR -o docs/results/baselines.json
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from coding import first_spike, rate_coded, thresholds
from torch import Tensor

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.conversion.building import calibrate_model
from fewspikes.images import loader, open_images
from fewspikes.models import load_model
from fewspikes.network.spiking import SpikingNetwork

_NETWORKS = {"resnet20": "cifar10-resnet20.safetensors", "resnet44": "cifar10-resnet44.safetensors"}
_RATE, _FIRST, _FS = (32, 64, 128, 256), (8, 16, 32, 64), (4, 5, 6)


def rows(data: Path, limit: int) -> Iterator[dict[str, Any]]:
    """One row for each code, network and number of steps."""
    for name, weights in _NETWORKS.items():
        loaded = load_model(f"fewspikes:{name}", str(data / "weights" / weights))
        assert loaded.preprocessing is not None
        train = open_images(data / "cifar10", "train", loaded.preprocessing, 10, 512)
        images = [x for x, _ in loader(train, 64)]
        test = [
            (x.to(memory_format=torch.channels_last), labels)
            for x, labels in loader(open_images(data / "cifar10", "test", loaded.preprocessing, 10, limit), 250)
        ]
        ann, like = loaded.model.to(memory_format=torch.channels_last), torch.zeros(1, 3, 32, 32)
        snn = fs.convert(ann, like)
        at = thresholds(calibrate_model(ann, like, images))
        with torch.inference_mode():
            wanted = [ann(x).argmax(1) for x, _ in test]
        codes = [("rate", steps, rate_coded(snn, at, steps)) for steps in _RATE]
        codes += [("first spike", steps, first_spike(snn, at, steps)) for steps in _FIRST]
        codes += [("FS, the paper's setting", 10, counted(snn))]
        codes += [("FS, calibrated", K, counted(fs.convert(ann, like, calibration=images, K=K))) for K in _FS]
        yield {"network": name, "code": "the ANN", **score(wanted, wanted, test)}
        for code, steps, run in codes:
            yield {"network": name, "code": code, "steps": steps, **measured(run, wanted, test, snn)}


def counted(snn: SpikingNetwork) -> Callable[[Tensor], tuple[Tensor, int]]:
    """A spiking network as a function of images."""

    def run(x: Tensor) -> tuple[Tensor, int]:
        with fs.count(snn) as counts:
            return snn(x), counts.total

    return run


def measured(run: Any, wanted: list[Tensor], test: Any, snn: SpikingNetwork) -> dict[str, Any]:
    """Accuracy, agreement, spikes and seconds."""
    named, spikes, started = [], 0, time.perf_counter()
    with torch.inference_mode():
        for x, _ in test:
            logits, fired = run(x)
            named.append(logits.argmax(1))
            spikes += fired
    seconds = time.perf_counter() - started
    images = sum(len(x) for x, _ in test)
    per_neuron = spikes / images / snn.report.neurons
    return {**score(named, wanted, test), "spikes_per_neuron": per_neuron, "seconds": seconds}


def score(named: list[Tensor], wanted: list[Tensor], test: Any) -> dict[str, Any]:
    """Percent right, and percent as the ANN."""
    labels = torch.cat([torch.as_tensor(y) for _, y in test])
    a, b = torch.cat(named), torch.cat(wanted)
    return {
        "images": len(labels),
        "top1": 100 * float((a == labels).double().mean()),
        "agreement": 100 * float((a == b).double().mean()),
    }


def main() -> None:
    """Measure, print and write after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/ and weights/")
    parser.add_argument("--limit", type=int, default=500, help="test images, a random subset (seed 0)")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/baselines.json"))
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for row in rows(arguments.data, arguments.limit):
        found.append(row)
        print(*row.values(), flush=True)
        content = {"name": "baselines", "seed": 0, "rows": found, "conditions": conditions()}
        write_json(arguments.output, content)


if __name__ == "__main__":
    main()
