"""Conversion: every operator in its class, the same network however it is written, the caps kept."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewspikes as fs
from fewspikes.graph.graph import CONSTANT, INPUT, OUTPUT
from fewspikes.operators.rule import Kind
from networks import ByName, Pair, small, squeeze_excite, trained

IMAGES = torch.zeros(1, 3, 8, 8)


class Lambda(nn.Module):
    """A convolution, then what the test wants."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, x):
        return self.function(self.conv(x))


def assert_kept(function, x=None, exact=True):
    """The converted graph with its original activations computes what the model computes."""
    model = Lambda(function).eval()
    snn = fs.convert(model, IMAGES)
    x = torch.randn(3, 3, 8, 8) if x is None else x
    wanted, got = model(x), snn.as_ann()(x)
    assert torch.equal(got, wanted) if exact else torch.allclose(got, wanted, atol=1e-6)
    return snn


@pytest.mark.parametrize("style", ["functional", "shared", "inplace"])
def test_every_way_of_writing_the_activation_gives_the_same_network(style):
    x = torch.randn(4, 3, 8, 8)
    plain, other = (fs.convert(small(s), IMAGES) for s in ("module", style))
    assert torch.equal(plain(x), other(x))
    assert other.report.neurons == plain.report.neurons == 2 * 8 * 8 * 8


def test_a_shared_activation_gives_two_sites_with_numbers():
    assert [site.name for site in fs.convert(small("shared"), IMAGES).report.sites] == ["relu1#1", "relu1#2"]
    assert [site.name for site in fs.convert(small("module"), IMAGES).report.sites] == ["relu1", "relu2"]
    assert [site.name for site in fs.convert(small("functional"), IMAGES).report.sites] == ["relu#1", "relu#2"]


def test_the_users_model_stays_bitwise_as_it_was():
    model = small()
    before = copy.deepcopy(model.state_dict())
    snn = fs.convert(model, IMAGES, calibration=torch.randn(8, 3, 8, 8))
    snn(torch.randn(2, 3, 8, 8))
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not model.training
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_the_converted_network_shares_no_memory_with_the_model():
    model = small()
    snn = fs.convert(model, IMAGES)
    x = torch.randn(2, 3, 8, 8)
    before = snn(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(snn(x), before)


def test_folded_batch_norm_computes_the_same():
    model, x = small(), torch.randn(4, 3, 8, 8)
    snn = fs.convert(model, IMAGES)
    torch.testing.assert_close(snn.as_ann()(x), model(x), rtol=1e-5, atol=1e-5)
    assert not any("batch_norm" in entry.operator for entry in snn.report.operators)


def test_a_batch_norm_that_stands_alone_becomes_scale_and_shift():
    class PreActivation(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn, self.fc, self.bn1d = (
                nn.Conv2d(3, 4, 3),
                nn.BatchNorm2d(4),
                nn.Linear(4, 4),
                nn.BatchNorm1d(4),
            )

        def forward(self, x):
            y = self.conv(x)
            y = (F.relu(self.bn(y)) + y).mean((2, 3))
            return F.relu(self.bn1d(self.fc(y)))

    model, x = trained(PreActivation(), 3, 8, 8), torch.randn(4, 3, 8, 8)
    snn = fs.convert(model, IMAGES)
    torch.testing.assert_close(snn.as_ann()(x), model(x), rtol=1e-5, atol=1e-5)
    assert snn.report.notes == ("batch norm at bn stands alone: kept as a scale and a shift per channel",)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: F.relu(F.avg_pool2d(y, 3, 2, 1)),
        lambda y: F.relu(F.adaptive_avg_pool2d(y, (3, 5))),
        lambda y: F.relu(y.mean((2, 3))),
        lambda y: F.relu(y + 2 * y - 0.5 * y / 4),
        lambda y: F.relu(-y + 1),
        lambda y: F.relu(1 - y),
        lambda y: F.relu(torch.cat([y, y[:, 1:3]], 1)),
        lambda y: F.relu(torch.cat(torch.split(y, [1, 3], 1)[::-1], 1)),
        lambda y: F.relu(torch.cat(y.chunk(2, 1), 2)),
        lambda y: F.relu(y.flatten(1)),
        lambda y: F.relu(y.view(y.size(0), -1)),
        lambda y: F.relu(y.reshape(y.shape[0], 2, 2, 64).permute(0, 2, 1, 3)),
        lambda y: F.relu(y.transpose(1, 2)),
        lambda y: F.relu(F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))),
        lambda y: F.relu(y.select(1, 2)),
        lambda y: F.relu(F.dropout(y, 0.5, training=False)),
        lambda y: F.relu(nn.Identity()(y)),
        lambda y: F.relu(y[:, :1].squeeze(1).unsqueeze(1)),
        lambda y: F.relu(F.pixel_shuffle(y, 2)),
        lambda y: F.relu(F.pixel_unshuffle(y, 2)),
        lambda y: F.relu(F.channel_shuffle(y, 2)),
        lambda y: F.relu(y.mean((1, 2), keepdim=True).squeeze()),
        lambda y: F.relu(F.interpolate(y, scale_factor=2, mode="bilinear")),
        lambda y: F.relu(F.pad(y, (1, 1, 2, 0), mode="reflect")),
        lambda y: F.relu(y.flip(2).repeat(1, 2, 1, 1).cumsum(3)),
        lambda y: F.relu(F.conv3d(y[:, None], torch.ones(2, 1, 2, 2, 2))),
    ],
)
def test_every_synaptic_operator_is_kept_exactly(function):
    snn = assert_kept(function)
    assert {entry.kind for entry in snn.report.operators} <= {Kind.SYNAPTIC, Kind.NEURON, Kind.BOOKKEEPING}
    assert snn.report.left_digital == ()


