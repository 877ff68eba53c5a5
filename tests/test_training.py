"""The recipe that trains the library's own networks, and the network that it trained."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import safetensors
import torch
from PIL import Image
from torch import nn

import fewspikes as fs
from fewspikes.images import loader, open_images
from fewspikes.models import CifarEfficientNet, cifar_efficientnet, load_model
from fewspikes.models.loading import trained_weights
from fewspikes.paper.training import InMemory, OnDisk, Recipe, accuracy, augment, cycle, read_split, train
from fewspikes.paper.training.__main__ import resnet50_average
from fewspikes.paper.training.images import open_split
from fewspikes.paper.training.muon import KernelMuon
from images import SMALL

RECIPE = Recipe(epochs=4, batch=16, rate=0.05, seed=3)
MUON = replace(RECIPE, optimizer="muon", precision="bfloat16")


def small():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )


@pytest.fixture(scope="module")
def bright():
    """Dark and bright images, and which they are."""
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (96,), generator=random)
    return torch.rand(96, 3, 12, 12, generator=random) + labels.view(-1, 1, 1, 1), labels


def trained(model, bright, recipe, checkpoint):
    return train(model, InMemory(*bright, recipe.batch, recipe.seed), recipe, checkpoint)


@pytest.mark.parametrize("recipe", [RECIPE, MUON])
def test_training_learns_and_writes_a_line_an_epoch(bright, tmp_path, recipe):
    model = small()
    lines = list(trained(model, bright, recipe, tmp_path / "c.safetensors"))
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["seconds_left"] == 0 < lines[0]["seconds_left"]
    right, images = accuracy(model, [bright])
    assert right > 95
    assert images == 96


@pytest.mark.parametrize("recipe", [RECIPE, MUON])
def test_a_run_that_was_cut_goes_on_to_the_same_weights(bright, tmp_path, recipe):
    whole, first, second = small(), small(), small()
    list(trained(whole, bright, recipe, tmp_path / "whole.safetensors"))
    for line in trained(first, bright, recipe, tmp_path / "cut.safetensors"):
        if line["epoch"] == 2:
            break
    assert [line["epoch"] for line in trained(second, bright, recipe, tmp_path / "cut.safetensors")] == [3, 4]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_checkpoint_of_another_run_is_refused(bright, tmp_path):
    file, images = tmp_path / "c.safetensors", InMemory(*bright, 16, 3)
    next(train(small(), images, RECIPE, file, about={"network": "small"}))
    for recipe, source, network in (
        (replace(RECIPE, epochs=5), images, "small"),
        (RECIPE, InMemory(bright[0], bright[1].flip(0), 16, 3), "small"),
        (RECIPE, images, "large"),
    ):
        with pytest.raises(fs.FewSpikesError, match="is of another run .* remove it to begin again"):
            next(train(small(), source, recipe, file, about={"network": network}))
    assert next(train(small(), images, RECIPE, file, about={"network": "small"}))["epoch"] == 2
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(fs.FewSpikesError, match="is no complete checkpoint of a training"):
        next(train(small(), images, RECIPE, file))


def test_a_loss_that_is_not_finite_stops_with_a_remedy(bright, tmp_path):
    images, labels = bright
    with pytest.raises(fs.FewSpikesError, match="lower the learning rate"):
        next(trained(small(), (images * float("nan"), labels), RECIPE, tmp_path / "c.safetensors"))
    assert not (tmp_path / "c.safetensors").exists()


def test_fewer_images_than_a_step_takes_are_refused(bright, tmp_path):
    with pytest.raises(fs.FewSpikesError, match="fewer images than the 128 of one step"):
        next(trained(small(), bright, replace(RECIPE, batch=128), tmp_path / "c.safetensors"))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(8, 16, 3, 3), (8, 16, 1, 1), (16, 3, 3, 3), (32, 8, 1, 1)])
def test_muon_moves_a_kernel_by_an_orthogonal_matrix_along_its_gradient(layout, shape):
    random = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape, generator=random).to(memory_format=layout))
    before = kernel.detach().clone()
    kernel.grad = torch.randn(shape, generator=random) * torch.logspace(-0.5, 0.5, shape[0]).view(-1, 1, 1, 1)
    KernelMuon([kernel], rate=0.5, momentum=0.9, decay=0.0).step()
    scale = 0.5 * max(1, shape[0] / (shape[1] * shape[2] * shape[3])) ** 0.5
    moved, gradient = (before - kernel.detach()).flatten(1) / scale, kernel.grad.flatten(1)
    values = torch.linalg.svdvals(moved)
    assert values.min() > 0.3  # five steps of Newton and Schulz leave them about 1
    assert values.max() < 1.3
    assert (moved * gradient).sum() > 0.7 * torch.linalg.svdvals(gradient).sum()  # the most is 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, from Python 3.12 on
def test_photographs_are_cut_anew_each_epoch_and_alike_in_each_run(data):
    like = replace(SMALL, size=(40, 40), resize=(40, 40))
    found = open_images(data / "imagenet-sample", "val", like, 1000, limit=9)
    first, again = (OnDisk(found, like, batch=4, seed=1, workers=1) for _ in range(2))
    assert first.steps == 2
    epochs = [list(first.epoch(0)), list(again.epoch(0)), list(first.epoch(1))]
    images = [torch.cat([x for x, _ in epoch]) for epoch in epochs]
    labels = [torch.cat([y for _, y in epoch]).tolist() for epoch in epochs]
    assert images[0].shape == (8, 3, 40, 40)
    assert torch.equal(images[0], images[1])
    assert labels[0] == labels[1] != labels[2]
    assert set(labels[0]) <= set(found.labels.tolist())
    twice = next((i, j) for i, a in enumerate(labels[0]) for j, b in enumerate(labels[2]) if a == b)
    assert not torch.equal(images[0][twice[0]], images[2][twice[1]])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_damaged_photograph_stops_training_by_name_or_is_left_out(save, tmp_path):
    for name in "abcd":
        save(f"train/cat/{name}.png")
    (tmp_path / "train/cat/b.png").write_text("no image")
    found = open_images(tmp_path, "train", SMALL, classes=1)
    with pytest.raises(fs.FewSpikesError, match=r"^[^\n]*b\.png is not an image that can be read[^\n]*$"):
        list(OnDisk(found, SMALL, batch=2).epoch(0))
    with pytest.warns(fs.FewSpikesWarning, match=r"1 of 4 images were left out: .*b\.png"):
        sizes = [len(x) for x, _ in OnDisk(found, SMALL, batch=2, skip_damaged=True).epoch(0)]
    assert sorted(sizes) == [1, 2]


@pytest.mark.parametrize(("split", "wanted"), [("train", "evaluation"), ("test", "train"), (".", "train")])
def test_training_and_test_images_are_never_the_same(save, tmp_path, split, wanted):
    save(f"{split}/cat/1.png")
    with pytest.raises(fs.FewSpikesError, match="training and test images must differ"):
        open_split(tmp_path, wanted, SMALL, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "Muon"}, "optimizer must be one of sgd, muon; got 'Muon'"),
        ({"precision": "fp16"}, "precision must be one of float32, bfloat16; got 'fp16'"),
        ({"batch": 0}, "epochs and batch must be >= 1; got 28 and 0"),
        ({"rate": 0.0}, "learning rates must be > 0"),
    ],
)
def test_a_recipe_out_of_range_is_refused(settings, message):
    with pytest.raises(fs.FewSpikesError, match=message):
        Recipe(**settings)


def test_the_average_pool_is_the_one_that_conversion_puts_in():
    model = resnet50_average().model.double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    plain = load_model("torchvision:resnet50", random=True).model.double()
    plain.load_state_dict(model.state_dict())
    with pytest.warns(fs.FewSpikesWarning, match="a changed network"):
        changed = fs.convert(plain, x, circuits={"max": "average"}).as_ann()
    with torch.inference_mode():
        torch.testing.assert_close(changed(x), model(x))


def test_the_command_trains_and_writes_weights_that_say_what_made_them(save, tmp_path):
    for i in range(20):
        save(f"train/{i % 10}/{i}.png", ("chelsea", "coffee")[i % 2])
        save(f"test/{i % 10}/{i}.png", ("chelsea", "coffee")[i % 2])
    for file in tmp_path.glob("*/*/*.png"):
        Image.open(file).resize((32, 32)).save(file)
    words = [sys.executable, "-m", "fewspikes.paper.training", "resnet8", "--data", str(tmp_path)]
    words += ["-o", str(tmp_path / "r8.safetensors"), "--epochs", "1", "--batch", "10", "--optimizer", "muon"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["epoch"] == 1
    assert lines[1]["images"] == 20
    assert lines[1]["command"].endswith("FILE.safetensors --epochs 1 --batch 10 --optimizer muon")
    assert load_model("fewspikes:resnet8", str(tmp_path / "r8.safetensors"))
    words[words.index("--epochs") + 1] = "30"
    words[words.index("-o") + 1] = str(tmp_path / "cut.safetensors")
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in a shell's background job it would be deaf
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear) as cut:
        assert json.loads(cut.stdout.readline())["epoch"] == 1
        cut.send_signal(signal.SIGINT)
        assert cut.stderr.read().splitlines()[-1].startswith("interrupted; the same command goes on")
    assert cut.returncode == 130
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert 1 < json.loads(done.stdout.splitlines()[0])["epoch"] <= 30
    for more, message in (
        (["--pretrained"], "--pretrained goes with resnet50_average"),
        (["-o", "nowhere/x.safetensors"], "cannot write nowhere/x.safetensors: make its folder first"),
        (["-o", str(tmp_path / "x.pt")], "-o must name a .safetensors file"),
        (["--device", "cuda:9"], "no device 'cuda:9' here"),
    ):
        refused = subprocess.run([*words, *more], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[-1].startswith(f"error: {message}")


def test_the_learning_rate_rises_and_falls_to_zero():
    recipe = Recipe(warmup=0.25)
    assert cycle(recipe, 0.0) == 0.0
    assert cycle(recipe, 0.125) == pytest.approx(0.5)
    assert cycle(recipe, 0.25) == pytest.approx(1.0)
    assert cycle(recipe, 0.625) == pytest.approx(0.5)
    assert cycle(recipe, 1.0) == pytest.approx(0.0, abs=1e-9)


def test_augmented_images_are_moved_and_mirrored_ones():
    image = torch.arange(3 * 6 * 6, dtype=torch.float32).view(1, 3, 6, 6)
    padded = torch.nn.functional.pad(image, [4] * 4, mode="reflect")[0]
    moved = [padded[:, i : i + 6, j : j + 6] for i in range(9) for j in range(9)]
    possible = [*moved, *(view.flip(2) for view in moved)]
    seen = set()
    for got in augment(image.expand(60, -1, -1, -1), torch.Generator().manual_seed(0)):
        matches = [i for i, view in enumerate(possible) if torch.equal(got, view)]
        assert matches
        seen.add(matches[0])
    assert len(seen) > 30
    assert any(i < 81 for i in seen)
    assert any(i >= 81 for i in seen)


def test_the_small_efficientnet_has_its_sites_and_parameters():
    model = cifar_efficientnet().eval()
    assert 330_000 < sum(p.numel() for p in model.parameters()) < 370_000
    report = fs.convert(model, torch.zeros(1, 3, 32, 32)).report
    assert set(report.neurons_by_activation) == {"silu", "sigmoid"}
    assert len(report.left_digital) == 6  # a product for each squeeze-and-excitation
    with pytest.raises(fs.FewSpikesError, match="classes >= 1; got 0"):
        CifarEfficientNet(0)


SHIPPED = {"cifar_efficientnet": 88.0, "resnet8": 87.2, "resnet14": 90.5, "resnet20": 91.6}  # at least, in percent


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_network_says_how_it_was_made(name):
    loaded = load_model(f"fewspikes:{name}")
    assert not loaded.model.training
    assert loaded.preprocessing.size == (32, 32)
    path = trained_weights(name)
    with safetensors.safe_open(path, framework="pt") as file:
        stated = file.metadata()
    assert json.loads(stated["top1"]) >= SHIPPED[name]
    assert json.loads(stated["recipe"])["seed"] == 0
    assert f"training {name} " in stated["command"]  # of the module that is fewspikes.paper.training now
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_network_is_as_accurate_as_it_says(data, name):
    loaded = load_model(f"fewspikes:{name}")
    images, labels = read_split(data / "cifar10", "test", loaded.preprocessing, 10)
    with safetensors.safe_open(trained_weights(name), framework="pt") as file:
        stated = json.loads(file.metadata()["top1"])
    right, count = accuracy(loaded.model, zip(images.split(250), labels.split(250), strict=True))
    assert count == 10_000
    assert right == pytest.approx(stated, abs=0.03)
    first = next(iter(loader(open_images(data / "cifar10", "test", loaded.preprocessing, 10), 10)))[0]
    assert torch.equal(first, images[:10])
