"""Decoding: photographs of every kind, and no file that takes all memory, all time, or runs anything."""

import io
import zlib
from contextlib import suppress

import pytest

from fewspikes.base.errors import FewSpikesError, FewSpikesWarning
from fewspikes.images import Preprocessing, loader, open_images
from fewspikes.images.reading import DamagedImageError, decode_image

pytest.importorskip("torchvision", reason="needs the extra vision")
Image = pytest.importorskip("PIL.Image")


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SHORT_SIDE = Preprocessing(size=(24, 24), mean=(0.5,) * 3, std=(0.25,) * 3, resize=24)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 200_000)])
def test_a_thin_image_whose_longer_side_would_grow_without_bound_counts_as_damaged(tmp_path, size):
    folder = tmp_path / "test/cat"
    folder.mkdir(parents=True)
    wanted = Preprocessing(size=(224, 224), mean=(0.5,) * 3, std=(0.25,) * 3, resize=2300)
    (folder / "thin.png").write_bytes(encoded(Image.new("RGB", size)))
    (folder / "whole.png").write_bytes(encoded(Image.new("RGB", (30, 40))))
    data = open_images(tmp_path, "test", wanted, classes=1)
    with pytest.raises(DamagedImageError, match=r"thin\.png: an image is resized to .* pixels; at most"):
        data[0]
    with pytest.warns(FewSpikesWarning, match="1 of 2 images were left out"):
        assert [len(x) for x, _ in loader(data, 1, skip_damaged=True)] == [1]


def test_an_image_of_many_pixels_in_few_bytes_is_not_decoded():
    bomb = bytearray(encoded(Image.new("1", (8, 8))))
    for size in ((60_000, 60_000), (12_000, 12_000), (2**31 - 1, 1)):
        bomb[16:24] = b"".join(n.to_bytes(4, "big") for n in size)
        bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
        with pytest.raises(DamagedImageError, match="is too large|pixels; at most|is damaged"):
            decode_image(bytes(bomb), lambda: "bomb")


def test_every_mode_of_photograph_becomes_an_input():
    grey = Image.linear_gradient("L").resize((30, 40))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "PA", "RGBa", "RGBX"):
        image = Image.merge("LA", (grey, grey)) if mode in ("LA", "PA") else grey
        image = image.convert("RGBA") if mode == "RGBa" else image
        assert SHORT_SIDE.transform()(image.convert(mode)).shape == (3, 24, 24)
    for mode in ("I", "F", "I;16"):
        with pytest.raises(FewSpikesError, match="more than 8 bits"):
            SHORT_SIDE.transform()(Image.new(mode, (30, 40)))
    with pytest.raises(DamagedImageError, match="mode La does not go to RGB"):
        SHORT_SIDE.transform()(Image.new("La", (30, 40)))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(kind):
    first, second = Image.new("RGB", (30, 40), "red"), Image.new("RGB", (30, 40), "blue")
    content = encoded(first, kind, save_all=True, append_images=[second])
    pixel = decode_image(content, lambda: "animation").convert("RGB").getpixel((3, 3))
    assert pixel[0] > 250 > 5 > pixel[2]


def test_what_runs_a_program_to_be_read_is_no_image():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(DamagedImageError, match="is not an image that can be read"):
        decode_image(postscript, lambda: "a.jpg")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "JPEG", "BMP", "PPM"])
def test_an_image_cut_or_changed_anywhere_is_refused_or_an_image(kind):
    content = encoded(Image.linear_gradient("L").resize((12, 9)).convert("RGB"), kind)
    for at in range(0, len(content), 1 + len(content) // 60):
        for damaged in (content[:at], content[:at] + b"\xff" + content[at + 1 :], content[:at] + content[at + 3 :]):
            with suppress(FewSpikesError):
                assert SHORT_SIDE.transform()(decode_image(damaged, lambda: "image")).shape == (3, 24, 24)


@pytest.mark.parametrize("size", [(10**9, 10**9), (1 << 14, (1 << 13) + 1)])
def test_inputs_of_more_pixels_than_an_image_may_have_are_refused(size):
    with pytest.raises(FewSpikesError, match="pixels are too large"):
        Preprocessing(size=size, mean=(0.5,) * 3, std=(0.25,) * 3)
