"""Networks of whole numbers beside the float ones: accuracy on real images, exactness, images per second in one run.

ResNet20 on all 10,000 CIFAR-10 test images, EfficientNet-Lite0 on 450 ImageNet photographs (the other 50 calibrate).
"Reference" is the same network by float64 products and the plain loop; outputs and spike counts must be equal bit for
bit on `--compared` images.

    python benchmarks/integers.py --data DIR -o docs/results/integers.json
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accuracy import NETWORKS
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import alternate, conditions, laid_out, ratio

_CASES = [("resnet20", 4), ("resnet20", 5), ("resnet20", 6), ("resnet20", 8), ("efficientnet_lite0", 6)]
_SECONDS = 30.0  # of timing for each case


def rows(data: Path, compared: int) -> Iterator[dict[str, Any]]:
    """One row for each network and K."""
    for name, K in _CASES:
        network = NETWORKS[name](data)
        snn = fs.convert(network.model, network.x, calibration=network.calibration(0), K=K)
        whole, slow = fs.to_integer(snn), fs.to_integer(snn, engine="reference")
        nets = {"ann": laid_out(network.model), "folded": laid_out(snn.as_ann()), "snn": laid_out(snn), "whole": whole}
        with torch.inference_mode(), fs.count(snn) as spikes, fs.count(whole) as whole_spikes:
            logits = {key: torch.cat([net(x) for x, _ in network.test]) for key, net in nets.items()}
        labels = torch.cat([torch.as_tensor(label) for _, label in network.test])
        named = {key: out.argmax(1) for key, out in logits.items()}
        row = {
            "row": f"{name} K={K}",
            "images": len(labels),
            "top1": {key: _percent(named[key], labels) for key in ("ann", "snn", "whole")},
            "same_class_as_snn": _percent(named["whole"], named["snn"]),
            "same_class_as_ann": {key: _percent(named[key], named["ann"]) for key in ("snn", "whole")},
            "spikes_per_neuron": {"snn": spikes.per_neuron, "whole": whole_spikes.per_neuron},
            "engines": Counter(whole.engines.values()),
            "compared": 0,
        }
        yield row | _compared(whole, slow, network.test, compared) | _timed(nets, network.test[0][0])


def _percent(a: Tensor, b: Tensor) -> float:
    return 100.0 * float((a == b).double().mean())


def _compared(whole: nn.Module, slow: nn.Module, test: Any, most: int) -> dict[str, Any]:
    """Outputs and counts of both engines, bit for bit."""
    images, bits, counts = 0, True, True
    for x, _ in test:
        if images >= most:
            break
        images += len(x)
        with torch.inference_mode(), fs.count(whole) as a, fs.count(slow) as b:
            bits = bits and torch.equal(whole(x), slow(x))
        counts = counts and a.by_site == b.by_site
    return {"compared": images, "bits_equal": bits, "counts_equal": counts}


def _timed(nets: dict[str, nn.Module], x: Tensor) -> dict[str, Any]:
    def counted(net: nn.Module) -> None:
        with fs.count(net):
            net(x)

    jobs = {key: (lambda net=net: net(x)) for key, net in nets.items() if key in ("ann", "folded")}
    jobs |= {key: (lambda net=nets[key]: counted(net)) for key in ("snn", "whole")}
    with torch.inference_mode():
        found = alternate(jobs, _SECONDS)
    return {
        "batch": len(x),
        "images_per_second": {key: len(x) / timing.median for key, timing in found.items()},
        "whole_over_ann": ratio(found["ann"], found["whole"]),
        "whole_over_folded": ratio(found["folded"], found["whole"]),
        "whole_over_snn": ratio(found["snn"], found["whole"]),
        "runs": found["ann"].runs,
    }


def main() -> None:
    """Measure, print, and write after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/, weights/ and imagenet-sample/")
    parser.add_argument("--compared", type=int, default=1000, help="images on which both engines are compared")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/integers.json"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found: list[dict[str, Any]] = []
    for row in rows(arguments.data, arguments.compared):
        found.append(row)
        print(row, flush=True)
        write_json(
            arguments.output,
            {
                "command": f"python benchmarks/integers.py --data DIR --compared {arguments.compared}",
                "seed": 0,
                "conditions": conditions(),
                "rows": found,
            },
        )


if __name__ == "__main__":
    main()
