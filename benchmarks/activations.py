"""Elementwise functions as layers of neurons on inputs of N(0, 2): error and spikes of each.

python benchmarks/activations.py -o docs/results/activations.json
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.base.files import write_json
from fewspikes.bench import conditions

CHANNELS, IMAGES, VARIANCE = 8, 4096, 2.0
STEPS = (8, 16)
_ROWS = torch.linspace(0.25, 2.0, CHANNELS)  # another constant for each channel
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu(0.2)": nn.LeakyReLU(0.2),
    "prelu(-0.5)": nn.PReLU(init=-0.5),
    "prelu by channel": lambda x: F.prelu(x, _ROWS - 1),
    "rrelu": nn.RReLU(),
    "elu(0.5)": nn.ELU(0.5),
    "celu(2)": nn.CELU(2.0),
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu by tanh": nn.GELU("tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus(beta=2)": nn.Softplus(2.0, 5.0),
    "softsign": F.softsign,
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "tanhshrink": F.tanhshrink,
    "hardswish": F.hardswish,
    "hardtanh(-0.5, 1.5)": nn.Hardtanh(-0.5, 1.5),
    "clamp(min=-0.3)": lambda x: x.clamp(min=-0.3),
    "clamp by channel": lambda x: x.clamp(-_ROWS, _ROWS),
    "maximum by channel": lambda x: torch.maximum(x, _ROWS - 1),
    "threshold(0.5, -1)": nn.Threshold(0.5, -1.0),
    "hardshrink(0.8)": nn.Hardshrink(0.8),
    "softshrink(0.8)": nn.Softshrink(0.8),
    "exp": torch.exp,
    "log(|x| + 0.5)": lambda x: torch.log(x.abs() + 0.5),
    "log1p(relu)": lambda x: torch.log1p(F.relu(x)),
    "square": torch.square,
    "relu squared": lambda x: F.relu(x) ** 2,
    "x^3": lambda x: x**3,
    "sqrt(|x| + 0.1)": lambda x: torch.sqrt(x.abs() + 0.1),
    "1 / (|x| + 0.5)": lambda x: 1 / (x.abs() + 0.5),
    "abs": torch.abs,
    "sign": torch.sign,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "sinc": torch.sinc,
    "exp(-x^2)": lambda x: torch.exp(-x * x),
    "floor": torch.floor,
    "round": torch.round,
    "remainder(1)": lambda x: torch.remainder(x, 1.0),
    "x > 0.5": lambda x: torch.where(x > 0.5, 1.0, 0.0),
    "x sigmoid(1.702 x)": lambda x: x * torch.sigmoid(1.702 * x),
    "x sigmoid(a x) by channel": lambda x: x * torch.sigmoid(_ROWS * x),
    "x / (1 + |x|)": lambda x: x / (1 + x.abs()),
    "x + sin(a x)^2 / a by channel": lambda x: x + torch.sin(_ROWS * x) ** 2 / _ROWS,
    "|x|^a by channel": lambda x: x.abs() ** _ROWS,
}


class Elementwise(nn.Module):
    """A network that is one function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """f(x)."""
        return self.function(x)


def rows() -> Iterator[dict[str, Any]]:
    """For each function its layers, and by K the error over the output's variance and the spikes per element."""
    generator = torch.Generator().manual_seed(0)
    fitted, seen = (torch.randn(IMAGES, CHANNELS, generator=generator) * VARIANCE**0.5 for _ in range(2))
    for name, function in FUNCTIONS.items():
        model = Elementwise(function).eval()
        row: dict[str, Any] = {"function": name, "by_k": {}}
        for K in STEPS:
            snn = fs.convert(model, fitted[:2], fitted, K=K, progress=False)
            row |= {"sites": len(snn.sites), "neurons_per_element": snn.report.neurons / CHANNELS}
            row["by_k"][K] = _measured(snn, model, seen)
        yield row


def _measured(snn: Any, model: nn.Module, x: Tensor) -> dict[str, float]:
    spikes = []
    for neuron in snn.neurons.values():
        neuron.count_hooks.append(lambda count, _: spikes.append(int(count)))
    with torch.inference_mode():
        wanted, got = model(x).double(), snn(x).double()
        form = float((snn.as_ann()(x).double() - wanted).abs().max() / wanted.abs().max())
    error = float((got - wanted).square().mean() / wanted.var())
    return {"relative_error": error, "spikes_per_element": sum(spikes) / x.numel(), "ann_form_difference": form}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/results/activations.json"))
    arguments = parser.parse_args()
    found = []
    for row in rows():
        found.append(row)
        print(row, flush=True)
    content = {
        "command": "python benchmarks/activations.py",
        "seed": 0,
        "inputs": {"mean": 0, "variance": VARIANCE, "fitted": IMAGES * CHANNELS, "measured": IMAGES * CHANNELS},
        "rows": found,
        "conditions": conditions(),
    }
    write_json(arguments.output, content)


if __name__ == "__main__":
    main()
