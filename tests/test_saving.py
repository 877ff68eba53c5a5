"""Saving: the same network back without its class, and no file that is broken, renamed or tampered with."""

import copy
import json
import pickle
import subprocess
import sys
from collections import namedtuple

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

import fewspikes as fs
from fewspikes.base.seals import digest
from fewspikes.base.tensors import read_tensors
from fewspikes.graph.nested import named_tuple
from fewspikes.network.file import NETWORK
from networks import small, squeeze_excite

IMAGES = torch.zeros(1, 3, 8, 8)


@pytest.fixture
def saved(tmp_path):
    snn = fs.convert(small(), IMAGES, calibration=torch.randn(16, 3, 8, 8))
    fs.save(snn, tmp_path / "net.fs")
    return snn, tmp_path / "net.fs"


@pytest.mark.parametrize("make", [small, squeeze_excite])
def test_a_loaded_network_computes_counts_and_reports_the_same(make, tmp_path):
    snn = fs.convert(make(), IMAGES)
    fs.save(snn, tmp_path / "net.fs")
    again, x = fs.load(tmp_path / "net.fs"), torch.randn(3, 3, 8, 8)
    with fs.count(snn, synops=True) as a, fs.count(again, synops=True) as b:
        assert torch.equal(snn(x), again(x))
    assert a == b
    assert snn.report == again.report
    assert torch.equal(snn.as_ann()(x), again.as_ann()(x))
    assert [neuron.code for neuron in snn.neurons.values()] == [neuron.code for neuron in again.neurons.values()]


def test_what_has_no_elements_falls_away(tmp_path):
    class Prefixed(nn.Module):  # as attention that turns all tokens but the first few, where there are no such
        def forward(self, x):
            parts = [x[:, :0].sigmoid(), x[:, 0:].relu(), x[:, :0]]
            return torch.cat([torch.cat(parts, 1), torch.cat(parts[:2], 1), parts[0]], 1)

    snn = fs.convert(Prefixed().eval(), torch.zeros(1, 4))
    assert [site.name for site in snn.sites] == ["relu"]
    fs.save(snn, tmp_path / "net.fs")
    x = torch.randn(3, 4)
    assert snn(x).shape == (3, 8)
    assert torch.equal(snn(x), fs.load(tmp_path / "net.fs")(x))


def test_structured_outputs_and_odd_arguments_come_back(tmp_path):
    class Odd(nn.Module):
        def forward(self, image, mask):
            y = F.relu(image + mask)
            y = F.pad(y.view(y.size(0), 2, -1), (1, 0), value=float("inf")).clamp(0, 2)
            return {"pair": (y, [y.flatten(1)]), "sum": y.sum(1)}

    named = {"image": torch.zeros(1, 4), "mask": torch.ones(1, 4)}
    snn = fs.convert(Odd().eval(), named)
    fs.save(snn, tmp_path / "net.fs")
    again = fs.load(tmp_path / "net.fs")
    a, b = snn(**named), again(**named)
    assert list(a) == list(b) == ["pair", "sum"]
    assert torch.equal(a["pair"][1][0], b["pair"][1][0])
    assert torch.equal(a["sum"], b["sum"])


def test_it_loads_in_a_process_that_never_saw_the_models_class(saved):
    snn, path = saved
    run = f"fs.load({str(path)!r})(torch.randn(2, 3, 8, 8)).sum().item()"
    code = f"import fewspikes as fs, torch; torch.manual_seed(1); print({run})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch.manual_seed(1)
    assert float(done.stdout) == snn(torch.randn(2, 3, 8, 8)).sum().item()


def test_preprocessing_travels_with_the_network(saved):
    snn, path = saved
    fs.save(snn, path, preprocessing={"size": [8, 8]})
    again = fs.load(path)
    assert again.preprocessing == {"size": [8, 8]}
    fs.save(again, path)
    assert fs.load(path).preprocessing == {"size": [8, 8]}


def test_the_name_of_the_file_does_not_matter(saved):
    snn, path = saved
    moved = path.rename(path.with_name("weights.bin"))
    assert fs.load(moved).report == snn.report


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(fs.FewSpikesError, match="no saved network at"):
        fs.load(tmp_path / "net.fs")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_raises(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(fs.FewSpikesError, match="is no complete saved network"):
        fs.load(path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + b"0" * 100, pickle.dumps({"weights": 1})])
