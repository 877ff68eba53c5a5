"""A user's own rules: each class of them, what they may not say, and networks that carry them."""

import copy
import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewspikes as fs
from fewspikes import FewSpikesError, rules
from fewspikes.base.tensors import read_tensors, write_tensors
from fewspikes.conversion.building import calibrate_model
from fewspikes.graph.capture import captured_model
from fewspikes.network.file import NETWORK
from fewspikes.operators.given import rules_with
from fewspikes.operators.rewriting import prepared
from fewspikes.operators.rules import fates
from fewspikes.rules import Activation, Digital, Elementwise, Linear, Shapes, boxes

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "own_rules.py"


def _imported(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = _imported(EXAMPLE)
OWN = example.OWN


def operator(name, schema, function, fake=lambda x, *rest: torch.empty_like(x)):
    """An operator of the library "tests", without a gradient."""
    made = torch.library.custom_op(f"tests::{name}", function, mutates_args=(), schema=schema)
    made.register_fake(fake)
    return made


def differentiable(made, derivative):
    """The operator with the gradient of an elementwise function."""
    made.register_autograd(
        lambda ctx, grad: grad * derivative(ctx.saved_tensors[0]),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )
    return made


ONE = "(Tensor x) -> Tensor"
twice = operator("twice", ONE, lambda x: 2 * x)
square = operator("square", ONE, lambda x: x * x)
total = operator("total", ONE, lambda x: x + x.sum(1, keepdim=True))
centred = operator("centred", ONE, lambda x: x - x.mean(0))
noisy = operator("noisy", ONE, lambda x: x * torch.rand(()))
largest = operator("largest", ONE, lambda x: x.amax(1, keepdim=True).expand_as(x).contiguous())
hidden = operator("hidden", "(Tensor x, float p) -> Tensor", lambda x, p: x * (1 + p))
signs = operator("signs", "(Tensor x, Tensor weight) -> Tensor", lambda x, weight: x * weight.sign())
mixing = operator("mixing", "(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor", F.linear)
reflected = operator(
    "reflected",
    "(Tensor x, Tensor weight, int[] padding) -> Tensor",
    lambda x, weight, padding: F.conv1d(F.pad(x[:, None], (padding[0], padding[0]), mode="reflect"), weight)[:, 0],
)
places = operator("places", ONE, lambda x: x * torch.arange(x.numel(), dtype=x.dtype).view_as(x))
single = operator("single", ONE, lambda x: torch.sin(x) if x.dtype == torch.float32 else 1 / 0)
softly = operator("softly", ONE, lambda x: x.softmax(1))
larger = operator("larger", "(Tensor a, Tensor b) -> Tensor", torch.maximum, lambda a, b: torch.empty_like(a))
wave = differentiable(operator("wave", ONE, lambda x: torch.sin(x)), torch.cos)
CALLS = []
lonely = operator("lonely", ONE, lambda x: CALLS.append("lonely") or x + 0)
WEIGHT = nn.Parameter(torch.rand(6, 6) + 0.1)


class Between(nn.Module):
    """Something between two linear maps, each with its neurons."""

    def __init__(self, inside):
        super().__init__()
        self.first, self.last, self.weight = nn.Linear(5, 6), nn.Linear(6, 3), WEIGHT
        self.inside = inside

    def forward(self, x):
        x = torch.relu(self.first(x))
        return torch.relu(self.last(self.inside(x, self.weight)))


def prepare(inside, *own):
    return prepared(captured_model(Between(inside).eval(), torch.randn(2, 5)), rules=rules_with(own))


def same(call):
    return call.boxes("x")


def features(call):
    return [boxes.dense(box, 1, call.shape[1]) for box in call.boxes("x")]


# Each class, with a network that uses all.


@pytest.fixture(scope="module")
def all_classes():
    torch.manual_seed(0)
    model, x = example.Net().eval(), torch.randn(256, 8)
    return model, x, fs.convert(model, x[:1], x, K=8, rules=OWN)


def test_a_rule_of_each_class_makes_of_its_operator_what_it_says(all_classes):
    model, x, snn = all_classes
    kinds = {entry.operator: entry.kind for entry in snn.report.operators}
    assert kinds["mylib.mix.default"] == kinds["mylib.deal.default"] == "synaptic"
    assert (kinds["mylib.winner.default"], kinds["mylib.places.default"]) == ("digital", "bookkeeping")
    assert "mylib.larger.default" not in kinds  # a circuit
    assert [site.activation.label for site in snn.sites] == ["silu", "mylib::bump(x)", "relu"]
    assert snn.report.left_digital[0].reason == "the largest of many keeps its value"
    torch.testing.assert_close(snn.as_ann()(x), model(x))
    assert fs.evaluate(snn, x, reference=model).relative_error < 0.03


class Plain(nn.Module):
    """The first part of the example's network, written in the library's own operators or in its."""

    def __init__(self, own):
        super().__init__()
        self.first, self.last, self.own = nn.Linear(8, 16), nn.Linear(12, 4), own
        self.weight, self.bias, self.norm = nn.Parameter(torch.randn(12, 16)), nn.Parameter(torch.randn(12)), None
        self.norm = nn.BatchNorm1d(12)
        self.norm.running_mean.normal_()

    def forward(self, x):
        if self.own:
            x = example.deal(example.fast_silu(self.first(x)))
            x = example.mix(x, self.weight, self.bias)
        else:
            x = F.silu(self.first(x))
            x = F.linear(torch.cat([x[:, ::2], x[:, 1::2]], 1), self.weight, self.bias)
        return self.last(torch.relu(self.norm(x)))


def test_fan_out_multiply_adds_and_folding_are_those_of_the_same_network_in_the_librarys_operators():
    torch.manual_seed(0)
    ours, theirs, x = Plain(True).eval(), Plain(False).eval(), torch.randn(64, 8)
    theirs.load_state_dict(ours.state_dict())
    own, plain = (
        fs.convert(ours, x[:1], x, K=6, rules=OWN, repair=False),
        fs.convert(theirs, x[:1], x, K=6, repair=False),
    )
    assert own.macs.ann == plain.macs.ann == 8 * 16 + 16 * 12 + 12 * 4
    assert own.macs.analog == plain.macs.analog
    assert not any("stands alone" in note for note in own.report.notes)  # the batch norm went into mix's weights
    for a, b in zip(own.sites, plain.sites, strict=True):
        assert torch.equal(own.fan_out[a.name].dense(), plain.fan_out[b.name].dense())
        assert own.channel_axis(a.name) == plain.channel_axis(b.name)
    torch.testing.assert_close(own.as_ann()(x), plain.as_ann()(x))


def test_a_network_carries_its_rules_to_whatever_works_on_it(all_classes, tmp_path):
    _, x, snn = all_classes
    fs.save(snn, tmp_path / "net.fs")
    for again in (fs.load(tmp_path / "net.fs", rules=OWN), copy.deepcopy(snn), pickle.loads(pickle.dumps(snn))):
        assert torch.equal(again(x), snn(x))
        assert again.report.latency_steps == snn.report.latency_steps
        with fs.count(again, synops=True) as counts:
            again(x[:4])
        assert counts.synops > 0


def test_the_example_runs_and_a_loaded_network_computes_the_same_in_another_process(all_classes, tmp_path):
    _, x, snn = all_classes
    fs.save(snn, tmp_path / "net.fs")
    torch.save((x, snn(x)), tmp_path / "outputs.pt")
    code = (
        f"import sys; sys.path.insert(0, {str(EXAMPLE.parent)!r}); import torch, own_rules, fewspikes as fs; "
        f"own_rules.main(); x, y = torch.load({str(tmp_path / 'outputs.pt')!r}); "
        f"assert torch.equal(fs.load({str(tmp_path / 'net.fs')!r}, rules=own_rules.OWN)(x), y)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "loaded network computes the same: True" in done.stdout


def test_the_page_on_rules_shows_parts_of_the_example():
    blocks = [part.partition("```")[0] for part in (ROOT / "docs" / "rules.md").read_text().split("```python\n")[1:]]
    assert len(blocks) >= 6
    for block in blocks:
        assert block.strip() in EXAMPLE.read_text(), block


# Rules that are not true of their operators.


def linear(name, reach=same, **settings):
    return Linear(f"tests::{name}", reach=reach, **settings)


def one(op):
    return lambda x, weight: op(x)


LIES = {
    "not linear": (one(square), linear("square"), r"homogeneous\(x\) \+ homogeneous\(y\) differs from .* by \d"),
    "not f(0)": (
        lambda x, weight: hidden(x, 0.5),
        linear("hidden", zero=("p",)),
        r"f\(x\) differs from homogeneous\(x\) \+ f\(0\) by 33.3% of the largest",
    ),
    "reaches further": (one(total), linear("total"), "reach leaves out 5 of the elements that change with element"),
    "another shape": (
        one(total),
        linear("total", lambda call: [boxes.dense(box, 1, 7) for box in call.boxes("x")]),
        r"reach gives boxes of the shapes \[\(2, 7\)\]; the result has \[\(2, 6\)\]",
    ),
    "mixes images": (one(centred), linear("centred", features), "depends on the other images of its batch"),
    "computes": (one(twice), linear("twice", moves=True), "moves: 100% of the elements that come out are none"),
    "moves elsewhere": (
        lambda x, weight: example.deal(x),
        Linear("mylib::deal", reach=features, moves=True),
        "reach says of 5 elements that element .* is moved there",
    ),
    "weighs by nothing": (
        lambda x, weight: signs(x, weight[0]),
        linear("signs", weight="weight"),
        "twice the weight weight differs from twice the sum",
    ),
    "other channels": (
        mixing,
        linear("mixing", features, weight="weight", without=("bias",), outputs=(1, -1)),
        r"outputs=\(1, -1\): a scale of the weight's channels",
    ),
    "other padding": (
        lambda x, weight: reflected(x, weight[:1, None, :3], [1]),
        linear("reflected", features, weight="weight", pads="padding"),
        "pads: zeros by padding differ from zeros around the input",
    ),
    "adds in parts": (
        lambda x, weight: hidden(x, 0.25),
        linear("hidden", adds=True),
        "adds: whole numbers become others, by up to 0",
    ),
    "another size": (
        one(twice),
        linear("twice", sizes=lambda given: (*given["x"].shape, 1)),
        r"sizes says that the result has the shape \(2, 6, 1\); it has \(2, 6\)",
    ),
    "random": (one(noisy), linear("noisy"), "the operator gives another result each time"),
    "another activation": (
        lambda x, weight: example.fast_silu(x),
        rules.neurons("mylib::fast_silu")(lambda call: Activation("gelu")),
        r"the operator differs from gelu by \d",
    ),
    "neighbours": (one(softly), Elementwise("tests::softly"), r"\d elements change with another one"),
    "by place": (one(places), Elementwise("tests::places"), "elements in another order, in a row, give other"),
    "float32 alone": (one(single), Elementwise("tests::single"), "does not take float64, in which neurons are fitted"),
    "another circuit": (
        lambda x, weight: larger(x, x.flip(1)),
        rules.circuit("tests::larger")(
            lambda call, g: g.call("sub.Tensor", *(g.now(call.node.arguments[name]) for name in "ab"))
        ),
        "what it expands to differs from the operator by",
    ),
    "digital reaches further": (
        one(largest),
        Digital("tests::largest", kind="largest", reason="why not", reach=same),
        "reach leaves out",
    ),
    "digital mixes images": (
        one(centred),
        Digital("tests::centred", kind="centred", reason="why not"),
        "depends on the other images of its batch",
    ),
    "another number": (
        lambda x, weight: x + example.places(x),
        Shapes("mylib::places", fill=lambda call: 1.0),
        "the result is not 1.0 everywhere; it differs by",
    ),
    "depends on values": (
        lambda x, weight: x + twice(x),
        Shapes("tests::twice"),
        "the result depends on values, not on shapes alone",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_rule_that_is_not_true_of_its_operator_is_refused_with_what_is_wrong(lie):
    inside, rule, wanted = LIES[lie]
    name = rule.operators[0].replace("::", r"\.")
    with pytest.raises(FewSpikesError, match=rf"rule .*is not true of operator {name}\.default at .*: .*{wanted}"):
        prepare(inside, rule)


TRUTHS = {
    "twice": (one(twice), linear("twice", sizes=lambda given: given["x"].shape)),
    "total": (one(total), linear("total", features)),
    "mixing": (mixing, linear("mixing", features, weight="weight", without=("bias",), outputs=(0, -1))),
    "digital": (one(largest), Digital("tests::largest", kind="largest", reason="why not", reach=features)),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_what_is_true_of_the_same_operators_passes(name):
    inside, rule = TRUTHS[name]
    prepare(inside, rule)


def broken(call):
    raise KeyError("axes")


WRONG = {
    "raises": (
        rules.linear("tests::twice")(broken),
        r"rule broken \(Linear of tests::twice\), asked for reach of op.*KeyErr",
    ),
    "no boxes": (rules.linear("tests::twice")(lambda call: [1, 2]), "boxes are wanted, see fewspikes.reach; got 1"),
    "no activation": (rules.neurons("tests::twice")(lambda call: "relu"), "an Activation is wanted; got 'relu'"),
    "no ref": (rules.circuit("tests::twice")(lambda call, g: torch.ones(2)), "a Ref, a tuple .* is wanted; got tensor"),
    "takes raises": (Elementwise("tests::twice", takes=broken), "asked for takes of operator tests.twice.*KeyError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_rule_in_which_something_goes_wrong_names_itself(name):
    rule, wanted = WRONG[name]
    with pytest.raises(FewSpikesError, match=wanted) as raised:
        prepare(one(twice), rule)
    assert "\n" not in str(raised.value)


# Rules that cannot be given.


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([linear("twice"), linear("twice", features)], "two rules clash, rule same .* and rule features"),
        (
            [rules.moves("roll")(same)],
            r"rule same \(Linear of roll\) clashes with the library's own row of roll: .*repl",
        ),
        ([Linear("aten::relu", reach=same), Elementwise("where")], "rule Elementwise of where clashes"),
        ([same], "rules= takes rules, see fewspikes.rules; got <function same.*; is its decorator missing?"),
        (linear("twice"), "rules= takes a list of rules"),
        ([Elementwise(())], "names no operator"),
        ([Elementwise("tests::nothing")], "there is no operator 'tests::nothing' in this process"),
        ([Elementwise("tests.twice")], "there is no operator 'tests.twice'.* named as in 'mylib::roll'"),
        (
            [linear("mixing", weight="weights")],
            "weight names 'weights', which tests::mixing does not take: that takes x,",
        ),
        ([linear("signs", without=("weight",))], "without='weight', which tests::signs asks for; name it in zero="),
        ([Shapes("tests::twice", takes=lambda call: True)], "takes is not asked"),
    ],
)
def test_what_is_no_rule_or_clashes_is_refused(given, wanted):
    with pytest.raises(FewSpikesError, match=wanted):
        rules_with(given)


def test_a_rule_that_says_so_stands_before_the_librarys_own():
    called = []

    @rules.moves("roll", replaces=True)
    def rolled(call):
        called.append(call.node.path)
        return rules.along(call, [1])

    snn = fs.convert(Between(lambda x, weight: x.roll(2, 1)).eval(), torch.randn(1, 5), rules=[rolled])
    assert called
    assert snn.structure.segments.fates[snn.graph.of("aten.roll.default")[0].name].rule is snn.structure.rules.own[0]


def test_a_rule_that_another_row_comes_before_is_told():
    with pytest.warns(
        fs.FewSpikesWarning, match=r"rule Digital of exp was never asked: a row of the library's came before it"
    ):
        prepare(lambda x, weight: torch.exp(x), Digital("exp", kind="exp", reason="why not"))


def test_rules_that_a_network_does_not_need_are_no_trouble():
    own, plain = prepare(lambda x, weight: x, *OWN), prepare(lambda x, weight: x)
    assert [node.operator for node in own.graph] == [node.operator for node in plain.graph]


def test_operators_without_a_rule_are_named_all_at_once_with_places_and_remedy():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = Between(one(twice)), Between(lambda x, weight: torch.sinh(total(x)).cumprod(1))

        def forward(self, x):
            return self.left(x) + self.right(x)

    with pytest.raises(FewSpikesError) as raised:
        fs.convert(Two().eval(), torch.randn(1, 5))
    said = str(raised.value)
    assert "operator tests.twice.default at left" in said
    assert "operator tests.total.default at right" in said
    assert "operator aten.cumprod.default at right" in said
    assert said.endswith("or register a rule: rules=[...]; see docs/rules.md")


def test_an_operator_without_a_rule_is_not_called_even_on_constants():
    with pytest.raises(FewSpikesError, match=r"no rule for operator tests\.lonely\.default"):
        prepare(lambda x, weight: x + lonely(weight)[0])
    assert CALLS == []


def test_an_operator_that_torch_knows_no_shape_of_is_named_with_the_remedy():
    made = torch.library.custom_op("tests::shapeless", lambda x: x + 0, mutates_args=(), schema=ONE)
    with pytest.raises(FewSpikesError, match=r"tests.*shapeless.*register_fake"):
        prepare(one(made))


# Files.


def test_a_network_that_is_loaded_without_its_rules_names_the_operators_and_the_remedy(all_classes, tmp_path):
    fs.save(all_classes[2], tmp_path / "net.fs")
    wanted = r"mylib::bump, mylib::deal, mylib::mix, mylib::places, mylib::winner; give them again, load\(path, rules="
    with pytest.raises(FewSpikesError, match=f"rules for {wanted}"):
        fs.load(tmp_path / "net.fs")
    with pytest.raises(FewSpikesError, match="rules for mylib::bump; give"):
        fs.load(tmp_path / "net.fs", rules=[rule for rule in OWN if rule.operators != ("mylib::bump",)])


def test_a_file_calls_no_operator_outside_of_aten_that_no_rule_names(tmp_path):
    calls = []
    for name in ("neg", "relu"):  # those of ATen have rows
        operator(name, ONE, lambda x: calls.append(1) or x + 0, lambda x: calls.append(1) or torch.empty_like(x))
    snn = fs.convert(Between(lambda x, weight: torch.exp(-x)).eval(), torch.randn(1, 5), torch.randn(64, 5), K=3)
    fs.save(snn, tmp_path / "net.fs")
    content, tensors = read_tensors(tmp_path / "net.fs", NETWORK)
    text = json.dumps(content)
    inside = content["sites"][0]["activation"]["expression"]
    forged = json.loads(text)
    entry = next(node for node in forged["graph"] if node["operator"].startswith("aten.linear"))
    entry.update(operator="tests.neg.default", arguments={"x": entry["arguments"]["input"]})
    other = json.loads(text)
    expression = json.loads(inside)
    next(node for node in expression if node["operator"] == "aten.exp.default")["operator"] = "tests.relu.default"
    other["sites"][0]["activation"]["expression"] = json.dumps(expression)
    for content in (forged, other):
        write_tensors(tmp_path / "forged.fs", NETWORK, content, tensors)
        for own in ([], OWN):
            with pytest.raises(FewSpikesError, match=r"tests\.(neg|relu)\.default.* none that this library converts"):
                fs.load(tmp_path / "forged.fs", rules=own)
    assert calls == []


# Conversions that need more of an operator.


def waves():
    torch.manual_seed(0)
    return Between(lambda x, weight: wave(x - 0.5)).eval(), torch.randn(96, 5), [Elementwise("tests::wave")]


def test_an_operator_with_a_gradient_is_diagnosed_repaired_distilled_and_kept_to_a_budget():
    model, x, own = waves()
    snn = fs.convert(model, x[:1], x, K=fs.Budget(steps=20), rules=own)
    assert snn.report.latency_steps <= 20
    assert all(site.diagnosis is not None for site in snn.report.sites)
    assert fs.distil(snn, x, steps=2).structure.rules is snn.structure.rules
    found = fs.frontier(model, x[:1], x, K=[3], rules=own)
    assert next(iter(found)).choice == "K=3"
    seen = calibrate_model(model, x[:1], x, rules=own)
    assert fs.convert(model, x[:1], seen, K=4, rules=own).report.layers == 2


def test_an_operator_without_a_gradient_converts_and_what_needs_one_says_so(all_classes):
    model, x, snn = all_classes
    assert any("not diagnosed, which needs gradients: mylib.deal.default, " in note for note in snn.report.notes)
    with pytest.raises(FewSpikesError, match=r"distilling needs gradients, and mylib\.deal.*register_autograd"):
        fs.distil(snn, x, steps=2)
    with pytest.raises(FewSpikesError, match=r"does to the output needs gradients, and mylib\.deal\.default"):
        fs.convert(model, x[:1], x, K=4, spike_price=0.01, rules=OWN)


def test_a_fit_of_an_operator_is_not_taken_for_another_of_the_same_name():
    slope = [1.0]
    sloped = operator("sloped", ONE, lambda x: torch.tanh(slope[0] * x))
    model, x = Between(one(sloped)).eval(), torch.randn(64, 5)
    own = [Elementwise("tests::sloped")]
    before = fs.convert(model, x[:1], x, K=5, rules=own).neurons
    slope[0] = -1.0
    after = fs.convert(model, x[:1], x, K=5, rules=own).neurons
    name = next(iter(before))
    assert before[name].code != after[name].code


def test_a_kind_of_ones_own_can_be_chosen():
    @rules.circuit("tests::larger", kind="larger", choice="neurons")
    def by_neurons(call, g):
        a, b = (g.now(call.node.arguments[name]) for name in "ab")
        return g.call("add.Tensor", b, g.call("relu", g.call("sub.Tensor", a, b)))

    own = [by_neurons, Digital("tests::larger", kind="larger", reason="why not")]
    model, x = Between(lambda x, weight: larger(x, x.flip(1))).eval(), torch.randn(1, 5)
    assert len(fs.convert(model, x, rules=own).report.left_digital) == 1
    snn = fs.convert(model, x, rules=own, circuits={"larger": "neurons"})
    assert snn.report.left_digital == ()
    with pytest.raises(FewSpikesError, match="larger: digital or neurons"):
        fs.convert(model, x, rules=own, circuits={"larger": "gated"})


def test_rows_are_found_by_the_whole_name_of_an_operator():
    work = prepare(
        one(square), rules.neurons("tests::square", takes=lambda call: True)(lambda call: Activation("square"))
    )
    assert [site.activation.name for site in work.sites] == ["relu", "square", "relu"]
    assert fates(work.graph, work.tensors)  # nothing of the user's is left
