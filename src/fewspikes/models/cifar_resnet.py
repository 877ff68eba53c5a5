"""The ResNets for CIFAR: 6n+2 layers, three stages of 16, 32 and 64 channels, shortcuts without weights.

Source: He et al. 2016, "Deep residual learning for image recognition", section 4.2 (option A shortcuts).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fewspikes.base.errors import FewSpikesError
from fewspikes.images import Preprocessing

CIFAR_PREPROCESSING = Preprocessing(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).

    Where the block changes the shape, the shortcut keeps every second pixel and adds channels of zeros, half of them
    before and half after the input's: no weights, nothing to convert.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv3x3(outputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self._stride, self._added = stride, outputs - inputs

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        """The block's output; h2 = ceil(h / stride), w2 likewise."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self._added:
            return x
        before = self._added // 2
        return F.pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, before, self._added - before))


class CifarResNet(nn.Module):
    """A ResNet of 6n+2 layers for 32x32 images, weights drawn from torch's global generator (He et al. 2015).

    Args:
        n: blocks a stage, >= 1.
        classes: outputs, >= 1.

    Raises:
        FewSpikesError: a number out of range.
    """

    def __init__(self, n: int, classes: int = 10) -> None:
        super().__init__()
        if n < 1 or classes < 1:
            raise FewSpikesError(f"a CIFAR ResNet needs n >= 1 and classes >= 1; got {n} and {classes}")
        self.conv1 = _conv3x3(3, 16, 1)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(n, 16, 16)
        self.layer2 = _stage(n, 16, 32)
        self.layer3 = _stage(n, 32, 64)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))  # [batch, 64, h/4, w/4]
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def resnet8(classes: int = 10) -> CifarResNet:
    """Untrained ResNet of 8 layers, n = 1."""
    return CifarResNet(1, classes)


def resnet14(classes: int = 10) -> CifarResNet:
    """Untrained ResNet of 14 layers, n = 2."""
    return CifarResNet(2, classes)


def resnet20(classes: int = 10) -> CifarResNet:
    """Untrained ResNet of 20 layers, n = 3."""
    return CifarResNet(3, classes)


def resnet44(classes: int = 10) -> CifarResNet:
    """Untrained ResNet of 44 layers, n = 7."""
    return CifarResNet(7, classes)


def resnet50(classes: int = 10) -> CifarResNet:
    """Untrained ResNet of 50 layers, n = 8; not the ImageNet network of that name."""
    return CifarResNet(8, classes)


def _conv3x3(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


def _stage(n: int, inputs: int, outputs: int) -> nn.Sequential:
    first = Block(inputs, outputs, stride=1 if inputs == outputs else 2)
    return nn.Sequential(first, *(Block(outputs, outputs, stride=1) for _ in range(n - 1)))
