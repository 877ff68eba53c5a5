"""Preprocessing, layouts, splits, class numbers: on real photographs, and on every way that data can be wrong."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fewspikes.data import Preprocessing, data_folder, loader, open_images, read_image
from fewspikes.data.extras import require
from fewspikes.errors import FewSpikesError, FewSpikesWarning
from fewspikes.models.photographs import photographs

pytest.importorskip("torchvision", reason="needs the extra vision")

SMALL = Preprocessing(size=(24, 32), mean=(0.5,) * 3, std=(0.25,) * 3, resize=(24, 32), interpolation="bilinear")
CIFAR = Preprocessing(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def photos():
    try:
        return photographs()
    except FewSpikesError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def data():
    if not os.environ.get("FEWSPIKES_DATA"):
        pytest.skip("needs FEWSPIKES_DATA, the folder with cifar10 and imagenet-sample")
    return Path(os.environ["FEWSPIKES_DATA"])


@pytest.fixture
def save(photos, tmp_path):
    """Save a small copy of a photograph as a PNG file below the test's folder."""

    def save(place, photo="chelsea"):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        photos[photo].resize((32, 24)).save(file)
        return file

    return save


@pytest.fixture
def write_parquet(photos, tmp_path):
    """Write photographs as a Parquet file of the Hugging Face layout, by pyarrow."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    def write(name, labels, image="img", label="label", contents=None, **options):
        contents = contents or [png(list(photos.values())[i % len(photos)]) for i in range(len(labels))]
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"bytes": content, "path": None} for content in contents]
        images = pyarrow.array(rows, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
        columns = {image: images, label: pyarrow.array(labels, pyarrow.int64())} if label else {image: images}
        parquet.write_table(pyarrow.table(columns), file, **options)
        return file

    return write


def png(photo):
    import io

    buffer = io.BytesIO()
    photo.resize((32, 24)).save(buffer, "PNG")
    return buffer.getvalue()


# Preprocessing


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


# Optional packages


def test_importing_data_and_models_loads_no_optional_package():
    optional = (
        "{'torchvision', 'timm', 'datasets', 'pyarrow', 'skimage', 'sklearn', 'PIL', 'efficientnet_lite_pytorch'}"
    )
    code = f"import sys, fewspikes.data, fewspikes.models; print(sorted({optional} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_raises_naming_the_extra_that_brings_it():
    with pytest.raises(FewSpikesError, match=r"this work needs no_such; pip install 'fewspikes\[demo\]'"):
        require("no_such.part", "this work", extra="demo")


# Class folders


def test_class_folders_give_sorted_classes_and_their_photographs(save, tmp_path, photos):
    save("test/dog/1.png", "coffee"), save("test/cat/2.png", "china"), save("test/cat/1.PNG", "chelsea")
    (tmp_path / "test/cat/notes.txt").write_text("no image")
    data = open_images(tmp_path, "evaluation", SMALL, classes=2)
    assert data.labels.tolist() == [0, 0, 1]
    assert [label for _, label in data] == [0, 0, 1]
    for (x, _), photo in zip(data, ("chelsea", "china", "coffee"), strict=True):
        assert torch.equal(x, SMALL.transform()(photos[photo].resize((32, 24))))


def test_images_one_folder_below_their_class_are_found(save, tmp_path):
    save("train/cat/images/1.png"), save("train/dog/images/1.png")
    assert open_images(tmp_path, "train", SMALL, classes=2).labels.tolist() == [0, 1]


def test_evaluation_prefers_test_to_val(save, tmp_path):
    save("train/cat/1.png"), save("val/cat/1.png"), save("test/cat/1.png")
    assert open_images(tmp_path, "evaluation", SMALL, classes=1).split == "test"


def test_train_is_read_from_train(save, tmp_path):
    save("train/cat/1.png"), save("val/cat/1.png")
    assert open_images(tmp_path, "train", SMALL, classes=1).split == "train"


def test_evaluation_on_train_alone_warns(save, tmp_path):
    save("train/cat/1.png")
    with pytest.warns(FewSpikesWarning, match=r"no split for evaluation .* its split 'train' is used") as caught:
        assert open_images(tmp_path, "evaluation", SMALL, classes=1).split == "train"
    assert caught[0].filename == __file__


def test_train_on_val_alone_warns(save, tmp_path):
    save("val/cat/1.png")
    with pytest.warns(FewSpikesWarning, match=r"no split for calibration .* its split 'val' is used"):
        open_images(tmp_path, "train", SMALL, classes=1)


def test_class_folders_without_splits_serve_evaluation_in_silence_and_train_with_a_warning(save, tmp_path):
    save("cat/1.png"), save("dog/1.png")
    assert open_images(tmp_path, "evaluation", SMALL, classes=2).split == "all"
    with pytest.warns(FewSpikesWarning, match="its split 'all' is used"):
        open_images(tmp_path, "train", SMALL, classes=2)


def test_a_class_named_train_is_no_split(save, tmp_path):
    save("car/1.png"), save("train/1.png")
    assert open_images(tmp_path, "all", SMALL, classes=2).labels.tolist() == [0, 1]


def test_validation_and_val_are_one_name(save, tmp_path):
    save("val/cat/1.png")
    assert open_images(tmp_path, "validation", SMALL, classes=1).split == "val"


def test_a_split_that_is_not_there_raises_listing_those_that_are(save, tmp_path):
    save("train/cat/1.png"), save("val/cat/1.png")
    with pytest.raises(FewSpikesError, match="has no split 'test'; it has train, val"):
        open_images(tmp_path, "test", SMALL, classes=1)


def test_another_number_of_class_folders_than_the_head_has_raises(save, tmp_path):
    save("test/cat/1.png"), save("test/dog/1.png")
    with pytest.raises(
        FewSpikesError, match=r"has 2 class folders \(cat, dog\), where the network has 10 classes; give"
    ):
        open_images(tmp_path, "evaluation", SMALL, classes=10)


def test_any_number_of_class_folders_goes_without_a_head(save, tmp_path):
    save("test/cat/1.png"), save("test/dog/1.png")
    assert open_images(tmp_path, "evaluation", SMALL, classes=None).labels.tolist() == [0, 1]


# ImageNet's folders


def test_every_second_imagenet_folder_keeps_its_number_among_1000(data):
    images = open_images(data / "imagenet-sample", "evaluation", SMALL, classes=1000)
    assert images.labels.tolist() == list(range(0, 1000, 2))


def test_the_split_folder_itself_finds_the_class_list_above_it(data):
    images = open_images(data / "imagenet-sample" / "val", "evaluation", SMALL, classes=1000, limit=3)
    assert images.split == "all"
    assert all(images.labels % 2 == 0)


def test_without_a_class_list_timm_knows_imagenets_order(save, tmp_path):
    pytest.importorskip("timm")
    save("val/n01440764/1.png"), save("val/n01484850/1.png")  # tench is 0, great white shark 2
    assert open_images(tmp_path, "evaluation", SMALL, classes=1000).labels.tolist() == [0, 2]


def test_imagenet_folders_of_a_head_of_their_own_number_are_sorted(save, tmp_path):
    save("val/n01440764/1.png"), save("val/n01484850/1.png")
    assert open_images(tmp_path, "evaluation", SMALL, classes=2).labels.tolist() == [0, 1]


def test_without_a_head_class_folders_are_numbered_in_order(save, tmp_path):
    save("val/n01440764/1.png"), save("val/n01484850/1.png")
    assert open_images(tmp_path, "evaluation", SMALL, classes=None).labels.tolist() == [0, 1]


def test_imagenet_folders_for_a_head_of_another_size_raise(save, tmp_path):
    save("val/n01440764/1.png")
    with pytest.raises(FewSpikesError, match=r"1 class folders .* the network has 10 classes"):
        open_images(tmp_path, "evaluation", SMALL, classes=10)


def test_an_unknown_wordnet_number_raises(save, tmp_path):
    pytest.importorskip("timm")
    save("val/n01440764/1.png"), save("val/n99999999/1.png")
    with pytest.raises(FewSpikesError, match=r"1 folders that are not among ImageNet's 1000 classes \(n99999999\)"):
        open_images(tmp_path, "evaluation", SMALL, classes=1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\n1\tn01440764\n", "wanted tab-separated columns index and wnid"),
        ("index\twnid\nx\tn01440764\n", "wanted tab-separated columns index and wnid"),
        ("index\twnid\n0\tn01440764\n", "every index from 0 to 999 once; it lists 1 wnids"),
    ],
)
def test_a_broken_class_list_raises(save, tmp_path, text, message):
    save("val/n01440764/1.png")
    (tmp_path / "classes.tsv").write_text(text)
    with pytest.raises(FewSpikesError, match=message):
        open_images(tmp_path, "evaluation", SMALL, classes=1000)


# Limit


def test_a_limit_draws_a_subset_that_the_seed_decides(data):
    def draw(seed):
        return open_images(data / "cifar10", "test", CIFAR, classes=10, limit=100, seed=seed).labels.tolist()

    assert len(draw(0)) == 100
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_a_subset_of_sorted_data_holds_all_classes_in_the_datas_order(data):
    labels = open_images(data / "cifar10", "test", CIFAR, classes=10, limit=200).labels.tolist()
    assert set(labels) == set(range(10))
    assert labels == sorted(labels)


def test_a_limit_beyond_the_data_takes_all(save, tmp_path):
    save("test/cat/1.png")
    assert len(open_images(tmp_path, "test", SMALL, classes=1, limit=10)) == 1


def test_a_limit_of_nothing_raises(save, tmp_path):
    save("test/cat/1.png")
    with pytest.raises(FewSpikesError, match="limit must be >= 1; got 0"):
        open_images(tmp_path, "test", SMALL, classes=1, limit=0)


# What is no data


def test_a_missing_folder_raises(tmp_path):
    with pytest.raises(FewSpikesError, match=r"no folder .*nowhere; give the folder"):
        open_images(tmp_path / "nowhere", "test", SMALL, classes=1)


def test_an_empty_folder_raises_showing_the_layouts(tmp_path):
    with pytest.raises(FewSpikesError, match=r"no images in a known layout; wanted .*<split>-\*.parquet$"):
        open_images(tmp_path, "test", SMALL, classes=1)


def test_photographs_without_class_folders_raise(save, tmp_path):
    save("1.png")
    with pytest.raises(FewSpikesError, match="no images in a known layout"):
        open_images(tmp_path, "test", SMALL, classes=1)


def test_class_folders_without_images_raise(tmp_path):
    (tmp_path / "test/cat").mkdir(parents=True)
    with pytest.raises(FewSpikesError, match=r"no images in the class folders of .*test; wanted"):
        open_images(tmp_path, "test", SMALL, classes=1)


def test_the_folder_above_the_data_raises_naming_the_data(save, tmp_path):
    save("photos/test/cat/1.png")
    with pytest.raises(FewSpikesError, match=r"did you mean .*photos\?$"):
        open_images(tmp_path, "test", SMALL, classes=1)


def test_a_text_file_called_jpg_raises_by_name_when_it_is_read(save, tmp_path):
    save("test/cat/1.png")
    (tmp_path / "test/cat/x.jpg").write_text("hello")
    data = open_images(tmp_path, "test", SMALL, classes=1)
    assert data[0][1] == 0
    with pytest.raises(FewSpikesError, match=r"x\.jpg is not an image that can be read; remove it"):
        data[1]


def test_a_truncated_photograph_raises_by_name(photos, save, tmp_path):
    file = save("test/cat/1.png").with_suffix(".jpg")
    photos["china"].save(file)
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(FewSpikesError, match=r"1\.jpg is damaged \(image file is truncated.*fetch it again"):
        open_images(tmp_path, "test", SMALL, classes=1)[0]


def test_an_image_of_the_wrong_size_raises_by_name(save, tmp_path):
    save("test/cat/1.png")
    with pytest.raises(FewSpikesError, match=r"1\.png: an image of 24 x 32 pixels .* takes 32 x 32"):
        open_images(tmp_path, "test", CIFAR, classes=1)[0]


# Parquet


def test_files_that_hugging_face_writes_are_read_back(photos, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "cup", "sky"])})
    small = [photos[name].resize((32, 24)) for name in ("chelsea", "coffee", "rocket")]
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict({"image": small, "label": [0, 1, 2]}, features=features)
    table.to_parquet(tmp_path / "test-00000-of-00001.parquet")
    data = open_images(tmp_path, "evaluation", SMALL, classes=3)
    assert data.labels.tolist() == [0, 1, 2]
    for (x, _), photo in zip(data, small, strict=True):
        assert torch.equal(x, SMALL.transform()(photo))


def test_several_files_and_row_groups_keep_their_order(write_parquet, photos, tmp_path):
    write_parquet("data/train-00001-of-00002.parquet", [5, 6, 7], row_group_size=2)
    write_parquet("data/train-00000-of-00002.parquet", [0, 1, 2, 3, 4], row_group_size=2)
    data = open_images(tmp_path, "train", SMALL, classes=8)
    assert data.labels.tolist() == list(range(8))
    expected = [SMALL.transform()(photo.resize((32, 24))) for photo in photos.values()]
    for i in (7, 0, 4, 5, 3, 6):  # each file starts with the first photograph
        assert torch.equal(data[i][0], expected[i if i < 5 else i - 5])


def test_other_column_names_are_found_by_their_types(write_parquet, tmp_path):
    write_parquet("test.parquet", [0, 1], image="photo", label="fine_label")
    assert open_images(tmp_path, "test", SMALL, classes=2).labels.tolist() == [0, 1]


def test_a_missing_shard_warns(write_parquet, tmp_path):
    write_parquet("test-00000-of-00003.parquet", [0, 1])
    with pytest.warns(FewSpikesWarning, match="holds 1 of the 3 files of split 'test'; only they are used") as caught:
        open_images(tmp_path, "test", SMALL, classes=2)
    assert caught[0].filename == __file__


def test_a_label_beyond_the_head_raises_naming_it(write_parquet, tmp_path):
    write_parquet("test.parquet", [0, 3])
    with pytest.raises(FewSpikesError, match="has label 3, where the network has classes 0 to 1"):
        open_images(tmp_path, "test", SMALL, classes=2)


def test_a_label_below_zero_raises_naming_it(write_parquet, tmp_path):
    write_parquet("test.parquet", [0, -1])
    with pytest.raises(FewSpikesError, match="has label -1"):
        open_images(tmp_path, "test", SMALL, classes=2)


def test_a_row_without_a_label_raises(write_parquet, tmp_path):
    write_parquet("test.parquet", [0, None])
    with pytest.raises(FewSpikesError, match="1 rows without a label"):
        open_images(tmp_path, "test", SMALL, classes=2)


def test_no_label_column_raises_listing_the_columns(write_parquet, tmp_path):
    write_parquet("test.parquet", [0, 1], label=None)
    with pytest.raises(FewSpikesError, match="0 label columns among img; wanted one of integers, named label"):
        open_images(tmp_path, "test", SMALL, classes=2)


def test_no_image_column_raises_listing_the_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": ["a"], "label": [0]}), tmp_path / "test.parquet")
    with pytest.raises(FewSpikesError, match="0 image columns among text, label; wanted one struct"):
        open_images(tmp_path, "test", SMALL, classes=2)


def test_a_file_without_rows_raises(write_parquet, tmp_path):
    write_parquet("test.parquet", [])
    with pytest.raises(FewSpikesError, match=r"test\.parquet has no rows"):
        open_images(tmp_path, "test", SMALL, classes=2)


@pytest.mark.parametrize("content", [None, b"no image"])
def test_a_row_that_holds_no_image_raises_naming_file_and_row(write_parquet, photos, tmp_path, content):
    write_parquet("test-0.parquet", [0, 1, 0])
    write_parquet("test-1.parquet", [0, 1], contents=[png(photos["china"]), content])
    with pytest.raises(FewSpikesError, match=r"test-1\.parquet row 1 (holds no image bytes|is not an image)"):
        open_images(tmp_path, "test", SMALL, classes=2)[4]


def test_a_broken_parquet_file_raises_by_name(write_parquet, tmp_path):
    file = write_parquet("test.parquet", [0, 1])
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(FewSpikesError, match=r"test\.parquet is no readable Parquet file .* fetch it again"):
        open_images(tmp_path, "test", SMALL, classes=2)


def test_damaged_image_pages_raise_by_name(write_parquet, tmp_path):
    file = write_parquet("test.parquet", [0] * 6)
    content = file.read_bytes()
    file.write_bytes(content[:4] + b"\xff" * 3000 + content[3004:])  # the image column comes first
    with pytest.raises(FewSpikesError, match=r"test\.parquet"):
        open_images(tmp_path, "test", SMALL, classes=2)[0]


def test_cifar10_has_1000_test_images_of_each_class(data):
    images = open_images(data / "cifar10", "evaluation", CIFAR, classes=10)
    assert images.split == "test"
    assert np.bincount(images.labels).tolist() == [1000] * 10


def test_reading_parquet_writes_nothing(write_parquet, tmp_path, monkeypatch):
    for variable in ("HF_HOME", "XDG_CACHE_HOME", "TMPDIR"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    write_parquet("test.parquet", [0, 1])
    before = sorted(tmp_path.rglob("*"))
    list(open_images(tmp_path, "test", SMALL, classes=2))
    assert sorted(tmp_path.rglob("*")) == before


# Loader


def test_a_loader_keeps_the_order_and_the_rest(data):
    images = open_images(data / "cifar10", "test", CIFAR, classes=10, limit=10)
    batches = list(loader(images, batch_size=4))
    assert [tuple(x.shape) for x, _ in batches] == [(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
    assert torch.cat([y for _, y in batches]).tolist() == images.labels.tolist()
    assert torch.equal(batches[1][0][0], images[4][0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, from Python 3.12 on
def test_worker_processes_read_the_same_batches(data):
    images = open_images(data / "cifar10", "test", CIFAR, classes=10, limit=8)
    assert images[0]  # a row group is held in this process, which the worker must not inherit
    for (x, y), (x1, y1) in zip(loader(images, 3), loader(images, 3, workers=1), strict=True):
        assert torch.equal(x, x1)
        assert torch.equal(y, y1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_in_a_loader_raises_one_line(save, tmp_path, workers):
    save("test/cat/1.png").write_text("no image")
    batches = loader(open_images(tmp_path, "test", SMALL, classes=1), 1, workers)
    with pytest.raises(FewSpikesError, match=r"^.*1\.png is not an image that can be read; [^\n]*$"):
        list(batches)


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 0), (1, -1)])
def test_a_loader_out_of_range_raises(batch_size, workers):
    with pytest.raises(FewSpikesError, match="batch_size must be >= 1 and workers >= 0"):
        loader([], batch_size, workers)


# Folder and file by name


def test_the_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("FEWSPIKES_DATA", "there")
    assert data_folder("here") == Path("here")
    assert data_folder(None) == Path("there")


def test_no_data_folder_raises_naming_both_ways(monkeypatch):
    monkeypatch.delenv("FEWSPIKES_DATA", raising=False)
    with pytest.raises(FewSpikesError, match="give --data DIR, or set the environment variable FEWSPIKES_DATA"):
        data_folder(None)


def test_a_photograph_is_turned_upright(photos, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned by 90 degrees
    photos["coffee"].save(tmp_path / "turned.jpg", exif=exif)
    assert photos["coffee"].size == (600, 400)
    assert read_image(tmp_path / "turned.jpg").size == (400, 600)


def test_a_missing_photograph_raises(tmp_path):
    with pytest.raises(FewSpikesError, match=r"no image file .*cat\.jpg"):
        read_image(tmp_path / "cat.jpg")


def test_a_photograph_that_is_none_raises(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"")
    with pytest.raises(FewSpikesError, match=r"cat\.jpg is not an image that can be read"):
        read_image(tmp_path / "cat.jpg")