def test_another_kind_of_file_raises(tmp_path, content):
    (tmp_path / "net.fs").write_bytes(content)
    with pytest.raises(fs.FewSpikesError, match="is no complete saved network"):
        fs.load(tmp_path / "net.fs")


def test_plain_safetensors_weights_raise(tmp_path):
    safetensors.torch.save_file({"w": torch.zeros(1)}, tmp_path / "net.fs")
    with pytest.raises(fs.FewSpikesError, match="is a safetensors file, but no saved network"):
        fs.load(tmp_path / "net.fs")


def test_one_flipped_bit_in_the_weights_raises(saved):
    _, path = saved
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(fs.FewSpikesError, match="checksum differs"):
        fs.load(path)


def forge(path, change):
    """Rewrite the file's description with a checksum that fits, as an attacker would."""
    content, tensors = read_tensors(path, NETWORK)
    changed = change(content)
    described = changed if isinstance(changed, str) else json.dumps(content | {"sha256": digest(content, tensors)})
    path.write_bytes(safetensors.torch.save(tensors, {"fewspikes": described}))


def node(content, operator):
    return next(entry for entry in content["graph"] if entry["operator"].startswith(operator))


def convolution(content, **arguments):
    node(content, "aten.conv2d")["arguments"].update(arguments)


def insert(content, operator, **arguments):
    content["graph"].insert(1, {"name": "more", "operator": operator, "arguments": arguments, "path": ""})


def nested(value):
    for _ in range(900):
        value = [value]
    return {"tensor": value}


def expression(text):
    return {"name": "more", "cap": None, "expression": text}


SIGNED = json.dumps(  # elementwise by its operator, but not with an argument that is no number
    [
        {"name": "x", "operator": "input", "arguments": {}, "path": ""},
        {"name": "y", "operator": "aten.sub.Tensor", "arguments": {"self": {"node": "x"}, "other": "1"}, "path": ""},
        {"name": "output", "operator": "output", "arguments": {"value": {"node": "y"}}, "path": ""},
    ]
)


