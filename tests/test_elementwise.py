"""Activations with any settings, limits by constants, and constants that differ from place to place."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewspikes as fs
from fewspikes.graph.capture import captured_model
from fewspikes.operators.rewriting import prepared

CHANNELS = 6
SLOPES = torch.tensor([0.1, 0.25, 0.5, -0.3, 1.7, 0.0])
LOW = torch.linspace(-1.0, 0.5, CHANNELS).view(-1, 1, 1)
FEW = torch.tensor([1.0, 2.0, 1.0, 0.5, 2.0, 1.0]).view(-1, 1, 1)
PLACES = torch.tensor([0.5, 1.5, 2.5])[torch.arange(CHANNELS * 16).view(CHANNELS, 4, 4) % 3]


class Between(nn.Module):
    """Two convolutions and a function between them."""

    def __init__(self, function, channels=CHANNELS, after=None):
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.first, self.last = nn.Conv2d(3, channels, 3), nn.Conv2d(after or channels, 2, 1)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def images(count=32):
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def quick(function, K=4, **settings):
    model, x = Between(function, **settings).eval(), images()
    return model, fs.convert(model, x[:2], x, K=K, effort="quick", repair=False, progress=False)


@torch.no_grad()
def relative_error(snn, model, x):
    wanted = model(x)
    return float((snn(x) - wanted).square().mean() / wanted.var())


def labels(function, **settings):
    work = prepared(captured_model(Between(function, **settings).eval(), images(2)))
    return [site.activation.label for site in work.sites]


FUNCTIONS = {
    "prelu of one slope": nn.PReLU(1, -0.4),
    "prelu by channel": lambda x: F.prelu(x, SLOPES),
    "rrelu": nn.RReLU(0.2, 0.4),
    "logsigmoid": F.logsigmoid,
    "softplus": nn.Softplus(0.5, 3.0),
    "celu": nn.CELU(2.0),
    "hardtanh": nn.Hardtanh(-0.5, 1.5),
    "threshold": nn.Threshold(0.5, -1.0),
    "ndtr": torch.special.ndtr,
    "minimum of a number": lambda x: torch.minimum(torch.tensor(0.3), x),
    "maximum by channel": lambda x: torch.maximum(x, LOW),
    "clamp by channel": lambda x: x.clamp(LOW, FEW),
    "clamp where limits cross": lambda x: x.clamp(LOW, LOW.flip(0)),
    "logaddexp": lambda x: torch.logaddexp(x, torch.tensor(0.5)),
    "a number for a tensor": lambda x: torch.where(x > 0.5, x, torch.zeros_like(x)),
    "a truth as a number": lambda x: (x > 0.5).float() * x + (x < -0.5).float(),
    "two truths": lambda x: torch.where((x > -1) & (x < 1), x, 0.0),
    "floor divide": lambda x: x // 0.5,
    "constant over x": lambda x: FEW / (x.abs() + 0.5),
    "lerp": lambda x: torch.lerp(x.sin(), x, FEW),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.1),
    "power by channel": lambda x: (x.abs() + 0.5) ** FEW,
    "swish by channel": lambda x: x * torch.sigmoid(FEW * x),
    "threshold by place": lambda x: torch.where(x > PLACES, x, 0.1 * x),
}


class Side(nn.Module):
    """Functions of one convolution's output, side by side."""

    def __init__(self, functions):
        super().__init__()
        torch.manual_seed(0)
        self.functions, self.first = functions, nn.Conv2d(3, CHANNELS, 3)
        self.modules_of_functions = nn.ModuleList(f for f in functions.values() if isinstance(f, nn.Module))

    def forward(self, x):
        x = self.first(x)
        return {name: function(x.clone()) for name, function in self.functions.items()}


def test_each_converts_to_neurons_alone_that_compute_what_the_model_computes(tmp_path):
    model, x, few = Side(FUNCTIONS).eval(), images(), images(5)
    snn = fs.convert(model, x[:2], x, K=4, effort="quick", repair=False, progress=False)
    assert snn.report.left_digital == ()
    for name, wanted in model(few).items():
        torch.testing.assert_close(snn.as_ann()(few)[name], wanted, msg=lambda text, name=name: f"{name}: {text}")
    fs.save(snn, tmp_path / "net.fs")
    again = fs.load(tmp_path / "net.fs")
    for one, other in ((again, snn), (again.as_ann(), snn.as_ann())):
        assert all(torch.equal(value, other(few)[name]) for name, value in one(few).items())