@pytest.mark.parametrize(
    ("function", "label"),
    [
        (F.relu, "relu"),
        (nn.ReLU(inplace=True), "relu"),
        (lambda y: y.relu_(), "relu"),
        (lambda y: y.clamp(min=0), "relu"),
        (lambda y: y.clamp_min(0), "relu"),
        (lambda y: F.threshold(y, 0, 0), "relu"),
        (F.relu6, "relu6"),
        (nn.ReLU6(inplace=True), "relu6"),
        (lambda y: F.hardtanh(y, 0, 6), "relu6"),
        (lambda y: y.clamp(0, 6), "relu6"),
        (lambda y: y.clamp_(0, 3.5), "relu[0,3.5]"),
        (nn.Hardtanh(0.0, 1.0), "relu[0,1]"),
        (F.silu, "silu"),
        (nn.SiLU(inplace=True), "silu"),
        (lambda y: y * torch.sigmoid(y), "silu"),
        (torch.sigmoid, "sigmoid"),
        (nn.Sigmoid(), "sigmoid"),
        (torch.tanh, "tanh"),
        (F.gelu, "gelu"),
        (nn.GELU("tanh"), "gelu_tanh"),
        (F.hardswish, "hardswish"),
        (nn.Hardswish(inplace=True), "hardswish"),
        (nn.Hardsigmoid(), "hardsigmoid"),
        (nn.Mish(), "mish"),
        (nn.ELU(), "elu"),
        (F.leaky_relu, "leaky_relu"),
        (nn.Softplus(), "softplus"),
    ],
)
def test_every_form_of_an_activation_becomes_its_neuron(function, label):
    snn = assert_kept(function, exact=False)
    assert snn.report.neurons_by_activation == {label: 4 * 8 * 8}


@pytest.mark.parametrize("function", [nn.ELU(2.0), nn.LeakyReLU(0.2), nn.Softplus(beta=2)])
def test_an_activation_with_other_settings_than_torchs_defaults_needs_images(function):
    model, x = nn.Sequential(nn.Linear(3, 3), function).eval(), torch.randn(40, 3)
    with pytest.raises(fs.FewSpikesError, match="no tables for 1 of 1 sites: 1 is .*; give images"):
        fs.convert(model, x)
    assert len(fs.convert(model, x, x, effort="quick", repair=False).sites) == 1


