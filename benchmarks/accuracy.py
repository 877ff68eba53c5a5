"""Accuracy, agreement, spikes and steps of converted networks on real images, written as JSON with its conditions.

CIFAR-10: third-party ResNet20 and ResNet44 and our own small EfficientNet (SiLU, squeeze and excitation) on all 10,000
test images; 512 training images calibrate and repair, 8,192 distil. EfficientNet-Lite0: 450 ImageNet photographs; the
other 50 calibrate and, each in four versions (turned, moved and mirrored at random), distil. Rows that the output
file holds already are kept, so that a cut run goes on; --again makes them anew. Last, the tables in the README and in
docs/results are written.

    python benchmarks/accuracy.py --data DIR -o docs/results/accuracy.json ["resnet20 calibrated K=4" ...]
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Subset
from torchvision.transforms import v2

import fewspikes as fs
from fewspikes.base.files import write_aside, write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import LITE0_PREPROCESSING, efficientnet_lite0, load_model

_CALIBRATION_IMAGES, _DISTILLING_IMAGES = 512, 8192
_CHANGED = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(12, translate=(0.1, 0.1), scale=(0.88, 1.12))])
_COLUMNS = ("ann_top1", "snn_top1", "drop", "agreement", "spikes_per_neuron", "latency_steps")
_HEAD = """| network | images | setting | K | top-1 ANN → SNN | same class | spikes per neuron | steps to the answer |
|---|---|---|---|---|---|---|---|
"""
_TELLING = (  # rows of the README
    "resnet20 paper",
    "resnet20 calibrated K=5",
    "resnet44 calibrated K=5",
    "cifar_efficientnet calibrated K=8",
    "efficientnet_lite0 calibrated, few spikes K=6",
)


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        network: see `NETWORKS`.
        setting: what the tables call it.
        options: of `fs.convert`; without "K" or a budget it is the paper's setting, without calibration.
        steps: of distilling, minibatches of 64 images; 0: none.
        spike_price: of distilling.
        targets: (name in the row, ">=" or "<=", value).
        seed: of the calibration and distilling images, the fits and the learning.
    """

    network: str
    setting: str
    options: dict[str, Any]
    steps: int = 0
    spike_price: float = 0.0
    targets: tuple[tuple[str, str, float], ...] = ()
    seed: int = 0

    @property
    def name(self) -> str:
        """What is given on the command line."""
        k = f" K={self.options['K']}" if "K" in self.options else ""
        return f"{self.network} {self.setting}{k}" + (f" seed {self.seed}" if self.seed else "")

    @property
    def distilling(self) -> dict[str, float] | None:
        """How it is distilled, if it is."""
        return {"steps": self.steps, "spike_price": self.spike_price} if self.steps else None

    def describes(self, done: dict[str, Any]) -> bool:
        """Whether a measured row has these very settings."""
        return (done.get("options"), done.get("distilling")) == (self.options, self.distilling)


@dataclass(frozen=True)
class Network:
    """A network with its images; the functions make a loader from a seed."""

    model: nn.Module
    x: Tensor
    data: str
    weights: str
    calibration: Callable[[int], Any]
    distilling: Callable[[int], Any]
    test: Any = field(repr=False)


def drop(most: float, spikes: float | None = None, same: float | None = None) -> tuple[tuple[str, str, float], ...]:
    """Targets: points of top-1 lost, spikes per neuron, percent of images with the ANN's class."""
    wanted = [("drop", "<=", most), ("spikes_per_neuron", "<=", spikes), ("agreement", ">=", same)]
    return tuple((name, sign, value) for name, sign, value in wanted if value is not None)


def same(least: float, spikes: float | None = None) -> tuple[tuple[str, str, float], ...]:
    """Targets: percent of images with the ANN's class, and spikes per neuron."""
    return (("agreement", ">=", least), *((("spikes_per_neuron", "<=", spikes),) if spikes else ()))