def test_glu_is_a_sigmoid_and_a_product():
    model, snn = quick(lambda x: F.glu(x, 1), after=CHANNELS // 2)
    assert [site.activation.label for site in snn.sites] == ["sigmoid"]
    assert len(snn.report.left_digital) == 1
    torch.testing.assert_close(snn.as_ann()(images()), model(images()))


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x: x.clamp(-0.5, 1.5), ["relu[0,2]"]),
        (lambda x: x.clamp(LOW, FEW), ["relu[0,1]"]),
        (lambda x: x.clamp(min=0.25), ["relu"]),
        (lambda x: torch.maximum(x, LOW), ["relu"]),
        (lambda x: torch.fmin(x, LOW), ["relu"]),
        (lambda x: torch.maximum(x, torch.zeros_like(x)), ["relu"]),
        (lambda x: x.clamp(min=-1e6), ["clamp(x, -1e+06)"]),  # x + 1e6 would lose the digits of x
        (lambda x: F.prelu(x, torch.full((CHANNELS,), 0.25)), ["leaky_relu(0.25)"]),
        (lambda x: F.prelu(x, SLOPES), ["relu", "relu"]),
        (lambda x: torch.special.expit(x), ["sigmoid"]),
        (lambda x: x * torch.sigmoid(torch.full((CHANNELS, 1, 1), 2.0) * x), ["mul(x, sigmoid(mul(2, x)))"]),
        (lambda x: torch.hypot(x, torch.tensor(1.0)), ["hypot(x, 1)"]),
        (lambda x: torch.tanh(FEW * x) / FEW, ["tanh"]),  # sums and scalings stay outside
    ],
)
def test_limits_are_relus_and_constants_of_one_value_are_numbers(function, wanted):
    assert labels(function) == wanted


def test_limits_by_hand():
    # x - lo over hi - lo is 1/4, 5/4, -1/2: with 2 binary steps 1/4, 3/4 (the most) and 0; the fourth's limits cross.
    class Limits(nn.Module):
        def forward(self, x):
            return x.clamp(torch.tensor([0.0, -1.0, 2.0, 3.0]), torch.tensor([4.0, 1.0, 4.0, 1.0]))

    x = torch.tensor([[1.0, 1.5, 1.0, 2.0]])
    snn = fs.convert(Limits().eval(), x, K=2, progress=False)
    assert torch.equal(snn.as_ann()(x), torch.tensor([[1.0, 1.0, 2.0, 1.0]]))
    assert torch.equal(snn(x), torch.tensor([[1.0, 0.5, 2.0, 1.0]]))


def test_prelu_by_channel_by_hand():
    # relu(x) = 0, 3, 1 and relu(-x) = 2, 0, 0, all multiples of 1/2 below 4: y = relu(x) - slope relu(-x), exactly.
    class Slopes(nn.Module):
        def forward(self, x):
            return F.prelu(x, torch.tensor([0.5, 0.25, -1.0]))

    x = torch.tensor([[-2.0, 3.0, 1.0], [1.5, -0.5, -2.0]])
    snn = fs.convert(Slopes().eval(), x, K=3, alpha=4.0, progress=False)
    assert torch.equal(snn(x), torch.tensor([[-1.0, 3.0, 1.0], [1.5, -0.125, 2.0]]))
    assert snn.report.neurons == 6
    assert snn.report.latency_steps == 3


def test_prelu_by_two_relus_has_a_tenth_of_the_error_of_one_code_for_its_slope():
    x, errors = images(256), []
    for slopes in (torch.full((CHANNELS,), 0.4), torch.full((CHANNELS,), 0.4) + 1e-6 * torch.arange(CHANNELS)):
        model = Between(lambda x, slopes=slopes: F.prelu(x, slopes)).eval()
        snn = fs.convert(model, x[:2], x, K=8, repair=False, progress=False)
        errors.append(relative_error(snn, model, x))
    assert errors[1] < 0.1 * errors[0]


def test_places_of_the_same_constant_share_a_layer_and_keep_their_order():
    model, snn = quick(lambda x: torch.where(x > FEW, x, 0.1 * x))
    assert [site.activation.label for site in snn.sites] == [
        f"where(gt(x, {value}), x, mul(x, 0.1))" for value in ("0.5", "1", "2")
    ]
    assert [snn.structure.shape_at(site.name, 1)[1] for site in snn.sites] == [1, 3, 2]
    assert snn.channel_axis(snn.sites[1].name) == 1
    torch.testing.assert_close(snn.as_ann()(images()), model(images()))