def test_the_cap_of_a_relu6_is_kept():
    # Forgetting the cap costs EfficientNet-Lite0 18 points: inputs above 6 must come out at 6, not at themselves.
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU6()).eval()
    nn.init.ones_(model[0].weight)
    x = torch.tensor([[3.0], [6.0], [20.0]])
    for options in ({}, {"K": 10}, {"K": 10, "calibration": x}):
        y = fs.convert(model, x, **options)(x)
        assert y.flatten().tolist() == pytest.approx([3.0, 6.0, 6.0], abs=6 * 2**-10)


def test_squeeze_and_excitation_products_stay_digital_with_the_reason():
    report = fs.convert(squeeze_excite(), IMAGES).report
    assert [(entry.operator, entry.kind) for entry in report.left_digital] == [("aten.mul.Tensor", "digital")]
    assert "the paper leaves it to the digital processor" in report.left_digital[0].reason
    assert report.neurons_by_activation == {"silu": 8 * 4 * 4 + 2, "sigmoid": 8}


def test_max_pools_stay_digital_with_reason_and_remedy():
    report = fs.convert(Lambda(lambda y: F.max_pool2d(F.relu(y), 2)).eval(), IMAGES).report
    assert [entry.operator for entry in report.left_digital] == ["aten.max_pool2d.default"]
    assert "'average'" in report.left_digital[0].reason


def test_average_in_place_of_max_pools_warns_and_changes_the_ann_likewise():
    model = Lambda(lambda y: F.max_pool2d(F.relu(y), 3, 2, 1)).eval()
    with pytest.warns(fs.FewSpikesWarning, match="a changed network; it is compared with the ANN changed likewise"):
        snn = fs.convert(model, IMAGES, circuits={"max": "average"})
    x = torch.randn(2, 3, 8, 8)
    changed = Lambda(lambda y: F.avg_pool2d(F.relu(y), 3, 2, 1, count_include_pad=False)).eval()
    changed.load_state_dict(model.state_dict())
    assert torch.equal(snn.as_ann()(x), changed(x))
    assert snn.report.left_digital == ()


def test_every_operator_of_the_graph_is_in_the_report_once():
    snn = fs.convert(squeeze_excite(), IMAGES)
    calls = [node for node in snn.graph if node.operator not in (INPUT, CONSTANT, OUTPUT)]
    assert len(snn.report.operators) == len(calls)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (F.selu, r"no tables for 1 of 1 sites: selu is selu\(x\); give images"),
        (lambda y: y.flatten(1).softmax(1), r"no tables for 2 of 2 sites: softmax#1 is exp\(x\), softmax#2 is recip"),
        (lambda y: F.relu(y).flatten(1).argsort(1) + 0.5, "argsort.*an order is no weighted sum of spikes: return it"),
        (lambda y: F.relu(F.dropout(y)), r"dropout.* \(active in eval mode: call F.dropout\(x, training=self.training"),
        (lambda y: F.relu(y).norm(p=0, dim=1), "no rule for operator aten.linalg_vector_norm.default at the top of"),
        (torch.sin, "no tables for 1 of 1 sites: sin is sin"),
        (lambda y: F.relu(y).softmax(1, torch.float64), "no rule for operator aten.softmax"),
        (lambda y: F.relu(y) / (y + 1), r"no tables for 1 of 1 sites: div is div\(relu\(x\), add\(x, 1\)\)"),
        (lambda y: F.relu(y) / (y.mean((2, 3), True) + 1), r"no tables for 1 of 2 sites: div is reciprocal\(x\)"),
        (lambda y: y.logcumsumexp(1) + F.relu(y).cumprod(1), "no rule for operator .*cumsumexp.*; operator aten.cump"),
        (lambda y: y - y.mean(), "images of a batch are mixed by operator aten.mean.default at the top of the model"),
        (lambda y: y + 1, "nothing to convert"),
    ],
)
def test_what_has_no_rule_raises(function, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(Lambda(function).eval(), IMAGES)


def test_a_batch_norm_on_batch_statistics_raises():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()).eval()
    with pytest.raises(fs.FewSpikesError, match="running statistics|no rule"):
        fs.convert(model, IMAGES)


