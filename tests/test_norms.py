"""Norms, softmax and attention written out: values and steps by hand, every mask, and what is refused."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewspikes as fs
from captured import Net
from kinds.comparing import difference, first, run, tensors

N = 16
CAUSAL = torch.ones(4, 4).tril().bool()
BIAS = torch.linspace(-1, 1, 16).view(4, 4)


def made(forward: Any, *layers: nn.Module) -> Net:
    return Net(forward, *layers).eval()


class Two(nn.Module):
    """A function of two inputs."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.run = forward

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.run(x, y)


def converted(net: nn.Module, *images: Tensor, **settings: Any) -> fs.SpikingNetwork:
    given = {"K": 6, "effort": "quick", "repair": False, **settings}
    return fs.convert(net.eval(), first(images, 1), [images if len(images) > 1 else images[0]], **given)


def layers_of(snn: fs.SpikingNetwork) -> list[nn.Module]:
    return list(snn.running_graph.layers)


def test_a_softmax_of_three_by_hand() -> None:
    # exp(0 - log 4), exp(log 2 - log 4), exp(log 4 - log 4) = 1/4, 1/2, 1; their sum is 7/4.
    x = torch.tensor([[0.0, math.log(2), math.log(4)]])
    images = torch.cat([x, torch.randn(31, 3)])
    snn = converted(made(lambda x: x.softmax(1)), images, K={"softmax#1": 7, "softmax#2": 5})
    torch.testing.assert_close(snn.as_ann()(x), torch.tensor([[1 / 7, 2 / 7, 4 / 7]]))
    exp, reciprocal = layers_of(snn)
    e = exp(torch.tensor([[-math.log(4), math.log(2) - math.log(4), 0.0]]))
    torch.testing.assert_close(snn(x), e * reciprocal(e.sum(1, keepdim=True)))
    assert [site.neurons for site in snn.report.sites] == [3, 1]
    (circuit,) = snn.report.circuits
    assert (circuit.operator, circuit.neurons) == ("softmax", 4)
    assert snn.report.latency_steps == 7 + 5  # the maximum and the product are digital, and take no steps