def first_argument(content, value):
    arguments = node(content, "aten.conv2d")["arguments"]
    arguments["input"] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: node(c, "aten").update(operator="aten.system.default"), "is none that this library converts"),
        (lambda c: node(c, "aten").update(operator="aten.from_file.default"), "is none that this library converts"),
        (lambda c: node(c, "aten").update(operator="os.system"), "is none that this library converts"),
        (lambda c: node(c, "aten").update(name="x; import os"), "is no name for a node"),
        (lambda c: node(c, "constant").update(arguments={"tensor": 'weights.x"); boom("'}), "which is not in the file"),
        (lambda c: node(c, "constant").update(arguments={"tensor": "weights.other"}), "which is not in the file"),
        (lambda c: node(c, "constant").update(arguments={"tensor": 3}), "whose argument is no str"),
        (lambda c: node(c, "input").update(arguments={"x": "boom()"}), "'input' with the arguments .*x"),
        (lambda c: node(c, "site").update(arguments={"input": 1}), "whose argument is no Ref"),
        (
            lambda c: node(c, "aten.conv2d")["arguments"].update({"a=boom(), b": 1}),
            "conv2d.default takes input, weight",
        ),
        (lambda c: first_argument(c, {"node": "nobody"}), "unknown argument"),
        (lambda c: first_argument(c, {"torch": "load"}), "unknown argument"),
        (lambda c: first_argument(c, {"node": c["graph"][-2]["name"]}), "unknown argument"),
        (lambda c: c["graph"].pop(), "the graph does not end in its output"),
        (lambda c: c["graph"].append(dict(c["graph"][0], name="more")), "the graph does not end in its output"),
        (lambda c: c["sites"].reverse(), "the sites of its graph are not those that it lists"),
        (lambda c: c["sites"][0]["parameters"].update(T=[]), "from 1 to 24 numbers"),
        (lambda c: c["sites"][0]["activation"].update(name="boom"), "unknown activation"),
        (lambda c: c["sites"][0]["activation"].update(expression="boom()"), "is no elementwise expression"),
        (lambda c: c["inputs"][0].update(dtype="load"), "is no dtype"),
        (lambda c: c["inputs"][0].update(shape=[9]), "is no valid saved network"),
        (lambda c: c.update(version=1), "has version 1, this library reads 2: convert the model again"),
        (lambda c: c.pop("sites"), "is no valid saved network"),
        (lambda c: "[" * 100_000, "is no complete saved network"),
        (lambda c: c["graph"][1].update(arguments=nested({"node": "x"})), "recursion"),
        (lambda c: c["sites"][0].update(activation=expression("[" * 100_000)), "is no elementwise expression"),
        (lambda c: c["sites"][0].update(activation=expression(SIGNED)), "is no elementwise expression"),
        (lambda c: c["sites"][0].update(activation={"name": "relu", "cap": "6"}), "a cap must be a finite number > 0"),
        (
            lambda c: c["sites"][0].update(activation={"name": "silu", "cap": None, "settings": {"inplace": 1}}),
            "setting",
        ),
        (lambda c: c["sites"][0]["parameters"].update(T=["1"] * 8), "hold numbers"),
        (lambda c: c["sites"][0]["parameters"].update(K=5), "K = 5, 8 T"),
        (lambda c: c["sites"][0].update(axis=-1), "the axis of the channels must be a whole number from 0 to 64"),
        (lambda c: c["sites"][1].update(name=c["sites"][0]["name"]), "two of its sites have one name"),
        (lambda c: c["inputs"][0].update(shape=[1 << 62, 1 << 62]), "is no valid saved network"),
        (lambda c: c["inputs"][0].update(shape=[-3]), "is no valid saved network"),
        (lambda c: c.update(calibration_images="7"), "calibration images must be a whole number"),
        (lambda c: c.update(notes="abc"), "its notes must be a list"),
        (lambda c: c.update(settings=[[1, 2]]), "its settings must be a dict"),
        (lambda c: c.update(preprocessing=5), "its preprocessing must be a dict"),
        (lambda c: c.update(keywords="no"), "its keywords must be a bool"),
        (lambda c: c.update(diagnosis={"nobody": 5}), "the diagnosis of a site is incomplete"),
        (lambda c: convolution(c, padding=[1 << 20] * 2), "elements an image"),
        (lambda c: convolution(c, stride=[0, 0]), "a convolution of stride"),
        (lambda c: convolution(c, dilation=[-1, 0]), "a convolution of stride"),
        (lambda c: convolution(c, groups=-1), "is no valid saved network"),
        (lambda c: insert(c, "mul", self=[0], other=1 << 40), "mul of sizes takes numbers"),
        (lambda c: insert(c, "mul", self="a" * 999, other=1 << 40), "mul of sizes takes numbers"),
        (lambda c: insert(c, "mul", self=1 << 62, other=2), "of more than 64 bits"),
        (lambda c: insert(c, "truediv", self=1, other=0), "is no valid saved network"),
    ],
)
def test_a_forged_description_raises_and_runs_nothing(saved, change, message):
    _, path = saved
    forge(path, change)
    with pytest.raises(fs.FewSpikesError, match=message) as error:
        fs.load(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_of_an_older_version_says_so(saved):
    _, path = saved
    old = {"format": "fewspikes-network", "network": "{}", "sha256": "0"}
    path.write_bytes(safetensors.torch.save({"weights.a": torch.zeros(1)}, old))
    with pytest.raises(fs.FewSpikesError, match="was made by an older version: convert the model again"):
        fs.load(path)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(saved):
    snn, path = saved
    before = path.read_bytes()
    snn.preprocessing = {"mean": float("nan")}
    with pytest.raises(ValueError, match="not JSON compliant"):
        fs.save(snn, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_equal_networks_give_equal_bytes_in_every_process(saved):
    snn, path = saved
    before = path.read_bytes()
    fs.save(snn, path)
    assert path.read_bytes() == before
    again = f"import fewspikes as fs; fs.save(fs.load({str(path)!r}), {str(path)!r})"
    subprocess.run([sys.executable, "-c", again], check=True)
    assert path.read_bytes() == before


def test_a_loaded_network_lies_on_aligned_memory_wherever_the_file_has_its_tensors(saved):
    _, path = saved
    with safetensors.safe_open(path, framework="pt") as file:
        places = {file.get_tensor(name).data_ptr() % 64 for name in file.keys()}  # noqa: SIM118
    assert places != {0}
    assert {tensor.data_ptr() % 64 for tensor in fs.load(path).tensors.values()} == {0}


def unaligned(tensor):
    room = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)
    room[1:] = tensor.flatten()
    return room[1:].view(tensor.shape)


def test_a_model_on_odd_memory_gives_the_bits_that_its_file_gives(tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 37, 3), nn.ReLU(), nn.Flatten(), nn.Linear(37 * 36, 29), nn.ReLU(), nn.Linear(29, 10)
    model = nn.Sequential(*layers).eval()
    for parameter in model.parameters():
        parameter.data = unaligned(parameter.data)
    model[5].weight.data = model[5].weight.data.t().contiguous().t()
    snn = fs.convert(model, IMAGES, torch.randn(16, 3, 8, 8), K=4)
    for own in (snn, snn.to(memory_format=torch.channels_last)):
        fs.save(own, tmp_path / "net.fs")
        again = fs.load(tmp_path / "net.fs")
        assert {name: t.stride() for name, t in again.tensors.items()} == {
            n: t.stride() for n, t in own.tensors.items()
        }
        for images in (1, 3, 16):
            x = torch.randn(images, 3, 8, 8)
            assert torch.equal(own(x), again(x))


def test_a_network_loaded_in_inference_mode_works_outside_of_it(saved):
    snn, path = saved
    with torch.inference_mode():
        again = fs.load(path)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    again(x).sum().backward()
    assert x.grad.abs().sum() > 0
    assert torch.equal(again.double().float()(x), snn(x))


def test_only_converted_networks_can_be_saved(tmp_path):
    with pytest.raises(fs.FewSpikesError, match="save takes a SpikingNetwork; got ReLU"):
        fs.save(nn.ReLU(), tmp_path / "net.fs")
    whole = fs.to_integer(fs.convert(small(), torch.zeros(1, 3, 8, 8), K=6, alpha=4.0))
    with pytest.raises(fs.FewSpikesError, match="save takes a SpikingNetwork; got IntegerNetwork"):
        fs.save(whole, tmp_path / "net.fs")


def test_a_network_made_double_comes_back_double(tmp_path):
    snn = fs.convert(small(), IMAGES).double()
    fs.save(snn, tmp_path / "net.fs")
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(fs.load(tmp_path / "net.fs")(x), snn(x))


def test_a_network_without_weights_cannot_be_saved(tmp_path):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    snn = fs.convert(model, torch.zeros(1, 4, device="meta"))
    assert snn.report.neurons == 3
    with pytest.raises(fs.FewSpikesError, match="on the meta device and has no weights to save"):
        fs.save(snn, tmp_path / "net.fs")


OUTPUT = namedtuple("Output", "logits features")


@pytest.mark.parametrize(
    "shape",
    [
        lambda a, b: {0: a, 1: b},
        lambda a, b: {"a": a, None: b, 2.5: [a, (b,)]},
        lambda a, b: OUTPUT(a, {"b": b}),
        lambda a, b: [OUTPUT(a, b), {True: a}],
    ],
)
def test_outputs_keep_their_structure_with_keys_and_field_names(shape, tmp_path):
    class Shaped(nn.Module):
        def forward(self, x):
            return shape(F.relu(x), x)

    x = torch.rand(3, 4)
    snn = fs.convert(Shaped().eval(), x, alpha=1.0, K=8)
    fs.save(snn, tmp_path / "net.fs")
    for network in (snn, fs.load(tmp_path / "net.fs"), pickle.loads(pickle.dumps(snn)), copy.deepcopy(snn)):
        assert keys(network(x)) == keys(Shaped()(x))


def keys(output):
    """The structure of an output: kinds, keys and fields."""
    if isinstance(output, dict):
        return {key: keys(value) for key, value in output.items()}
    if isinstance(output, tuple | list):
        return (type(output).__name__, getattr(output, "_fields", ()), [keys(value) for value in output])
    return "tensor"


def test_a_key_that_cannot_be_saved_raises():
    class Keyed(nn.Module):
        def forward(self, x):
            return {(0, 1): F.relu(x)}

    with pytest.raises(fs.FewSpikesError, match=r"a dict with the key \(0, 1\)"):
        fs.convert(Keyed().eval(), torch.rand(3, 4))


def test_a_saved_name_that_is_no_name_raises():
    with pytest.raises(fs.FewSpikesError, match="a named tuple Output of a, _b"):
        named_tuple("Output", ["a", "_b"])
