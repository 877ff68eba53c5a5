"""Files: whole or not there, sealed, and refused in one line where anything in them has changed."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

import pytest
import torch

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import as_path, write_aside, write_json
from fewspikes.base.plain import from_plain, to_plain
from fewspikes.base.seals import Kind, digest, parsed
from fewspikes.base.tensors import aligned, read_tensors, write_tensors

KIND = Kind("a-format", 3, "thing", "make it again")


def one_line(error):
    return len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 700


# Paths, and what killed processes leave.


@pytest.mark.parametrize("path", ["a" * 5000, "x" * 300, "a\0b", "\ud800" * 3, None, 5, b"x" * 300])
def test_what_no_file_can_be_named_is_refused_in_one_line(path, tmp_path):
    for take in (lambda: write_aside(path, b""), lambda: KIND.read(path), lambda: as_path(path)):
        with pytest.raises(FewSpikesError) as error:
            take()
        assert one_line(error)


def test_a_name_as_long_as_the_system_takes_can_be_written(tmp_path):
    write_aside(tmp_path / ("n" * 255), b"1")
    assert [len(file.name) for file in tmp_path.iterdir()] == [255]


KILLED = """
import os, sys
from pathlib import Path
from fewspikes.base.files import write_aside
os.replace = lambda *paths: os.kill(os.getpid(), 9)
write_aside(sys.argv[1], b"half")
"""


def test_the_next_write_removes_what_a_killed_process_has_left_beside_this_file(tmp_path):
    for name in ("a[1].json", "a[1].json.more"):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    write_aside(tmp_path / "a[1].json", b"1")
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left[1:] == ["a[1].json"]
    assert left[0].startswith(".a[1].json.more.")  # another file's: its own next write removes it


def test_a_write_leaves_alone_what_others_are_writing_now(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "x"], check=False)
    (dead,) = tmp_path.iterdir()
    living = dead.with_name(f"{dead.name[:11]}{os.getpid():08x}{dead.name[19:]}")
    elsewhere = dead.with_name(f".x.{'0' * 32}")  # of another machine
    forgotten = dead.with_name(f".x.{'1' * 32}")
    for file in (living, elsewhere, forgotten):
        file.write_bytes(b"half")
    os.utime(forgotten, (time.time() - 7200,) * 2)
    write_aside(tmp_path / "x", b"whole")
    assert {file.name for file in tmp_path.iterdir()} == {"x", living.name, elsewhere.name}


class Silent:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize("value", [10**5000, "x" * 5000, torch.zeros(40, 40), Silent()], ids=lambda v: type(v).__name__)
def test_any_value_is_shown_on_one_line_of_bounded_length(value):
    assert len(said(value)) < 100
    assert len(said(value).splitlines()) == 1


# Sealed JSON.


def test_a_sealed_file_gives_back_what_was_written(tmp_path):
    content = {"a": [1, 2.5, None, True, "ü"], "b": {"c": -0.0}}
    KIND.write(tmp_path / "x.json", content)
    assert KIND.read(tmp_path / "x.json") == {"format": "a-format", "version": 3, **content}


def test_every_changed_character_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "x.json"
    KIND.write(path, {"numbers": [1, 0.125, 7e-300], "word": "silu", "none": None}, indent=None)
    text, whole = path.read_text(), KIND.read(path)
    for place in range(len(text)):
        for character in "0z9":
            path.write_text(text[:place] + character + text[place + 1 :])
            with suppress(FewSpikesError):
                assert KIND.read(path) == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "a-format", "version": 3}, "has no checksum; it was made by an older version: make it again"),
        ({"format": "a-format", "version": 4}, "has version 4, this library reads 3: make it again"),
        ({"format": "other"}, "has format 'other'; wanted 'a-format'"),
        ([1], "has format None"),
        ({"format": "a-format", "version": 3, "sha256": "0"}, "its checksum differs; make it again"),
    ],
)
def test_what_is_of_another_kind_or_not_sealed_raises(tmp_path, content, message):
    write_json(tmp_path / "x.json", content)
    with pytest.raises(FewSpikesError, match=message):
        KIND.read(tmp_path / "x.json")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        '{"a": 9223372036854775808}',
        '{"a": 1e999}',
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        '{"format": "a-format", "version": 3, "sha256": "0", "a": "\\ud800"}',
        "",
        "\0",
        b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_json_of_any_depth_and_numbers_of_any_size_are_one_line(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FewSpikesError, match="cannot read .* wanted a JSON file of format 'a-format'") as error:
        KIND.read(tmp_path / "x.json")
    assert one_line(error)


def test_numbers_of_64_bits_are_read():
    assert parsed("[9223372036854775807, -9223372036854775808, 1e308]") == [2**63 - 1, -(2**63), 1e308]


def test_what_is_no_plain_data_cannot_be_written(tmp_path):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for content in ({"a": float("nan")}, {"a": {1}}, {"a": "\ud800"}, {"a": deep}):
        with pytest.raises(FewSpikesError, match="a thing must be plain JSON data"):
            KIND.write(tmp_path / "x.json", content)
    assert list(tmp_path.iterdir()) == []


# Sealed tensors.


def test_tensors_come_back_bit_for_bit_and_on_aligned_memory(tmp_path):
    tensors = {"a": torch.randn(3, 5), "b": torch.arange(7), "c": torch.tensor(True), "d": torch.empty(0, 3)}
    write_tensors(tmp_path / "x", KIND, {"n": 1}, tensors)
    content, found = read_tensors(tmp_path / "x", KIND)
    assert content["n"] == 1
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert all(tensor.data_ptr() % 64 == 0 for tensor in found.values())


def test_a_tensor_on_odd_memory_is_copied_and_one_on_aligned_memory_is_not():
    odd = torch.zeros(65)[1:]
    assert odd.data_ptr() % 64
    assert aligned(odd).data_ptr() % 64 == 0
    even = torch.zeros(64)
    last = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert aligned(last) is last
    assert aligned(even).data_ptr() == even.data_ptr()


def test_a_digest_knows_names_shapes_types_and_bits():
    x = torch.tensor([1.0, 2.0])
    given = [{"a": x}, {"b": x}, {"a": x.view(2, 1)}, {"a": x.double()}, {"a": -x}, {"a": x.flip(0)}, {}]
    assert len({digest(None, tensors) for tensors in given} | {digest(0, {"a": x})}) == 8
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


# Flat records.


@dataclass(frozen=True)
class Inner:
    share: float


@dataclass(frozen=True)
class Record:
    count: int
    share: float | None
    pair: tuple[float, float]
    by_name: int | dict[str, int]
    inner: Inner
    on: bool = False


RECORD = Record(3, float("inf"), (1.0, 2.0), {"a": 1}, Inner(float("nan")), True)


def test_a_record_comes_back_from_strict_json():
    again = from_plain(Record, json.loads(json.dumps(to_plain(RECORD), allow_nan=False)), "a record")
    assert (again.share, again.pair, again.by_name, again.on) == (float("inf"), (1.0, 2.0), {"a": 1}, True)
    assert again.inner.share != again.inner.share


@pytest.mark.parametrize(
    "change",
    [
        {"count": True},
        {"count": 1.0},
        {"count": "3"},
        {"count": None},
        {"share": "x"},
        {"share": True},
        {"pair": [1.0]},
        {"pair": 5},
        {"by_name": {"a": "b"}},
        {"inner": 3},
        {"on": 1},
        {"more": 1},
    ],
)
def test_a_record_with_a_field_of_another_type_is_refused(change):
    with pytest.raises(FewSpikesError, match="a record"):
        from_plain(Record, to_plain(RECORD) | change, "a record")
