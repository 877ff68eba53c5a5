"""Models of transformers from folders that they saved themselves, without a network, and all that can be wrong."""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import fewspikes as fs
from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.images import Preprocessing
from fewspikes.models import load_model
from fewspikes.models.photographs import photographs

transformers = pytest.importorskip("transformers", reason="needs the extra text")
pytestmark = pytest.mark.filterwarnings("ignore:.*preprocessor_config")

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def resnet(labels=5):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=labels
    )
    return transformers.ResNetForImageClassification(config).eval()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return resnet()


@pytest.fixture
def folder(model, tmp_path):
    folder = tmp_path / "small-resnet"
    model.save_pretrained(folder)
    processor = transformers.ConvNextImageProcessor(
        size={"shortest_edge": 32}, crop_pct=0.8, image_mean=MEAN, image_std=STD, resample=2
    )
    processor.save_pretrained(folder)
    return folder


def same(a, b):
    assert list(a.state_dict()) == list(b.state_dict())
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_folder_gives_the_model_with_its_head_and_its_preprocessing(model, folder):
    loaded = load_model(f"hf:{folder}")
    assert type(loaded.model) is type(model)
    assert not loaded.model.training
    assert same(loaded.model, model)
    assert loaded.name == "small-resnet"
    assert loaded.preprocessing == Preprocessing((32, 32), tuple(MEAN), tuple(STD), 40, "bilinear")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(fs.convert(loaded.model, x)(x).logits, fs.convert(model, x)(x).logits)


def test_the_weights_of_a_folder_may_be_in_half_precision(model, folder):
    save_file(
        {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    loaded = load_model(f"hf:{folder}").model
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.classifier[1].weight, model.classifier[1].weight.half().float())


def test_other_weights_and_none_go_with_the_configuration_alone(folder, tmp_path):
    other = resnet()
    torch.save(other.state_dict(), tmp_path / "w.pth")
    (folder / "model.safetensors").unlink()
    assert same(load_model(f"hf:{folder}", str(tmp_path / "w.pth")).model, other)
    assert load_model(f"hf:{folder}", random=True).model.num_labels == 5
    with pytest.raises(
        FewSpikesError, match="has no model.safetensors; give the weights with --weights PATH, or count"
    ):
        load_model(f"hf:{folder}")


def test_a_pickle_in_a_folder_is_not_opened(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(FewSpikesError, match="has no model.safetensors"):
        load_model(f"hf:{folder}")
    assert load_model(f"hf:{folder}", str(folder)).model.num_labels == 5


def spoil(folder, change):
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("classifier.1.bias"),
            r"do not fit ResNetForImageClassification: missing classifier\.1\.bias;",
        ),
        (
            lambda w: w.update({"b.x": torch.ones(1), "a.x": torch.ones(1)}),
            r": left over a\.x, b\.x; give those of this",
        ),
        (
            lambda w: w.update({"classifier.1.bias": torch.zeros(7)}),
            r"wrong shapes classifier\.1\.bias \(7,\) for \(5,\)",
        ),
        (
            lambda w: [w.pop(name) for name in list(w) if "embedder" in name],
            r"missing resnet\.embedder\.embedder\.convolution\.weight, .*, .* and \d more;",
        ),
    ],
)
def test_weights_that_do_not_fit_the_configuration_name_the_first_that_differ(folder, change, message):
    spoil(folder, change)
    with pytest.raises(FewSpikesError, match=message) as raised:
        load_model(f"hf:{folder}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json; give a folder that save_pretrained wrote"),
        (lambda f: (f / "config.json").write_text("{"), "transformers cannot build the model in"),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "none-such"}'),
            "transformers cannot build the model",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"broken"), "transformers cannot build the model in"),
        (lambda f: edit(f / "config.json", architectures=["NoSuchNet"]), "is a 'NoSuchNet', which this version of"),
        (lambda f: edit(f / "config.json", architectures=["AutoConfig"]), "is a 'AutoConfig', which this version of"),
    ],
)
def test_a_broken_folder_raises_one_line(folder, break_it, message):
    break_it(folder)
    with pytest.raises(FewSpikesError, match=message) as raised:
        load_model(f"hf:{folder}")
    assert "\n" not in str(raised.value)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_code_beside_the_weights_does_not_run(folder, tmp_path):
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
    edit(folder / "config.json", auto_map=auto, model_type="mine")
    with pytest.raises(FewSpikesError, match="transformers cannot build the model in"):
        load_model(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_without_architectures_it_is_the_model_without_a_head(folder):
    edit(folder / "config.json", architectures=None)
    assert type(load_model(f"hf:{folder}", random=True).model) is transformers.ResNetModel


def test_transformers_own_words_stay_away_and_its_settings_as_they_were(folder, capsys):
    own = transformers.utils.logging
    before = own.get_verbosity(), own.is_progress_bar_enabled()
    load_model(f"hf:{folder}")
    edit(folder / "config.json", num_labels=7, id2label=None, label2id=None)
    with pytest.raises(FewSpikesError, match="wrong shapes"):
        load_model(f"hf:{folder}")
    assert (own.get_verbosity(), own.is_progress_bar_enabled()) == before
    assert capsys.readouterr() == ("", "")


# The hub


def test_a_model_that_cannot_be_fetched_raises_within_seconds(no_network):
    start = time.monotonic()
    with pytest.raises(
        FewSpikesError, match=r"trained weights of hf:some/net could not be fetched \(.*\); give a folder"
    ):
        load_model("hf:some/net")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["no such name", "a/b/c", "./nowhere"])
