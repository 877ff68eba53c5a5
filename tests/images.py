"""Photographs as bytes."""

import io


def png(photo):
    """A small copy of a photograph as a PNG file's bytes."""
    buffer = io.BytesIO()
    photo.resize((32, 24)).save(buffer, "PNG")
    return buffer.getvalue()
