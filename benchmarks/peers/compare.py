"""The same trained network and images through other ways to run it as a spiking network, in one table.

ResNet20 on CIFAR-10 test images: rate-coded by SpikingJelly's converter at several numbers of steps; FS-neurons with
the paper's table by SpikingJelly's FewSpikeNode, by a plain loop in the original's formulation, and by fewspikes; and
fewspikes calibrated, also spike by spike. Needs the environment that install.sh makes.

    python benchmarks/peers/compare.py --data DIR --limit 1000 -o docs/results/peers.json
"""

import argparse
import copy
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions
from fewspikes.images import loader, open_images
from fewspikes.models import load_model
from fewspikes.neuron.kernels.reference import apply as plain_loop
from fewspikes.neuron.recurrence import cast

Batches = list[tuple[Tensor, Tensor]]
_STEPS, _PAPER = (32, 64), {"K": 10, "alpha": 25.0, "rounding": "down"}


class Counted:
    """Spikes so far."""

    def __init__(self) -> None:
        self.spikes = 0

    def add(self, spikes: Tensor) -> None:
        """Count the entries that are not 0."""
        self.spikes += int((spikes != 0).sum())


class PlainLoop(nn.Module):
    """The recurrence in plain torch, spikes counted."""

    def __init__(self, table: fs.FSParameters, counted: Counted) -> None:
        super().__init__()
        self.table, self.counted = table, counted

    def forward(self, x: Tensor) -> Tensor:
        """y."""
        y, spikes = plain_loop(x, *cast(self.table, x), count=True)
        assert spikes is not None
        self.counted.spikes += int(spikes.sum(dtype=torch.int64))
        return y


class Original(nn.Module):
    """The recurrence as the paper's code wrote it: a spike where (v - T) / (|v| + 1) > 0."""

    def __init__(self, table: fs.FSParameters, counted: Counted) -> None:
        super().__init__()
        self.table, self.counted = table, counted

    def forward(self, x: Tensor) -> Tensor:
        """y."""
        v, y = x, torch.zeros_like(x)
        for T, h, d in zip(self.table.T, self.table.h, self.table.d, strict=True):
            z = ((v - T) / (v.abs() + 1) > 0).to(x.dtype)
            y, v = y + z * d, v - z * h
            self.counted.add(z)
        return y


def few_spike_node(table: fs.FSParameters, counted: Counted) -> nn.Module:
    """SpikingJelly's FS-neuron with the same table."""
    from spikingjelly.activation_based.neuron.few_spike import FewSpikeNode, FewSpikeTable

    node = FewSpikeNode(FewSpikeTable(table.T.tolist(), table.h.tolist(), table.d.tolist()))
    node.surrogate_function.register_forward_hook(lambda module, args, z: counted.add(z))
    return node.eval()


class Spelled(nn.Module):
    """A block of the CIFAR ResNet out of torch's own modules alone, which is what the converter takes.

    Its shortcut, every second pixel with channels of zeros around it, is a 1x1 convolution with weights 0 and 1.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        self.relu1, self.relu2, self.short = nn.ReLU(), nn.ReLU(), nn.Identity()
        inputs, outputs = block.conv1.in_channels, block.conv1.out_channels
        if inputs != outputs:
            self.short = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
            before = (outputs - inputs) // 2
            self.short.weight.data.zero_()[before : before + inputs, :, 0, 0] = torch.eye(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """As the block."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.short(x))


def spelled(model: nn.Module, images: Tensor) -> nn.Module:
    """The CIFAR ResNet out of torch's own modules; the same outputs."""
    blocks = [Spelled(block) for stage in (model.layer1, model.layer2, model.layer3) for block in stage]
    network = nn.Sequential(
        model.conv1, model.bn1, nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.linear
    ).eval()
    with torch.inference_mode():
        assert torch.allclose(network(images), model(images), atol=1e-4)
    return network


def rate_coded(model: nn.Module, images: Tensor, counted: Counted) -> nn.Module:
    """SpikingJelly's rate-coded network, thresholds at the 99.9th percentile of its calibration images."""
    from spikingjelly.activation_based import ann2snn, neuron

    recipe = ann2snn.RateCodingRecipe(dataloader=[(part, 0) for part in images.split(64)], mode="99.9%")
    network = ann2snn.Converter(recipe=recipe, device="cpu").convert(model)
    for module in network.modules():
        if isinstance(module, neuron.BaseNode):
            module.register_forward_hook(lambda module, args, z: counted.add(z))
    return network.eval()


