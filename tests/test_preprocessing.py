"""From an image to an input: the transforms of timm and torchvision bit for bit, and what is out of range."""

import json
import pickle

import numpy as np
import pytest
import torch

from fewspikes.base.errors import FewSpikesError
from fewspikes.images import Preprocessing
from images import CIFAR, SMALL

pytest.importorskip("torchvision", reason="needs the extra vision")


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "convnextv2_nano.fcmae_ft_in22k_in1k_384", "tf_efficientnet_b7.ra_in1k"]
)
def test_preprocessing_from_timm_equals_timms_own_transform_bit_for_bit(photos, name):
    timm = pytest.importorskip("timm")
    model = torch.nn.Identity()
    model.pretrained_cfg = timm.get_pretrained_cfg(name).to_dict()
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    ours = Preprocessing.from_timm(model).transform()
    for photo in photos.values():
        assert torch.equal(ours(photo), theirs(photo))


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b7", "inception_v3"])
def test_preprocessing_from_torchvision_equals_its_preset_bit_for_bit(photos, name):
    import torchvision

    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    ours = Preprocessing.from_torchvision(name).transform()
    for photo in photos.values():
        assert torch.equal(ours(photo), theirs(photo))


def test_a_pixel_is_divided_by_255_and_normalised_by_its_channel(photos):
    photo = photos["coffee"].crop((100, 100, 132, 132))
    x = CIFAR.transform()(photo)
    red, green, blue = photo.getpixel((5, 7))  # (column, row)
    expected = [(red / 255 - 0.485) / 0.229, (green / 255 - 0.456) / 0.224, (blue / 255 - 0.406) / 0.225]
    assert x.dtype == torch.float32
    assert x.shape == (3, 32, 32)
    assert x[:, 7, 5].tolist() == pytest.approx(expected, abs=1e-6)


def test_resize_sets_the_shorter_side_and_the_crop_takes_the_centre(photos):
    photo = photos["coffee"]  # 600 wide, 400 high: resized to 60 x 40, cropped to columns 14..45 and rows 4..35
    x = Preprocessing((32, 32), (0.0,), (1.0,), resize=40, interpolation="nearest").transform()(photo)
    expected = np.asarray(photo.convert("L").resize((60, 40), 0))[4:36, 14:46] / np.float32(255)
    assert np.array_equal(x[0].numpy(), expected.astype(np.float32))


def test_preprocessing_survives_json():
    for resize in (None, 256, (224, 256)):
        p = Preprocessing((224, 224), (0.498,) * 3, (0.502,) * 3, resize, "bicubic")
        assert Preprocessing.from_json(json.loads(json.dumps(p.to_json()))) == p


def test_a_transform_can_be_sent_to_a_worker_process(photos):
    transform = SMALL.transform()
    assert torch.equal(pickle.loads(pickle.dumps(transform))(photos["china"]), transform(photos["china"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 32)}, "size must be two whole numbers >= 1"),
        ({"size": 32}, "size must be two whole numbers >= 1"),
        ({"mean": (0.5, 0.5)}, "mean and std must hold 1 number .* got 2 and 3"),
        ({"mean": (float("nan"),) * 3}, "mean must be finite"),
        ({"mean": "abc"}, "mean must be a list of numbers"),
        ({"std": (0.5, 0.5, 0.0)}, "std must be > 0"),
        ({"interpolation": "lanczos"}, "interpolation must be one of bicubic, bilinear, nearest; got 'lanczos'"),
        ({"resize": 16}, r"resize 16 is smaller than the crop \(24, 32\)"),
        ({"resize": (24, 31)}, "smaller than the crop"),
    ],
)
def test_preprocessing_out_of_range_raises(change, message):
    with pytest.raises(FewSpikesError, match=message):
        Preprocessing(**{"size": (24, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3, **change})


def test_preprocessing_of_another_version_raises():
    with pytest.raises(FewSpikesError, match="version 2; this library reads 1"):
        Preprocessing.from_json({**SMALL.to_json(), "version": 2})


def test_preprocessing_without_a_field_raises():
    with pytest.raises(FewSpikesError, match="lacks 'mean'"):
        Preprocessing.from_json({"version": 1, "size": [32, 32]})


def test_an_image_of_another_size_without_resize_raises_naming_both_sizes(photos):
    with pytest.raises(FewSpikesError, match=r"400 x 600 pixels .* takes 32 x 32 and no resize is set"):
        CIFAR.transform()(photos["coffee"])


def test_an_image_of_16_bits_raises_instead_of_being_clipped(photos):
    from PIL import Image

    deep = Image.fromarray(np.asarray(photos["coffee"].convert("L")).astype(np.uint16) * 256)
    with pytest.raises(FewSpikesError, match="more than 8 bits a pixel"):
        SMALL.transform()(deep)


def test_a_palette_with_transparency_is_read_without_a_warning(photos):
    palette = photos["coffee"].quantize(16)
    palette.info["transparency"] = bytes(range(16))
    assert SMALL.transform()(palette).shape == (3, 24, 32)


def test_from_timm_refuses_another_model():
    pytest.importorskip("timm")
    with pytest.raises(FewSpikesError, match="Linear is no timm model; give size, mean and std"):
        Preprocessing.from_timm(torch.nn.Linear(1, 1))


def test_from_torchvision_refuses_a_model_that_is_no_classifier():
    with pytest.raises(FewSpikesError, match="fcn_resnet50 is no image classifier but SemanticSegmentation"):
        Preprocessing.from_torchvision("fcn_resnet50")


def test_from_torchvision_names_an_unknown_model():
    with pytest.raises(FewSpikesError, match="no weights for 'resnet19'"):
        Preprocessing.from_torchvision("resnet19")
