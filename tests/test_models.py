"""Networks by name, their weights and their photographs; and every way that a name or a file can be wrong."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.images import Preprocessing, loader, open_images
from fewspikes.models import (
    CIFAR_PREPROCESSING,
    imagenet_class_names,
    load_model,
    load_weights,
    photographs,
    resnet8,
    resnet14,
    resnet20,
    resnet44,
    resnet50,
)
from fewspikes.models.cifar_resnet import Block, CifarResNet
from fewspikes.models.fetching import fetching

REMEDIES = "give them with --weights FILE.safetensors, or count only with --random-weights"


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("torchvision", reason="needs the extra vision")
    if not os.environ.get("FEWSPIKES_DATA"):
        pytest.skip("needs FEWSPIKES_DATA, the folder with cifar10, imagenet-sample and weights")
    return Path(os.environ["FEWSPIKES_DATA"])


@pytest.fixture(scope="module")
def lite0():
    try:
        return load_model("fewspikes:efficientnet_lite0")
    except FewSpikesError as error:
        pytest.skip(str(error))


@pytest.fixture
def user_file(tmp_path):
    """Write a Python file of the user's and give its path."""

    def write(text, name="net.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def right_answers(model, batches):
    with torch.inference_mode():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)


# The ResNets for CIFAR


@pytest.mark.parametrize(
    ("build", "layers"), [(resnet8, 8), (resnet14, 14), (resnet20, 20), (resnet44, 44), (resnet50, 50)]
)
def test_a_cifar_resnet_has_the_layers_of_its_name(build, layers):
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in build().modules()) == layers


def test_resnet20_has_the_published_number_of_parameters():
    # conv1 3*16*9 = 432. Stage of width w: six (the first stage) or five convolutions w*w*9, and in the later stages
    # one of (w/2)*w*9: 6*2304 + (4608 + 5*9216) + (18432 + 5*36864) = 13824 + 50688 + 202752. linear 640 + 10.
    # Batch norms: 2 * (7*16 + 6*32 + 6*64) = 1376. Together 269722, He et al.'s 0.27 million.
    assert sum(parameter.numel() for parameter in resnet20().parameters()) == 269_722


def test_a_cifar_resnet_maps_images_to_logits():
    assert CifarResNet(1, classes=7).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_shortcut_keeps_every_second_pixel_between_channels_of_zeros():
    block = Block(2, 4, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)  # silences the convolutions
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    y = block(x)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, [0, 3]].any()


def test_a_resnet_without_blocks_raises():
    with pytest.raises(FewSpikesError, match="n >= 1 and classes >= 1; got 0 and 10"):
        CifarResNet(0)


@pytest.mark.parametrize(("name", "images", "expected"), [("resnet20", 1000, 915), ("resnet44", 300, 288)])
def test_published_weights_classify_cifar10_as_measured(data, name, images, expected):
    # All 10,000 test images: ResNet20 gets 9173 right, as published. A few may differ with the processor's rounding.
    loaded = load_model(f"fewspikes:{name}", str(data / f"weights/cifar10-{name}.safetensors"))
    test = open_images(data / "cifar10", "test", loaded.preprocessing, classes=10, limit=images)
    assert right_answers(loaded.model, loader(test, 100)) == pytest.approx(expected, abs=2)


# EfficientNet-Lite0 and photographs


def test_lite0_classifies_imagenet_photographs_as_measured(lite0, data):
    # 440 of all 500.
    sample = open_images(data / "imagenet-sample", "evaluation", lite0.preprocessing, classes=1000, limit=50)
    assert right_answers(lite0.model, loader(sample, 25)) == pytest.approx(45, abs=1)


def test_lite0_names_what_the_photographs_show(lite0):
    names, photos = imagenet_class_names(), photographs()
    transform = lite0.preprocessing.transform()
    with torch.inference_mode():
        best = lite0.model(torch.stack([transform(photo) for photo in photos.values()])).argmax(1)
    said = dict(zip(photos, (names[i] for i in best), strict=True))
    assert said["chelsea"] in ("tabby", "tiger cat", "Egyptian cat")
    assert (said["coffee"], said["rocket"], said["flower"], said["china"]) == ("espresso", "missile", "daisy", "palace")


