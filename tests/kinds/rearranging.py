"""Networks that move, cut, mirror, pad and write pictures before they weigh them."""

import torch
import torch.nn.functional as F
from torch import nn

from kinds.kind import Kind
from kinds.pictures import IMAGE, conv


class Borders(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv2d(6, 6, 3, padding=1, padding_mode="circular")

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x)))).flatten(2).mean(-1)


class BlurPool(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(3, 8), nn.Linear(8, 5)
        kernel = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (torch.outer(kernel, kernel) / 16)[None, None].repeat(8, 1, 1, 1))

    def forward(self, x):
        y = F.conv2d(F.pad(self.conv(x), (1, 1, 1, 1), "reflect"), self.kernel, stride=2, groups=8)
        return self.head(F.relu(y).mean([-2, -1]))


class Focus(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.head(self.conv(torch.cat(parts, 1)).mean(dim=(2, 3)))


class SpaceToDepth(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2), conv(12, 12), nn.ChannelShuffle(3), nn.Conv2d(12, 12, 3, groups=3)
        )

    def forward(self, x):
        return F.relu(self.body(x)).mean((2, 3))


class Mirrored(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(conv(3, 8, 2), nn.Flatten(), nn.Linear(512, 5))

    def forward(self, x):
        return (self.net(x) + self.net(torch.flip(x, dims=[3]))) / 2


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.mix, self.head = conv(3, 8), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        a, b = self.conv(x).chunk(2, dim=1)
        y = torch.cat([torch.roll(a, shifts=1, dims=2), torch.roll(b, (-1, 2), (2, 3))], dim=1)
        return self.head(F.relu(self.mix(y)).flatten(2).mean(2))


class Ghost(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.cheap, self.head = conv(3, 4), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Linear(10, 4)

    def forward(self, x):
        a = self.first(x)
        y = torch.zeros(x.shape[0], 10, x.shape[2], x.shape[3])
        y[:, :4] = a
        y[:, 4:8] = F.relu(self.cheap(a))
        return self.head(y.mean((2, 3)))


class Coordinates(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(5, 8), nn.Linear(8, 2)

    def forward(self, x):
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        columns = torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(n, 1, h, w)
        return self.head(self.conv(torch.cat([x, rows, columns], dim=1)).mean([2, 3]))


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(48, 16), nn.Linear(16, 16), nn.Linear(16, 48)

    def forward(self, x):
        y = F.unfold(x, kernel_size=4, stride=4).transpose(1, 2)
        y = self.head(F.gelu(self.mix(F.gelu(self.embed(y))))).transpose(1, 2)
        return F.fold(y, output_size=x.shape[-2:], kernel_size=4, stride=4)


class Windows(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(48, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = x.unfold(2, 4, 4).unfold(3, 4, 4)
        y = y.permute(0, 2, 3, 1, 4, 5).reshape(x.shape[0], 16, 48)
        return self.head(F.relu(self.embed(y)).mean(1))


KINDS = (
    Kind("borders", "A", Borders, IMAGE),
    Kind("blur_pool", "A", BlurPool, IMAGE),
    Kind("focus", "", Focus, IMAGE),
    Kind("space_to_depth", "A", SpaceToDepth, IMAGE),
    Kind("mirrored", "A", Mirrored, IMAGE),
    Kind("shifted", "A", Shifted, IMAGE),
    Kind("ghost", "A", Ghost, IMAGE),
    Kind("coordinates", "A", Coordinates, IMAGE),
    Kind("patches", "A", Patches, IMAGE),
    Kind("windows", "A", Windows, IMAGE),
)
