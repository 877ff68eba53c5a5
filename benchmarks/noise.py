"""Accuracy of converted networks with faults: spikes lost, late or spurious, noise, stuck neurons.

ResNet20 at K=6 and our own small EfficientNet at K=8 on the test images of CIFAR-10, each fault by itself from 0.1 to
10%, with five seeds each. Lines that the output file holds for as many images already are kept, so that a cut run goes
on; --again makes them anew.

    python benchmarks/noise.py --data DIR -o docs/results/noise.json [--images 10000] [--seeds 5] [lost late ...]
"""

import argparse
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import load_model
from fewspikes.simulation.drawing import draw_faults
from fewspikes.simulation.simulation import simulate
from fewspikes.simulation.trace import Recording

_NETWORKS = {"resnet20": 6, "cifar_efficientnet": 8}
_SIZES = (0.001, 0.003, 0.01, 0.03, 0.1)
_FAULTS: dict[str, dict[str, Any]] = {
    "lost": {"lost": 1},
    "late": {"late": 1},
    "spurious": {"spurious": 1},
    "threshold_noise": {"threshold_noise": 1},
    "threshold_noise of each step": {"threshold_noise": 1, "each": "step"},
    "weight_noise": {"weight_noise": 1},
    "stuck at silence": {"stuck": 1},
    "stuck at firing": {"stuck": 1, "stuck_at": "firing"},
}
_CALIBRATION_IMAGES, _BATCH = 512, 250
_COLUMNS = ("network", "fault", "size", "seed", "images")


class Network:
    """A converted network with its ANN and test images."""

    def __init__(self, name: str, data: Path, images: int) -> None:
        file = data / "weights" / f"cifar10-{name}.safetensors"
        loaded = load_model(f"fewspikes:{name}", str(file) if file.is_file() else None)
        assert loaded.preprocessing is not None
        folder, preprocessing = data / "cifar10", loaded.preprocessing
        train = loader(open_images(folder, "train", preprocessing, 10, _CALIBRATION_IMAGES, 0), 64)
        self.model, self.test = (
            loaded.model,
            list(loader(open_images(folder, "test", preprocessing, 10, images), _BATCH)),
        )
        self.snn = fs.convert(self.model, torch.zeros(1, 3, 32, 32), train, K=_NETWORKS[name], seed=0)

    def measured(self, faults: fs.Faults) -> dict[str, float | None]:
        """What is left of the accuracy."""
        found = fs.evaluate(fs.perturb(self.snn, faults), self.test, self.model)
        return {column: getattr(found, column) for column in ("ann_top1", "snn_top1", "agreement", "spikes_per_neuron")}

    def engines_agree(self, faults: fs.Faults) -> int:
        """How many of the first ten images `simulate` gives another class."""
        x: Tensor = self.test[0][0][:10]
        faulty = fs.perturb(self.snn, faults)
        with torch.no_grad():
            wanted = faulty(x).argmax(1)
        return int((simulate(faulty, x, "steps", Recording(())).output.argmax(1) != wanted).sum())


def wanted(networks: list[str], faults: list[str], seeds: int) -> Iterator[tuple[str, str, float, int]]:
    """Network, fault, size and seed of each line; without a fault there is one line of each network."""
    for network in networks:
        yield network, "none", 0.0, 0
        for fault in faults:
            yield from ((network, fault, size, seed) for size in _SIZES for seed in range(seeds))


def faults_of(fault: str, size: float, seed: int) -> fs.Faults:
    """A fault of a size; words stay as they are."""
    given = {name: value if isinstance(value, str) else size for name, value in _FAULTS.get(fault, {}).items()}
    return fs.Faults(**given, seed=seed)


def curves(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds."""
    together: dict[tuple[Any, ...], list[float]] = {}
    for line in lines:
        together.setdefault((line["network"], line["fault"], line["size"], line["images"]), []).append(line["snn_top1"])
    return [
        {
            "network": network,
            "fault": fault,
            "size": size,
            "images": images,
            "seeds": len(found),
            "snn_top1": round(mean(found), 4),
            "standard_deviation": round(stdev(found), 4) if len(found) > 1 else None,
        }
        for (network, fault, size, images), found in together.items()
    ]


def main() -> None:
    """Parse, measure, print and write after every line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", choices=[*_FAULTS, []], help="all without")
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/ and weights/")
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/noise.json"))
    parser.add_argument("--network", action="append", choices=_NETWORKS, help="may be repeated; all without")
    parser.add_argument("--picture", type=Path, help=".png or .svg")
    parser.add_argument("--again", action="store_true", help="measure lines anew that the file holds")
    arguments = parser.parse_args()
    held = json.loads(arguments.output.read_text())["lines"] if arguments.output.is_file() else []
    done = {tuple(line[column] for column in _COLUMNS): line for line in held}
    make = cache(lambda name: Network(name, arguments.data, arguments.images))
    networks = arguments.network or list(_NETWORKS)
    for name, fault, size, seed in wanted(networks, arguments.faults or list(_FAULTS), arguments.seeds):
        key = (name, fault, size, seed, arguments.images)
        if key in done and not arguments.again:
            continue
        network, faults = make(name), faults_of(fault, size, seed)
        line = dict(zip(_COLUMNS, key, strict=True)) | network.measured(faults)
        if seed == 0:
            line["simulated_otherwise_of_10"] = network.engines_agree(faults)
        done[key] = line
        print(*(f"{column}={value}" for column, value in line.items()), flush=True)
        lines = list(done.values())
        command = f"python benchmarks/noise.py --data DIR --images {arguments.images} --seeds {arguments.seeds}"
        told = {"command": command, "seeds": arguments.seeds, **conditions()}
        write_json(arguments.output, {"lines": lines, "curves": curves(lines), "conditions": told})
    if arguments.picture is not None:
        draw_faults(curves(list(done.values())), arguments.picture)


if __name__ == "__main__":
    main()
