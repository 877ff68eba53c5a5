"""Small networks that several test files convert."""

import torch
import torch.nn.functional as F
from torch import nn


def trained(model, *shape):
    """Batch norms get running statistics as training would leave them; the model comes back in eval mode."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, *shape))
    return model.eval()


class Small(nn.Module):
    """Pair convolutions with batch norm, a skip, a pool and a head; `style` says how its activations are written."""

    def __init__(self, style="module", classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, classes)
        self.style = style
        if style != "functional":
            self.relu1 = nn.ReLU(inplace=style == "inplace")
        if style in ("module", "inplace"):
            self.relu2 = nn.ReLU(inplace=style == "inplace")

    def forward(self, x):
        first = F.relu if self.style == "functional" else self.relu1
        second = first if self.style in ("functional", "shared") else self.relu2
        y = first(self.bn1(self.conv1(x)))
        y = second(self.bn2(self.conv2(y)) + y)
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


class SqueezeExcite(nn.Module):
    """A convolution with SiLU and a squeeze-and-excitation gate, as in EfficientNet."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.SiLU()
        self.reduce, self.expand = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        y = self.act(self.bn(self.conv(x)))
        gate = torch.sigmoid(self.expand(F.silu(self.reduce(y.mean((2, 3), keepdim=True)))))
        return self.head((y * gate).mean((2, 3)))


class Torn(nn.Module):
    """Two layers, of which the first has [4 x images] in pairs, so that neither axis alone tells the images apart."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        n = x.shape[0]
        pairs = torch.cat(self.first(x).split(1, 1)).view(-1, 2)
        rows = F.relu(pairs).view(-1, 1)
        x = torch.cat([rows[:n], rows[n : 2 * n], rows[2 * n : 3 * n], rows[3 * n :]], 1)
        return self.last(F.relu(self.first(x)))


def torn():
    """`Torn` with fixed weights."""
    torch.manual_seed(5)
    return Torn().eval()


def small(style="module"):
    """`Small` with the same weights for every style."""
    torch.manual_seed(3)
    return trained(Small(style), 3, 8, 8)


def squeeze_excite():
    """`SqueezeExcite` with fixed weights."""
    torch.manual_seed(4)
    return trained(SqueezeExcite(), 3, 8, 8)


class Pair(nn.Module):
    """Pair inputs that may not be taken for one another."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, p, q):
        return self.head(F.relu(self.first(p) - 2 * self.second(q)))


class ByName(Pair):
    """The same, and its inputs go by name alone."""

    def forward(self, *, p, q):
        return super().forward(p, q)
