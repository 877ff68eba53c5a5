"""Image files and image bytes to PIL images; what cannot be read raises one line that names the file."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.base.files import as_path, reason_of, shown

if TYPE_CHECKING:
    from PIL.Image import Image


# In memory a pixel takes 4 bytes, and resizing holds two images: together less than 1.5 GiB.
MOST_PIXELS = 1 << 27
# Those that photographs come in. Others would run programs (EPS calls Ghostscript) or have no bounds of their own.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


class DamagedImageError(FewSpikesError):
    """An image that cannot be decoded, where others around it may be whole."""


def read_image(path: str | os.PathLike[str]) -> "Image":
    """Read one photograph, turned upright as its camera recorded (Exif orientation).

    Raises:
        FewSpikesError: no such file, not an image, or a damaged one.
    """
    path = as_path(path)
    if not path.is_file():
        raise FewSpikesError(f"no image file {shown(path)}; give the path of a photograph")
    image, ops = open_image(path), require("PIL.ImageOps", "reading images")
    with _decoding(lambda: shown(path)):
        upright: Image = ops.exif_transpose(image)
    return upright


def open_image(path: Path) -> "Image":
    """Read one image file as it is stored: training pipelines ignore the Exif orientation, so data sets do too.

    Raises:
        FewSpikesError: it cannot be read, is not an image, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return decode_image(file, lambda: shown(path))
    except OSError as error:
        raise FewSpikesError(f"cannot read {shown(path)}: {reason_of(error)}; check the file's permissions") from None


def decode_image(content: bytes | IO[bytes], name: Callable[[], str]) -> "Image":
    """Decode an encoded image completely, of several (an animation) the first; `name` says where it comes from.

    Raises:
        DamagedImageError: not an image, a damaged one, or one of more than 2^27 pixels.
    """
    pil = require("PIL.Image", "reading images")
    try:
        image: Image = pil.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=_FORMATS)
    except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:  # a warning where those are errors
        raise DamagedImageError(f"{name()} is too large: {error}; shrink it or remove it") from None
    except Exception:  # Pillow's plug-ins raise whatever they trip over
        raise DamagedImageError(
            f"{name()} is not an image that can be read; remove it or convert it to JPEG or PNG"
        ) from None
    check_pixels(*image.size, name)
    with _decoding(name):
        image.load()
    return image


def check_pixels(width: int, height: int, name: Callable[[], str], how: str = "has") -> None:
    """Raise DamagedImageError for an image of no pixels, or of more than memory is meant for."""
    if not 0 < width * height <= MOST_PIXELS:
        raise DamagedImageError(
            f"{name()} {how} {height:,} x {width:,} pixels; at most {MOST_PIXELS:,} are read: crop it or remove it"
        )


@contextmanager
def _decoding(name: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Pillow's decoders raise whatever they trip over
        raise DamagedImageError(f"{name()} is damaged ({reason_of(error)}); fetch it again or remove it") from None