def test_lite0_comes_in_eval_mode(lite0):
    assert not lite0.model.training


def test_the_photographs_are_six_and_in_colour():
    pytest.importorskip("skimage", reason="needs the extra demo")
    photos = photographs()
    assert list(photos) == ["chelsea", "coffee", "rocket", "motorcycle_left", "flower", "china"]
    assert all(photo.mode == "RGB" and min(photo.size) >= 300 for photo in photos.values())


def test_a_missing_photograph_package_raises(monkeypatch):
    monkeypatch.setattr(sys.modules["fewspikes.models.photographs"], "find_spec", lambda name: None)
    with pytest.raises(FewSpikesError, match=r"the photographs need skimage; pip install 'fewspikes\[demo\]'"):
        photographs()


def test_imagenets_class_names_are_in_the_order_of_its_outputs():
    pytest.importorskip("torchvision")
    names = imagenet_class_names()
    assert len(names) == 1000
    assert (names[0], names[2], names[999]) == ("tench", "great white shark", "toilet tissue")


# Names


@pytest.mark.parametrize("name", ["resnet8", "resnet14", "resnet20", "resnet44", "resnet50"])
def test_our_resnets_come_untrained_in_eval_mode_with_cifars_preprocessing(name):
    loaded = load_model(f"fewspikes:{name}", random=True)
    assert not loaded.model.training
    assert loaded.name == name
    assert loaded.preprocessing == CIFAR_PREPROCESSING
    assert loaded.preprocessing.resize is None


def test_a_timm_model_comes_in_eval_mode_with_its_preprocessing():
    pytest.importorskip("timm")
    loaded = load_model("timm:resnet18", random=True)
    assert not loaded.model.training
    assert loaded.name == "resnet18"
    assert loaded.preprocessing == Preprocessing.from_timm(loaded.model)


def test_a_torchvision_model_comes_in_eval_mode_with_its_preprocessing():
    pytest.importorskip("torchvision")
    loaded = load_model("torchvision:mobilenet_v2", random=True)
    assert not loaded.model.training
    assert loaded.name == "mobilenet_v2"
    assert loaded.preprocessing == Preprocessing.from_torchvision("mobilenet_v2")


def test_inception_is_built_as_its_trained_weights_need_it():
    pytest.importorskip("torchvision")
    assert load_model("torchvision:inception_v3", random=True).model.transform_input


def test_an_untrained_segmentation_network_needs_no_download_and_warns_of_its_preprocessing(no_network):
    pytest.importorskip("torchvision")
    with pytest.warns(FewSpikesWarning, match="is no image classifier") as caught:
        assert load_model("torchvision:fcn_resnet50", random=True).preprocessing is None
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet_18", "timm has no model 'resnet_18'; did you mean .*resnet18"),
        ("timm:resnet18.nonsense", "timm has no model 'resnet18.nonsense'"),
        ("torchvision:resnet_18", "torchvision has no float model 'resnet_18'; did you mean .*resnet18"),
        ("torchvision:quantized_resnet18", "torchvision has no float model .* did you mean resnet18?"),
        ("fewspikes:resnet21", "fewspikes has no model 'resnet21'; it has resnet8, .* did you mean resnet20"),
        ("resnet20", "unknown model 'resnet20'; give timm:NAME, .* did you mean fewspikes:resnet20?"),
        ("torchvison:resnet18", "unknown model .* did you mean torchvision?"),
        ("timm:", "unknown model 'timm:'; give timm:NAME"),
        ("", "unknown model ''; give timm:NAME"),
    ],
)
def test_a_wrong_name_raises_with_the_right_ones(spec, message):
    pytest.importorskip("timm"), pytest.importorskip("torchvision")
    with pytest.raises(FewSpikesError, match=message):
        load_model(spec)