def test_images_of_one_axis_are_grouped_too():
    class Powers(nn.Module):
        def forward(self, x):
            return x.abs() ** torch.tensor([1.0, 2.0, 1.0, 3.0])

    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    snn = fs.convert(Powers().eval(), x[:2], x, K=4, effort="quick", progress=False)
    assert [snn.structure.shape_at(site.name, 1) for site in snn.sites] == [(1, 2), (1, 1), (1, 1)]
    torch.testing.assert_close(snn.as_ann()(x), Powers()(x))


def test_sums_and_scalings_by_constants_are_no_reason_for_more_layers():
    many = torch.linspace(0.1, 2.0, CHANNELS).view(-1, 1, 1)
    assert labels(lambda x: x + torch.sin(many * x) ** 2 / many) == ["pow(sin(x), 2)"]
    assert labels(lambda x: many * torch.sin(x) + many.flip(0) * torch.cos(x)) == ["sin(x)", "cos(x)"]


def test_more_than_32_different_constants_are_refused_with_their_number():
    many = torch.linspace(0.1, 2.0, 33).view(-1, 1, 1)
    assert len(labels(lambda x: x.abs() ** many.clamp(min=0.2), channels=33)) == 32
    with pytest.raises(fs.FewSpikesError, match=r"pow.Tensor_Tensor .*constant of 33 different values; up to 32"):
        labels(lambda x: x.abs() ** many, channels=33)


DEGREES = {
    "x**3": (lambda x: x**3, 3),
    "relu squared": (lambda x: F.relu(x) ** 2, 2),
    "x|x|": (lambda x: x * x.abs(), 2),
    "leaky by where": (lambda x: torch.where(x > 0, x, 0.1 * x), 1),
    "maximum": (lambda x: torch.maximum(x, 0.2 * x), 1),
    "signed root": (lambda x: torch.sign(x) * x.abs().sqrt(), 0.5),
    "x^2 / |x + |x| / 2|": (lambda x: x * x / (x + x.abs() / 2).abs(), 1),
    "masked": (lambda x: x.abs().masked_fill(x < 0, 0.0), 1),
    "not: |x| + 1": (lambda x: (x.abs() + 1) ** 2, None),
    "not: x > 1": (lambda x: torch.where(x > 1, x, 0.1 * x), None),
    "not: x + x^2": (lambda x: x.abs() + x * x, None),
    "not: floor": (lambda x: torch.div(x * x, x.abs(), rounding_mode="floor"), None),
    "not: exp": (torch.exp, None),
}


def test_a_degree_is_told_where_the_function_has_one():
    functions = {name: function for name, (function, _) in DEGREES.items()}
    sites = prepared(captured_model(Side(functions).eval(), images(2))).sites
    x = torch.linspace(-3.05, 3.05, 200, dtype=torch.float64)  # torch's own values, at many scales
    for (name, (function, wanted)), site in zip(DEGREES.items(), sites, strict=True):
        assert site.activation.degree == wanted, name
        fits = [torch.allclose(function(a * x), a ** (wanted or 1) * function(x)) for a in (0.3, 2.0, 5.5)]
        assert all(fits) is (wanted is not None), name


def test_a_range_per_channel_brings_a_square_nearer():
    model, x = Between(torch.square).eval(), images(256)
    with torch.no_grad():
        model.first.weight *= torch.tensor([0.2, 0.5, 1.0, 1.0, 2.0, 3.0]).view(-1, 1, 1, 1)
        model.last.weight /= torch.tensor([0.2, 0.5, 1.0, 1.0, 2.0, 3.0]).view(1, -1, 1, 1) ** 2
    plain = fs.convert(model, x[:2], x, K=8, effort="quick", repair=False, progress=False)
    mended = fs.convert(model, x[:2], x, K=8, effort="quick", progress=False)
    (neuron,) = mended.neurons.values()
    assert torch.allclose(neuron.gain, neuron.scale)  # r^2 f(x / r) is gain r f(x / r)
    errors = [relative_error(snn, model, x) for snn in (plain, mended)]
    assert errors[1] < 0.7 * errors[0]


def test_a_logarithm_of_what_comes_near_0_raises_with_the_site():
    model, x = Between(lambda x: x.abs().log() + 100).eval(), images(64)
    with pytest.raises(fs.FewSpikesError, match=r"site log: log\(abs\(x\)\) is not finite"):
        fs.convert(model, x[:2], x, K=6, effort="quick", progress=False)
