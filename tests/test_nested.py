"""Outputs come back in the model's own structure: from the network, from its file, its pickle and its copy."""

import copy
import pickle
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fewspikes as fs
from fewspikes.graph.nested import Held, Record, tensors_of

X = torch.rand(3, 4)


@dataclass
class Plain:
    logits: Tensor
    aux: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    values: Tensor
    keys: tuple[Tensor, Tensor]


@dataclass
class Halved:
    """Its __init__ must not run again: it changes what it is given."""

    logits: Tensor
    half: Tensor = field(init=False)

    def __post_init__(self):
        self.logits = self.logits / 2
        self.half = self.logits


class Pair(NamedTuple):
    logits: Tensor
    parts: dict


MODELS = {
    "dataclass": lambda y, x: Plain(y),
    "frozen dataclass": lambda y, x: Frozen(values=y, keys=(x, y)),
    "dataclass that changes its fields": lambda y, x: Halved(y),
    "dataclass in a dataclass in a list": lambda y, x: [Plain(Plain(y, x)), {"a": Halved(y)}],
    "named tuple": lambda y, x: Pair(y, {"x": x}),
    "tuple of dicts": lambda y, x: ({"boxes": y, 3: x}, {"boxes": x, 3: y}),
    "integer keys": lambda y, x: {0: y, 1: [x, None]},
    "ordered dict": lambda y, x: OrderedDict(out=y, aux=x),
    "list": lambda y, x: [y, x, y],
    "one tensor in a tuple": lambda y, x: (y,),
    "a tensor twice and None": lambda y, x: (y, None, y),
}


class Shaped(nn.Module):
    def __init__(self, shape):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.shape = nn.Linear(4, 4), shape

    def forward(self, x):
        return self.shape(F.relu(self.linear(x)), x)


def model(shape):
    return Shaped(shape).eval()


def flat(output):
    """Kinds, names and tensors of an output, None left as it is."""
    if isinstance(output, Tensor) or output is None:
        return output
    if isinstance(output, dict):
        return ("dict", [(key, flat(value)) for key, value in output.items()])
    if isinstance(output, list | tuple):
        return (type(output).__name__, getattr(output, "_fields", ()), [flat(value) for value in output])
    names = list(vars(output)) if isinstance(output, Record) else [one.name for one in fields(output)]
    return ("fields", [(name, flat(getattr(output, name))) for name in names if not name.startswith("_Record")])


