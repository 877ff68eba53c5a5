"""Whole numbers as inputs: tables begin a signal, masks and positions are bookkeeping, bytes are signals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewspikes as fs
from fewspikes.operators.rule import Kind
from fewspikes.operators.rules import is_known

IDS = torch.randint(1, 20, (6, 8), generator=torch.Generator().manual_seed(0))
IDS[1:4, 5:] = 0  # padding
MASK = IDS.ne(0).long()


class Of(nn.Module):
    """A function of inputs and of some layers."""

    def __init__(self, forward: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.run = nn.ModuleList(layers), forward

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(*inputs, *self.layers)


def masked_mean(ids: Tensor, mask: Tensor, table: nn.Module, a: nn.Module, b: nn.Module) -> Tensor:
    weight = mask.unsqueeze(-1).float()
    return b(F.relu(a((table(ids) * weight).sum(1) / weight.sum(1).clamp(min=1e-9))))


def deep_fm(ids: Tensor, first: nn.Module, second: nn.Module, deep: nn.Module, top: nn.Module) -> Tensor:
    ids = ids[:, :4] + torch.arange(4) * 20
    v = second(ids)
    crossed = 0.5 * (v.sum(1) * v.sum(1) - (v * v).sum(1)).sum(1, keepdim=True)
    return first(ids).sum(1) + crossed + top(F.relu(deep(v.flatten(1))))


def text_cnn(ids: Tensor, table: nn.Module, a: nn.Module, b: nn.Module) -> Tensor:
    return b(F.relu(a(table(ids).transpose(1, 2))).amax(2))


def two_towers(user: Tensor, item: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, d: nn.Module) -> Tensor:
    return (F.relu(c(a(user[:, 0]))) * F.relu(d(b(item[:, 0])))).sum(-1)


def tabular(ids: Tensor, x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, d: nn.Module) -> Tensor:
    return d(F.relu(c(torch.cat([a(ids[:, 0]), b(ids[:, 1]), x], 1))))


def positions(ids: Tensor, tokens: nn.Module, places: nn.Module, a: nn.Module) -> Tensor:
    mask = ids.ne(0).int()
    at = (torch.cumsum(mask, 1).type_as(mask) * mask).long()
    return a(F.relu(tokens(ids) + places(at)))[:, 0]


def diffusion(x: Tensor, t: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    angles = t.float() * torch.exp(-torch.arange(4) / 4.0)[None]
    return b(F.relu(a(torch.cat([angles.sin(), angles.cos()], 1)) + x))


def attends(ids: Tensor, mask: Tensor, table: nn.Module, a: nn.Module) -> Tensor:
    bias = (1.0 - mask[:, None, :].to(torch.float32)) * -5.0
    return a(F.relu(table(ids).transpose(1, 2) + bias)).mean(1)


def emb(n: int, size: int = 8, **settings: Any) -> nn.Embedding:
    return nn.Embedding(n, size, **settings)


X = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
BYTES = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
STEPS = torch.arange(6)[:, None]
L = nn.Linear
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], int]] = {  # and how many nodes begin a signal
    "fastText": (
        lambda: Of(lambda i, e, a, b: b(F.relu(a(e(i).mean(1)))), emb(20, padding_idx=0), L(8, 6), L(6, 3)),
        (IDS,),
        1,
    ),
    "bag": (lambda: Of(lambda i, e, a: a(F.relu(e(i))), nn.EmbeddingBag(20, 8, mode="sum"), L(8, 3)), (IDS,), 1),
    "text CNN": (lambda: Of(text_cnn, emb(20), nn.Conv1d(8, 5, 3), L(5, 3)), (IDS,), 1),
    "two towers": (lambda: Of(two_towers, emb(20), emb(20), L(8, 6), L(8, 6)), (IDS, IDS.flip(1).clone()), 2),
    "DeepFM": (lambda: Of(deep_fm, emb(80, 1), emb(80, 4), L(16, 6), L(6, 1)), (IDS,), 2),
    "tabular": (lambda: Of(tabular, emb(20, 4), emb(20, 4), L(11, 6), L(6, 2)), (IDS, X), 2),
    "masked mean": (lambda: Of(masked_mean, emb(20), L(8, 6), L(6, 3)), (IDS, MASK), 1),
    "positions": (lambda: Of(positions, emb(20), emb(9), L(8, 4)), (IDS,), 2),
    "additive mask": (lambda: Of(attends, emb(20), L(8, 4)), (IDS, MASK), 1),
    "indexed table": (lambda: Of(lambda i, a: a(F.relu(a.weight[i % 4].mean(1))), L(8, 4)), (IDS,), 1),
    "one hot": (
        lambda: Of(lambda i, a, b: b(F.relu(a(F.one_hot(i, 20).float()))).sum(1), L(20, 6), L(6, 3)),
        (IDS,),
        1,
    ),
    "time steps": (lambda: Of(diffusion, L(8, 3), L(3, 2)), (X, STEPS), 1),
    "bytes": (
        lambda: Of(lambda x, c, f: f(F.relu(c(x.float() / 255)).mean((2, 3))), nn.Conv2d(3, 4, 3), L(4, 2)),
        (BYTES,),
        0,
    ),
    "bytes, divided": (lambda: Of(lambda x, c: F.relu(c((x / 255 - 0.5) / 0.25)), nn.Conv2d(3, 4, 3)), (BYTES,), 0),
    "bytes alone": (lambda: Of(lambda x: F.relu(x.flatten(1) / 255 - 0.5)), (BYTES,), 0),
}


def made(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, inputs, _ = NETWORKS[name]
    return make().eval(), inputs


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_whole_numbers_convert_compute_the_same_and_come_back_from_their_file(
    name: str, tmp_path: Path
) -> None:
    model, inputs = made(name)
    snn = fs.convert(model, inputs, inputs, K=8, effort="quick")
    fewer = tuple(x[1:4] for x in inputs)  # another batch size
    with torch.no_grad():
        torch.testing.assert_close(snn.as_ann()(*fewer), model(*fewer))
    fs.save(snn, tmp_path / "network.fs")
    again = fs.load(tmp_path / "network.fs")
    assert torch.equal(again(*inputs), snn(*inputs))
    assert again.report.operators == snn.report.operators
    assert {name: fan.reason for name, fan in snn.fan_out.items()} == dict.fromkeys(snn.fan_out)
    begins = [entry for entry in snn.report.operators if entry.kind is Kind.LOOKUP]
    assert len(begins) == NETWORKS[name][2]


def test_the_tables_are_no_multiply_adds_and_an_analog_source_like_an_input() -> None:
    model, inputs = made("fastText")
    snn = fs.convert(model, inputs)
    assert sum(snn.macs.by_node.values()) == 8 * 6 + 6 * 3
    assert snn.macs.analog == 8 * 6  # what is looked up is analog, the neurons' spikes are not
    assert snn.report.latency_steps == 10
    assert snn.report.interval_steps == 10  # one layer, which only fires
    (segment,) = snn.structure.segments.of(snn.sites[0].node)
    assert [snn.graph[name].short for name in segment.sources] == ["embedding"]
    assert snn.channel_axis(snn.sites[0].name) == 1


def test_a_sites_channels_are_the_columns_of_its_table() -> None:
    snn = fs.convert(Of(lambda i, e, a: a(F.relu(e(i))), emb(20), L(8, 3)).eval(), IDS)
    assert snn.channel_axis(snn.sites[0].name) == 2


def test_whole_numbers_beside_a_signal_are_bookkeeping() -> None:
    model, inputs = made("masked mean")
    report = fs.convert(model, inputs).report
    kinds = {(entry.operator, entry.kind) for entry in report.operators}
    assert ("aten.clamp.default", Kind.BOOKKEEPING) in kinds
    assert ("aten.embedding.default", Kind.LOOKUP) in kinds
    assert ("aten.mul.Tensor", Kind.SYNAPTIC) in kinds  # with a mask as a factor
    assert report.left_digital == ()


def test_numbers_of_classes_are_made_of_outputs_alone() -> None:
    def forward(x: Tensor, a: nn.Module) -> Any:
        y = a(F.relu(x))
        return {"class": y.argmax(1), "best": y.topk(2), "rounded": (4 * y).long()}

    model = Of(forward, L(3, 5)).eval()
    snn = fs.convert(model, X)
    wanted, got = model(X[:4]), snn.as_ann()(X[:4])
    assert torch.equal(got["class"], wanted["class"])
    assert torch.equal(got["best"][1], wanted["best"][1])
    assert torch.equal(got["rounded"], wanted["rounded"])
    assert {entry.operator for entry in snn.report.left_digital} == {
        "aten.argmax.default",
        "aten.topk.default",
        "aten._to_copy.default",
    }


class Inside(nn.Module):
    """Between two linear maps, with things to change."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.run, self.state, self.memory = forward, torch.zeros(4), None
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def branches(_: Inside, x: Tensor) -> Tensor:
    return F.relu(x) if x.sum() > 0 else x