def test_our_resnets_without_weights_raise():
    with pytest.raises(FewSpikesError, match=f"fewspikes:resnet44 comes without trained weights; {REMEDIES}"):
        load_model("fewspikes:resnet44")


def test_weights_and_random_weights_exclude_each_other():
    with pytest.raises(FewSpikesError, match="exclude each other"):
        load_model("fewspikes:resnet44", weights="x.safetensors", random=True)


# Weights from a file


def test_weights_come_back_bit_for_bit(tmp_path):
    model, copy = resnet8(), resnet8()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    load_weights(copy, tmp_path / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), copy.state_dict().values(), strict=True))


def test_missing_and_left_over_tensors_are_named(tmp_path):
    tensors = {name: tensor for name, tensor in resnet8().state_dict().items() if name != "linear.bias"}
    save_file({**tensors, "head.bias": torch.zeros(10)}, tmp_path / "w.safetensors")
    with pytest.raises(
        FewSpikesError, match=r"w\.safetensors does not fit .*: missing linear\.bias, left over head\.bias; give"
    ):
        load_model("fewspikes:resnet8", str(tmp_path / "w.safetensors"))


def test_only_the_first_few_missing_tensors_are_named(tmp_path):
    save_file({}, tmp_path / "w.safetensors")
    with pytest.raises(
        FewSpikesError, match=r"missing conv1\.weight, bn1\.weight, bn1\.bias and .* more, left over nothing"
    ):
        load_model("fewspikes:resnet8", str(tmp_path / "w.safetensors"))