def equal(a, b):
    """Whether two outputs as `flat` gives them are the same, bit for bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def copies(snn, tmp_path):
    fs.save(snn, tmp_path / "net.fs")
    return fs.load(tmp_path / "net.fs"), pickle.loads(pickle.dumps(snn)), copy.deepcopy(snn)


@pytest.mark.parametrize("shape", MODELS.values(), ids=MODELS)
def test_every_structure_comes_back_with_the_same_bits_from_network_file_pickle_and_copy(shape, tmp_path):
    ann = model(shape)
    snn = fs.convert(ann, X)
    wanted = flat(ann(X))
    assert equal(flat(snn.as_ann()(X)), wanted)
    assert not equal(flat(snn(X)), wanted)  # spikes: what `equal` is for
    for network in copies(snn, tmp_path):
        assert equal(flat(network(X)), flat(snn(X)))
        assert equal(flat(network.as_ann()(X)), wanted)


@pytest.mark.parametrize("name", ["dataclass", "frozen dataclass", "named tuple", "dataclass that changes its fields"])
def test_the_class_itself_comes_back_where_it_is_at_hand(name):
    ann = model(MODELS[name])
    snn = fs.convert(ann, X)
    for network in (snn, snn.as_ann(), copy.deepcopy(snn), snn.with_neurons({})):
        assert type(network(X)) is type(ann(X))


def test_the_model_is_left_as_it_was():
    ann = model(MODELS["dataclass"])
    before = set(vars(ann)), dict(ann._forward_hooks)
    fs.convert(ann, X)
    with pytest.raises(fs.FewSpikesError):
        fs.convert(ann, torch.rand(3, 5))
    assert (set(vars(ann)), dict(ann._forward_hooks)) == before
    assert type(ann(X)) is Plain


def test_a_loaded_network_names_the_class_and_imports_nothing(tmp_path):
    fs.save(fs.convert(model(MODELS["dataclass"]), X), tmp_path / "net.fs")
    code = (
        "import sys, torch, fewspikes as fs\n"
        f"output = fs.load({str(tmp_path / 'net.fs')!r})(torch.ones(2, 4))\n"
        "assert 'test_nested' not in sys.modules\n"
        "assert output.logits is output['logits'] and output.logits is output[0] and output.aux is None\n"
        "print(str(output)[:12], list(output), len(output.to_tuple()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Plain(logits ['logits'] 1\n"


def test_a_record_has_its_fields_by_attribute_by_key_and_by_position():
    record = Record("Output", {"loss": None, "values": 1, "items": 2})
    assert (record.loss, record.values, record["items"], record[0], record[-1]) == (None, 1, 2, 1, 2)
    assert record[:1] == (1,)
    assert record.to_tuple() == (1, 2)
    assert list(record) == ["values", "items"]
    assert "loss" not in record
    again = pickle.loads(pickle.dumps(record))
    assert (repr(again), again.values) == ("Output(loss=None, values=1, items=2)", 1)
    with pytest.raises(KeyError):
        record["loss"]
    with pytest.raises(AttributeError):
        _ = record.logits


def test_all_tensors_of_a_structure_are_found_in_order():
    output = {"a": [Frozen(values=X, keys=(X + 1, X + 2))], "b": Record("Output", {"x": None, "y": X + 3}), "c": None}
    assert [int((tensor - X).mean()) for tensor in tensors_of(output)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (lambda y, x: Plain(y, 3), r"the model returns a int at \.aux; only tensors, and tuples, .*: leave it out"),
        (lambda y, x: (y, [{"n": 0.5}]), r"the model returns a float at \[1\]\[0\]\['n'\]"),
        (lambda y, x: {"size": x.shape[0], "y": y}, r"the model returns a \w+ at \['size'\]; only tensors"),
        (lambda y, x: object(), "the model returns a object; only tensors"),
        (lambda y, x: Plain(None), "the model returns no tensor"),
        (lambda y, x: {(0, 1): y}, r"a dict with the key \(0, 1\); only words and numbers"),
        (lambda y, x: [{b"a": y}], r"a dict with the key b'a' at \[0\]; only"),
    ],
)
def test_what_is_no_tensor_is_refused_by_its_place(shape, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        fs.convert(model(shape), X)


@pytest.mark.parametrize("names", [["a", "a"], ["a b"], ["class"], [""]])
def test_names_that_are_none_are_refused(names):
    with pytest.raises(fs.FewSpikesError, match="no names of fields"):
        Held("record", "Output", tuple(names), tuple(names))


# The outputs of transformers


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="needs the extra text")


def resnet(transformers, kind="ResNetForImageClassification", **more):
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5, **more
    )
    return getattr(transformers, kind)(config).eval()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("ResNetForImageClassification", {}),
        ("ResNetForImageClassification", {"output_hidden_states": True}),
        ("ResNetModel", {}),
        ("ResNetBackbone", {"out_features": ["stage1", "stage2"]}),
    ],
)
def test_outputs_of_transformers_are_the_models_own(transformers, kind, more, tmp_path):
    ann, x = resnet(transformers, kind, **more), torch.randn(2, 3, 32, 32)
    snn = fs.convert(ann, x)
    wanted, got, exact = ann(x), snn(x), snn.as_ann()(x)
    assert type(got) is type(exact) is type(wanted)
    assert list(got) == list(wanted)
    name = next(iter(wanted))
    assert got[name] is got[0] is getattr(got, name) is got.to_tuple()[0]
    assert len(tensors_of(wanted)) >= 1
    for a, b in zip(tensors_of(exact), tensors_of(wanted), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    loaded, pickled, copied = copies(snn, tmp_path)
    assert type(copied(x)) is type(wanted)
    for again in (loaded(x), pickled(x)):
        assert repr(again).startswith(f"{type(wanted).__name__}({next(iter(vars(wanted)))}=")
        assert list(again) == list(wanted)
        assert again[name] is again[0] is getattr(again, name) is again.to_tuple()[0]
        assert [one for one in vars(wanted) if getattr(wanted, one) is None] == [
            one for one in vars(wanted) if getattr(again, one) is None
        ]
        assert all(torch.equal(a, b) for a, b in zip(tensors_of(again), tensors_of(got), strict=True))


def test_mobilenet_of_transformers_is_evaluated_as_it_is(transformers):
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(num_labels=4, depth_multiplier=0.25)
    ann, x = transformers.MobileNetV2ForImageClassification(config).eval(), torch.randn(8, 3, 32, 32)
    report = fs.evaluate(fs.convert(ann, x), [(x, torch.zeros(8, dtype=torch.int64))], ann)
    assert report.ann_top1 == 100 * float((ann(x).logits.argmax(1) == 0).double().mean())
