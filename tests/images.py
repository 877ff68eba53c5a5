"""How small photographs become inputs, and photographs as bytes."""

import io

from fewspikes.images import Preprocessing

SMALL = Preprocessing(size=(24, 32), mean=(0.5,) * 3, std=(0.25,) * 3, resize=(24, 32), interpolation="bilinear")
CIFAR = Preprocessing(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def png(photo):
    """A small copy of a photograph as a PNG file's bytes."""
    buffer = io.BytesIO()
    photo.resize((32, 24)).save(buffer, "PNG")
    return buffer.getvalue()