def test_what_is_no_name_and_no_folder_raises(no_network, name):
    wanted = "no such folder {}; .*" if "/" in name else "hf:{} could not be fetched .* hf:FOLDER$"
    with pytest.raises(FewSpikesError, match=wanted.format(name)):
        load_model(f"hf:{name}")


def test_a_model_in_the_cache_needs_no_network(no_network, model, folder):
    place = no_network / "models--some--net"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))
    loaded = load_model("hf:some/net")
    assert same(loaded.model, model)
    assert loaded.preprocessing.size == (32, 32)
    assert loaded.name == "net"
    (place / "snapshots" / ("0" * 40) / "model.safetensors").unlink()
    with pytest.raises(FewSpikesError, match="trained weights of hf:some/net could not be fetched"):
        load_model("hf:some/net")


# The preprocessing


PROCESSORS = {
    "ConvNextImageProcessor": [{"size": {"shortest_edge": 64}}, {"size": {"shortest_edge": 384}}],
    "ViTImageProcessor": [{"size": {"height": 48, "width": 64}, "resample": 3}],
    "MobileNetV2ImageProcessor": [{"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 48}}],
    "DeiTImageProcessor": [{"size": {"height": 70, "width": 80}, "crop_size": {"height": 64, "width": 64}}],
    "CLIPImageProcessor": [{"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}],
    "SegformerImageProcessor": [{"size": {"height": 64, "width": 64}, "do_normalize": False}],
}


@pytest.mark.parametrize(("kind", "given"), [(kind, given) for kind, all_ in PROCESSORS.items() for given in all_])
def test_preprocessing_is_transformers_own_but_for_the_rounding_of_a_resized_pixel(kind, given, tmp_path):
    pytest.importorskip("skimage", reason="needs the extra demo")
    image = photographs()["chelsea"].convert("RGB")
    processor = getattr(transformers, kind)(**given)
    processor.save_pretrained(tmp_path)
    ours = Preprocessing.from_transformers(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    wanted = processor(image, return_tensors="pt")["pixel_values"][0]
    got = ours.transform()(image)
    assert got.shape == wanted.shape
    levels = (got - wanted).abs() * torch.tensor(ours.std).view(-1, 1, 1) * 255
    assert levels.max() < 1.001  # Pillow's resize, and torchvision's of tensors
    assert (levels > 0.001).double().mean() < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"shortest_edge": 32}, "crop_pct": None}, "does not say the one size of all images"),
        ({"size": None}, "does not say the one size"),
        ({"do_rescale": False}, r"has no equal here \(do_rescale\); give size, mean and std yourself"),
        ({"rescale_factor": 1 / 127.5}, r"has no equal here \(how it scales\)"),
        ({"resample": 1}, r"ConvNextImageProcessor of transformers has no equal here \(resample\)"),
        ({"image_mean": None}, "image_mean must be a list of numbers"),
    ],
)
def test_preprocessing_without_an_equal_is_a_warning_that_says_why(folder, changes, message):
    edit(folder / "preprocessor_config.json", **changes)
    with pytest.warns(FewSpikesWarning, match=message):
        assert load_model(f"hf:{folder}").preprocessing is None


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_broken_file_of_preprocessing_is_a_warning(folder, content):
    (folder / "preprocessor_config.json").write_text(content)
    with pytest.warns(FewSpikesWarning, match="preprocessor_config.json does not say how images become inputs"):
        assert load_model(f"hf:{folder}").preprocessing is None