def test_the_report_reads_as_text_and_as_json():
    report = fs.convert(squeeze_excite(), IMAGES).report
    assert "138 FS-neurons in 3 layers (130 silu, 8 sigmoid)" in str(report)
    content = report.to_json()
    assert content["neurons"] == 138
    assert content["k"] == {"act": 16, "silu": 16, "sigmoid": 12}
    assert content["left_digital"][0]["operator"] == "aten.mul.Tensor"


def test_latency_and_interval_follow_the_chain_of_sites():
    # act (16) -> reduce's silu (16) -> sigmoid (12): 44 steps to the answer; the largest neighbours are 16 + 16.
    report = fs.convert(squeeze_excite(), IMAGES).report
    assert (report.latency_steps, report.interval_steps, report.paper_latency_steps) == (44, 32, 48)


def test_a_batch_norm_behind_a_linear_map_on_sequences_keeps_its_axis():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.bn = nn.Linear(6, 5), nn.BatchNorm1d(5)

        def forward(self, x):  # [batch, 5, 6]: the linear outputs are the last axis, the channels axis 1
            return F.relu(self.bn(self.linear(x)))

    model, x = trained(Sequence(), 5, 6), torch.randn(3, 5, 6)
    torch.testing.assert_close(fs.convert(model, x[:1]).as_ann()(x), model(x))


