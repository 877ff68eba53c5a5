"""Operators of one's own in a network, and a rule for each: one of every class. docs/rules.md explains them.

The network is untrained and its inputs are made up: this shows the calls.

python examples/own_rules.py
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import fewspikes as fs
from fewspikes import rules
from fewspikes.rules import Activation, Builder, Call, Digital, Elementwise, Shapes, boxes

# The operators, as a library of kernels registers them.


@torch.library.custom_op("mylib::mix", mutates_args=())
def mix(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x @ weight.T + bias


@torch.library.custom_op("mylib::deal", mutates_args=())
def deal(x: Tensor) -> Tensor:
    return torch.cat([x[:, ::2], x[:, 1::2]], 1)


@torch.library.custom_op("mylib::fast_silu", mutates_args=())
def fast_silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


@torch.library.custom_op("mylib::bump", mutates_args=())
def bump(x: Tensor) -> Tensor:
    return x * torch.exp(-x * x)


@torch.library.custom_op("mylib::larger", mutates_args=())
def larger(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a > b, a, b)


@torch.library.custom_op("mylib::winner", mutates_args=())
def winner(x: Tensor) -> Tensor:
    return x * (x == x.amax(1, keepdim=True))


@torch.library.custom_op("mylib::places", mutates_args=())
def places(x: Tensor) -> Tensor:
    return torch.linspace(0, 1, x.shape[1], dtype=x.dtype, device=x.device)


# What torch.export needs to know of them: the shapes of their results.

mix.register_fake(lambda x, weight, bias: x.new_empty(x.shape[0], weight.shape[0]))
deal.register_fake(lambda x: torch.empty_like(x))
fast_silu.register_fake(lambda x: torch.empty_like(x))
bump.register_fake(lambda x: torch.empty_like(x))
larger.register_fake(lambda a, b: torch.empty_like(a))
winner.register_fake(lambda x: torch.empty_like(x))
places.register_fake(lambda x: x.new_empty(x.shape[1]))

# What the library needs to know of them: a rule for each.


@rules.linear("mylib::mix", weight="weight", zero=("bias",), outputs=(0, -1))
def mixed(call: Call) -> list[boxes.Box]:
    """All features of the last axis."""
    return [boxes.dense(box, 1, call.shape[1]) for box in call.boxes("x")]


@rules.moves("mylib::deal")
def dealt(call: Call) -> list[boxes.Box]:
    """Features in another order."""
    return rules.along(call, [1])


@rules.neurons("mylib::fast_silu")
def silu(call: Call) -> Activation:
    """SiLU, which the library knows by name."""
    return Activation("silu")


@rules.circuit("mylib::larger")
def maximum(call: Call, g: Builder) -> rules.Ref:
    """max(a, b) = b + relu(a - b)."""
    a, b = g.now(call.node.arguments["a"]), g.now(call.node.arguments["b"])
    return g.call("add.Tensor", b, g.call("relu", g.call("sub.Tensor", a, b)))


def all_features(call: Call) -> list[boxes.Box]:
    """Each feature that comes out depends on all that go in."""
    return [boxes.dense(box, 1, call.shape[1]) for box in call.boxes("x")]


OWN = [
    mixed,
    dealt,
    silu,
    maximum,
    Elementwise("mylib::bump"),
    Digital("mylib::winner", kind="winner", reason="the largest of many keeps its value", reach=all_features),
    Shapes("mylib::places"),
]


class Net(nn.Module):
    """A network that uses all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.skip, self.last = nn.Linear(8, 16), nn.Linear(8, 12), nn.Linear(12, 4)
        self.weight, self.bias = nn.Parameter(torch.randn(12, 16) / 4), nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 8] -> [batch, 4]."""
        y = deal(fast_silu(self.first(x)))
        y = bump(mix(y, self.weight, self.bias))
        y = larger(y, self.skip(x))
        return self.last(winner(y) + places(y))


def main() -> None:
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(256, 8)
    snn = fs.convert(model, x[:1], x, K=8, rules=OWN)
    print(snn.report)
    print(fs.evaluate(snn, x, reference=model))

    with tempfile.TemporaryDirectory() as folder:
        fs.save(snn, Path(folder) / "net.fs")
        again = fs.load(Path(folder) / "net.fs", rules=OWN)
        print("loaded network computes the same:", torch.equal(again(x), snn(x)))


if __name__ == "__main__":
    main()
