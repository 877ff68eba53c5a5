"""Tar shards of the WebDataset layout: the photographs that went in come out, and a broken shard says so."""

import io
import json
import tarfile

import pytest
import torch

from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.images import loader, open_images
from images import SMALL, png

pytest.importorskip("torchvision", reason="needs the extra vision")


@pytest.fixture
def shard(tmp_path):
    """Write a shard of (name, content) pairs and return its path."""

    def write(name, members):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for member, content in members:
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return path

    return write


def sample(key, label, photo):
    return [(f"{key}.jpg", png(photo)), (f"{key}.cls", str(label).encode())]


def test_shards_give_the_photographs_and_labels_in_their_order(shard, tmp_path, photos):
    shard("set-test-000000.tar", sample("b", 1, photos["chelsea"]) + sample("a", 0, photos["coffee"]))
    shard("set-test-000001.tar", [*sample("c", 1, photos["china"]), ("c.seg.png", png(photos["coffee"]))])
    shard("set-train-000000.tar", sample("t", 0, photos["coffee"]))
    data = open_images(tmp_path, "evaluation", SMALL, classes=2)
    assert (data.split, data.labels.tolist()) == ("test", [1, 0, 1])
    for (x, _), photo in zip(data, ("chelsea", "coffee", "china"), strict=True):
        assert torch.equal(x, SMALL.transform()(photos[photo].resize((32, 24))))


def test_a_sample_is_found_in_a_folder_of_the_shard_and_labelled_by_json(shard, tmp_path, photos):
    shard("0.tar", [("x/a.jpg", png(photos["coffee"])), ("x/a.json", json.dumps({"label": 1}).encode())])
    data = open_images(tmp_path, "evaluation", SMALL, classes=2)
    assert (data.split, data.labels.tolist()) == ("all", [1])
    assert torch.equal(data[0][0], SMALL.transform()(photos["coffee"].resize((32, 24))))


def test_shards_in_folders_of_splits_are_found(shard, tmp_path, photos):
    shard("val/00.tar", sample("a", 0, photos["coffee"]))
    shard("train/00.tar", sample("a", 1, photos["china"]))
    assert open_images(tmp_path, "train", SMALL, classes=2).labels.tolist() == [1]
    assert open_images(tmp_path, "evaluation", SMALL, classes=2).split == "val"


def test_class_folders_win_over_an_archive_beside_them(save, shard, tmp_path):
    save("val/cat/1.png")
    shard("ILSVRC2012_img_val.tar", [("ILSVRC2012_val_00000001.JPEG", b"")])
    assert open_images(tmp_path, "evaluation", SMALL, classes=1).labels.tolist() == [0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, from Python 3.12 on
def test_worker_processes_read_shards(shard, tmp_path, photos):
    names = ("coffee", "china", "chelsea")
    shard("test-0.tar", [m for i, name in enumerate(names) for m in sample(str(i), i, photos[name])])
    images = open_images(tmp_path, "test", SMALL, classes=3)
    (x, y), (x1, y1) = next(iter(loader(images, 3))), next(iter(loader(images, 3, workers=1)))
    assert torch.equal(x, x1)
    assert y.tolist() == y1.tolist() == [0, 1, 2]


def middle(file):
    """The first byte of the third sample's header."""
    with tarfile.open(file) as tar:
        return tar.getmembers()[4].offset


@pytest.mark.parametrize(
    "broken",
    [
        lambda content, at: content[: at + 700],  # within an image
        lambda content, at: content[: at + 100],  # within a header
        lambda content, at: content[:at],
        lambda content, at: content[:at] + bytes(2048) + content[at + 2048 :],
        lambda content, at: content[:at] + b"x" * 512 + content[at + 512 :],
        lambda content, at: content[:at] + bytes(3 << 20),  # room was made for a download that never came
    ],
)
def test_a_shard_that_is_not_whole_raises_by_name(shard, tmp_path, photos, broken):
    file = shard("test-0.tar", [m for i in range(4) for m in sample(str(i), i % 2, photos["coffee"])])
    assert len(open_images(tmp_path, "test", SMALL, classes=2)) == 4
    file.write_bytes(broken(file.read_bytes(), middle(file)))
    with pytest.raises(FewSpikesError, match=r"test-0\.tar is no whole tar file \(.*\); fetch it again"):
        open_images(tmp_path, "test", SMALL, classes=2)


def test_a_class_number_in_cls_wins_over_one_in_json(shard, tmp_path, photos):
    image, label = sample("a", 1, photos["coffee"])
    shard("test-0.tar", [("a.json", b'{"label": 0}'), label, image])
    shard("test-1.tar", [image, label, ("a.json", b'{"label": 0}')])
    shard("test-2.tar", [("c.jpg", image[1]), ("c.json", b'{"label": "cat", "cls": 1}')])
    assert open_images(tmp_path, "test", SMALL, classes=2).labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], r"has 1 images without a label, the first a; wanted a class number in KEY\.cls"),
        ([("a.jpg", b"x"), ("a.json", b'{"caption": "cat"}')], "has 1 images without a label"),
        ([("a.jpg", b"x"), ("a.cls", b"cat")], r"a\.cls holds no class number; make the shard again"),
        ([("a.jpg", b"x"), ("a.json", b"[" * 100_000)], r"a\.json holds no JSON; make the shard again"),
        (
            [("a.jpg", b"x"), ("a.json", b'{"label": 9223372036854775808}')],
            r"a\.json holds no class number but one of 19 digits",
        ),
        ([("a.jpg", b"x"), ("a.cls", b"9223372036854775808")], r"a\.cls holds no class number but one of 19 digits"),
        ([("a.jpg", b"x"), ("a.json", b"{")], r"a\.json holds no JSON; make the shard again"),
        ([("a.jpg", b"x"), ("a.cls", b"9" * 30)], r"a\.cls holds no class number but one of 30 digits"),
        (
            [("a.jpg", b"x"), ("a.json", b'{"label": 9223372036854775808}')],
            "class number but one of 19",
        ),
        ([("a.jpg", b"x"), ("a.json", b'{"label": true}')], "has 1 images without a label"),
        ([("a.jpg", b"x"), ("a.cls", b"5")], "has label 5, where the network has classes 0 to 1"),
        ([("a.txt", b"x")], r"holds no images; wanted samples such as 0001\.jpg"),
    ],
)
def test_a_shard_that_cannot_serve_raises(shard, tmp_path, members, message):
    shard("test-0.tar", members)
    with pytest.raises(FewSpikesError, match=message):
        open_images(tmp_path, "test", SMALL, classes=2)


