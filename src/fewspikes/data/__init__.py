"""Photographs for networks: preprocessing, and labelled images in the layouts that people have."""

from fewspikes.data.images import ImageData, ImageLoader, data_folder, image_splits, loader, open_images
from fewspikes.data.preprocessing import Preprocessing
from fewspikes.data.reading import read_image

__all__ = [
    "ImageData",
    "ImageLoader",
    "Preprocessing",
    "data_folder",
    "image_splits",
    "loader",
    "open_images",
    "read_image",
]
