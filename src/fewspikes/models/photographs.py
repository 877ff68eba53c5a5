"""Real photographs and ImageNet's class names, from installed packages: nothing is downloaded."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.extras import require
from fewspikes.images import read_image

if TYPE_CHECKING:
    from PIL.Image import Image

# Package and file of each photograph; those that the packages' wheels hold, not those that they would download.
_FILES = {
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "motorcycle_left": ("skimage", "data/motorcycle_left.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
}


def photographs() -> "dict[str, Image]":
    """Six colour photographs by name: a cat, a cup of coffee, a rocket, a motorcycle, a flower, a temple in China.

    Raises:
        FewSpikesError: scikit-image or scikit-learn is missing, or lacks a file.
    """
    return {name: read_image(_locate(*place)).convert("RGB") for name, place in _FILES.items()}


def imagenet_class_names() -> list[str]:
    """The short names of ImageNet's 1000 classes, in the order of a classifier's outputs.

    Raises:
        FewSpikesError: torchvision is missing.
    """
    models = require("torchvision.models", "ImageNet's class names", extra="demo")
    return list(models.EfficientNet_B0_Weights.DEFAULT.meta["categories"])


def _locate(package: str, file: str) -> Path:
    spec = find_spec(package)  # finds the folder without the cost of the import
    if spec is None or not spec.submodule_search_locations:
        raise FewSpikesError(f"the photographs need {package}; pip install 'fewspikes[demo]'")
    return Path(spec.submodule_search_locations[0]) / file