def steps(most: int) -> tuple[tuple[str, str, float], ...]:
    """Target: time steps from the image to the answer."""
    return (("latency_steps", "<=", most),)


_SEEDS = range(1, 5)  # beside 0
_RESNET_STEPS, _SILU_STEPS, _LITE0_STEPS = 600, 600, 40
ROWS = [
    Row("resnet20", "paper", {}),
    Row("resnet20", "calibrated", {"K": 6}),
    Row("resnet20", "calibrated", {"K": 5}, targets=drop(0.1)),
    Row("resnet20", "calibrated", {"K": 4}, targets=drop(0.6, 0.78)),
    Row("resnet20", "calibrated", {"K": 3}),
    Row("resnet20", "calibrated, few spikes", {"K": 5, "spike_price": 0.01}, targets=drop(0.1)),
    Row("resnet20", "calibrated, few spikes", {"K": 4, "spike_price": 0.005}, targets=drop(0.6, 0.78)),
    Row("resnet20", "distilled", {"K": 4}, _RESNET_STEPS, targets=drop(0.4, same=97)),
    Row("resnet20", "distilled", {"K": 3}, _RESNET_STEPS, targets=drop(1.5, 0.62)),
    Row("resnet20", "distilled, few spikes", {"K": 4}, _RESNET_STEPS, spike_price=0.02, targets=drop(0.6, 0.78)),
    Row("resnet20", "mixed K, distilled", {"max_steps": 80}, _RESNET_STEPS, targets=(*drop(0.4), *steps(80))),
    Row("resnet44", "paper", {}),
    Row("resnet44", "calibrated", {"K": 5}, targets=drop(0.3)),
    Row("resnet44", "calibrated", {"K": 4}, targets=drop(1.0, 0.83)),
    Row("resnet44", "calibrated, few spikes", {"K": 4, "spike_price": 0.015}, targets=drop(1.0, 0.83)),
    Row("resnet44", "distilled", {"K": 4}, _RESNET_STEPS, targets=drop(0.7, same=97)),
    Row("resnet44", "distilled", {"K": 3}, _RESNET_STEPS, targets=drop(2.2, 0.65)),
    Row("cifar_efficientnet", "paper's tables", {}),
    Row("cifar_efficientnet", "calibrated", {"K": 16}, targets=same(98)),
    Row("cifar_efficientnet", "calibrated", {"K": 8}, targets=drop(0.3, 1.6)),
    Row("cifar_efficientnet", "calibrated, few spikes", {"K": 8, "spike_price": 0.0025}, targets=drop(0.3, 1.6)),
    Row("cifar_efficientnet", "calibrated", {"K": 6}),
    Row("cifar_efficientnet", "distilled", {"K": 8, "spike_price": 0.0025}, _SILU_STEPS // 2, targets=drop(0.3, 1.6)),
    Row("cifar_efficientnet", "distilled", {"K": 6, "spike_price": 0.005}, _SILU_STEPS, targets=drop(1.0, 1.3)),
    Row("efficientnet_lite0", "paper", {}),
    Row("efficientnet_lite0", "calibrated", {"K": 6}, targets=same(97.5)),
    Row("efficientnet_lite0", "calibrated, few spikes", {"K": 6, "spike_price": 0.05}, targets=same(97, 1.2)),
    Row("efficientnet_lite0", "calibrated", {"K": 5}, targets=same(96)),
    Row("efficientnet_lite0", "calibrated", {"K": 4}, targets=same(91)),
    Row("efficientnet_lite0", "calibrated, few spikes", {"K": 4, "spike_price": 0.01}, targets=same(91)),
    Row("efficientnet_lite0", "distilled", {"K": 4, "spike_price": 0.01}, _LITE0_STEPS, targets=same(91)),
    *(Row("resnet20", "calibrated", {"K": 5}, seed=seed) for seed in _SEEDS),
    *(Row("resnet20", "calibrated, few spikes", {"K": 4, "spike_price": 0.005}, seed=seed) for seed in _SEEDS),
    *(Row("cifar_efficientnet", "calibrated", {"K": 8}, seed=seed) for seed in _SEEDS),
    *(Row("resnet20", "distilled", {"K": k}, _RESNET_STEPS, seed=seed) for k in (4, 3) for seed in _SEEDS),
]


def cifar(data: Path, name: str, weights: str | None) -> Network:
    """A CIFAR network on the whole test split."""
    loaded = load_model(f"fewspikes:{name}", None if weights is None else str(data / "weights" / weights))
    preprocessing = loaded.preprocessing
    assert preprocessing is not None

    def train(limit: int, batch: int) -> Callable[[int], Any]:
        return lambda seed: loader(open_images(data / "cifar10", "train", preprocessing, 10, limit, seed), batch)

    test = kept(loader(open_images(data / "cifar10", "test", preprocessing, 10), 250))
    third = "third-party" if weights else "ours"
    calibration, distilling = train(_CALIBRATION_IMAGES, 64), train(_DISTILLING_IMAGES, 256)
    x = torch.zeros(1, 3, 32, 32)
    return Network(loaded.model, x, "CIFAR-10", third, calibration, distilling, test)


def lite0(data: Path) -> Network:
    """EfficientNet-Lite0 on the photographs that did not calibrate it."""
    sample = open_images(data / "imagenet-sample", "val", LITE0_PREPROCESSING, classes=1000)
    tenth, rest = (Subset(sample, [i for i in range(len(sample)) if (i % 10 == 0) == kept]) for kept in (True, False))
    some, test = loader(tenth, 10), kept(loader(rest, 25))
    x = torch.zeros(1, 3, 224, 224)
    model = efficientnet_lite0()
    return Network(model, x, "photographs", "third-party", lambda _: some, lambda seed: varied(some, 3, seed), test)


def varied(batches: Any, times: int, seed: int) -> list[Tensor]:
    """The images, and so many times more, changed at random."""
    images = torch.cat([x for x, _ in batches])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        changed = [_CHANGED(image) for _ in range(times) for image in images]
    return [images, *torch.stack(changed).split(len(images))]


def kept(batches: Any) -> list[tuple[Tensor, Tensor]]:
    """The batches in memory, in the layout that convolutions are fastest in."""
    return [(x.to(memory_format=torch.channels_last), labels) for x, labels in batches]


NETWORKS: dict[str, Callable[[Path], Network]] = {
    "resnet20": lambda data: cifar(data, "resnet20", "cifar10-resnet20.safetensors"),
    "resnet44": lambda data: cifar(data, "resnet44", "cifar10-resnet44.safetensors"),
    "cifar_efficientnet": lambda data: cifar(data, "cifar_efficientnet", None),
    "efficientnet_lite0": lite0,
}


def measure(row: Row, network: Network) -> dict[str, Any]:
    """Convert, distil, evaluate."""
    seconds: dict[str, float] = {}
    options = dict(row.options)
    if options:
        options |= {"calibration": network.calibration(row.seed), "seed": row.seed}
    started = time.perf_counter()
    snn = fs.convert(network.model, network.x, **options)
    seconds["convert"] = round(time.perf_counter() - started, 1)
    if row.steps:
        started = time.perf_counter()
        images = network.distilling(row.seed)
        snn = fs.distil(snn, images, steps=row.steps, spike_price=row.spike_price, seed=row.seed, progress=True)
        seconds["distil"] = round(time.perf_counter() - started, 1)
    found = fs.evaluate(snn, network.test, network.model, name=row.network).to_json()
    return {
        "row": row.name,
        "setting": row.setting,
        "seed": row.seed,
        "options": row.options,
        "distilling": row.distilling,
        "data": network.data,
        "weights": network.weights,
        "calibration_images": snn.report.calibration_images,
        **found,
        "k_by_site": sorted({site.K for site in snn.report.sites}),
        "notes": [note for note in snn.report.notes if note.startswith(("repair", "distil", "budget"))],
        "seconds": seconds,
        "targets": [[name, sign, value, reached(found[name], sign, value)] for name, sign, value in row.targets],
        "conditions": {
            "command": f'python benchmarks/accuracy.py --data DIR "{row.name}"',
            "seed": row.seed,
            **conditions(),
        },
    }


def reached(value: float, sign: str, target: float) -> bool:
    """Whether a target is met, to the digits that are printed."""
    return round(value, 3) <= target if sign == "<=" else round(value, 3) >= target


def spread(done: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation and range over the seeds, of each row that was measured with several."""
    together: dict[str, list[dict[str, Any]]] = {}
    for name, row in done.items():
        together.setdefault(name.partition(" seed ")[0], []).append(row)
    found: dict[str, dict[str, Any]] = {}
    for name, rows in together.items():
        if len(rows) > 1:
            found[name] = {"seeds": sorted(row["seed"] for row in rows)}
            for column in ("snn_top1", "agreement", "spikes_per_neuron"):
                values = [row[column] for row in rows]
                mean = sum(values) / len(values)
                deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
                found[name][column] = {
                    "mean": round(mean, 4),
                    "standard_deviation": round(deviation, 4),
                    "least": min(values),
                    "most": max(values),
                }
    return found


def show_tables(done: dict[str, dict[str, Any]], root: Path) -> None:
    """Put the tables between their marks: the five rows that tell most in the README, all of seed 0 in docs/results.

    Args:
        done: measured rows by name.
        root: of the repository.
    """
    begin, end = "<!-- accuracy: begin -->\n", "<!-- accuracy: end -->"
    every = [name for name, row in done.items() if row["seed"] == 0]
    for file, names in ((root / "docs" / "results" / "README.md", every), (root / "README.md", _TELLING)):
        text, lines = file.read_text(), "".join(line(done[name]) for name in names if name in done)
        before, after = text.partition(begin)[0], text.partition(end)[2]
        write_aside(file, (before + begin + _HEAD + lines + end + after).encode())


def line(row: dict[str, Any]) -> str:
    """A row of either table."""
    return (
        f"| {row['model']} | {row['images']:,} {row['data']} | {row['setting']} "
        f"| {'–'.join(str(k) for k in sorted({row['k_by_site'][0], row['k_by_site'][-1]}))} "
        f"| {row['ann_top1']:.2f} → {row['snn_top1']:.2f} | {row['agreement']:.2f}% | {row['spikes_per_neuron']:.2f} "
        f"| {row['latency_steps']} |\n"
    )


def main() -> None:
    """Parse, measure, print and write after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="names of rows, or the words that they begin with; all without")
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/, weights/ and imagenet-sample/")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/accuracy.json"))
    parser.add_argument("--again", action="store_true", help="measure rows anew that the file holds")
    arguments = parser.parse_args()
    found = json.loads(arguments.output.read_text())["rows"] if arguments.output.is_file() else []
    done = {row["row"]: row for row in found if "row" in row}
    make = cache(lambda name: NETWORKS[name](arguments.data))
    for row in ROWS:
        wanted = not arguments.rows or any(
            given == row.name or (row.seed == 0 and f"{row.name} ".startswith((f"{given} K=", f"{given} ")))
            for given in arguments.rows
        )
        if not wanted or (row.describes(done.get(row.name, {})) and not arguments.again):
            continue
        done[row.name] = found = measure(row, make(row.network))
        missed = [f"MISSED {name} {sign} {value:g}" for name, sign, value, met in found["targets"] if not met]
        shown = [f"{column}={found[column]:.3f}" for column in _COLUMNS]
        print(row.name, *shown, f"n={found['images']}", found["seconds"], *missed, flush=True)
        done = {row.name: done[row.name] for row in ROWS if row.name in done}
        write_json(arguments.output, {"rows": list(done.values()), "spread": spread(done)})
    show_tables(done, Path(__file__).parent.parent)


if __name__ == "__main__":
    main()
