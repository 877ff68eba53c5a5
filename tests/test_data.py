"""Layouts, splits, class numbers, loaders: on real photographs, and on every way that folders can be wrong."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.base.extras import require
from fewspikes.images import data_folder, loader, open_images, read_image
from images import CIFAR, SMALL

pytest.importorskip("torchvision", reason="needs the extra vision")


# Optional packages


def test_importing_data_and_models_loads_no_optional_package():
    optional = (
        "{'torchvision', 'timm', 'datasets', 'pyarrow', 'skimage', 'sklearn', 'PIL', 'efficientnet_lite_pytorch'}"
    )
    code = f"import sys, fewspikes.images, fewspikes.models; print(sorted({optional} & set(sys.modules)))"
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
        ("index\twnid\n0\t" + "n" * 200_000, "wanted tab-separated columns index and wnid"),
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
    with pytest.raises(FewSpikesError, match="limit must be a whole number >= 1; got 0"):
        open_images(tmp_path, "test", SMALL, classes=1, limit=0)


# What is no data


def test_a_sub_folder_that_is_closed_is_named(save, tmp_path, monkeypatch):
    save("test/cat/1.png"), save("test/dog/1.png")
    listed = Path.iterdir

    def closed(folder):
        if folder.name == "dog":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(FewSpikesError, match=r"cannot read the folder .*dog: Permission denied; check its permissions"):
        open_images(tmp_path, "test", SMALL, classes=2)


@pytest.mark.parametrize("split", [None, 3, {"a": 1}, "x" * 5000], ids=lambda split: type(split).__name__)
def test_a_split_that_is_no_name_of_one_raises_in_one_short_line(save, tmp_path, split):
    save("test/cat/1.png")
    with pytest.raises(FewSpikesError, match="split") as error:
        open_images(tmp_path, split, SMALL, classes=1)
    assert len(str(error.value)) < 400


def test_a_missing_folder_raises(tmp_path):
    with pytest.raises(FewSpikesError, match=r"no folder .*nowhere; give the folder"):
        open_images(tmp_path / "nowhere", "test", SMALL, classes=1)


def test_an_empty_folder_raises_showing_the_layouts(tmp_path):
    with pytest.raises(
        FewSpikesError, match=r"no images in a known layout; wanted .*<split>-\*.parquet or .*\*<split>\*.tar$"
    ):
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


# CIFAR-10 as torchvision keeps it


@pytest.fixture
def batches(data, tmp_path, monkeypatch):
    """A small CIFAR-10 in torchvision's files, whose checksums stand for the official ones."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    images = {name: open_images(data / "cifar10", name, CIFAR, 10, limit=6) for name in ("train", "test")}

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for name, split, key in (("data_batch_1", "train", "train_list"), ("test_batch", "test", "test_list")):
        pixels = np.stack([np.asarray(images[split].image(i)).transpose(2, 0, 1).ravel() for i in range(6)])
        checksum = write(name, {"data": pixels, "labels": images[split].labels.tolist()})
        monkeypatch.setattr(CIFAR10, key, [[name, checksum]])
    names = {"label_names": list("abcdefghij")}
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": write("batches.meta", names)})
    return images


@pytest.mark.parametrize("place", [".", "cifar-10-batches-py"])
def test_torchvisions_cifar_gives_the_same_images_as_parquet(batches, tmp_path, place):
    for split, wanted in batches.items():
        found = open_images(tmp_path / place, split, CIFAR, 10)
        assert found.labels.tolist() == wanted.labels.tolist()
        for (x, label), (x1, label1) in zip(found, wanted, strict=True):
            assert torch.equal(x, x1)
            assert label == label1


def test_a_pickle_that_is_not_the_official_one_is_never_opened(batches, tmp_path):
    class Bad:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it ran",)

    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(FewSpikesError, match=r"not the whole official CIFAR-10 .* fetch it again: python -c"):
        open_images(tmp_path, "test", CIFAR, 10)
    assert not (tmp_path / "it ran").exists()


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_images_are_left_out_counted_and_named_by_choice(save, tmp_path, workers):
    for name in "abcde":
        save(f"test/cat/{name}.png")
    for name in "bcd":
        (tmp_path / f"test/cat/{name}.png").write_text("no image")
    images = open_images(tmp_path, "test", SMALL, classes=1)
    batches = loader(images, 2, workers, skip_damaged=True)
    for _ in range(2):  # again on a second pass
        with pytest.warns(FewSpikesWarning, match=r"^3 of 5 images were left out: .*b\.png is not .*d\.png is not"):
            read = list(batches)
        assert [tuple(x.shape) for x, _ in read] == [(1, 3, 24, 32), (1, 3, 24, 32)]  # nothing is left of c and d
        assert torch.equal(read[0][0][0], images[0][0])
        assert torch.equal(read[1][0][0], images[4][0])
        assert [line.partition(" is not ")[0][-5:] for line in batches.left_out] == ["b.png", "c.png", "d.png"]


def test_an_image_of_the_wrong_size_is_never_left_out(save, tmp_path):
    save("test/cat/1.png")
    with pytest.raises(FewSpikesError, match="takes 32 x 32"):
        list(loader(open_images(tmp_path, "test", CIFAR, classes=1), 1, skip_damaged=True))


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 0), (1, -1), (1, 1_000_000)])
def test_a_loader_out_of_range_raises(batch_size, workers):
    with pytest.raises(FewSpikesError, match="(batch_size|workers) must be a whole number"):
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