def run_rate_coded(network: nn.Module, steps: int) -> Callable[[Tensor], Tensor]:
    """Images shown `steps` times, outputs added."""
    from spikingjelly.activation_based import functional

    def run(x: Tensor) -> Tensor:
        functional.reset_net(network)
        return sum((network(x) for _ in range(steps)), torch.zeros(()))

    return run


def spike_by_spike(snn: fs.SpikingNetwork, counted: Counted) -> Callable[[Tensor], Tensor]:
    """Our network, its spikes sent step by step."""

    def run(x: Tensor) -> Tensor:
        trace = fs.simulate(snn, x, recording=fs.Recording(sites=()), progress=False)
        counted.spikes += trace.counts.total
        return trace.output

    return run


def measure(name: str, steps: Any, run: Callable[[Tensor], Tensor], test: Batches, ann: nn.Module) -> dict[str, Any]:
    """Accuracy, agreement and seconds."""
    right = same = images = 0
    seconds = 0.0
    with torch.inference_mode():
        run(test[0][0])
        for x, labels in test:
            started = time.perf_counter()
            got = run(x).argmax(1)
            seconds += time.perf_counter() - started
            right, same = right + int((got == labels).sum()), same + int((got == ann(x).argmax(1)).sum())
            images += len(x)
    return {
        "row": name,
        "steps_per_layer": steps,
        "images": images,
        "top1": 100 * right / images,
        "agreement": 100 * same / images,
        "seconds": seconds,
    }


def rows(data: Path, limit: int, repeat: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Measure all of them."""
    loaded = load_model("fewspikes:resnet20", str(data / "weights" / "cifar10-resnet20.safetensors"))
    assert loaded.preprocessing is not None
    ann, like = loaded.model, loaded.preprocessing
    test = [
        (x.to(memory_format=torch.channels_last), labels)
        for x, labels in loader(open_images(data / "cifar10", "test", like, 10, limit), 100)
    ]
    calibration = torch.cat([x for x, _ in loader(open_images(data / "cifar10", "train", like, 10, 512), 64)])
    paper = fs.convert(ann, calibration[:2], **_PAPER)
    five, six = (fs.convert(ann, calibration[:2], calibration=calibration, K=K) for K in (5, 6))
    neurons, shown = paper.report.neurons, sum(len(x) for x, _ in [test[0], *test])  # the first batch warms up
    found: list[dict[str, Any]] = []

    def add(name: str, steps: Any, run: Callable[[Tensor], Tensor], spikes: Callable[[], int | None]) -> None:
        row = measure(name, steps, run, test, ann)
        fired = spikes()
        row["spikes_per_neuron"] = None if fired is None else fired / shown / neurons
        found.append(row)
        repeat(row)

    add("the ANN", None, ann, lambda: None)
    for name, snn in (("the paper's setting", paper), ("calibrated", five), ("calibrated", six)):
        with fs.count(snn) as counts:
            K = next(iter(snn.neurons.values())).code.K
            add(f"fewspikes, {name}", K, snn, lambda counts=counts: counts.total)
    counted = Counted()
    add("fewspikes, calibrated, spike by spike", 6, spike_by_spike(six, counted), lambda: counted.spikes)
    makers = {
        "the paper's setting, plain loop": PlainLoop,
        "the paper's setting, original formulation": Original,
        "the paper's setting, SpikingJelly FewSpikeNode": few_spike_node,
    }
    for name, make in makers.items():
        counted = Counted()
        layers = {site.name: make(paper.neurons[site.name].code, counted) for site in paper.sites}
        add(name, 10, paper.running(layers), lambda counted=counted: counted.spikes)
    for steps in _STEPS:
        counted = Counted()
        network = rate_coded(spelled(copy.deepcopy(ann), calibration[:8]), calibration, counted)
        counted.spikes = 0
        add("rate-coded, SpikingJelly", steps, run_rate_coded(network, steps), lambda counted=counted: counted.spikes)
    return found


def main() -> None:
    """Parse, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10/ and weights/")
    parser.add_argument("--limit", type=int, default=1000, help="test images, a random subset")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/peers.json"))
    arguments = parser.parse_args()
    import spikingjelly

    logging.disable(logging.INFO)
    torch.manual_seed(0)
    found = rows(arguments.data, arguments.limit, lambda row: print(*row.values(), flush=True))
    version = getattr(spikingjelly, "__version__", "2.0.0")
    signed = conditions()
    signed["versions"]["spikingjelly"] = version
    write_json(arguments.output, {"name": "peers", "network": "resnet20", "rows": found, "conditions": signed})


if __name__ == "__main__":
    main()
