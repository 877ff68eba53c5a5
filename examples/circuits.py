"""What becomes of maxima, products, squares, norms, attention, quotients and recurrence, and what each costs.

python examples/circuits.py
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fewspikes as fs

K, IMAGES = 8, 512
HOW = ("digital", "gated", "shifted", "neurons")


class Small(nn.Module):
    """A few layers and what is made of them."""

    def __init__(self, forward: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.made, self.layers = forward, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """What is made of the input and the layers."""
        return self.made(x, *self.layers)


@dataclass(frozen=True)
class Case:
    """An operator between neurons: what computes it, an image's shape, and the choices to show."""

    name: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    choices: tuple[Any, ...] = HOW


def squeezed(x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
    """Squeeze and excitation: a gate for each channel."""
    y = F.relu(f(x))
    return y * torch.sigmoid(g(y.mean((2, 3), keepdim=True)))


def attended(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module) -> Tensor:
    """Attention of one head."""
    return F.scaled_dot_product_attention(q(x), k(x), v(x))


def lines(*sizes: tuple[int, int]) -> list[nn.Module]:
    """Linear layers."""
    return [nn.Linear(*size) for size in sizes]


CASES = (
    Case("max pool 2 x 2", lambda: Small(lambda x, f: F.max_pool2d(F.relu(f(x)), 2), nn.Conv2d(3, 4, 1)), (3, 8, 8)),
    Case("x * y", lambda: Small(lambda x, f, g: F.relu(f(x)) * torch.tanh(g(x)), *lines((16, 16), (16, 16))), (16,)),
    Case("squeeze", lambda: Small(squeezed, nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)), (3, 8, 8)),
    Case("a @ b", lambda: Small(lambda x, f: F.relu(f(x)) @ F.relu(f(x.mT)), *lines((8, 8))), (8, 8)),
    Case("sum of squares", lambda: Small(lambda x, f: f(x).square().sum(-1), *lines((16, 16))), (16,), HOW[1:]),
    Case(
        "x / y", lambda: Small(lambda x, f: F.relu(f(x)) / (1 + F.relu(f(-x))).sum(-1, True), *lines((16, 16))), (16,)
    ),
    Case("softmax", lambda: Small(lambda x, f: torch.softmax(f(x), -1), *lines((16, 16))), (16,)),
    Case("layer norm", lambda: Small(lambda x, f: F.layer_norm(f(x), (16,)), *lines((16, 16))), (16,)),
    Case("attention", lambda: Small(attended, *lines((16, 16), (16, 16), (16, 16))), (8, 16)),
    Case("LSTM", lambda: Small(lambda x, f: f(x)[0], nn.LSTM(8, 8, batch_first=True)), (6, 8)),
    Case(
        "input",
        lambda: Small(lambda x, f: F.relu(f(x)), nn.Conv2d(3, 4, 3)),
        (3, 8, 8),
        ({"input": "analog"}, {"input": "spikes"}),
    ),
    Case(
        "two linear maps",
        lambda: Small(lambda x, e, f, g: F.relu(g(f(F.relu(e(x))))), *lines((16, 16), (16, 16), (16, 16))),
        (16,),
        ({"linear": "collapsed"}, {"linear": "relay"}, {"linear": "neurons"}),
    ),
)
COLUMNS = ("circuit", "choice", "neurons", "steps", "spikes", "synops", "multiply-adds", "digital", "error")


def main() -> None:
    """Print the tables as Markdown."""
    for table in (prices(), counts()):
        for number, row in enumerate(table):
            print("| " + " | ".join(map(str, row)) + " |")
            if not number:
                print("|" + "---|" * len(row))
        print()


def prices() -> Iterator[tuple[Any, ...]]:
    """Each case by each choice, per image, on images that nothing was fitted on."""
    yield COLUMNS
    for case in CASES:
        for choice in case.choices:
            yield case.name, _said(choice), *price(case, choice)


def price(case: Case, choice: Any) -> tuple[Any, ...]:
    """Neurons, steps, spikes, synops, multiply-adds, digital operators and the error of the output."""
    torch.manual_seed(0)
    model = case.network().eval()
    circuits = {"max": choice if choice == "digital" else "neurons", "product": choice} if choice in HOW else choice
    x, others = images(case, IMAGES), images(case, IMAGES // 4)
    snn = fs.convert(model, x[:1], x, K=K, circuits=circuits, progress=False)
    with torch.inference_mode(), fs.count(snn, synops=True) as counted:
        s = snn(others)
        a = model(others)
    error = (s - a).norm() / (a - a.mean(0)).norm()
    return (
        f"{snn.report.neurons:,}",
        snn.report.latency_steps,
        f"{counted.per_image:,.0f}",
        f"{(counted.synops or 0) / len(others):,.0f}",
        f"{snn.macs.analog:,} of {snn.macs.ann:,}",
        len(snn.report.left_digital),
        f"{float(error):.3f}",
    )


def images(case: Case, count: int) -> Tensor:
    """Bytes between 0 and 1 where spikes are to carry them, else numbers of N(0, 1)."""
    if case.name == "input":
        return torch.randint(0, 256, (count, *case.shape)) / 255
    return torch.randn(count, *case.shape)


def _said(choice: Any) -> str:
    return choice if isinstance(choice, str) else ", ".join(f"{kind}: {word}" for kind, word in choice.items())


def counts(bits: int = 8) -> Iterator[tuple[Any, ...]]:
    """An N x N product of matrices by formulas: K multiplications for each number held, 4 squares for each product.

    A product of whole numbers of so many bits is a sum of its bits' ANDs, each of them one threshold gate.
    """
    yield "N", "products", "gated: multiplications", "gated: synapses", "neurons: squares", "ANDs", "Strassen: products"
    for power in (3, 6, 9):
        n = 2**power
        yield n, *(f"{count:,}" for count in (n**3, K * n**2, n**3, 4 * n**3, bits**2 * n**3, 7**power))


if __name__ == "__main__":
    main()