def test_a_layer_norm_of_two_by_hand() -> None:
    # mean 3, deviations -2 and 2, variance 4 (+ 5): rsqrt(9) = 1/3; (2 * -2, 3 * 2) / 3 + 1 = -1/3, 3
    norm = nn.LayerNorm(2, eps=5.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.fill_(1.0)
    x = torch.tensor([[1.0, 5.0]])
    snn = converted(nn.Sequential(norm), torch.cat([x, 3 * torch.randn(31, 2)]), K=9)
    torch.testing.assert_close(snn.as_ann()(x), torch.tensor([[-1 / 3, 3.0]]))
    (rsqrt,) = layers_of(snn)
    torch.testing.assert_close(snn(x), torch.tensor([[-4.0, 6.0]]) * rsqrt(torch.tensor([[9.0]])) + 1)
    (site,) = snn.report.sites
    assert (site.name, site.activation, site.neurons) == ("0.layer_norm", "rsqrt(x)", 1)
    assert snn.report.latency_steps == 9  # its square and its product are digital


def test_attention_of_two_tokens_by_hand() -> None:
    # scores 2 * (1, 3) / sqrt(4): the first query sees log 3 more of the second token, the second query both alike.
    keys = torch.zeros(1, 2, 4)
    keys[0, 1, 0] = 1.0
    x = torch.zeros(1, 2, 4)
    x[0, 0, 0] = 2 * math.log(3)
    net = Two(lambda q, k: F.scaled_dot_product_attention(q, k, 1 - k))
    images = torch.cat([x, torch.randn(N, 2, 4)]), torch.cat([keys, torch.randn(N, 2, 4)])
    snn = converted(net, *images, K=8)
    found = snn.as_ann()(x, keys)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([1 / 4, 1 / 2]))
    assert [site.neurons for site in snn.report.sites] == [4, 2]  # exp of 2 x 2 scores, a reciprocal for each query
    exp, reciprocal = layers_of(snn)
    e = exp(torch.tensor([[-math.log(3), 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(snn(x, keys), (e @ (1 - keys[0]) * reciprocal(e.sum(1, keepdim=True)))[None])
    assert [entry.operator for entry in snn.report.left_digital].count("aten.matmul.default") == 2
    assert snn.report.latency_steps == 2 * 8


def test_normalised_weights_of_attention_written_out_are_no_neurons_either() -> None:
    net = made(lambda x: (x @ x.transpose(1, 2)).softmax(-1) @ x)
    snn = converted(net, torch.randn(N, 4, 3))
    scaled = [node for node in snn.graph if node.short == "mul"]
    assert [node.shape[1:] for node in scaled] == [(4, 3)]  # what a query reads, and not the 4 x 4 weights
    both = made(lambda x: (y := (x @ x.transpose(1, 2)).softmax(-1), y @ x))
    assert len([node for node in converted(both, torch.randn(N, 4, 3)).graph if node.short == "mul"]) == 2


@pytest.mark.parametrize("size", [1e-3, -1e-3])
def test_a_divisor_that_is_small_and_never_varies_keeps_away_from_0(size: float) -> None:
    net = made(lambda x, first: x / (0 * first(x).mean(1, keepdim=True) + size), nn.Linear(6, 6))
    x = torch.randn(N, 6)
    snn = converted(net, x)
    torch.testing.assert_close(snn(x), x / size)
    still = converted(nn.LayerNorm(4), torch.ones(N, 3, 4))  # its variance is 0: rsqrt sees eps alone
    assert bool((still(torch.ones(2, 3, 4)) == 0).all())


def test_the_gain_of_a_norm_stands_before_its_product() -> None:
    for norm in (nn.LayerNorm(4), nn.RMSNorm(4), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4, affine=True)):
        snn = converted(norm, torch.randn(N, 4, 4))
        calls = [snn.structure.segments.call(node) for node in snn.graph if node.short == "mul"]
        (product,) = [call.node for call in calls if len(call.signals) > 1]
        after = [node.short for node in snn.graph.users(product.name)]
        assert set(after) <= {"add", "reshape", "output"}, norm


MASKS: dict[str, Any] = {
    "-inf": lambda s: s.masked_fill(~CAUSAL, -math.inf),
    "the lowest float": lambda s: s.masked_fill(~CAUSAL, torch.finfo(torch.float32).min),
    "where": lambda s: torch.where(CAUSAL, s, -1e9),
    "where, the other way round": lambda s: torch.where(~CAUSAL, torch.tensor(-math.inf), s),
    "a sum": lambda s: s + torch.zeros(4, 4).masked_fill(~CAUSAL, -math.inf),
    "a sum with a bias in it": lambda s: (
        s + torch.linspace(-1, 1, 16, dtype=s.dtype).view(4, 4).masked_fill(~CAUSAL, -1e4)
    ),
    "a bias in front": lambda s: (s + torch.linspace(-1, 1, 16, dtype=s.dtype).view(4, 4)).masked_fill(
        ~CAUSAL, -math.inf
    ),
    "two of them": lambda s: s.masked_fill(~CAUSAL, -1e9) + torch.zeros(4).masked_fill(torch.arange(4) == 2, -math.inf),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MASKS)
def test_a_mask_in_front_of_a_softmax_is_a_factor_of_0_behind_exp(name: str, dtype: torch.dtype) -> None:
    net = made(lambda x: MASKS[name](x).to(x.dtype).softmax(-1))
    x = 3 * torch.randn(N, 4, 4, dtype=dtype)
    snn = converted(net, x)
    wanted = net(x)
    assert (difference(snn.as_ann()(x), wanted)) <= (1e-12 if dtype == torch.float64 else 1e-6)
    assert torch.equal(snn(x) == 0, (wanted == 0) | (snn(x) == 0))  # nothing comes through a mask
    exp = snn.report.sites[0]
    assert exp.activation == "exp(x)"
    assert exp.domain[0] > -100  # no very low number reached the neurons
    assert exp.domain[1] < 6  # nor anything far above 0, as what is masked may be


def test_what_is_masked_costs_no_spikes() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4, 4)
    snn = converted(made(lambda x: x.masked_fill(~CAUSAL, -math.inf).softmax(-1)), x, effort="normal")
    exp = layers_of(snn)[0]
    with fs.count(snn) as counts:
        snn(x)
    shift = x.masked_fill(~CAUSAL, -math.inf).amax(-1, keepdim=True)
    kept = fs.encode((x - shift)[CAUSAL.expand_as(x)], exp.code)
    assert counts.by_site[snn.report.sites[0].name] == int(kept.sum())


def padding(lengths: Tensor, size: int = 4) -> Tensor:
    return torch.arange(size) >= lengths[:, None]


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, k: (x @ x.transpose(1, 2)).masked_fill(k[:, None], -math.inf).softmax(-1) @ x,
        lambda x, k: ((x @ x.transpose(1, 2)) + k[:, None].to(x.dtype) * torch.finfo(x.dtype).min).softmax(-1) @ x,
        lambda x, k: F.scaled_dot_product_attention(x, x, x, attn_mask=~k[:, None]),
        lambda x, k: F.scaled_dot_product_attention(x, x, x, attn_mask=~k[:, None] & CAUSAL),
    ],
)
def test_a_mask_by_image_is_a_factor_too_and_stays_in_the_file(forward: Any, tmp_path: Any) -> None:
    x, mask = torch.randn(N, 4, 3), padding(torch.randint(1, 5, (N,)))
    net = Two(forward)
    snn = converted(net, x, mask)
    for n in (1, 5):
        assert difference(snn.as_ann()(x[:n], mask[:n]), net(x[:n], mask[:n])) <= 1e-6
    fs.save(snn, tmp_path / "net.fs")
    assert torch.equal(fs.load(tmp_path / "net.fs")(x, mask), snn(x, mask))


