"""A small EfficientNet for CIFAR-10: SiLU neurons, squeeze-and-excitation gates, linear bottlenecks.

Sources: Tan and Le 2019, "EfficientNet"; Tan and Le 2021, "EfficientNetV2" (the fused block that comes first).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fewspikes.base.errors import FewSpikesError
from fewspikes.images import Preprocessing

CIFAR_EFFICIENTNET_PREPROCESSING = Preprocessing(
    size=(32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)
)
_STEM, _HEAD = 16, 256
# Channels, blocks, stride of the first: 32x32 becomes 16x16, 8x8, 4x4.
_STAGES = ((32, 1, 1), (64, 3, 2), (112, 2, 2))
_EXPANSION, _SQUEEZE = 4, 8


class SqueezeExcitation(nn.Module):
    """Channels scaled by gates: x * sigmoid(expand(silu(reduce(mean(x)))))."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """The scaled channels."""
        gate = self.expand(F.silu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        return x * gate.sigmoid()  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, gate, and project linearly; beside it a shortcut where the shape allows."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = inputs * _EXPANSION
        self.expand = _conv(inputs, wide, 1)
        self.depthwise = _conv(wide, wide, 3, stride, groups=wide)
        self.gate = SqueezeExcitation(wide, inputs // _SQUEEZE * 2)
        self.project = _conv(wide, outputs, 1)
        self._shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        """The block's output; h2 = ceil(h / stride), w2 likewise."""
        y = F.silu(self.depthwise(F.silu(self.expand(x))))
        y = self.project(self.gate(y))
        return x + y if self._shortcut else y  # type: ignore[no-any-return]


class CifarEfficientNet(nn.Module):
    """Stem, a fused block that halves the image, three stages of inverted residuals, head.

    Args:
        classes: outputs, >= 1.

    Raises:
        FewSpikesError: a number out of range.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        if classes < 1:
            raise FewSpikesError(f"a CIFAR EfficientNet needs classes >= 1; got {classes}")
        channels = _STAGES[0][0]
        self.stem = _conv(3, _STEM, 3)
        self.fused = _conv(_STEM, 2 * channels, 3, 2)
        self.project = _conv(2 * channels, channels, 1)
        blocks: list[nn.Module] = []
        for outputs, count, stride in _STAGES:
            for i in range(count):
                blocks.append(InvertedResidual(channels, outputs, stride if i == 0 else 1))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _conv(channels, _HEAD, 1)
        self.classifier = nn.Linear(_HEAD, classes)

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        x = self.project(F.silu(self.fused(F.silu(self.stem(x)))))
        x = F.silu(self.head(self.blocks(x)))  # [batch, 256, h/8, w/8]
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def cifar_efficientnet(classes: int = 10) -> CifarEfficientNet:
    """Untrained small EfficientNet, weights drawn from torch's global generator."""
    return CifarEfficientNet(classes)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
