"""The command, run as a person runs it: in a process of its own, with its exit codes, stdout and stderr."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import fewspikes as fs
from fewspikes.cli import options
from fewspikes.cli.convert import convert
from fewspikes.cli.main import _said
from fewspikes.graph.capture import captured_model
from fewspikes.images import Preprocessing, open_images
from fewspikes.models import load_model, resnet8
from fewspikes.models.loading import LoadedModel
from images import CIFAR
from networks import small

MODEL_FILE = """
import sys
import time
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from networks import small, squeeze_excite

def in_training_mode():
    return small().train()

def grey():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU()).eval()

def rows():
    return torch.nn.Sequential(torch.nn.Linear(144, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()

def flat():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU()).eval()

def leaves():
    sys.exit(0)

class Wrapped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = small()

    def forward(self, x):
        return {{"logits": self.net(x)}}

def wrapped():
    return Wrapped().eval()

class Leaving(torch.nn.Module):
    def forward(self, x):
        sys.exit(0)

def leaving():
    return Leaving().eval()

class Stubborn(torch.nn.Module):
    def forward(self, x):
        while True:
            try:
                Path(__file__).with_name("started").touch()
                time.sleep(60)
            except KeyboardInterrupt:
                pass

def stubborn():
    return Stubborn().eval()
"""


def run(*arguments, code=0, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "fewspikes", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FEWSPIKES_DATA": "", **environment},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file with models, weights of a ResNet8, and a converted network."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "net.py").write_text(MODEL_FILE.format(tests=os.path.dirname(__file__)))
    (folder / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    torch.manual_seed(0)
    save_file(resnet8().state_dict(), folder / "resnet8.safetensors")
    return folder


def test_fit_writes_parameters_and_says_their_error(tmp_path):
    done = run("fit", "relu", "-K", 6, "--alpha", 10, "--rounding", "nearest", "-o", tmp_path / "relu.json")
    assert "relu, K=6: mean squared error" in done.stdout
    assert fs.FSParameters.load(tmp_path / "relu.json") == fs.relu_parameters(6, 10.0, "nearest")


def test_fit_as_json_is_json_alone():
    content = json.loads(run("fit", "silu", "--method", "closed", "--json").stdout)
    assert content["mse_main"] == pytest.approx(2.394e-3, rel=1e-3)
    assert fs.FSParameters.from_json(content["parameters"]) == fs.published("silu")


def test_convert_without_data_is_the_papers_setting(folder):
    done = run("convert", "fewspikes:resnet8", "--weights", folder / "resnet8.safetensors", "-o", folder / "resnet8.fs")
    assert "73,728 FS-neurons in 7 layers (73,728 relu)" in done.stdout
    snn = fs.load(folder / "resnet8.fs")
    assert snn.report.k == 10
    assert snn.preprocessing["size"] == [32, 32]


def test_a_limit_without_data_has_no_effect_and_says_so(folder):
    done = run("convert", f"{folder}/net.py:small", "--size", 8, "--limit", 10)
    assert done.stderr == "warning: --limit has no effect without --data or --text\n"


def test_convert_takes_a_function_of_a_file(folder):
    content = json.loads(run("convert", f"{folder}/net.py:small", "--size", 8, "--json").stdout)
    assert content["neurons"] == 1024
    assert content["model"] == "net.py:small"
    assert content["output"] is None


def test_convert_and_evaluate_on_images(folder, data, tmp_path):
    saved = tmp_path / "resnet8.fs"
    run(
        *("convert", "fewspikes:resnet8", "--weights", folder / "resnet8.safetensors", "-K", 6),
        *("--data", data / "cifar10", "--limit", 32, "-o", saved),
    )
    assert fs.load(saved).report.calibration_images == 32
    done = run("evaluate", saved, "--data", data / "cifar10", "--limit", 40, "--json")
    content = json.loads(done.stdout)
    assert (content["images"], content["k"], content["neurons"]) == (40, 6, 73_728)
    assert content["model"] == "resnet8"
    same = json.loads(run("evaluate", saved, "--limit", 40, "--json", FEWSPIKES_DATA=str(data / "cifar10")).stdout)
    assert same["spikes_per_image"] == content["spikes_per_image"]
    other = run(
        *("evaluate", saved, "--data", data / "cifar10", "--limit", 40, "--reference", "fewspikes:resnet8"),
        *("--weights", folder / "resnet8.safetensors"),
    )
    assert ["same", "class", f"{content['agreement']:.2f}%"] in [line.split() for line in other.stdout.splitlines()]


def test_a_damaged_image_stops_an_evaluation_or_is_left_out_by_choice(folder, data, tmp_path):
    for number in range(10):
        (tmp_path / f"test/{number}").mkdir(parents=True)
    images = open_images(data / "cifar10", "test", CIFAR, 10, limit=12)
    for i in range(12):
        images.image(i).save(tmp_path / f"test/{images.labels[i]}/{i}.png")
    broken = next(tmp_path.glob("test/*/5.png"))
    broken.write_bytes(broken.read_bytes()[:200])
    saved = tmp_path / "r8.fs"
    run("convert", "fewspikes:resnet8", "-o", saved)
    done = run("evaluate", saved, "--data", tmp_path, code=2)
    assert done.stderr.startswith("error: ")
    assert "5.png is damaged" in done.stderr
    done = run("evaluate", saved, "--data", tmp_path, "--skip-damaged", "--json")
    content = json.loads(done.stdout)
    assert content["images"] == 11
    assert len(content["left_out"]) == 1
    assert "1 of 12 images were left out" in done.stderr
    assert "5.png" in done.stderr


def test_a_folder_with_one_split_is_used_with_a_warning(data, tmp_path):
    done = run(
        *("convert", "fewspikes:efficientnet_lite0", "--data", data / "imagenet-sample", "--limit", 2),
        *("-o", tmp_path / "lite0.fs"),
    )
    assert "warning:" in done.stderr
    assert "val" in done.stderr


def test_bench_times_a_network_and_its_memory_and_signs_it(folder, tmp_path):
    written = tmp_path / "bench.json"
    done = run(
        *("bench", "fewspikes:resnet8", "--random-weights", "-K", 4, "--batch-size", 2, "--seconds", 0.1),
        *("--growth", "--json", "-o", written),
    )
    content = json.loads(done.stdout)
    assert content == json.loads(written.read_text())
    assert content["networks"][0]["neurons"] == 73_728
    assert {row["grows"] for row in content["growth"]} == {"K", "batch", "batches"}
    assert content["memory"][0]["snn_over_ann"] > 0
    assert content["conditions"]["versions"]["fewspikes"] == fs.__version__


def test_bench_of_neurons_alone_is_a_table():
    done = run("bench", "--seconds", 0.1)
    assert "K 16, elements 4194304, ns_per_element (layer " in done.stdout
    assert "activation silu, K 8, seconds " in done.stdout


def test_the_demo_names_the_pictures_and_counts_spikes():
    content = json.loads(run("demo", "--json").stdout)
    tops = {row["picture"]: row["classes"] for row in content["pictures"]}
    assert list(tops) == ["chelsea", "coffee", "rocket", "motorcycle_left", "flower", "china"]
    assert tops["coffee"]["ANN"]["class"] == "espresso"
    for classes in tops.values():  # six clear photographs: both spiking networks name what the ANN names
        assert len({top["index"] for top in classes.values()}) == 1
    calibrated, paper = content["networks"]
    assert calibrated["neurons"] == paper["neurons"] == 6_157_536
    assert calibrated["latency_steps"] < paper["latency_steps"] == 330
    assert calibrated["spikes_per_neuron"] < paper["spikes_per_neuron"]


def test_the_demo_takes_a_picture_of_yours(tmp_path):
    from fewspikes.models import photographs

    photographs()["coffee"].save(tmp_path / "mine.png")
    assert "mine.png" in run("demo", "--image", tmp_path / "mine.png").stdout


def test_help_of_convert_names_every_circuit():
    shown = " ".join(run("convert", "--help").stdout.split())
    for words in ("gated, shifted or neurons: everything", "product=gated (shifted", "8 with --data or --text"):
        assert words in shown


@pytest.mark.parametrize("command", [(), ("demo",), ("convert",), ("evaluate",), ("fit",)])
def test_help_ends_with_an_example(command):
    done = run(*command, "--help")
    assert "Usage" in done.stdout
    assert not command or f"Example: fewspikes {command[0]}" in done.stdout


def test_the_version_is_the_packages():
    assert run("--version").stdout.strip() == f"fewspikes {fs.__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "softmax"), "unknown activation 'softmax'"),
        (("fit", "relu", "-K", "30"), "K must be a whole number from 1 to 24; got 30"),
        (("fit", "relu", "-o", "missing/p.json"), "the folder missing does not exist"),
        (("convert", "{folder}/net.py:in_training_mode", "--size", "8"), "the model is in training mode"),
        (("convert", "{folder}/net.py:small"), "does not say the size of its input; give --size"),
        (
            ("convert", "{folder}/net.py:small", "--size", "8", "--frontier", "{folder}/f.json", "-K", "4"),
            "--frontier measures many networks and keeps none",
        ),
        (
            ("convert", "{folder}/net.py:small", "--size", "8", "--frontier", "{folder}/f.json"),
            "--frontier works on images or sentences; give --data DIR or --text FILE",
        ),
        (
            ("convert", "{folder}/net.py:small", "--max-drop", "0.2"),
            "--max-drop works on images or sentences; give --data DIR or --text FILE",
        ),
        (
            ("convert", "{folder}/net.py:small", "--size", "8", "--circuits", "neurons"),
            "no tables for 1 of 3 sites: x.input is identity; give images",
        ),
        (
            ("convert", "{folder}/net.py:small", "--distil", "1"),
            "--distil works on images or sentences; give --data DIR or --text FILE",
        ),
        (("convert", "{folder}/net.py:small", "--data", "{folder}"), "give --mean, --std and --size"),
        (
            ("convert", "{folder}/net.py:grey", "--size", "8", "--mean", ".5,.5,.5", "--std", ".5,.5,.5"),
            "net.py:grey takes pictures of 1 channels, and the mean and std of their pixels are of 3; give --mean and",
        ),
        (
            ("convert", "{folder}/net.py:small", "--size", "8", "--mean", ".5", "--std", ".5"),
            "are of 1; give --mean and --std with 3 numbers with commas between",
        ),
        (("convert", "{folder}/net.py:small", "--size", "big"), "--size must be whole numbers >= 1"),
        (("convert", "{folder}/net.py:small", "--size", "nan"), "--size must be whole numbers >= 1"),
        (("convert", "{folder}/net.py:small", "--size", "inf"), "--size must be whole numbers >= 1"),
        (("convert", "{folder}/net.py:small", "--size", "1e9"), "--size must be whole numbers >= 1"),
        (("convert", "{folder}/net.py:small", "--size", "0"), "--size must be whole numbers >= 1"),
        (("convert", "{folder}/net.py:small", "--size", "8192"), "of at most 4,096 pixels"),
        (("convert", "{folder}/net.py:rows", "--shape", "99999,99999"), "--shape '99999,99999' makes inputs of"),
        (("convert", "{folder}/net.py:rows", "--shape", "144", "--size", "8"), "give one of them"),
        (("convert", "{folder}/net.py:rows", "--shape", "144", "--data", "{folder}"), "--data holds pictures"),
        (("convert", "{folder}/net.py:rows", "--size", "144"), "give --shape 144 for inputs of so many numbers"),
        (("convert", "{folder}/net.py:small", "--size", "8", "--seed", "-1"), "Invalid value for '--seed'"),
        (("convert", "{folder}/net.py:small", "--workers", "1000000"), "Invalid value for '--workers'"),
        (("fit", "silu", "--seed", "-1"), "Invalid value for '--seed'"),
        (("convert", "x" * 5000 + ".py:net"), "File name too long"),
        (("convert", "fewspikes:resnet8", "--random-weights", "--data", "x" * 5000), "File name too long"),
        (("convert", "fewspikes:resnet8", "--random-weights", "-o", "x" * 5000), "File name too long"),
        (("evaluate", "x" * 5000), "File name too long"),
        (("convert", "{folder}/net.py:leaves", "--size", "8"), "it called sys.exit(0), which belongs under if"),
        (("convert", "{folder}/leaves.py:net", "--size", "8"), "it called sys.exit(0), which belongs under if"),
        (("fit", "{folder}/leaves.py:net"), "SystemExit: 0"),
        (("convert", "{folder}/net.py:leaving", "--size", "8"), "its forward called sys.exit"),
        (("convert", "{folder}/net.py:small", "--size", "8", "--device", "cuda:7"), "no device 'cuda:7' here"),
        (("convert", "{folder}/net.py:small", "--size", "8", "--data", "{folder}"), "give --mean, --std and --size"),
        (
            ("convert", "{folder}/net.py:small", "--size", "8", "-o", "missing/x.fs"),
            "the folder missing does not exist",
        ),
        (("convert", "fewspikes:resnet8", "--random-weights", "--data", "missing"), "no folder missing"),
        (("convert", "fewspikes:resnet8", "--random-weights", "--mean", "0.5"), "--mean and --std go together"),
        (("convert", "fewspikes:resnet9"), "fewspikes has no model 'resnet9'"),
        (("convert", "fewspikes:resnet8", "--random-weights", "--alpha", "-1"), "alpha must be a finite number > 0"),
        (("evaluate", "missing.fs", "--data", "."), "no saved network at missing.fs"),
        (("evaluate", "{folder}/net.py", "--data", "."), "is no complete saved network"),
        (("demo", "--image", "{folder}/net.py"), "net.py"),
        (("demo", "--image", "missing.jpg"), "missing.jpg"),
        (("convert", "{folder}/net.py:small", "--limit", "0"), "Invalid value for '--limit'"),
        (("convert", "hf:/tmp/nowhere/net"), "no such folder /tmp/nowhere/net; give a folder with its config.json"),
        (("convert", "{folder}/net.py:small", "-K", "8"), "--text FILE for sentences, or --shape N for other inputs"),
        (("nonsense",), "No such command 'nonsense'; see fewspikes --help"),
        (("convert", "fewspikes:resnet8", "--nonsense"), "; see fewspikes convert --help"),
        (("convert",), "Missing argument"),
    ],
)
def test_bad_input_gets_one_line_that_names_it_and_exit_code_2(folder, arguments, message):
    done = run(*(argument.format(folder=folder) for argument in arguments), code=2)
    assert message in done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


def test_evaluating_without_data_says_how_to_give_it(folder):
    snn = fs.convert(resnet8().eval(), torch.zeros(1, 3, 32, 32))
    loaded = load_model("fewspikes:resnet8", random=True)
    fs.save(snn, folder / "plain.fs", loaded.preprocessing.to_json())
    assert "FEWSPIKES_DATA" in run("evaluate", folder / "plain.fs", code=2).stderr


def test_a_network_without_preprocessing_asks_for_it(folder):
    fs.save(fs.convert(small(), torch.zeros(1, 3, 8, 8)), folder / "bare.fs")
    assert (
        "become inputs; give --mean and --std" in run("evaluate", folder / "bare.fs", "--data", folder, code=2).stderr
    )


def test_a_network_made_with_a_shape_knows_the_size_of_its_pictures(save, tmp_path):
    for name in ("cat", "dog"):
        save(f"data/val/{name}/1.png")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    fs.save(fs.convert(model.eval(), torch.zeros(1, 3, 8, 8)), tmp_path / "shape.fs")
    pixels = ("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--data", tmp_path / "data")
    assert json.loads(run("evaluate", tmp_path / "shape.fs", *pixels, "--json").stdout)["images"] == 2


def test_a_network_of_no_pictures_is_not_asked_for_their_size(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(144, 16), torch.nn.ReLU()).eval()
    fs.save(fs.convert(model, torch.zeros(1, 144)), tmp_path / "rows.fs")
    done = run("evaluate", tmp_path / "rows.fs", "--data", tmp_path, code=2)
    assert "takes no pictures but input [144], and this command reads pictures; call fewspikes.evaluate" in done.stderr
    assert "--size" not in done.stderr


def test_a_model_of_transformers_is_converted_from_its_folder_and_evaluated(save, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the extra text")
    for name in ("cat", "dog"):
        save(f"data/val/{name}/1.png")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2
    )
    model = transformers.ResNetForImageClassification(config)
    model.save_pretrained(tmp_path / "net")
    size = {"shortest_edge": 16}
    transformers.ConvNextImageProcessor(size=size, crop_pct=0.8).save_pretrained(tmp_path / "net")
    saved = tmp_path / "net.fs"
    done = run("convert", f"hf:{tmp_path / 'net'}", "-K", 4, "--data", tmp_path / "data", "--split", "val", "-o", saved)
    assert done.stdout.startswith("net: ")
    assert fs.load(saved).preprocessing["resize"] == 20
    ann = ("--reference", f"hf:{tmp_path / 'net'}")
    content = json.loads(run("evaluate", saved, "--data", tmp_path / "data", *ann, "--json").stdout)
    assert content["images"] == 2
    assert content["ann_top1"] is not None


def test_a_language_model_gets_whole_numbers():
    model = torch.nn.Embedding(10, 4)
    model.main_input_name = "input_ids"
    assert options.example(LoadedModel(model, None, "text"), None, None, "16").dtype == torch.int64
    assert options.example(LoadedModel(torch.nn.Linear(16, 4), None, "rows"), None, None, "16").dtype == torch.float32


def test_size_captures_a_network_once(folder, monkeypatch):
    from fewspikes.conversion import building

    times = []
    monkeypatch.setattr(building, "captured_model", lambda *given: times.append(0) or captured_model(*given))
    convert(f"{folder}/net.py:small", size="8")
    assert len(times) == 1


def test_debug_shows_the_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "fewspikes", "fit", "softmax", "--debug"], capture_output=True, text=True, check=False
    )
    assert "Traceback" in done.stderr
    assert "'softmax'" in done.stderr


@pytest.mark.parametrize("option", [("--max-drop", "1"), ("--frontier", "{out}")])
def test_labels_that_are_read_are_held_against_the_networks_classes(folder, save, tmp_path, option):
    for name in ("cat", "dog"):
        save(f"data/train/{name}/1.png")
    sizes = ("--size", "8", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--data", tmp_path / "data")
    limit = [part.format(out=tmp_path / "frontier.json") for part in option]
    done = run("convert", f"{folder}/net.py:small", *sizes, *limit, code=2)
    assert "2 class" in done.stderr
    assert "10" in done.stderr
    assert run("convert", f"{folder}/net.py:small", *sizes, "-K", 3).stdout  # labels are not read: two folders will do


@pytest.mark.parametrize(
    ("network", "flags", "neurons"),
    [
        ("rows", ("--shape", 144), 16),
        ("flat", ("--size", 8), 16),
        ("grey", ("--size", 10), 256),
        ("grey", ("--shape", "1,10,10"), 256),
    ],
)
def test_an_input_is_of_the_size_and_shape_that_is_said(folder, network, flags, neurons):
    done = run("convert", f"{folder}/net.py:{network}", *flags, "--json")
    assert json.loads(done.stdout)["neurons"] == neurons


def test_class_folders_are_held_against_logits_in_a_dict(folder, save, tmp_path):
    for name in ("cat", "dog"):
        save(f"data/train/{name}/1.png")
    sizes = ("--size", "8", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--data", tmp_path / "data")
    done = run("convert", f"{folder}/net.py:wrapped", *sizes, "--max-drop", 1, code=2)
    assert "2 class folders (cat, dog), where the network has 10 classes" in done.stderr


@pytest.fixture(scope="module")
def pictured(folder):
    """A converted network that says how photographs become its inputs, and one that does not; two photographs."""
    torch.manual_seed(0)
    snn = fs.convert(small(), torch.zeros(1, 3, 8, 8), K=4, alpha=8.0)
    known = Preprocessing(size=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)
    fs.save(snn, folder / "pictured.fs", known.to_json())
    fs.save(snn, folder / "bare.fs")
    for n in range(2):
        pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
        Image.fromarray(pixels.numpy()).save(folder / f"{n}.png")
    x = torch.stack([known.transform()(Image.open(folder / f"{n}.png")) for n in range(2)])
    return fs.simulate(snn, x, "pipeline"), fs.simulate(snn, x[:1])


def test_simulate_tells_step_by_step_what_happens(folder, pictured):
    _, trace = pictured
    lines = run("simulate", folder / "pictured.fs", "--image", folder / "0.png").stdout.splitlines()
    assert lines[0] == f"1 image, engine steps: {trace.counts.total:,} spikes in 2 layers"
    rows = [line.split() for line in lines if line.split()[:1] in (["1-4"], ["5-8"])]
    assert [row[1] for row in rows] == list(trace.times)
    for row, (site, (first, last)) in zip(rows, trace.times.items(), strict=True):
        assert [int(n.replace(",", "")) for n in row[2:]] == trace.per_step[site][first - 1 : last].tolist()
    answer = int(trace.output.argmax())
    assert f"{folder}/0.png: class {answer}, after step 8" in lines
    running = [int(value.argmax()) for value in trace.running[:, 0]]
    told = ", ".join(f"{n}: {c}" for n, c in zip(trace.running_steps, running, strict=True))
    assert f"  after step {told}" in lines


def test_simulate_takes_a_photograph_of_another_size_where_size_is_given(folder, pictured):
    Image.new("RGB", (12, 9)).save(folder / "large.png")
    done = run("simulate", folder / "pictured.fs", "--image", folder / "large.png", "--size", 8)
    assert f"{folder}/large.png: class" in done.stdout


def test_simulate_as_json_records_and_draws(folder, pictured, tmp_path):
    trace, _ = pictured
    images = [part for n in range(2) for part in ("--image", folder / f"{n}.png")]
    files = ("--record", tmp_path / "spikes", "--raster", tmp_path / "r.svg", "--neuron", tmp_path / "n.png")
    site = next(iter(trace.times))
    done = run("simulate", folder / "pictured.fs", *images, "--engine", "pipeline", "--site", site, *files, "--json")
    content = json.loads(done.stdout)
    assert content["classes"] == trace.output.argmax(1).tolist()
    assert (content["latency_steps"], content["interval_steps"], content["images_per_1000_steps"]) == (8, 8, 125.0)
    (layer,) = content["layers"]
    assert layer["spikes"] == sum(layer["spikes_per_step"]) == trace.counts.by_site[site]
    found = fs.read_events(tmp_path / "spikes")
    assert torch.equal(found.spikes(site), trace.spikes[site])
    assert content["neuron"]["site"] == site
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")


def test_simulate_takes_images_of_a_data_set(folder, pictured, save, tmp_path):
    for name in range(10):
        save(f"data/test/{name}/1.png")
    flags = ("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")
    done = run("simulate", folder / "bare.fs", "--data", tmp_path / "data", "--limit", 3, *flags, "--engine", "events")
    assert "3 images, engine events" in done.stdout
    assert "synaptic operations, counted one by one" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pictured.fs", "--image", "{0}/0.png", "--site", "no"), "there is no site 'no'; --site takes one of relu"),
        (("pictured.fs", "--image", "{0}/large.png"), "large.png: an image of 9 x 9 pixels"),
        (("pictured.fs", "--image", "{0}/none.png"), "none.png; give the path of a photograph"),
        (("bare.fs", "--image", "{0}/0.png"), "does not say how images become inputs; give --mean and --std"),
        (
            ("pictured.fs", "--image", "{0}/0.png", "--mean", "0.5", "--std", "0.5"),
            "takes pictures of 3 channels, and --mean and --std have 1; give each 3 numbers with commas between",
        ),
        (("pictured.fs",), "give either --image FILE, once or more, or --limit N for N images of --data"),
        (("pictured.fs", "--image", "{0}/0.png", "--engine", "clock"), "--engine must be steps, pipeline or events"),
        (("pictured.fs", "--image", "{0}/0.png", "--raster", "{0}/r.pdf"), "must end in .png or .svg"),
        (("pictured.fs", "--image", "{0}/0.png", "--neuron", "{0}/r.png"), "--neuron needs a layer; give --site NAME"),
        (
            ("pictured.fs", "--image", "{0}/0.png", "--site", "relu", "--raster", "{0}/r.png", "--neuron", "{0}/r.png"),
            "r.png; give two files",
        ),
        (("pictured.fs", "--image", "{0}/0.png", "--record", "{0}"), "is not empty; give a new folder, or empty it"),
    ],
)
def test_simulate_refuses_in_one_line(folder, pictured, arguments, message):
    Image.new("RGB", (9, 9)).save(folder / "large.png")
    network, *rest = arguments
    done = run("simulate", folder / network, *(part.format(folder) for part in rest), code=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_ends_a_command_soon_even_where_it_is_lost(folder):
    (folder / "started").unlink(missing_ok=True)
    command = [sys.executable, "-m", "fewspikes", "convert", f"{folder}/net.py:stubborn", "--size", "8"]
    with _begun(command) as cut:
        _interrupt(cut, folder / "started")
        assert cut.returncode == 130
        assert cut.stderr.read() == "interrupted\n"


FITS = """
import sys, time
from pathlib import Path
from fewspikes.base.progress import in_threads

def job():
    Path(sys.argv[1]).touch()
    time.sleep(20)

in_threads([job] * 50, 2, "fits")
"""


def test_ctrl_c_waits_for_no_queued_fit_and_for_none_that_runs(tmp_path):
    with _begun([sys.executable, "-c", FITS, tmp_path / "started"]) as cut:
        _interrupt(cut, tmp_path / "started")
        assert cut.returncode not in (0, -signal.SIGKILL)
        assert cut.stderr.read().endswith("KeyboardInterrupt\n")


def _begun(command):
    """A process that hears Ctrl-C, as from a terminal; in a background job of a shell it would be deaf to it."""
    hearing = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hearing)


def _interrupt(process, started):
    """Ctrl-C once the file is there; who does not end within 10 s is killed."""
    end = time.monotonic() + 60
    while not started.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def test_a_folder_that_may_not_be_read_is_named_in_one_line():
    message, code = _said(PermissionError(errno.EACCES, "Permission denied", "photos/dog"))
    assert message == "cannot use photos/dog: Permission denied; give another path, or the right to read it"
    assert code == 2