def test_an_image_that_a_mask_leaves_nothing_of_gives_0() -> None:
    x, mask = torch.randn(N, 4, 3), padding(torch.randint(0, 3, (N,)))
    mask[:2] = True
    net = Two(lambda x, k: (x @ x.transpose(1, 2)).masked_fill(k[:, None], -math.inf).softmax(-1) @ x)
    snn = converted(net, x, mask)
    assert net(x, mask)[:2].isnan().all()
    assert bool((snn.as_ann()(x, mask)[:2] == 0).all())
    assert bool((snn(x, mask)[:2] == 0).all())
    fused = Two(lambda x, k: F.scaled_dot_product_attention(x, x, x, attn_mask=~k[:, None]))
    torch.testing.assert_close(converted(fused, x, mask).as_ann()(x, mask), fused(x, mask))


def test_a_constant_mask_that_leaves_all_of_a_row_out_is_refused() -> None:
    mask = CAUSAL.clone()
    mask[1] = False
    with pytest.raises(fs.FewSpikesError, match="softmax.int at the top .*: its mask leaves all of a row out"):
        converted(made(lambda x: x.masked_fill(~mask, -math.inf).softmax(-1)), torch.randn(N, 4, 4))


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    x = 300 * torch.randn(N, 4, 4)
    net = made(lambda x: (x.masked_fill(~CAUSAL, -math.inf).softmax(-1), x.logsumexp(-1), F.log_softmax(x, -1)))
    for found, wanted in zip(converted(net, x).as_ann()(x), net(x), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_bias_of_minus_100_stays_a_sum_and_the_fit_bears_it() -> None:
    torch.manual_seed(0)
    net = made(lambda x: (x + torch.where(CAUSAL, 0.0, -100.0)).softmax(-1))
    x = torch.randn(64, 4, 4)
    snn = converted(net, x, K=10, effort="normal")
    assert difference(snn.as_ann()(x), net(x)) <= 1e-6
    assert difference(snn(x), net(x)) < 0.1


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x / (1 + x.abs()),  # one neuron: softsign
        lambda x: x.exp() / (x.exp() + 2),
    ],
)
def test_a_quotient_that_is_a_function_of_one_signal_is_one_neuron(forward: Any) -> None:
    snn = converted(made(forward), torch.randn(N, 6))
    assert (snn.report.layers, snn.report.left_digital) == (1, ())


def test_a_divisor_repeated_along_an_axis_is_turned_over_once() -> None:
    snn = converted(made(lambda x: F.normalize(x, dim=1)), torch.randn(N, 6, 5))
    (site,) = snn.report.sites
    assert site.neurons == 5  # one length for each column, and not one for each number


def test_a_divisor_that_changes_sign_is_refused_with_its_place() -> None:
    net = made(lambda x, first: x / first(x).mean(1, keepdim=True), nn.Linear(6, 6))
    with pytest.raises(fs.FewSpikesError, match=r"reciprocal\(x\) is not finite at x = .*, within -.* to .*"):
        converted(net, torch.randn(N, 6))


def test_a_softmax_over_images_is_refused() -> None:
    with pytest.raises(fs.FewSpikesError, match="mixed by operator aten.softmax.int"):
        converted(made(lambda x: F.relu(x).softmax(0)), torch.randn(N, 6))


def test_attention_that_drops_weights_is_refused() -> None:
    net = made(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1))
    with pytest.raises(fs.FewSpikesError, match="drops weights at random in eval mode: give it dropout_p=0"):
        converted(net, torch.randn(N, 4, 3))


NORMS: dict[str, Any] = {
    "native_layer_norm": lambda x: torch.native_layer_norm(x, [3], None, None, 1e-5),
    "p = inf": lambda x: torch.linalg.vector_norm(x, math.inf, 1),
    "p = -inf": lambda x: torch.linalg.vector_norm(x, -math.inf, 1),
    "p = 1.5": lambda x: torch.linalg.vector_norm(x + 3, 1.5, (1, 2), keepdim=True),
    "of all but the batch": lambda x: x.flatten(1).norm(dim=1),
    "correction": lambda x: torch.std(x, (1, 2), correction=0.5),
    "with the mean": lambda x: torch.cat(torch.var_mean(x, 1), 1),
    "many distances": lambda x: torch.cdist(x, torch.linspace(-2, 2, 90).view(30, 3).to(x.dtype)),
    "distances of p = 1": lambda x: torch.cdist(x, x.flip(1) + 1, p=1.0),
    "cosine of one number repeated": lambda x: F.cosine_similarity(x[:, :1], x + 1, dim=1),
    "cosine beside a constant of fewer axes": lambda x: F.cosine_similarity(x, torch.arange(3).to(x.dtype), dim=1),
    "cosine beside a constant": lambda x: F.cosine_similarity(x, torch.arange(3).to(x.dtype), dim=-1),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_and_distances_are_torchs_own_in_double_precision(name: str) -> None:
    net = made(lambda x, layer: NORMS[name](F.relu(layer(x))), nn.Linear(3, 3)).double()
    x = torch.randn(N, 4, 3, dtype=torch.float64)
    snn = converted(net, x)
    with torch.no_grad():
        for n in (1, 5):
            assert tensors(run(net, (x[:n],)))
            assert difference(snn.as_ann()(x[:n]), net(x[:n])) <= 1e-12
