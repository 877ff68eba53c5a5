"""How the event engine's time follows the spikes: ResNet20 with fewer and fewer of them, on one core.

Networks of several K, and at K = 6 with a price on spikes, on the same test images of CIFAR-10: the least time of
several runs, without that in which the synapses are written out, once for a network. Beside it are the synaptic
operations, counted one by one, and a straight line through all networks.

    python benchmarks/events.py --data DIR -o docs/results/events.json
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import load_model
from fewspikes.simulation.events import Flat, Wiring, shot
from fewspikes.simulation.plan import Plan
from fewspikes.simulation.run import Batch

_SETTINGS: tuple[dict[str, Any], ...] = (
    *({"K": K} for K in (10, 8, 6, 5, 4, 3)),
    *({"K": 6, "spike_price": price} for price in (0.01, 0.03, 0.1, 0.3, 1.0)),
)
_CALIBRATION_IMAGES = 512


def row(model: torch.nn.Module, seen: Tensor, x: Tensor, settings: dict[str, Any], runs: int) -> dict[str, Any]:
    """One network's row."""
    snn = fs.convert(model, seen[:1], seen, **settings)
    plan = Plan(snn.structure, snn.tensors, {name: neuron.code.K for name, neuron in snn.neurons.items()})
    started = time.perf_counter()
    wiring = Wiring(plan, snn, [x[:1]])
    wired, took = time.perf_counter() - started, list[float]()
    for _ in range(runs + 1):  # the first one warms up
        started, spikes, synops = time.perf_counter(), 0, 0
        for n in range(len(x)):
            store = Flat(wiring)
            batch = Batch(plan, snn, [x[n : n + 1]], store, n)
            for _, _, _, neurons, done in shot(wiring, batch, store):
                spikes, synops = spikes + len(neurons), synops + done
            batch.output()
        took.append(time.perf_counter() - started)
    seconds = min(took[1:]) / len(x)
    return {
        "settings": settings,
        "images": len(x),
        "synapses": wiring.count,
        "seconds_to_write_them_out": wired,
        "spikes_per_neuron": spikes / len(x) / snn.report.neurons,
        "synops_per_image": synops / len(x),
        "seconds_per_image": seconds,
        "synops_per_second": synops / len(x) / seconds,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/ and weights/")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/events.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model("fewspikes:resnet20", str(given.data / "weights" / "cifar10-resnet20.safetensors"))

    def images(split: str, count: int) -> Tensor:
        folder = open_images(given.data / "cifar10", split, loaded.preprocessing, 10, limit=count)
        return torch.cat([x for x, _ in loader(folder, 64)])

    seen, x, rows = images("train", _CALIBRATION_IMAGES), images("test", given.images), []
    for settings in _SETTINGS:
        with torch.no_grad():
            rows.append(row(loaded.model, seen, x, settings, given.runs))
        print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    synops, took = (np.array([one[name] for one in rows]) for name in ("synops_per_image", "seconds_per_image"))
    slope, start = np.polyfit(synops, took, 1)
    line = {
        "seconds_per_million_synops": float(slope) * 1e6,
        "seconds_without_any": float(start),
        "correlation": float(np.corrcoef(synops, took)[0, 1]),
    }
    print(line)
    content = {"name": "events", "network": "resnet20", "rows": rows, "line": line}
    command = f"python benchmarks/events.py --data DIR --images {given.images} --runs {given.runs}"
    write_json(given.output, content | {"conditions": {"command": command, **conditions()}})


if __name__ == "__main__":
    main()