PAX = b"30 size=-1024".ljust(29) + b"\n"


def header(name, size, kind=tarfile.REGTYPE):
    """A member's header with any size in it."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size % (1 << 95) | 1 << 95).to_bytes(12, "big")  # in base 256, below 0 as a complement
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "content",
    [
        header("a.jpg", -512) + bytes(2048),
        header("a.jpg", -1024) + header("b.jpg", -1024) + bytes(2048),
        header("a.jpg", 1 << 80) + bytes(2048),
        header("x", -512, tarfile.XHDTYPE) + bytes(2048),
        header("x", 1 << 60, tarfile.GNUTYPE_LONGNAME) + bytes(2048),
        (header("x", 5, tarfile.GNUTYPE_LONGNAME) + b"name".ljust(512, b"\0")) * 3000 + bytes(2048),
        header("x", 30, tarfile.XHDTYPE)
        + b"30 size=-1024".ljust(29)
        + b"\n"
        + bytes(482)
        + header("a.jpg", 3)
        + bytes(2048),
        header("a.jpg", 512, tarfile.GNUTYPE_SPARSE) + bytes(3072),
    ],
    ids=["back", "back twice", "far", "pax back", "long name", "many names", "size in pax", "holes"],
)
def test_a_shard_of_forged_lengths_ends_in_one_line(tmp_path, content):
    (tmp_path / "test-0.tar").write_bytes(content)
    with pytest.raises(FewSpikesError, match=r"test-0\.tar") as error:
        open_images(tmp_path, "test", SMALL, classes=2)
    assert len(str(error.value).splitlines()) == 1


def test_a_text_called_tar_raises(tmp_path):
    (tmp_path / "test-0.tar").write_text("hello")
    with pytest.raises(FewSpikesError, match=r"test-0\.tar is no whole tar file"):
        open_images(tmp_path, "test", SMALL, classes=2)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("test-000", "test-003"), r"holds 2 of 4 shards test-\*\.tar; only they are used"),
        (("test-00000-of-00007", "test-00001-of-00007"), r"holds 2 of 7 shards test-\*\.tar"),
        (("test-1734567890123", "test-1834567890123"), r"holds 2 of 100,000,000,001 shards"),
    ],
)
def test_missing_shards_are_named_in_a_warning(shard, tmp_path, photos, names, message):
    for name in names:
        shard(f"{name}.tar", sample("a", 0, photos["coffee"]))
    with pytest.warns(FewSpikesWarning, match=message):
        assert len(open_images(tmp_path, "test", SMALL, classes=2)) == 2


def test_shards_of_other_names_are_counted_apart(shard, tmp_path, photos):
    for name in ("cats-test-3", "dogs-test-99", "dogs-test-100"):
        shard(f"{name}.tar", sample("a", 0, photos["coffee"]))
    assert len(open_images(tmp_path, "test", SMALL, classes=2)) == 3


def test_a_damaged_image_is_named_by_its_shard(shard, tmp_path):
    shard("test-0.tar", [("dir/a.jpg", b"no image"), ("dir/a.cls", b"0")])
    with pytest.raises(FewSpikesError, match=r"test-0\.tar: dir/a\.jpg is not an image that can be read"):
        open_images(tmp_path, "test", SMALL, classes=2)[0]
