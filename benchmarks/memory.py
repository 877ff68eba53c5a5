"""Peak memory and time of converting large networks with images: calibration, fits, repair, diagnosis.

python benchmarks/memory.py efficientnet_b7 -o docs/results/memory_efficientnet_b7.json
python benchmarks/memory.py vgg16 -o docs/results/memory_vgg16.json

Weights are random (seed 0), batch norms have shaken statistics, and images are noise: memory and time do not depend on
them.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.models import load_model

_NETWORKS = {"efficientnet_b7": ("timm:tf_efficientnet_b7", 600, 64), "vgg16": ("torchvision:vgg16", 224, 512)}


class Noise(Dataset[Tensor]):
    """So many images of noise, each made when it is asked for."""

    def __init__(self, images: int, size: int) -> None:
        self.images, self.size = images, size

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, place: int) -> Tensor:
        return torch.randn(3, self.size, self.size, generator=torch.Generator().manual_seed(place))


def peak_gib() -> float:
    """Of this process so far."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024**2


def measured(name: str, K: int) -> dict[str, Any]:
    """Convert one network and say what it took."""
    spec, size, images = _NETWORKS[name]
    torch.manual_seed(0)
    model = load_model(spec, None, True).model
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    started, before = time.perf_counter(), peak_gib()
    snn = fs.convert(model, torch.zeros(1, 3, size, size), DataLoader(Noise(images, size), batch_size=16), K=K)
    return {
        "network": name,
        "pixels": size,
        "images": images,
        "K": K,
        "neurons": snn.report.neurons,
        "seconds": time.perf_counter() - started,
        "peak_gib": peak_gib(),
        "peak_gib_before": before,
        "notes": list(snn.report.notes),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=_NETWORKS)
    parser.add_argument("-K", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    found = measured(arguments.network, arguments.K)
    print(found)
    if arguments.output is not None:
        write_json(arguments.output, {"name": "memory", "seed": 0, **found, "conditions": conditions()})


if __name__ == "__main__":
    main()