def loops(_: Inside, x: Tensor) -> Tensor:
    for _ in range(int(x.max())):
        x = F.relu(x)
    return x


def counts(self: Inside, x: Tensor) -> Tensor:
    self.count.add_(1.0)
    return F.relu(x + self.count)


def replaces(self: Inside, x: Tensor) -> Tensor:
    self.state = self.state * 0.5 + x
    return F.relu(self.state)


def keeps(self: Inside, x: Tensor) -> Tensor:
    self.memory = x if self.memory is None else self.memory  # for ever what came first: the same for the same input
    return F.relu(x + self.memory)


def remembers(self: Inside, x: Tensor) -> Tensor:
    self.memory = x if self.memory is None else self.memory * 0.5 + x
    return F.relu(self.memory)


BAD: dict[str, tuple[Callable[..., Any], str]] = {
    "branch": (branches, r"it branches on the values of a tensor; .* use torch.where.* \(it stopped at 1\)"),
    "loop": (loops, r"it branches on the values of a tensor; .* \(it stopped at 1\)"),
    "counts": (counts, "the model changes 1.count, 2.0.count in its forward; .* give the state to forward as an input"),
    "replaces": (replaces, "keeps a state between calls in 1.state, 2.0.state; give the state to forward as an input"),
    "keeps": (keeps, "keeps a state between calls in 1.memory, 2.0.memory; give the state to forward"),
    "remembers": (remembers, "keeps a state between calls in 1.memory, 2.0.memory; give the state to forward"),
    "picks": (
        lambda _, x: F.relu(x)[:, x.sum(0).nonzero()[:, 0]].sum(1, True) + x,
        "depend on the values of a tensor: operator aten.nonzero.default at 1, operator aten.nonzero.default at 2.0;",
    ),
    "reads": (
        lambda _, x: F.relu(x * x.abs().max().item()),
        "depend on the values of a tensor: operator aten.item.default at 1, operator aten.item.default at 2.0;",
    ),
    "complex": (
        lambda _, x: torch.view_as_complex(x.view(-1, 2, 2)).abs().repeat(1, 2),
        r"\(2 times\) at 1, 2.0 \(complex numbers: .* two real tensors\)",
    ),
    "rounds": (
        lambda _, x: F.relu(x.long().sum(1, True) + x),
        r"aten._to_copy.default with these arguments at 1 \(a signal becomes whole numbers here",
    ),
    "orders": (
        lambda _, x: F.relu(x.argsort(1) + x),
        r"aten.argsort.default with these arguments \(2 times\) at 1, 2.0 \(an order is no weighted sum",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_captured_is_named_with_its_module_and_remedy_in_one_line(name: str) -> None:
    forward, message = BAD[name]
    model = nn.Sequential(L(4, 4), Inside(forward), nn.Sequential(Inside(forward))).eval()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    with pytest.raises(fs.FewSpikesError, match=message) as error:
        fs.convert(model, torch.randn(3, 4))
    assert len(str(error.value).splitlines()) == 1
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before


class Squared(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model(ids)
        return x * torch.relu(x)


@pytest.mark.parametrize("call", ["network", "calibration", "constants"])
def test_a_number_that_no_row_of_a_table_has_is_one_line(call: str) -> None:
    model, _ = made("fastText")
    wrong = torch.full((2, 8), 20)
    calls = {
        "network": lambda: fs.convert(model, IDS)(wrong),
        "calibration": lambda: fs.convert(model, IDS, wrong),
        "constants": lambda: fs.convert(Squared(model).eval(), IDS, wrong, circuits="neurons"),
    }
    with pytest.raises(
        fs.FewSpikesError, match=r"from 20 to 20 .* a table that has 20 .* give numbers from 0 to 19$"
    ) as error:
        calls[call]()
    assert len(str(error.value).splitlines()) == 1


def test_an_attribute_that_forward_only_sets_is_no_state() -> None:
    def keeps(self: Inside, x: Tensor) -> Tensor:
        self.memory = x
        return F.relu(x)

    model = Inside(keeps).eval()
    fs.convert(model, torch.randn(3, 4))
    assert model.memory is None


def test_a_cast_like_another_tensor_is_no_product_of_two_dtypes() -> None:
    model = Of(lambda i, x, e: F.relu(e(i).mean(1) * x[:, :1] + i[:, :1].type_as(x)), emb(20)).eval()
    snn = fs.convert(model, (IDS, X))
    torch.testing.assert_close(snn.as_ann()(IDS[:2], X[:2]), model(IDS[:2], X[:2]))


def test_the_last_token_of_each_text_is_picked_by_its_own_mask_and_not_by_anothers() -> None:
    def rows(ids: Tensor, table: nn.Module) -> Tensor:
        last = ids[torch.arange(ids.shape[0]), ids.ne(0).sum(1) - 1]
        return F.relu(table(last))

    model = Of(rows, emb(20)).eval()
    torch.testing.assert_close(fs.convert(model, IDS).as_ann()(IDS[2:5]), model(IDS[2:5]))
    others = Of(lambda ids, table: F.relu(table(ids[ids.argmax(1) % 2])), emb(20)).eval()
    with pytest.raises(fs.FewSpikesError, match="images of a batch are mixed by operator aten.index.Tensor"):
        fs.convert(others, IDS)


@pytest.mark.parametrize("name", ["fastText", "bytes", "tabular", "one hot"])
def test_tables_and_bytes_come_as_spikes_where_inputs_do(name: str, tmp_path: Path) -> None:
    model, inputs = made(name)
    plain = fs.convert(model, inputs, inputs, K=8, effort="quick", repair=False)
    snn = fs.convert(model, inputs, inputs, K=8, effort="quick", repair=False, circuits={"input": "spikes"})
    assert snn.macs.analog == 0 < plain.macs.analog
    torch.testing.assert_close(snn(*inputs), plain(*inputs), atol=0.05, rtol=0.05)
    fs.save(snn, tmp_path / "network.fs")
    assert torch.equal(fs.load(tmp_path / "network.fs")(*inputs), snn(*inputs))


HARMLESS = ("eq.Scalar", "ne.Tensor", "bitwise_and.Tensor", "where.self", "cumsum.default", "arange.default")
HARMFUL = ("from_file.default", "set_.source_Tensor", "resize_.default", "bernoulli.default", "rand_like.default")
HARMFUL += ("item.default", "zero_.default", "add_.Tensor", "nonzero.default", "unique_dim.default", "_print.default")
HARMFUL += ("fill_.Scalar", "record_stream.default", "save.default", "multinomial.default", "rrelu.default")


def test_a_file_may_hold_operators_known_to_be_harmless_alone() -> None:
    assert all(is_known(f"aten.{name}") for name in HARMLESS)
    assert not [name for name in HARMFUL if is_known(f"aten.{name}")]
    assert not is_known("prims.add.default")
    assert not is_known("os.system.default")


def test_what_forward_keeps_in_a_dict_of_its_own_is_not_left_in_the_model() -> None:
    def forward(self: Inside, x: Tensor) -> Tensor:
        if "table" not in self.kept:
            self.kept["table"] = self.count + 1.0
        return F.relu(x + self.kept["table"])

    model = Inside(forward)
    model.kept = {}
    x = torch.randn(3, 4)
    snn = fs.convert(model.eval(), x)
    assert model.kept == {}
    torch.testing.assert_close(snn.as_ann()(x), model(x))