def test_a_tensor_of_another_shape_is_named(tmp_path):
    save_file(CifarResNet(1, classes=100).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        FewSpikesError, match=r"wrong shapes linear.bias \(100,\) for \(10,\), linear.weight \(100, 64\) for \(10, 64\)"
    ):
        load_model("fewspikes:resnet8", str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.net."])
def test_a_prefix_of_all_names_is_taken_off_and_named(tmp_path, prefix):
    model = resnet8()
    save_file({f"{prefix}{name}": value for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    with pytest.warns(FewSpikesWarning, match=f"begin with '{prefix}', which is none of the model's; it was taken off"):
        loaded = load_model("fewspikes:resnet8", str(tmp_path / "w.safetensors")).model
    assert torch.equal(loaded.linear.weight, model.linear.weight)


def test_a_prefix_of_some_names_alone_is_not_taken_off(tmp_path):
    tensors = {f"module.{name}": value for name, value in resnet8().state_dict().items()}
    save_file({**tensors, "step": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(FewSpikesError, match=r"left over module\.bn1"):
        load_model("fewspikes:resnet8", str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    "kept",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": weights, "optimizer": {"state": {}, "lr": 0.1}},
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "checkpoint.pt", "pytorch_model.bin"])
def test_weights_of_torch_save_are_found_wherever_a_training_script_keeps_them(tmp_path, kept, name):
    model = resnet8()
    torch.save(kept(model.state_dict()), tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        loaded = load_model("fewspikes:resnet8", str(path)).model
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_of_several_sets_of_weights_the_one_that_was_taken_is_named(tmp_path):
    model, average = resnet8(), resnet8()
    torch.save({"model_ema": average.state_dict(), "model": model.state_dict()}, tmp_path / "w.pth")
    with pytest.warns(FewSpikesWarning, match="several sets of weights; 'model' was taken, not 'model_ema'"):
        loaded = load_model("fewspikes:resnet8", str(tmp_path / "w.pth")).model
    assert torch.equal(loaded.linear.weight, model.linear.weight)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("kept", [lambda evil, model: evil, lambda evil, model: {"state_dict": model, "x": evil}])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, kept):
    torch.save(kept(Evil(str(tmp_path / "ran")), resnet8().state_dict()), tmp_path / "w.pth")
    with pytest.raises(FewSpikesError, match=r"w\.pth is not read: it holds more than tensors, .*; save the weights"):
        load_model("fewspikes:resnet8", str(tmp_path / "w.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (resnet8(), "holds more than tensors, which could run code, or is damaged"),
        ({"epoch": 3, "lr": 0.1}, "holds no weights by name but 'epoch', 'lr'; save model.state_dict"),
        (torch.zeros(3), "holds no weights by name but a Tensor"),
        ({}, "holds no weights by name but "),
    ],
)
def test_a_file_of_torch_save_without_weights_says_what_it_holds(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(FewSpikesError, match=message):
        load_model("fewspikes:resnet8", str(tmp_path / "w.pth"))


def test_weights_spread_over_several_files_are_joined_by_their_index(tmp_path):
    model = resnet8()
    names = list(model.state_dict())
    parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, own in parts.items():
        save_file({name: model.state_dict()[name] for name in own}, tmp_path / file)
    with pytest.raises(FewSpikesError, match=r"it has several: a\.safetensors, b\.safetensors; give one of them"):
        load_weights(resnet8(), tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, own in parts.items() for name in own}}))
    loaded = resnet8()
    load_weights(loaded, tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    for content in ("{", "{}", '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": 3}'):
        index.write_text(content)
        with pytest.raises(FewSpikesError, match="is no index of weights"):
            load_weights(resnet8(), tmp_path)


def test_a_folder_without_weights_says_so(tmp_path):
    (tmp_path / "readme.txt").write_text("")
    with pytest.raises(
        FewSpikesError, match=r"one file of weights was looked for in .*; it has none; give a \.safetensors"
    ):
        load_weights(resnet8(), tmp_path)


def test_a_tensor_with_two_names_may_be_there_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.outer.weight = self.inner.weight

    save_file({"inner.weight": torch.ones(4, 4)}, tmp_path / "w.safetensors")
    tied = Tied()
    load_weights(tied, tmp_path / "w.safetensors")
    assert torch.equal(tied.outer.weight, torch.ones(4, 4))
    save_file({"inner.weight": torch.ones(4, 4)}, tmp_path / "w.safetensors")
    untied = Tied()
    untied.outer.weight = nn.Parameter(torch.zeros(4, 4))
    with pytest.raises(FewSpikesError, match=r"missing outer\.weight"):
        load_weights(untied, tmp_path / "w.safetensors")


@pytest.mark.parametrize("spec", ["timm:resnet10t", "torchvision:mobilenet_v3_small"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_trained_weights_of_a_librarys_model_come_from_a_local_file(tmp_path, spec, suffix):
    pytest.importorskip("timm"), pytest.importorskip("torchvision")
    model, file = load_model(spec, random=True).model, tmp_path / f"model.{suffix}"
    write = save_file if suffix == "safetensors" else torch.save
    write(model.state_dict(), file)
    for path in (file, tmp_path):
        loaded = load_model(spec, str(path)).model
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_missing_weights_file_raises(tmp_path):
    with pytest.raises(FewSpikesError, match=r"no weights file .*w\.safetensors"):
        load_model("fewspikes:resnet8", str(tmp_path / "w.safetensors"))


def test_a_broken_weights_file_raises(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"broken")
    with pytest.raises(FewSpikesError, match=r"w\.safetensors is no readable safetensors file"):
        load_model("fewspikes:resnet8", str(tmp_path / "w.safetensors"))


# Weights from the network


@pytest.mark.parametrize("spec", ["timm:resnet18", "timm:legacy_seresnet18", "torchvision:resnet18"])
def test_weights_that_cannot_be_fetched_raise_within_seconds(no_network, spec):
    pytest.importorskip("timm"), pytest.importorskip("torchvision")
    start = time.monotonic()
    with pytest.raises(FewSpikesError, match=rf"trained weights of {spec} could not be fetched \(.*\); {REMEDIES}$"):
        load_model(spec)
    assert time.monotonic() - start < 5


def test_what_is_written_while_weights_are_fetched_goes_to_stderr(capsys):
    with fetching("a model"):
        sys.stdout.write("Downloading\n")
    assert capsys.readouterr() == ("", "Downloading\n")


def test_weights_in_hugging_faces_cache_need_no_network(no_network):
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18")
    place = no_network / "models--timm--resnet18.a1_in1k"
    for folder, content in (("refs", "0" * 40), (f"snapshots/{'0' * 40}", None)):
        (place / folder).mkdir(parents=True)
        if content:
            (place / folder / "main").write_text(content)
    save_file(model.state_dict(), place / "snapshots" / ("0" * 40) / "model.safetensors")
    loaded = load_model("timm:resnet18")
    assert torch.equal(loaded.model.conv1.weight, model.conv1.weight)
    assert loaded.preprocessing == Preprocessing.from_timm(model)


def test_weights_in_torchs_cache_need_no_network(no_network):
    models = pytest.importorskip("torchvision").models
    model = models.mobilenet_v3_small()
    place = no_network.parent / "torch/hub/checkpoints"
    place.mkdir(parents=True)
    torch.save(model.state_dict(), place / models.MobileNet_V3_Small_Weights.DEFAULT.url.rpartition("/")[2])
    loaded = load_model("torchvision:mobilenet_v3_small")
    assert torch.equal(loaded.model.classifier[0].weight, model.classifier[0].weight)


def test_a_timm_model_without_trained_weights_raises():
    pytest.importorskip("timm")
    with pytest.raises(FewSpikesError, match="timm has no trained weights for test_vit4; give them with --weights"):
        load_model("timm:test_vit4")


# The user's own file


def test_a_users_function_gives_its_module_as_it_made_it(user_file):
    file = user_file("from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(2, 3), nn.Dropout())\n")
    loaded = load_model(f"{file}:build")
    assert loaded.model.training
    assert loaded.preprocessing is None
    assert loaded.name == "net.py:build"


def test_a_users_function_takes_weights_from_a_file(user_file, tmp_path):
    file = user_file("from torch import nn\ndef build():\n    return nn.Linear(2, 3)\n")
    save_file({"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    assert load_model(f"{file}:build", str(tmp_path / "w.safetensors")).model.weight.eq(1).all()


def test_a_users_file_imports_its_neighbours_and_leaves_the_path_alone(user_file):
    user_file("from torch import nn\nclass Net(nn.Linear):\n    pass\n", "layers_of_mine.py")
    file = user_file("def build():\n    from layers_of_mine import Net\n    return Net(1, 1)\n")
    before = list(sys.path)
    assert type(load_model(f"{file}:build").model).__name__ == "Net"
    assert sys.path == before


def test_a_users_file_hides_no_module_of_its_name(user_file):
    import colorsys

    file = user_file("from torch import nn\nbuild = lambda: nn.Linear(1, 1)\n", "colorsys.py")
    load_model(f"{file}:build")
    assert sys.modules["colorsys"] is colorsys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def bild():\n    pass\n", r"net.py has no function 'build'; did you mean bild\?"),
        ("build = 3\n", "net.py has no function 'build'"),
        ("def build():\n    raise OSError('no disk')\n", r"net.py:build\(\) failed: OSError: no disk; call it"),
        ("def build(size):\n    pass\n", r"net.py:build\(\) failed: TypeError"),
        ("def build():\n    return {}\n", r"net.py:build\(\) returned dict; it must return the trained nn.Module"),
        ("import no_such_module\n", "net.py cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def build(:\n", "net.py cannot be imported: SyntaxError"),
    ],
)
def test_a_users_file_that_fails_raises_one_line(user_file, text, message):
    with pytest.raises(FewSpikesError, match=message) as raised:
        load_model(f"{user_file(text)}:build")
    assert "\n" not in str(raised.value)


def test_a_missing_users_file_raises(tmp_path):
    with pytest.raises(FewSpikesError, match=r"no file .*nowhere\.py; give path/to/file\.py:function"):
        load_model(f"{tmp_path}/nowhere.py:build")


def test_random_weights_for_a_users_file_raise(user_file):
    with pytest.raises(FewSpikesError, match=r"--random-weights does not go with .*net\.py:build"):
        load_model(f"{user_file('')}:build", random=True)
