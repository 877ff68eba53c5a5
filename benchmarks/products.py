"""Products of two signals digital, gated and by quarter squares: squeeze and excitation as spikes.

    python benchmarks/products.py --data DIR -o docs/results/products.json
    python benchmarks/products.py --efficientnet-b7 digital gated -o docs/results/products.json

The first measures our small EfficientNet on CIFAR-10's test images, calibrated and repaired on 512 training images. The
second converts the paper's EfficientNet-B7 (600 x 600, random weights, no fit worth the name: K = 8, "quick") and runs
one image. Each run replaces the rows of its own settings in the file.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import load_model

CALIBRATION, CLASSES = 512, 10
B7, B7_SIZE, B7_IMAGES = "tf_efficientnet_b7", 600, 1  # images to calibrate on, of noise
SQUARES = "mul"  # in the names of sites that stand for a product
SETTINGS: dict[str, Any] = {
    "digital": None,
    "products gated": {"product": "gated"},
    "products of neurons": {"product": "neurons"},
    "all gated": "gated",
    "all of neurons": "neurons",
}


def main() -> None:
    """Measure and write after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help=f"some of: {', '.join(SETTINGS)}; all without")
    parser.add_argument("--data", type=Path, help="the folder with cifar10/")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/products.json"))
    parser.add_argument("-K", type=int, default=8, help="time steps of each site")
    parser.add_argument("--squares-K", type=int, help="time steps of the squares of products of neurons; K without")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--efficientnet-b7", nargs="+", choices=("digital", "gated", "neurons"), default=[])
    given = parser.parse_args()
    for circuits in given.efficientnet_b7:
        added(given.output, "efficientnet_b7", counted(circuits))
    if given.data is not None:
        for setting in given.settings or SETTINGS:
            for seed in given.seeds:
                row = measured(setting, given.data / "cifar10", given.K, given.squares_K, given.images, seed)
                added(given.output, "cifar_efficientnet", row)


def added(output: Path, part: str, row: dict[str, Any]) -> None:
    """Put a row into the file, in the place of one with the same settings."""
    found = json.loads(output.read_text()) if output.is_file() else {"command": "python benchmarks/products.py"}
    rows = [one for one in found.get(part, []) if one["settings"] != row["settings"]] + [row]
    write_json(output, found | {part: rows, "conditions": conditions(timm)})
    print(json.dumps(row, indent=1), flush=True)


def measured(setting: str, folder: Path, k: int, squares: int | None, images: int, seed: int) -> dict[str, Any]:
    """Our small EfficientNet, converted and evaluated."""
    loaded = load_model("fewspikes:cifar_efficientnet")
    model: nn.Module = loaded.model
    train = loader(open_images(folder, "train", loaded.preprocessing, CLASSES, limit=CALIBRATION, seed=seed), 64)
    test = loader(open_images(folder, "test", loaded.preprocessing, CLASSES, limit=images), 250)
    x, circuits = torch.zeros(1, 3, 32, 32), SETTINGS[setting]
    steps: Any = k
    if squares is not None:
        names = fs.convert(
            model, x, next(iter(train))[0][:8], K=1, circuits=circuits, repair=False, effort="quick"
        ).neurons
        steps = {name: squares if SQUARES in name.rpartition(".")[2] else k for name in names}
    started = time.perf_counter()
    snn = fs.convert(model, x, train, K=steps, circuits=circuits, seed=seed)
    seconds = time.perf_counter() - started
    found = fs.evaluate(snn, test, model).to_json()
    return {
        "settings": {"circuits": setting, "K": k, "squares_K": squares, "seed": seed, "images": images},
        "calibration_images": snn.report.calibration_images,
        **{name: found[name] for name in _SHOWN},
        "multiply_adds_left": snn.macs.analog,
        "multiply_adds": snn.macs.ann,
        "left_digital": len(snn.report.left_digital),
        "repair": [note for note in snn.report.notes if note.startswith("repair")],
        "circuits": _circuits(snn),
        "convert_seconds": round(seconds, 1),
    }


_SHOWN = (
    "ann_top1",
    "snn_top1",
    "drop",
    "drop_ci95",
    "agreement",
    "neurons",
    "layers",
    "spikes_per_neuron",
    "spikes_per_image",
    "latency_steps",
    "interval_steps",
    "synops_per_image",
    "relative_error",
)


def counted(circuits: str) -> dict[str, Any]:
    """EfficientNet-B7 with random weights: converted, and one image run."""
    torch.manual_seed(0)
    model = timm.create_model(B7).eval()
    x = torch.randn(B7_IMAGES, 3, B7_SIZE, B7_SIZE)
    options: dict[str, Any] = {} if circuits == "digital" else {"circuits": circuits}
    started = time.perf_counter()
    snn = fs.convert(model, x, x, K=8, effort="quick", repair=False, **options)
    converted = time.perf_counter()
    with fs.count(snn, synops=True) as counts, torch.inference_mode():
        out = snn(x[:1])
    ran = time.perf_counter()
    with torch.inference_mode():
        wanted = model(x[:1])
    report = snn.report
    return {
        "settings": {"circuits": circuits, "K": 8, "weights": "random", "seed": 0, "calibration_images": B7_IMAGES},
        "neurons": report.neurons,
        "neurons_by_activation": report.neurons_by_activation,
        "layers": report.layers,
        "latency_steps": report.latency_steps,
        "interval_steps": report.interval_steps,
        "spikes": counts.total,
        "spikes_per_neuron": counts.total / report.neurons,
        "synops": counts.synops,
        "multiply_adds_left": snn.macs.analog,
        "multiply_adds": snn.macs.ann,
        "left_digital": len(report.left_digital),
        "relative_error": float((out - wanted).norm() / (wanted - wanted.mean()).norm()),
        "circuits": _circuits(snn),
        "convert_seconds": round(converted - started, 1),
        "run_seconds": round(ran - converted, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _circuits(snn: Any) -> dict[str, dict[str, int]]:
    """By operator: how many circuits stand for it, and their neurons."""
    found: dict[str, dict[str, int]] = {}
    for circuit in snn.report.circuits:
        own = found.setdefault(circuit.operator, {"count": 0, "neurons": 0})
        own["count"] += 1
        own["neurons"] += circuit.neurons
    return found


if __name__ == "__main__":
    main()
