"""What mixes the images of a batch is refused by its name and place; what folds the batch away and back is not."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewspikes as fs
from captured import Net

X = torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """What is looked at, as a module of its own, between a map and neurons."""

    def __init__(self, forward: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.run = forward

    def forward(self, x: Tensor) -> Any:
        return self.run(x)


def network(forward: Callable[[Tensor], Any]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Head(forward)).eval()


MIXING: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "less the mean": (lambda x: F.relu(x - x.mean(0)), "mean"),
    "the mean": (lambda x: F.relu(x.mean(0, keepdim=True) * torch.ones(1, 4)), "mean"),
    "one for all": (lambda x: F.relu(x[:1] + x), "add"),
    "the last for all": (lambda x: F.relu(x[-1] + x), "add"),
    "sum for all": (lambda x: F.relu(x.sum(0).expand(x.shape[0], 4, 4) + x), "sum"),
    "next one": (lambda x: F.relu(torch.cat([x[:, None].flip(0)[:, 0], x[:1]])[:-1] - x), "sub"),
    "every second": (lambda x: F.relu(x.unflatten(0, (-1, 1)).flip(0).flatten(0, 1) * x), "mul"),
    "flip": (lambda x: F.relu(x.flip(0) + x), "add"),
    "roll": (lambda x: F.relu(x.roll(2, 0) * x), "mul"),
    "cumsum": (lambda x: F.relu(x.cumsum(0)), "cumsum"),
    "softmax": (lambda x: F.relu(x).softmax(0), "softmax"),
    "over all": (lambda x: F.relu(x - x.mean()), "mean"),
    "normalised": (lambda x: F.relu(x.flatten(1) / x.flatten(1).norm(dim=0)), "norm"),
    "likeness": (lambda x: F.relu(x.flatten(1) @ x.flatten(1).t()), "matmul"),
    "as sequence": (lambda x: F.conv1d(F.relu(x).flatten(1).t()[None], torch.ones(1, 16, 3), padding=1), "conv1d"),
    "odd pieces": (lambda x: F.relu(torch.cat([x[:, 0], x[:, 1]]).view(-1, 2, 4).sum(1)), "sum"),
    "largest": (lambda x: F.relu(x - x.amax(0)), "amax"),
}
ELSEWHERE: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "transposed": (lambda x: F.relu(x).flatten(1).t(), r"aten.t(ranspose.int|.default)"),
    "first": (lambda x: F.relu(x)[:1], "aten.slice.Tensor"),
    "one": (lambda x: F.relu(x)[0], "aten.select.int"),
    "as rows": (lambda x: F.relu(torch.cat([x[:, 0], x[:, 1]])).view(-1, 2, 4), "aten.cat.default"),
    "reversed": (lambda x: {"a": x, "b": F.relu(x.flip(0)) * 2.0}, "aten.flip.default"),
    "moved far": (lambda x: F.relu(x.roll(2, 0)), "aten.roll.default"),
    "in one row": (lambda x: F.relu(x).flatten(0, 1), r"aten.(flatten.using_ints|reshape.default)"),
    "twice": (lambda x: torch.cat([F.relu(x), x]), "aten.cat.default"),
}


def folded(x: Tensor) -> Tensor:
    """Windows of 2 x 2, each its own image for a convolution, and back."""
    b = x.shape[0]
    windows = x.view(b, 2, 2, 2, 2).permute(0, 1, 3, 2, 4).reshape(b * 4, 1, 2, 2)
    y = F.relu(F.conv2d(windows, torch.ones(3, 1, 2, 2), padding=1))
    return y.view(b, 2, 2, 3, 3, 3).permute(0, 3, 1, 4, 2, 5).reshape(b, 3, 6, 6)


def siamese(x: Tensor) -> Tensor:
    """Two views of an image through one network, as a batch twice as large."""
    y = F.relu(torch.cat([x, 2 * x], 0))
    return y[: x.shape[0]] - y[x.shape[0] :]


APART: dict[str, Callable[[Tensor], Any]] = {
    "folded": folded,
    "siamese": siamese,
    "sequence first": lambda x: F.relu(x.permute(1, 0, 2).flip(0).cumsum(0) + x.permute(1, 0, 2)[:1]).permute(1, 0, 2),
    "joined and parted": lambda x: F.relu(torch.stack([x, x + 1]).flatten(0, 1)).unflatten(0, (2, x.shape[0])).sum(0),
    "last in front": lambda x: F.relu(x.flatten(1).t().reshape(4, 4, -1).sum(0)).t(),
    "rows of its own": lambda x: F.relu(x.reshape(-1, 4).t().reshape(4, -1, 4).sum(2).t()),
    "there and back": lambda x: F.relu(x.flip(0)).flip(0),
    "pointwise along it": lambda x: F.conv1d(F.relu(x).flatten(1).t()[None], torch.ones(5, 16, 1))[0].t(),
    "repeated": lambda x: F.relu(x.repeat(2, 1, 1)).view(2, -1, 4, 4)[1],
    "ones beside": lambda x: F.relu(torch.cat([x, x.new_ones(x.shape[0], 1, 4)], 1)),
}


def refusal(model: nn.Module, x: Any = X) -> str:
    with pytest.raises(fs.FewSpikesError) as error:
        fs.convert(model, x)
    return str(error.value)


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_the_images_of_a_batch_is_refused_by_name_and_place(name: str) -> None:
    forward, operator = MIXING[name]
    said = refusal(network(forward))
    (named,) = re.findall(r"the images of a batch are mixed by operator aten\.(\S+) at 2;", said)  # the first alone
    assert operator in named


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_returns_an_image_at_another_place_is_refused_by_name_and_place(name: str) -> None:
    forward, operator = ELSEWHERE[name]
    with pytest.raises(fs.FewSpikesError, match=f"images come to other places by operator {operator} at 2; return"):
        fs.convert(network(forward), X)


@pytest.mark.parametrize("name", APART)
def test_a_batch_that_is_folded_away_and_back_converts(name: str) -> None:
    model = network(APART[name])
    snn = fs.convert(model, X)
    x = torch.randn(5, 4, 4)
    torch.testing.assert_close(snn.as_ann()(x), model(x))


@pytest.mark.parametrize("forward", [lambda x: torch.cat([x[1:], x[:1]]), lambda x: F.relu(x[1:] - x[:-1])])
def test_a_batch_without_some_of_its_images_is_refused_with_its_reason(forward: Callable[[Tensor], Any]) -> None:
    assert "takes the batch apart, as x[1:]" in refusal(network(forward))


def test_batch_norm_on_the_batchs_own_statistics_is_refused_beside_all_else() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU())
    said = refusal(nn.Sequential(model, Head(lambda x: (x - x.mean(0)).logcumsumexp(1))).eval())
    assert "images of a batch are mixed by operator aten.mean.dim at 1;" in said
    assert "batch_norm" in said
    assert "own statistics" in said
    assert "logcumsumexp.default at 1" in said
    assert len(said.splitlines()) == 1


def test_inputs_share_one_batch() -> None:
    both = X, X
    assert "mixed by operator aten.matmul.default at the top of the model;" in refusal(
        Two(lambda x, y: F.relu(x.flatten(1) @ y.flatten(1).t())).eval(), both
    )
    fs.convert(Two(lambda x, y: F.relu(torch.cat([x, y]))[x.shape[0] :] + y).eval(), both)


class Two(nn.Module):
    """A function of two inputs."""

    def __init__(self, forward: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.run = forward

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.run(x, y)


def test_whole_numbers_mix_images_as_well() -> None:
    model, x = Net(lambda x: F.relu((x != 0).float().sum(0, keepdim=True) + x / 2)), torch.ones(4, 3, dtype=torch.int64)
    assert "mixed by operator aten.sum.dim_IntList at the top of the model;" in refusal(model.eval(), x)


class AClassToken(nn.Module):
    """Attention of one constant token to those of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.map = nn.Parameter(torch.randn(1, 1, 4)), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.map(F.relu(x))
        tokens = torch.cat([self.token.expand(x.shape[0], 1, 4), x], 1)
        q = F.layer_norm(tokens, (4,))[:, :1]
        return F.scaled_dot_product_attention(q, x, x)


@pytest.mark.parametrize("circuits", ["gated", "neurons"])
def test_a_query_that_no_image_reaches_mixes_no_images(circuits: str) -> None:
    torch.manual_seed(0)
    model = AClassToken().eval()
    snn = fs.convert(model, X[:1], X, K=12, circuits=circuits, effort="quick")
    torch.testing.assert_close(snn.as_ann()(X), model(X), rtol=1e-4, atol=1e-5)