class Two(nn.Module):
    """Two inputs whose order matters."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x1, x):
        return self.linear(F.relu(x1 - 2 * x))


def test_one_tensor_given_for_two_inputs_makes_two_inputs():
    model, same = Two().eval(), torch.zeros(2, 4)
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    snn = fs.convert(model, (same, same))
    assert [spec.name for spec in snn.inputs] == ["x1", "x"]
    assert torch.equal(snn.as_ann()(a, b), model(a, b))


def test_inputs_of_different_batch_sizes_raise():
    snn = fs.convert(Two().eval(), (torch.zeros(1, 4), torch.zeros(1, 4)))
    with pytest.raises(fs.FewSpikesError, match=r"batches of 3 and 1 \(x\); give one size"):
        snn(torch.zeros(3, 4), torch.zeros(1, 4))


def test_a_forward_with_any_number_of_inputs_converts():
    class Variadic(nn.Module):
        def forward(self, *xs):
            return F.relu(xs[0] - xs[1])

    a, b = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.equal(fs.convert(Variadic().eval(), (a, b)).as_ann()(a, b), F.relu(a - b))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_model_is_the_model_inside(wrap):
    assert fs.convert(wrap(small()), IMAGES).report == fs.convert(small(), IMAGES).report


class Padded(nn.Module):
    """Zeros around a map in the ways that people write them, then a convolution or something else."""

    def __init__(self, pad, read):
        super().__init__()
        self.conv, self.flat, self.pad, self.read = nn.Conv2d(3, 4, 3, padding=(1, 0)), nn.Conv2d(4, 2, 3), pad, read

    def forward(self, x):
        return F.relu(self.read(self, self.pad(F.relu(self.conv(self.pad(x))))))


@pytest.mark.parametrize(
    ("pad", "read", "left"),
    [
        (lambda x: F.pad(x, (1, 1, 2, 2)), lambda net, x: net.flat(x), 0),
        (nn.ZeroPad2d(2), lambda net, x: net.flat(x), 0),
        (lambda x: F.pad(x, (2, 2)), lambda net, x: net.flat(x), 0),
        (lambda x: F.pad(x, (0, 1, 0, 1)), lambda net, x: net.flat(x), 2),  # more at one side
        (lambda x: F.pad(x, (1, 1, 1, 1), value=0.5), lambda net, x: net.flat(x), 2),
        (lambda x: F.pad(x, (-1, -1)), lambda net, x: net.flat(x), 2),  # a crop
        (lambda x: F.pad(x, (1, 1, 1, 1)), lambda net, x: net.flat(x) + x[:, :2, 1:-1, 1:-1], 1),  # read twice
        (lambda x: F.pad(x, (1, 1, 1, 1, 1, 1)), lambda net, x: x, 2),  # channels, too
    ],
)
def test_zeros_before_a_convolution_become_its_padding_and_nothing_else_does(pad, read, left):
    torch.manual_seed(0)
    channels = 5 if left == 2 and pad(torch.zeros(1, 3, 4, 4)).shape[1] == 5 else 3
    model, x = Padded(pad, read).eval(), torch.randn(3, 3, 8, 9)
    if channels == 5:
        model.conv = nn.Conv2d(5, 4, 3, padding=(1, 0)).eval()
    snn = fs.convert(model, x)
    assert sum("pad" in node.operator for node in snn.graph) == left
    assert torch.allclose(snn.as_ann()(x), model(x), atol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_compiled_network_computes_the_same(mode):
    snn, x = fs.convert(small(), IMAGES), torch.randn(2, 3, 8, 8)
    torch.compiler.reset()
    with mode():
        assert torch.equal(torch.compile(snn, backend="aot_eager")(x), snn(x))


def test_a_copy_is_a_network_of_its_own():
    snn, x = fs.convert(small(), IMAGES), torch.randn(2, 3, 8, 8)
    again = copy.deepcopy(snn)
    with fs.count(snn, synops=True) as a, fs.count(again, synops=True) as b:
        assert torch.equal(snn(x), again(x))
    assert a == b
    assert again.output_shape() == (10,)


def test_inference_first_and_gradients_later():
    model, x = small(), torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        snn = fs.convert(model, IMAGES)
        snn(x)
    x.requires_grad_()
    snn(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_channels_last_weights_and_inputs_give_the_same_network_after_a_file(tmp_path):
    snn = fs.convert(small().to(memory_format=torch.channels_last), IMAGES)
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    fs.save(snn, tmp_path / "net.fs")
    assert torch.equal(fs.load(tmp_path / "net.fs")(x), snn(x))


def test_a_nan_that_folding_brings_to_light_raises():
    model = small()
    model.bn1.running_var.fill_(-1.0)
    with pytest.raises(fs.FewSpikesError, match="a constant of the network, after batch norms were folded, holds NaN"):
        fs.convert(model, IMAGES)


def test_a_lazy_weight_raises():
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU()).eval()
    with pytest.raises(fs.FewSpikesError, match="has no values yet; run the model once"):
        fs.convert(model, torch.zeros(1, 4))


def test_an_example_of_another_dtype_than_the_weights_raises():
    with pytest.raises(fs.FewSpikesError, match="input x is torch.float64, the model's weights are torch.float32"):
        fs.convert(small(), IMAGES.double())


def test_a_range_beyond_the_networks_dtype_names_its_site():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.zeros(1, 3)
    with pytest.raises(fs.FewSpikesError, match="site 1: T, h, d .* must be numbers of torch.float32"):
        fs.convert(model, x, K=4, alpha=1e39)
    wide = fs.convert(model.double(), x.double(), K=4, alpha=1e39)
    with pytest.raises(fs.FewSpikesError, match="site 1: .* must be numbers of torch.float32"):
        wide.float()
    assert wide.dtype == torch.float64


def test_an_average_over_padding_by_minus_infinity_is_refused():
    class Padded(nn.Module):
        def forward(self, x):
            return nn.functional.max_pool2d(nn.functional.pad(torch.relu(x), (1, 1, 1, 1), value=-float("inf")), 2)

    x = torch.randn(2, 3, 6, 6)
    with pytest.raises(fs.FewSpikesError, match="maximum beside padding by -inf, of which there is no average"):
        fs.convert(Padded().eval(), x, circuits={"max": "average"})
    snn = fs.convert(Padded().eval(), x, K=8, alpha=8.0)
    assert (snn(x) - Padded()(x)).abs().max() < 8 * 2**-8


def test_one_image_scaled_in_another_way_ruins_nothing_and_is_named():
    model, x = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval(), torch.randn(200, 6)
    wild = x.clone()
    wild[31] *= 100
    clean = fs.convert(model, x, x, K=4)
    with pytest.warns(fs.FewSpikesWarning, match=r"1 of 200 images is far larger .* number 31 .* scaled alike"):
        snn = fs.convert(model, x, wild, K=4)
    assert snn.report.calibration_images == 199
    assert any("number 31" in note for note in snn.report.notes)
    fresh = torch.randn(500, 6)
    assert fs.evaluate(snn, fresh).relative_error < 1.2 * fs.evaluate(clean, fresh).relative_error


@pytest.mark.parametrize("make", [Pair, ByName])
def test_inputs_given_as_a_dict_are_bound_by_name_whatever_its_order(make):
    model, p, q = make().eval(), torch.randn(5, 4), torch.randn(5, 4)
    snn = fs.convert(model, {"q": q, "p": p})
    wanted = snn.as_ann()(p, q)
    assert torch.allclose(wanted, model(p=p, q=q), atol=1e-6)
    assert [spec.name for spec in snn.inputs] == ["p", "q"]
    ways = [snn(p, q), snn(p, q=q), snn(q=q, p=p), snn(q=q, p=p), snn({"q": q, "p": p}), snn({"p": p, "q": q})]
    assert all(torch.equal(way, ways[0]) for way in ways)


def test_a_name_after_a_gap_in_forward_keeps_its_name_and_has_no_place(tmp_path):
    class Optional(Pair):
        def forward(self, p, mask=None, q=None):
            return super().forward(p, q) if mask is None else mask

    model, p, q = Optional().eval(), torch.randn(5, 4), torch.randn(5, 4)
    snn = fs.convert(model, {"q": q, "p": p})
    assert torch.allclose(snn.as_ann()(p, q), model(p, q=q), atol=1e-6)
    fs.save(snn, tmp_path / "net.fs")
    for network in (snn, fs.load(tmp_path / "net.fs")):
        assert torch.equal(network(p, q=q), network({"q": q, "p": p}))
        for wrong in ((p, q), (p, None, q)):
            with pytest.raises(fs.FewSpikesError, match="takes something else in front of q, .*; give q by name: q="):
                network(*wrong)
        assert fs.evaluate(network, {"q": q, "p": p}, model).images == 5
    distilled = fs.convert(
        model, {"q": q, "p": p}, {"q": torch.randn(40, 4), "p": torch.randn(40, 4)}, K=3, distil=0.01
    )
    assert distilled.inputs == snn.inputs


@pytest.mark.parametrize("images", ["tuple", "dict", "pairs", "labelled dicts"])
def test_every_form_of_two_inputs_calibrates_the_same(images):
    model, p, q = Pair().eval(), torch.randn(48, 4), torch.randn(48, 4) + 3
    given = {
        "tuple": (p, q),
        "dict": {"q": q, "p": p},
        "pairs": [(p[:7], q[:7]), (p[7:], q[7:])],
        "labelled dicts": [({"q": q, "p": p}, "a label that nobody reads")],
    }[images]
    wanted = fs.convert(model, (p, q), [(p, q)], K=5)
    assert torch.equal(fs.convert(model, {"q": q, "p": p}, given, K=5)(p, q), wanted(p, q))


@pytest.mark.parametrize("images", [1, 2])
def test_images_may_come_one_by_one(images):
    model, x = small(), torch.randn(16, 3, 8, 8)
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=images)
    wanted = fs.convert(model, x[:1], x, K=4)
    assert torch.equal(fs.convert(model, x[:1], batches, K=4)(x), wanted(x))


def test_whole_numbers_for_a_network_of_floats_raise():
    with pytest.raises(fs.FewSpikesError, match=r"aten.linear.default at 0 takes torch.uint8 and torch.float32"):
        fs.convert(nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval(), torch.zeros(1, 8, dtype=torch.uint8))
    with pytest.raises(fs.FewSpikesError, match=r"x is torch.uint8: give floats"):
        fs.convert(small(), IMAGES.to(torch.uint8))


def test_whole_numbers_that_the_model_makes_floats_itself_convert():
    class Bytes(nn.Module):
        def forward(self, x):
            return F.relu(x / 255 - 0.5)

    x = torch.arange(256, dtype=torch.uint8)[:, None]
    snn = fs.convert(Bytes().eval(), x, x, K=8)
    assert torch.allclose(snn(x), Bytes()(x), atol=0.01)


class Changing(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change, self.layer = change, nn.Linear(8, 3)

    def forward(self, x):
        self.change(x)
        return F.relu(self.layer(x))


@pytest.mark.parametrize("change", [F.relu_, lambda x: x.sub_(0.5)], ids=["relu_", "sub_"])
def test_a_model_that_changes_its_input_in_place_converts_and_the_callers_tensor_stays(change):
    model, x = Changing(change).eval(), torch.randn(64, 8)
    kept = x.clone()
    snn = fs.convert(model, x, x, K=8)
    got = snn(x)
    assert fs.evaluate(snn, x, model).relative_error < 1e-3
    assert torch.equal(x, kept)
    assert torch.allclose(got, model(x.clone()), atol=0.05)


def test_a_tensor_made_in_forward_goes_where_the_network_is():
    model, x = Lambda(lambda x: F.relu(x * torch.tensor(2.0))).eval().to("meta"), IMAGES.to("meta")
    assert fs.convert(model, x)(x).is_meta


def test_a_tensor_made_of_anothers_kind_converts():
    assert_kept(lambda y: F.relu(torch.cat([y, y.new_zeros(y.shape[0], 1, 8, 8), y.new_ones(y.shape[0], 1, 8, 8)], 1)))


def test_one_layer_is_no_layers():
    snn = fs.convert(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), torch.zeros(1, 4))
    assert "in 1 layer (4 relu)" in str(snn.report)
    assert "(1 layer);" in str(snn.report)
    assert "in 1 layer, K" in str(fs.evaluate(snn, torch.randn(8, 4)))


@pytest.mark.parametrize("shape", [list, tuple, lambda pair: dict(enumerate(pair))])
def test_a_limit_of_the_drop_for_several_outputs_says_what_they_are(shape):
    model, x = Several(shape).eval(), torch.randn(64, 8)
    with pytest.raises(fs.FewSpikesError, match=r"returns \[batch, 3\] and \[batch, 5\]: limit steps or spikes"):
        fs.convert(model, x, x, max_drop=1.0)
    assert fs.convert(model, x, x, max_steps=4).report.latency_steps == 4


class Several(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape, self.hidden, self.first, self.second = shape, nn.Linear(8, 8), nn.Linear(8, 3), nn.Linear(8, 5)

    def forward(self, x):
        y = F.relu(self.hidden(x))
        return self.shape((self.first(y), self.second(y)))


@pytest.mark.parametrize("target", [torch.rand(64), {"boxes": torch.rand(3, 4)}, ["a"] * 64, None])
def test_limits_of_steps_and_spikes_read_no_targets(target):
    model, x = Several(lambda pair: pair[0]).eval(), torch.randn(64, 8)
    assert fs.convert(model, x, [(x, target)], max_steps=4).report.latency_steps == 4
    assert fs.evaluate(fs.convert(model, x, [(x, target)], max_spikes=1.0), x).spikes_per_neuron < 1.2


def test_a_spiking_network_is_not_converted_again():
    snn = fs.convert(small(), IMAGES)
    with pytest.raises(fs.FewSpikesError, match="this is a spiking network already; give the model"):
        fs.convert(snn, IMAGES)


def test_converting_leaves_the_collector_as_it_was():
    assert gc.isenabled()
    fs.convert(small(), IMAGES)
    with pytest.raises(fs.FewSpikesError):
        fs.convert(small().train(), IMAGES)
    assert gc.isenabled()
    gc.disable()
    try:
        fs.convert(small(), IMAGES)
        assert not gc.isenabled()
    finally:
        gc.enable()
