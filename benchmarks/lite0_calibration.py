"""Measure what EfficientNet-Lite0 sees at each site and write the calibration that the package ships.

Every tenth of the 500 sample photographs (positions 0, 10, 20, ... in the sorted folder) calibrates; the other 450
are left for measuring.

    python benchmarks/lite0_calibration.py --data DIR
"""

import argparse
from pathlib import Path

import torch
from torch.utils.data import Subset

from fewspikes.conversion.building import calibrate_model
from fewspikes.images import loader, open_images
from fewspikes.models import LITE0_PREPROCESSING, efficientnet_lite0

SHIPPED = Path(__file__).parent.parent / "src/fewspikes/models/trained/efficientnet_lite0_calibration.json"


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds val/<wnid>/*.JPEG")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    images = open_images(arguments.data, "val", LITE0_PREPROCESSING, classes=1000)
    tenth = Subset(images, range(0, len(images), 10))
    measured = calibrate_model(efficientnet_lite0(), torch.zeros(1, 3, 224, 224), loader(tenth, 10))
    measured.save(arguments.output)
    print(f"{measured.images} images, {len(measured.sites)} sites, written to {arguments.output}")


if __name__ == "__main__":
    main()
