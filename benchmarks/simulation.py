"""Networks spike by spike beside the fast kernels: the same spikes and classes by every engine, and how fast.

    python benchmarks/simulation.py --data DIR -o docs/results/simulation.json

Trained networks, real inputs: CIFAR-10's test images, and scikit-learn's handwritten digits, read row by row by an LSTM
and a small transformer that are trained here. In float64 the engines must fire the same spikes. In float32 sums are
formed in another order: the share of images without any difference is told, the spikes that differ, the classes.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import load_model
from fewspikes.simulation.plan import Plan
from fewspikes.simulation.run import Batch
from fewspikes.simulation.simulation import simulate
from fewspikes.simulation.steps import fired

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from vgg import PREPROCESSING, trained_vgg

ENGINES, SEED, CALIBRATION = ("steps", "pipeline", "events"), 0, 512
Case = tuple[nn.Module, Tensor, Tensor, int]  # model, images to calibrate on, images to run, K


class Reading(nn.Module):
    """An LSTM that reads a digit row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, 8, 8]."""
        return self.out(self.lstm(x)[0][:, -1])


class Attending(nn.Module):
    """A transformer of two layers over a digit's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Linear(8, 32), nn.Parameter(torch.zeros(8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, activation="gelu")
        self.layers, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: [batch, 8, 8]."""
        return self.out(self.layers(self.embed(x) + self.places).mean(1))


def digits(make: Callable[[], nn.Module], images: int) -> Case:
    """A network trained on two thirds of the digits."""
    torch.manual_seed(SEED)
    found = load_digits()
    order = torch.randperm(len(found.target))
    x, y = torch.from_numpy(found.images).float()[order] / 16, torch.from_numpy(found.target)[order]
    model, train = make(), 1200
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(30):
        for part in torch.randperm(train).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimiser.step()
    return model.eval(), x[:CALIBRATION], x[train : train + images], 8


def cifar(data: Path, model: nn.Module, preprocessing: Any, images: int, K: int) -> Case:
    """A network on CIFAR-10."""

    def some(split: str, count: int) -> Tensor:
        return torch.cat(
            [x for x, _ in loader(open_images(data / "cifar10", split, preprocessing, 10, limit=count), 250)]
        )

    return model, some("train", CALIBRATION), some("test", images), K


def cases(data: Path, images: int) -> dict[str, Callable[[], Case]]:
    """The networks by name."""
    weights = str(data / "weights" / "cifar10-resnet20.safetensors")

    def library(name: str, K: int, stored: str | None = None) -> Case:
        loaded = load_model(f"fewspikes:{name}", stored)
        return cifar(data, loaded.model, loaded.preprocessing, images, K)

    return {
        "resnet20": lambda: library("resnet20", 6, weights),
        "cifar_efficientnet": lambda: library("cifar_efficientnet", 8),
        "vgg": lambda: cifar(data, trained_vgg(), PREPROCESSING, images, 6),
        "lstm": lambda: digits(Reading, images),
        "transformer": lambda: digits(Attending, images),
    }


def trains(snn: fs.SpikingNetwork, x: Tensor) -> dict[str, list[Tensor]]:
    """The fast kernels' spikes by site and time step of its loop, [K, images, *shape]."""
    found: dict[str, list[Tensor]] = {name: [] for name in snn.neurons}

    def watch(name: str) -> Callable[[Any, Any], None]:
        return lambda module, given: found[name].append(fs.encode(module.gate(given[0]), module.code))

    hooks = [neuron.register_forward_pre_hook(watch(name)) for name, neuron in snn.neurons.items()]
    snn(x)
    for hook in hooks:
        hook.remove()
    return found


def beside(snn: fs.SpikingNetwork, x: Tensor, engine: str) -> dict[str, Any]:
    """An engine's spikes and classes beside the fast network's."""
    with torch.no_grad(), fs.count(snn, synops=True) as counts:
        snn(x[:2])
    with torch.no_grad(), fs.count(snn, synops=True) as counts:
        begun = time.perf_counter()
        wanted = snn(x)
        fast = time.perf_counter() - begun
    expected = trains(snn, x)
    begun = time.perf_counter()
    trace = simulate(snn, x, engine, progress=False)
    seconds = time.perf_counter() - begun
    apart, total, touched = 0, 0, torch.zeros(len(x), dtype=torch.bool)
    for name, spikes in trace.spikes.items():
        axis = snn.structure.image_axes[name]
        whole = torch.stack([torch.stack([axis.in_front(z) for z in own]) for own in expected[name]])
        differing = spikes != whole.view(spikes.shape)
        apart, total = apart + int(differing.sum()), total + int(whole.sum())
        images = differing.movedim(2 if snn.structure.loop(name) is not None else 1, 0)
        touched |= images.flatten(1).any(1)
    return {
        "engine": engine,
        "spikes": total,
        "spikes_apart": apart,
        "images_apart": int(touched.sum()),
        "classes_apart": int((trace.output.argmax(1) != wanted.argmax(1)).sum()),
        "output_apart": float((trace.output - wanted).abs().max()),
        "counts_equal": trace.counts.by_site == counts.by_site,
        "synops": trace.counts.synops,
        "synops_by_graph": counts.synops,
        "answer": trace.answer,
        "interval": trace.interval,
        "seconds": seconds,
        "seconds_fast": fast,
    }


def fed(snn: fs.SpikingNetwork, x: Tensor) -> dict[str, int]:
    """Layer by layer with the fast kernels' own sources: how many of all chances to fire come out otherwise."""
    expected = {(name, at): z for name, own in trains(snn, x).items() for at, z in enumerate(own)}
    plan = Plan(snn.structure, snn.tensors, {name: neuron.code.K for name, neuron in snn.neurons.items()})
    apart, total = 0, 0
    with torch.no_grad():
        for _, layer, t, z in fired(plan, Batch(plan, snn, [x]), expected):
            wanted = expected[layer.site, layer.time][t]
            apart, total = apart + int((z != wanted.view(z.shape)).sum()), total + z.numel()
    return {"apart": apart, "of": total}


def rows(name: str, make: Callable[[], Case], engines: list[str]) -> Iterator[dict[str, Any]]:
    """A network as it is converted by default and with everything spiking, in both precisions."""
    model, seen, x, K = make()
    for circuits in (None, "gated"):
        for dtype in (torch.float64, torch.float32):
            snn = fs.convert(model.to(dtype), seen[:1].to(dtype), seen.to(dtype), K=K, circuits=circuits, seed=SEED)
            about = {
                "network": name,
                "circuits": circuits or "default",
                "K": K,
                "images": len(x),
                "dtype": str(dtype)[6:],
            }
            if dtype == torch.float32:
                yield {**about, "engine": "layer by layer", **fed(snn, x.to(dtype))}
            for engine in engines:
                yield about | beside(snn, x.to(dtype), engine)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/ and weights/")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/simulation.json"))
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--only", action="append", default=[], help="a network; may be repeated")
    parser.add_argument("--engine", action="append", default=[], choices=ENGINES)
    given = parser.parse_args()
    found = []
    for name, make in cases(given.data, given.images).items():
        if given.only and name not in given.only:
            continue
        for row in rows(name, make, given.engine or list(ENGINES)):
            found.append(row)
            print(json.dumps(row), flush=True)
            about = {"command": "python benchmarks/simulation.py --data DIR", "seed": SEED}
            write_json(given.output, {**about, "rows": found, "conditions": conditions()})


if __name__ == "__main__":
    main()
