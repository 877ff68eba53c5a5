"""What EfficientNet-Lite0 sees at each site, measured once and shipped, so that the demo needs no data."""

from importlib import resources

from fewspikes.measure.calibration import Calibration


def lite0_calibration() -> Calibration:
    """Ranges and histograms of EfficientNet-Lite0's sites over 50 ImageNet photographs.

    Made by `python benchmarks/lite0_calibration.py` from every tenth of 500 sample photographs.
    """
    with resources.as_file(
        resources.files("fewspikes").joinpath("models", "trained", "efficientnet_lite0_calibration.json")
    ) as path:
        return Calibration.load(path)
