"""Image files and image bytes to PIL images; what cannot be read raises one line that names the file."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fewspikes.base.errors import FewSpikesError
from fewspikes.images.extras import require

if TYPE_CHECKING:
    from PIL.Image import Image


class DamagedImageError(FewSpikesError):
    """An image that cannot be decoded, where others around it may be whole."""


def read_image(path: str | os.PathLike[str]) -> "Image":
    """Read one photograph, turned upright as its camera recorded (Exif orientation).

    Raises:
        FewSpikesError: no such file, not an image, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FewSpikesError(f"no image file {path}; give the path of a photograph")
    upright: Image = require("PIL.ImageOps", "reading images").exif_transpose(open_image(path))
    return upright


def open_image(path: Path) -> "Image":
    """Read one image file as it is stored: training pipelines ignore the Exif orientation, so data sets do too.

    Raises:
        FewSpikesError: it cannot be read, is not an image, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return decode_image(file, lambda: str(path))
    except OSError as error:
        raise FewSpikesError(f"cannot read {path}: {error.strerror or error}; check the file's permissions") from None


def decode_image(content: bytes | IO[bytes], name: Callable[[], str]) -> "Image":
    """Decode an encoded image completely; `name` says in errors where it comes from.

    Raises:
        DamagedImageError: not an image, or a damaged one.
    """
    pil = require("PIL.Image", "reading images")
    try:
        image: Image = pil.open(io.BytesIO(content) if isinstance(content, bytes) else content)
    except pil.DecompressionBombError as error:
        raise DamagedImageError(f"{name()} is too large: {error}; shrink it or remove it") from None
    except (OSError, SyntaxError, ValueError, EOFError):
        raise DamagedImageError(
            f"{name()} is not an image that can be read; remove it or convert it to JPEG or PNG"
        ) from None
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DamagedImageError(f"{name()} is damaged ({error}); fetch it again or remove it") from None
    return image
