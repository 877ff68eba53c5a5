"""Photographs for networks: preprocessing, and labelled images in the layouts that people have."""

from fewspikes.images.images import ImageData, ImageLoader, data_folder, image_splits, loader, open_images
from fewspikes.images.preprocessing import Preprocessing
from fewspikes.images.reading import read_image

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
