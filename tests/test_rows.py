"""Each row says what is true of its operator: linear, what it reaches, what multiplies, where channels go."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewspikes
from captured import Converted, between, conv
from fewspikes import FewSpikesError
from fewspikes.graph.capture import captured_model
from fewspikes.graph.functions import PYTHON, function, in_order
from fewspikes.graph.graph import Node, Ref, replaced
from fewspikes.graph.interpreter import Running
from fewspikes.network.channels import channel_axis
from fewspikes.operators import (
    bookkeeping,
    circuits,
    filling,
    indexing,
    moving,
    neurons,
    products,
    rearranging,
    summing,
    weighted,
)
from fewspikes.operators.call import Call
from fewspikes.operators.choices import Choices
from fewspikes.operators.rewriting import prepared
from fewspikes.operators.rule import Digital, Linear, Neurons, Rules, Shapes, Written
from fewspikes.operators.rules import RULES, carriers, listed
from fewspikes.operators.trial import Trial
from fewspikes.operators.truths import wrong
from linear_chains import CASES, TRACED, case

NAMES = [*CASES, *TRACED]
quiet = pytest.mark.filterwarnings("ignore:Using padding='same'")


def linear_nodes(net: Converted) -> Iterator[tuple[Node, Linear]]:
    for name, fate in net.segments.fates.items():
        if isinstance(fate.rule, Linear):
            yield net.graph[name], fate.rule


def values_of(net: Converted, seed: int, images: int = 3) -> dict[str, Any]:
    """Every node's value when the inputs are random."""
    torch.manual_seed(seed)
    inputs = [torch.rand(net.graph.sizes(n.name, images), dtype=torch.float64) for n in net.graph.of("input")]
    return net.run(inputs, lambda node, value: value)


def evaluated(node: Node, arguments: dict[str, Any]) -> list[Tensor]:
    args, kwargs = in_order(node.operator, arguments)
    result = function(node.operator)(*args, **kwargs)
    return list(result) if isinstance(result, list | tuple) else [result]


def same(value: Any) -> Any:
    return value


def arguments_of(net: Converted, node: Node, values: dict[str, Any], signal: Any = same) -> dict[str, Any]:
    """A node's arguments in numbers; signals are replaced by what `signal` makes of them."""
    carriers = net.segments.carriers
    return {
        name: replaced(value, lambda ref: signal(values[ref.name]) if ref.name in carriers else values[ref.name])
        for name, value in node.arguments.items()
    }


@quiet
@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_additive_and_what_it_leaves_out_is_what_it_does_to_zeros(name: str) -> None:
    net = case(name)
    first, second = values_of(net, 1), values_of(net, 2)
    both = {
        name: value + second[name] if isinstance(value, Tensor) and name in net.segments.carriers else value
        for name, value in first.items()
    }
    for node, rule in linear_nodes(net):
        call = net.segments.call(node)
        x, y, together = (
            evaluated(node, rule.homogeneous(call, arguments_of(net, node, values))) for values in (first, second, both)
        )
        whole = evaluated(node, arguments_of(net, node, first))
        nothing = evaluated(node, arguments_of(net, node, first, torch.zeros_like))
        for f, part, other, total, zero in zip(whole, x, y, together, nothing, strict=True):
            torch.testing.assert_close(part + other, total)
            torch.testing.assert_close(f, part + zero)


@quiet
@pytest.mark.parametrize("name", [name for name in CASES if name != "gate"])
def test_what_is_rewritten_computes_what_the_model_computes_at_any_batch_size(name: str) -> None:
    net, shape = CASES[name]
    rewritten = case(name)
    running = Running(rewritten.graph, rewritten.tensors, dict.fromkeys(rewritten.sites, torch.nn.ReLU()))
    for images in (1, 3):
        x = torch.randn(images, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(images))
        torch.testing.assert_close(running(x), net(x))


@quiet
def test_the_cases_use_every_row_of_a_linear_operator() -> None:
    used = set().union(*(case(name).operators() for name in NAMES))
    assert sorted(set(RULES.names(Linear)) - used) == []


