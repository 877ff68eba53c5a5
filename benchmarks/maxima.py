"""Max pools as neurons beside max pools left digital: the small trained VGG on CIFAR-10's test images.

    python benchmarks/maxima.py --data DIR -o docs/results/maxima.json

Both networks get the same codes where they share a layer; then their outputs must be the same bits. The second part
gives networks with max pools, and one without, their inputs as spikes and counts the multiply-adds that are left.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import timm
import torch

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from vgg import PREPROCESSING, trained_vgg

STEPS = (4, 5, 6, 8)
CALIBRATION, SEED = 512, 0


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder with cifar10/")
    parser.add_argument("-o", "--output", default="docs/results/maxima.json")
    parser.add_argument("--images", type=int, default=10_000)
    given = parser.parse_args()
    folder = Path(given.data) / "cifar10"
    test = loader(open_images(folder, "test", PREPROCESSING, 10, limit=given.images), 250)
    train = loader(open_images(folder, "train", PREPROCESSING, 10, limit=CALIBRATION), 64)
    found = {
        "command": "python benchmarks/maxima.py --data DIR",
        "images": given.images,
        "calibration_images": CALIBRATION,
        "seed": SEED,
        "vgg": [pools(k, train, test) for k in STEPS],
        "multiply_adds": [left(name, size) for name, size in (("resnet50", 224), ("tf_efficientnet_lite0", 224))],
        "conditions": conditions(),
    }
    write_json(Path(given.output), found)
    print(json.dumps(found, indent=1))


def pools(k: int, train: Any, test: Any) -> dict[str, Any]:
    """The VGG with K steps, its pools digital and by neurons."""
    model = trained_vgg()
    example = torch.zeros(2, 3, 32, 32)
    neurons = fs.convert(model, example, train, K=k, circuits={"max": "neurons"}, seed=SEED)
    digital = fs.convert(model, example, train, K=k, seed=SEED)
    same = digital.with_neurons({name: neurons.neurons[name].replace() for name in digital.neurons})
    equal = all(torch.equal(neurons(images), same(images)) for images, _ in test)
    reports = {name: fs.evaluate(one, test, reference=model) for name, one in (("neurons", neurons), ("digital", same))}
    first = reports["neurons"]
    return {
        "K": k,
        "equal_bits": equal,
        "ann_top1": first.ann_top1,
        **{f"{name}_top1": one.snn_top1 for name, one in reports.items()},
        **{f"{name}_spikes_per_neuron": one.spikes_per_neuron for name, one in reports.items()},
        **{f"{name}_neurons": one.neurons for name, one in reports.items()},
        **{f"{name}_latency_steps": one.latency_steps for name, one in reports.items()},
        "circuits": [circuit.operator for circuit in neurons.report.circuits],
        "exact": all(circuit.exact for circuit in neurons.report.circuits),
    }


def left(name: str, size: int) -> dict[str, Any]:
    """Multiply-adds of a network, and those left where its inputs and maxima are spikes."""
    torch.manual_seed(SEED)
    model = timm.create_model(name).eval()
    images = torch.randint(0, 256, (8, 3, size, size)).float() / 255
    plain = fs.convert(model, images[:1])
    spikes = fs.convert(model, images[:1], images, K=8, circuits="neurons", repair=False, seed=SEED)
    return {
        "model": name,
        "ann_macs": plain.macs.ann,
        "macs_with_analog_inputs": plain.macs.analog,
        "macs_with_spikes": spikes.macs.analog,
        "left_digital": len(spikes.report.left_digital),
        "circuits": {c.operator: c.neurons for c in spikes.report.circuits},
    }


if __name__ == "__main__":
    main()
