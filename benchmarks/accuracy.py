"""Accuracy, agreement, spikes and steps of converted networks on real images, written as JSON with its conditions.

Third-party ResNet20 and ResNet44 on all 10,000 CIFAR-10 test images (calibrated on 512 training images), and
EfficientNet-Lite0 on 450 ImageNet photographs (calibrated on the other 50). Each in the paper's setting and
calibrated at several K.

    python benchmarks/accuracy.py --data DIR -o docs/results/accuracy.json
"""

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

import fewspikes as fs
from fewspikes.convert import calibrate_model
from fewspikes.data import loader, open_images
from fewspikes.files import write_aside, write_json
from fewspikes.models import LITE0_PREPROCESSING, efficientnet_lite0, lite0_calibration, load_model

SEED = 0
_COLUMNS = ("setting", "k", "ann_top1", "snn_top1", "drop", "agreement", "spikes_per_neuron", "latency_steps")
_HEAD = """| network | images | setting | K | top-1 ANN → SNN | same class | spikes per neuron | steps to the answer |
|---|---|---|---|---|---|---|---|
"""


def cifar(data: Path, name: str, steps: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """A CIFAR ResNet on the whole test split."""
    loaded = load_model(f"fewspikes:{name}", str(data / "weights" / f"cifar10-{name}.safetensors"))
    assert loaded.preprocessing is not None
    train = open_images(data / "cifar10", "train", loaded.preprocessing, 10, limit=512, seed=SEED)
    test = loader(open_images(data / "cifar10", "test", loaded.preprocessing, 10), 250)
    x = torch.zeros(1, 3, 32, 32)
    seen = calibrate_model(loaded.model, x, loader(train, 64))
    yield from rows(name, "CIFAR-10", loaded.model, x, seen, test, steps)


def lite0(data: Path, steps: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """EfficientNet-Lite0 on the photographs that did not calibrate it."""
    sample = open_images(data / "imagenet-sample", "val", LITE0_PREPROCESSING, classes=1000)
    rest = Subset(sample, [i for i in range(len(sample)) if i % 10])
    x = torch.zeros(1, 3, 224, 224)
    model, images = efficientnet_lite0(), loader(rest, 25)
    yield from rows("efficientnet_lite0", "photographs", model, x, lite0_calibration(), images, steps)


def rows(
    name: str, data: str, model: torch.nn.Module, x: torch.Tensor, seen: Any, images: Any, steps: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """The paper's setting, then calibrated at each K."""
    settings: list[tuple[str, dict[str, Any]]] = [("paper", {})]
    settings += [("calibrated", {"K": k, "calibration": seen}) for k in steps]
    for setting, options in settings:
        snn = fs.convert(model, x, **options)
        report = fs.evaluate(snn, images, model, name=name)
        yield {
            "setting": setting,
            "data": data,
            "calibration_images": snn.report.calibration_images,
            **report.to_json(),
        }


def show_in_readme(done: list[dict[str, Any]], readme: Path) -> None:
    """Put the table between its marks in the README."""
    begin, end = "<!-- accuracy: begin -->\n", "<!-- accuracy: end -->"
    text = readme.read_text()
    lines = [
        f"| {row['model']} | {row['images']:,} {row['data']} | {row['setting']} | {row['k']} "
        f"| {row['ann_top1']:.2f} → {row['snn_top1']:.2f} | {row['agreement']:.2f}% | {row['spikes_per_neuron']:.2f} "
        f"| {row['latency_steps']} |\n"
        for row in done
    ]
    before, after = text.partition(begin)[0], text.partition(end)[2]
    write_aside(readme, (before + begin + _HEAD + "".join(lines) + end + after).encode())


def conditions() -> dict[str, Any]:
    """Seed, versions and machine."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "seed": SEED,
        "date": time.strftime("%Y-%m-%d"),
        "command": "python benchmarks/accuracy.py --data DIR",
        "commit": commit.stdout.strip(),
        "versions": {"fewspikes": fs.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "weights": "third-party",
    }


def main() -> None:
    """Parse, measure, print and write after every row, so that a cut run keeps what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/, weights/ and imagenet-sample/")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/accuracy.json"))
    arguments = parser.parse_args()
    done: list[dict[str, Any]] = []
    signed = conditions()
    for source in (
        cifar(arguments.data, "resnet20", (8, 6, 5, 4)),
        lite0(arguments.data, (8, 6, 5)),
        cifar(arguments.data, "resnet44", (6,)),
    ):
        for row in source:
            done.append(row)
            print(row["model"], *(f"{column}={row[column]}" for column in _COLUMNS), f"n={row['images']}", flush=True)
            write_json(arguments.output, {"conditions": signed, "rows": done})
    show_in_readme(done, Path(__file__).parent.parent / "README.md")


if __name__ == "__main__":
    main()
