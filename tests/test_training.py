"""The recipe that trains the library's own networks, and the network that it trained."""

import json

import pytest
import safetensors
import torch
from torch import nn

import fewspikes as fs
from fewspikes.data import loader, open_images
from fewspikes.models import CifarEfficientNet, cifar_efficientnet, load_model
from fewspikes.models.loading import trained_weights
from fewspikes.models.training import Recipe, accuracy, augment, rate, read_split, train

RECIPE = Recipe(epochs=4, batch=16, rate=0.05, seed=3)


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


def test_training_learns_and_writes_a_line_an_epoch(bright, tmp_path):
    model = small()
    lines = list(train(model, *bright, RECIPE, tmp_path / "c.safetensors"))
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert accuracy(model, *bright) > 95


def test_a_run_that_was_cut_goes_on_to_the_same_weights(bright, tmp_path):
    whole, first, second = small(), small(), small()
    list(train(whole, *bright, RECIPE, tmp_path / "whole.safetensors"))
    for line in train(first, *bright, RECIPE, tmp_path / "cut.safetensors"):
        if line["epoch"] == 2:
            break
    assert [line["epoch"] for line in train(second, *bright, RECIPE, tmp_path / "cut.safetensors")] == [3, 4]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_checkpoint_of_another_recipe_is_refused(bright, tmp_path):
    next(train(small(), *bright, RECIPE, tmp_path / "c.safetensors"))
    with pytest.raises(fs.FewSpikesError, match="remove it to begin again"):
        next(train(small(), *bright, Recipe(epochs=5), tmp_path / "c.safetensors"))


def test_a_loss_that_is_not_finite_stops_with_a_remedy(bright, tmp_path):
    images, labels = bright
    with pytest.raises(fs.FewSpikesError, match="lower the learning rate"):
        next(train(small(), images * float("nan"), labels, RECIPE, tmp_path / "c.safetensors"))
    assert not (tmp_path / "c.safetensors").exists()


def test_the_learning_rate_rises_and_falls_to_zero():
    recipe = Recipe(rate=0.2, warmup=0.25)
    assert rate(recipe, 0.0) == 0.0
    assert rate(recipe, 0.125) == pytest.approx(0.1)
    assert rate(recipe, 0.25) == pytest.approx(0.2)
    assert rate(recipe, 0.625) == pytest.approx(0.1)
    assert rate(recipe, 1.0) == pytest.approx(0.0, abs=1e-9)


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


SHIPPED = {"cifar_efficientnet": 88.0, "resnet8": 87.2, "resnet14": 89.5}  # at least, in percent


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
    assert "fewspikes.models.training" in stated["command"]
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_network_is_as_accurate_as_it_says(data, name):
    loaded = load_model(f"fewspikes:{name}")
    images, labels = read_split(data / "cifar10", "test", loaded.preprocessing, 10)
    with safetensors.safe_open(trained_weights(name), framework="pt") as file:
        stated = json.loads(file.metadata()["top1"])
    assert len(images) == 10_000
    assert accuracy(loaded.model, images, labels) == pytest.approx(stated, abs=0.03)
    first = next(iter(loader(open_images(data / "cifar10", "test", loaded.preprocessing, 10), 10)))[0]
    assert torch.equal(first, images[:10])
