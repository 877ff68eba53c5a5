"""Early answers: the accuracy of the running output after each of the last steps, ResNet20 and our small EfficientNet.

The output is a weighted sum of the last layer's spikes. Each of its steps makes the sum more exact, and the class can
be read before the last one. Calibrated on 512 training images, measured on test images drawn with seed 0.

    python benchmarks/early.py --data DIR --limit 1000 -o docs/results/early.json --picture docs/results/early.png
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import load_model
from fewspikes.simulation.drawing import draw_early

NETWORKS = (("resnet20", "cifar10-resnet20.safetensors", 6), ("cifar_efficientnet", None, 8))
_CALIBRATION_IMAGES = 512


def early(name: str, weights: str | None, K: int, data: Path, limit: int) -> dict[str, Any]:
    """One network's row."""
    loaded = load_model(f"fewspikes:{name}", None if weights is None else str(data / "weights" / weights))
    assert loaded.preprocessing is not None
    train = open_images(data / "cifar10", "train", loaded.preprocessing, 10, _CALIBRATION_IMAGES)
    snn = fs.convert(loaded.model, torch.zeros(1, 3, 32, 32), loader(train, 64), K=K)
    right, ann_right, agree = torch.zeros(K), 0, torch.zeros(K)
    steps: tuple[int, ...] = ()
    started = time.perf_counter()
    for x, labels in loader(open_images(data / "cifar10", "test", loaded.preprocessing, 10, limit), 50):
        trace = fs.simulate(snn, x, recording=fs.Recording(sites=()))
        assert trace.running is not None
        steps, classes = trace.running_steps, trace.running.argmax(2)
        right += (classes == labels).sum(1)
        agree += (classes == classes[-1]).sum(1)
        with torch.inference_mode():
            ann_right += int((loaded.model(x).argmax(1) == labels).sum())
    return {
        "network": name,
        "K": K,
        "steps": list(steps),
        "top1": [100 * n / limit for n in right.tolist()],
        "same_as_last": [100 * n / limit for n in agree.tolist()],
        "ann_top1": 100 * ann_right / limit,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/ and weights/")
    parser.add_argument("--limit", type=int, default=1000, help="test images, a random subset (seed 0)")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/early.json"))
    parser.add_argument("--picture", type=Path, help=".png or .svg")
    arguments = parser.parse_args()
    rows = []
    for name, weights, K in NETWORKS:
        row = early(name, weights, K, arguments.data, arguments.limit)
        rows.append(row)
        for step, top1, same in zip(row["steps"], row["top1"], row["same_as_last"], strict=True):
            print(f"{name}, K={K}, after step {step}: {top1:.1f}% (ANN {row['ann_top1']:.1f}%), {same:.1f}% as last")
    command = f"python benchmarks/early.py --data DIR --limit {arguments.limit}"
    content = {"name": "early", "seed": 0, "images": arguments.limit, "rows": rows}
    write_json(arguments.output, content | {"conditions": {"command": command, **conditions()}})
    if arguments.picture is not None:
        draw_early(rows, arguments.picture)


if __name__ == "__main__":
    main()
