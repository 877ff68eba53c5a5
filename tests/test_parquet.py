"""Parquet files in the Hugging Face layout, and every way that they can be wrong."""

import numpy as np
import pytest
import torch

from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.images import open_images
from images import CIFAR, SMALL, png

pytest.importorskip("torchvision", reason="needs the extra vision")


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


def test_secret_labels_raise_naming_another_split(write_parquet, tmp_path):
    write_parquet("test.parquet", [-1, -1])
    with pytest.raises(FewSpikesError, match=r"keeps its labels secret \(all are -1\); give another split"):
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