def reaching(net: Converted, node: Node) -> int:
    """Multiplications by brute force: pairs of an element of the signal and one of the result that depends on it."""
    rule = net.segments.fates[node.name].rule
    call = net.segments.call(node)
    assert isinstance(rule, Linear)
    (name,) = call.signals
    shape = net.graph.sizes(node.arguments[name].name, 1)
    one_hot = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape[1:])
    found = {
        name: value.abs() + 0.1 if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in values_of(net, 1, len(one_hot)).items()
    }
    given = {key: replaced(value, lambda ref: found[ref.name]) for key, value in node.arguments.items() if key != name}
    arguments = {key: one_hot if key == name else given[key] for key in node.arguments}
    (result,) = evaluated(node, rule.homogeneous(call, arguments))
    return int((result != 0).sum())


@quiet
@pytest.mark.parametrize("name", NAMES)
def test_multiply_adds_are_the_pairs_that_a_weight_connects(name: str) -> None:
    net = case(name)
    if name == "folded batch":  # images lie in another axis there
        return
    found = net.macs().by_node
    for node, rule in linear_nodes(net):
        stands_for_a_product = node.short in ("fewspikes::quarter", "fewspikes::by_neurons")
        wanted = net.graph.sizes(node.name, 1).numel() if stands_for_a_product else 0
        assert found.get(node.name, 0) == (reaching(net, node) if rule.weight or rule.held else wanted), node.where


@quiet
@pytest.mark.parametrize("name", NAMES)
def test_every_row_stands_the_trial_that_a_users_rule_stands(name: str) -> None:
    net = case(name)
    for node in net.graph:
        rule = net.segments.fates[node.name].rule if node.name in net.segments.fates else None
        if rule is not None:
            assert wrong(rule, Trial(net.segments.call(node), net.tensors, {})) == "", node.where


def test_rows_of_neurons_and_of_rewrites_stand_it_too() -> None:
    names = ["SiLU", "GELU", "ReLU6", "Mish", "Hardswish", "Hardsigmoid", "ELU", "LeakyReLU", "Softplus", "Tanh"]
    shuffles = nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.ChannelShuffle(2)
    net = nn.Sequential(nn.BatchNorm2d(4), *(getattr(nn, name)() for name in names), *shuffles, nn.BatchNorm2d(4))
    for norm in (net[0], net[-1]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    work = captured_model(net.eval(), torch.randn(2, 4, 4, 4))
    tried = set()
    for node in work.graph:
        call = Call(node, work.graph, RULES, carriers(work.graph), tensors=work.tensors)
        for rule in (RULES.find(Neurons, call), RULES.circuits(call, Choices({}))):
            if rule is not None and "." in node.operator:
                tried.add(node.short)
                assert wrong(rule, Trial(call, work.tensors, {})) == "", node.where
    assert {"silu", "gelu", "pixel_shuffle", "pixel_unshuffle", "elu", "leaky_relu"} <= tried


def test_weighted_maps_put_channels_where_the_row_says_and_moves_carry_them() -> None:
    def axis(forward: Any, *layers: Any, shape: tuple[int, ...] = (4, 6, 6)) -> int | None:
        net = Converted.of(between(forward, *layers), *shape)
        return channel_axis(net.segments, net.sites[-1])

    assert axis(lambda x, c: c(x), conv(4, 6, 3)) == 1
    assert axis(lambda x, f: f(x), torch.nn.Linear(6, 5)) == 3
    assert axis(lambda x, c: c(x).transpose(1, 3), conv(4, 6, 3)) == 3
    assert axis(lambda x, c: torch.cat([c(x), x], 1), conv(4, 6, 3, padding=1)) == 1  # a site keeps its own axes
    assert axis(lambda x, c: torch.nn.functional.avg_pool2d(c(x), 2)[:, 1:], conv(4, 6, 3)) == 1
    assert axis(lambda x, c: c(x).mean((2, 3)), conv(4, 6, 3)) == 1
    assert axis(lambda x, c: c(x).flatten(1), conv(4, 6, 3)) is None  # a channel is on many positions there
    assert axis(lambda x, c: c(x).flatten(1), conv(4, 6, 6)) == 1
    assert axis(lambda x, a, b: a(x) + b(x.transpose(1, 2)).transpose(1, 2), conv(4, 4, 1), conv(6, 6, 1)) is None
    assert axis(lambda x, c: c(x).mean(1, keepdim=True), conv(4, 6, 3)) is None
    doubled = torch.nn.functional.interpolate  # of the last axis, where the channels are then: each on two positions
    assert axis(lambda x, c: doubled(c(x).transpose(1, 3), scale_factor=(1, 2)), conv(4, 6, 3)) is None


def test_a_second_row_of_a_class_for_an_operator_raises() -> None:
    with pytest.raises(FewSpikesError, match="operator mul has two rows of the class Linear"):
        Rules([*summing.ROWS, Linear(("mul",), reach=lambda call: [])])


def test_rows_name_operators_that_torch_has() -> None:
    for room in (weighted, summing, moving, indexing, filling, products, rearranging, neurons, circuits, bookkeeping):
        for row in (row for row in room.ROWS if not isinstance(row, Written)):
            assert all(hasattr(torch.ops.aten, name) for name in row.operators), row.operators


def strings(file: Path) -> set[str]:
    """All texts in a file's code, without docstrings."""
    tree = ast.parse(file.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs)
    return {node.value for node in texts if isinstance(node.value, str)}


def test_no_file_but_the_rows_names_an_operator() -> None:
    # "No second list": what is known of conv2d or cat stands in one place; whoever wants to know asks the row.
    root = Path(fewspikes.__file__).parent
    names = {name for kind in (Linear, Digital, Shapes) for name in RULES.names(kind)} - set(PYTHON) - {"mean"}
    for file in root.rglob("*.py"):
        if file.relative_to(root).parts[0] not in (
            "operators",
            "rules.py",
            "paper",
            "bench",
            "cli",
            "models",
            "images",
        ):
            found = strings(file)
            assert not found & names, file
            assert not [text for text in found if text.startswith("aten.") and text != "aten."], file


def test_the_lists_of_operators_come_from_the_rows() -> None:
    assert {"conv2d", "cat", "avg_pool2d"} <= set(listed()["weighted sums"])
    assert {"relu", "silu", "gelu"} <= set(listed()["neurons"])
    digital = {"alias", "amax", "amin", "max_pool1d", "max_pool2d", "max_pool3d", "maximum", "minimum", "mul", "matmul"}
    digital |= {"argmax", "argmin", "argsort", "sort", "topk"}
    assert set(listed()["left digital"]) == digital


def test_a_product_with_a_constant_is_a_weighted_sum_and_of_two_signals_it_is_digital() -> None:
    net = Converted.of(between(lambda x: x * 2.0 * torch.cat([x[:, 1:], x[:, :1]], 1)), 4)
    rules = [type(net.segments.fates[node.name].rule) for node in net.graph.of("aten.mul.Tensor")]
    assert rules == [Linear, Digital]


def test_arguments_go_by_name_with_defaults_filled_in() -> None:
    net = Converted.of(between(lambda x, c: c(x), conv(4, 6, 3)), 4, 6, 6)
    (node,) = net.graph.of("aten.conv2d.default")
    assert list(node.arguments) == ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]
    assert (node.arguments["stride"], node.arguments["groups"]) == ([1, 1], 1)
    assert isinstance(node.arguments["input"], Ref)


