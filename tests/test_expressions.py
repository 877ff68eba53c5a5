"""Any elementwise part of a network is one layer of neurons: what it computes is kept, in a file too."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewspikes as fs
from fewspikes.graph.capture import captured_model
from fewspikes.neuron.activation import Activation
from fewspikes.operators.expressions import activation_from_json
from fewspikes.operators.rewriting import prepared


class Between(nn.Module):
    """Two convolutions and a function between them."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.function, self.first, self.last = function, nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def sites(function):
    return prepared(captured_model(Between(function).eval(), torch.randn(2, 3, 6, 6))).sites


WRITTEN = {
    "x*sigmoid(1.702x)": lambda x: x * torch.sigmoid(1.702 * x),
    "x/(1+|x|)": lambda x: x / (1 + x.abs()),
    "relu squared": lambda x: F.relu(x) ** 2,
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "clamp": lambda x: x.clamp(-1, 2),
    "abs": torch.abs,
    "exp": torch.exp,
    "sin": torch.sin,
    "maximum": lambda x: torch.maximum(x, 0.2 * x),
    "hard swish by hand": lambda x: x * F.relu6(x + 3) / 6,
    "mish by hand": lambda x: x * torch.tanh(F.softplus(x)),
    "leaky_relu(0.1)": lambda x: F.leaky_relu(x, 0.1),
    "elu(2)": lambda x: F.elu(x, 2.0),
    "square": lambda x: x * x,
    "two curves": lambda x: torch.exp(x) + torch.exp(-x),
    "selu": F.selu,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_elementwise_function_is_one_site_and_computes_what_the_model_computes(name):
    model, x = Between(WRITTEN[name]).eval(), torch.randn(64, 3, 6, 6)
    snn = fs.convert(model, x[:2], x, K=12)
    assert len(snn.sites) == 1
    assert snn.report.left_digital == ()
    torch.testing.assert_close(snn.as_ann()(x), model(x))
    with torch.no_grad():
        error = (snn(x) - model(x)).square().mean() / model(x).var()
    assert float(error) < 0.03


@pytest.mark.parametrize(
    ("function", "labels"),
    [
        (lambda x: x * torch.sigmoid(x), ["silu"]),
        (lambda x: torch.sigmoid(x) * x, ["silu"]),
        (F.softsign, ["softsign"]),
        (lambda x: 2 * torch.tanh(3 * x + 1) + 1, ["tanh"]),  # sums and scalings stay in the weighted sums
        (lambda x: x + torch.tanh(x), ["tanh"]),
        (lambda x: F.relu(x) - 0.1 * F.relu(-x), ["relu", "relu"]),  # named activations keep their sites
        (lambda x: torch.tanh(F.relu(x)), ["relu", "tanh"]),
        (lambda x: x * torch.tanh(F.softplus(x)), ["mul(x, tanh(softplus(x)))"]),  # but not inside of another one
    ],
)
def test_named_activations_and_what_is_linear_around_them_keep_their_places(function, labels):
    assert [site.activation.label for site in sites(function)] == labels


def test_an_inner_value_that_somebody_else_reads_is_a_site_too():
    class Twice(nn.Module):
        def forward(self, x):
            y = torch.sigmoid(x)
            return (x * y) + y.mean((2, 3), keepdim=True)

    assert [site.activation.label for site in sites(Twice())] == ["sigmoid", "silu"]


def test_values_from_two_places_are_no_elementwise_part():
    class Gate(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x.mean((2, 3), keepdim=True))

    work = prepared(captured_model(Between(Gate()).eval(), torch.randn(2, 3, 6, 6)))
    assert [site.activation.label for site in work.sites] == ["sigmoid"]


def test_an_expression_comes_back_from_its_file_bit_for_bit(tmp_path):
    model, x = Between(lambda x: x * torch.sigmoid(0.1 * x + 1 / 3)).eval(), torch.randn(64, 3, 6, 6)
    snn = fs.convert(model, x[:2], x, K=6)
    fs.save(snn, tmp_path / "net.fs")
    again = fs.load(tmp_path / "net.fs")
    assert torch.equal(again(x), snn(x))
    assert torch.equal(again.as_ann()(x), snn.as_ann()(x))
    assert again.sites[0].activation == snn.sites[0].activation


def test_expressions_that_differ_in_a_bit_are_different_fits():
    constants = (0.1, 0.1 + 2**-54)
    a, b = (sites(lambda x, c=c: torch.sin(c * x) + torch.exp(x))[0].activation for c in constants)
    assert constants[1] != 0.1
    assert a.to_json() != b.to_json()


@pytest.mark.parametrize("operator", ["aten.from_file.default", "aten.relu_.default", "aten.sum.default", "add", "os"])
def test_an_expression_of_anything_but_elementwise_operators_is_refused(operator):
    content = [
        {"name": "x", "operator": "input", "arguments": {}, "path": ""},
        {"name": "e1", "operator": operator, "arguments": {"self": {"node": "x"}}, "path": ""},
        {"name": "output", "operator": "output", "arguments": {"value": {"node": "e1"}}, "path": ""},
    ]
    with pytest.raises(fs.FewSpikesError, match="is no elementwise expression"):
        activation_from_json({"name": "f", "cap": None, "expression": json.dumps(content)})


def test_without_images_every_site_that_needs_them_is_named():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.c(torch.sin(self.b(F.relu(torch.exp(self.a(x)) + 0 * x))))

    with pytest.raises(fs.FewSpikesError, match=r"exp is exp\(x\), sin is sin\(x\).*give images"):
        fs.convert(Three().eval(), torch.randn(2, 4))


def test_a_pole_inside_of_what_a_site_sees_raises_with_the_site():
    model, x = Between(torch.reciprocal).eval(), torch.randn(64, 3, 6, 6)
    with pytest.raises(fs.FewSpikesError, match=r"reciprocal.* is not finite"):
        fs.convert(model, x[:2], x, K=6)


def test_a_leaky_relu_of_any_slope_has_a_free_scale_per_channel():
    model, x = Between(nn.LeakyReLU(0.1)).eval(), torch.randn(64, 3, 6, 6)
    snn = fs.convert(model, x[:2], x, K=8)
    assert snn.sites[0].activation.label == "leaky_relu(0.1)"
    assert snn.scale_is_free("function") == ""
    torch.testing.assert_close(snn.as_ann()(x), model(x))


def test_an_activation_with_settings_is_labelled_by_them():
    leaky = Activation("leaky_relu", settings=(("negative_slope", 0.1),))
    assert leaky.label == "leaky_relu(0.1)"
    assert not leaky.is_plain
    assert torch.equal(leaky(torch.tensor([-2.0, 3.0])), torch.tensor([-0.2, 3.0]))
    assert Activation.from_json(json.loads(json.dumps(leaky.to_json()))) == leaky