OTHER_NAMES = {
    "multiply": (lambda x, y: torch.multiply(x, y), lambda x, y: x * y),
    "multiply by a number": (lambda x, y: torch.multiply(x, 2.5) + y, lambda x, y: x * 2.5 + y),
    "divide": (lambda x, y: torch.divide(x, y), lambda x, y: x / y),
    "true_divide": (lambda x, y: torch.true_divide(x, 2.0) + y, lambda x, y: x / 2.0 + y),
    "subtract": (lambda x, y: torch.subtract(x, y, alpha=2), lambda x, y: torch.sub(x, y, alpha=2)),
    "negative": (lambda x, y: torch.negative(x) + y, lambda x, y: -x + y),
    "absolute": (lambda x, y: torch.absolute(x) + y, lambda x, y: x.abs() + y),
    "linalg.matmul": (lambda x, y: torch.linalg.matmul(x, y.mT), lambda x, y: x @ y.mT),
    "special.softmax": (lambda x, y: torch.special.softmax(x, -1) + y, lambda x, y: x.softmax(-1) + y),
    "special.log_softmax": (lambda x, y: torch.special.log_softmax(x, -1) + y, lambda x, y: x.log_softmax(-1) + y),
    "special.logsumexp": (
        lambda x, y: torch.special.logsumexp(x, -1) + y[..., 0],
        lambda x, y: x.logsumexp(-1) + y[..., 0],
    ),
}


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_another_name_of_an_operator_is_the_operator(name):
    class Named(torch.nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x, y):
            return self.function(torch.relu(x), torch.sigmoid(y))

    given = (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4))
    own, other = (
        [(node.operator, node.shape) for node in prepared(captured_model(Named(function).eval(), given)).graph]
        for function in OTHER_NAMES[name]
    )
    assert own == other
