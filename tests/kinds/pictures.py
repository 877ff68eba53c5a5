"""Networks that take pictures and give pictures, classes or boxes."""

import torch
import torch.nn.functional as F
from torch import nn

from kinds.kind import Kind, normal

IMAGE = normal((3, 16, 16))


def conv(inputs, outputs, stride=1, act=nn.ReLU):
    """3x3 convolution, batch norm, activation."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), act())


class UNet(nn.Module):
    def __init__(self, up="transposed"):
        super().__init__()
        self.down1, self.down2, self.bottom = conv(3, 8), conv(8, 12), conv(12, 16)
        if up == "transposed":
            self.up2, self.up1 = nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(12, 8, 2, 2)
        else:
            self.up2 = nn.Sequential(nn.Upsample(scale_factor=2, mode=up, align_corners=True), nn.Conv2d(16, 12, 1))
            self.up1 = nn.Sequential(nn.Upsample(scale_factor=2, mode=up, align_corners=True), nn.Conv2d(12, 8, 1))
        self.join2, self.join1, self.head = conv(24, 12), conv(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        y = self.up2(self.bottom(F.max_pool2d(b, 2)))
        y = self.up1(self.join2(torch.cat([y, b], dim=1)))
        return self.head(self.join1(torch.cat([F.pad(y, [0, a.size(3) - y.size(3), 0, a.size(2) - y.size(2)]), a], 1)))


class Fcn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage1, self.stage2 = conv(3, 8, 2), conv(8, 16, 2)
        self.score1, self.score2 = nn.Conv2d(8, 5, 1), nn.Conv2d(16, 5, 1)
        self.up2 = nn.ConvTranspose2d(5, 5, 4, stride=2, bias=False)
        self.up1 = nn.ConvTranspose2d(5, 5, 4, stride=2, padding=1, bias=False)

    def forward(self, x):
        a = self.stage1(x)
        b = self.stage2(a)
        y = self.up2(F.relu(self.score2(b)))[:, :, 1 : 1 + a.size(2), 1 : 1 + a.size(3)].contiguous()
        return {"out": self.up1(y + self.score1(a))}


class DeepLab(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, 2), conv(8, 12, 2))
        self.rates = nn.ModuleList([nn.Conv2d(12, 6, 3, padding=r, dilation=r) for r in (1, 2, 3)])
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 6, 1), nn.ReLU())
        self.head = nn.Sequential(conv(24, 8), nn.Conv2d(8, 4, 1))

    def forward(self, x):
        y = self.stem(x)
        parts = [F.relu(rate(y)) for rate in self.rates]
        parts.append(F.interpolate(self.whole(y), size=y.shape[-2:], mode="bilinear", align_corners=False))
        return F.interpolate(self.head(torch.cat(parts, 1)), size=x.shape[-2:], mode="bilinear", align_corners=False)


class Yolo(nn.Module):
    def __init__(self, anchors=2, classes=3):
        super().__init__()
        self.outputs = classes + 5
        self.stem = nn.Sequential(conv(3, 8, 2, nn.SiLU), conv(8, 12, 2, nn.SiLU))
        self.deep = conv(12, 16, 2, nn.SiLU)
        self.sppf = nn.Sequential(nn.Conv2d(64, 16, 1), nn.BatchNorm2d(16), nn.SiLU())
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.up, self.join = nn.Upsample(scale_factor=2, mode="nearest"), conv(28, 12, 1, nn.SiLU)
        self.heads = nn.ModuleList([nn.Conv2d(c, anchors * self.outputs, 1) for c in (12, 16)])

    def forward(self, x):
        a = self.stem(x)
        b = self.deep(a)
        p1 = self.pool(b)
        p2 = self.pool(p1)
        b = self.sppf(torch.cat((b, p1, p2, self.pool(p2)), 1))
        features = [self.join(torch.cat([self.up(b), a], 1)), b]
        found = []
        for head, y in zip(self.heads, features, strict=True):
            y = head(y)
            n, _, h, w = y.shape
            found.append(y.view(n, -1, self.outputs, h, w).permute(0, 1, 3, 4, 2).contiguous())
        return found


class Ssd(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 8, 2), conv(8, 8, 2)])
        self.boxes = nn.ModuleList([nn.Conv2d(8, 2 * 4, 3, padding=1) for _ in range(2)])
        self.classes = nn.ModuleList([nn.Conv2d(8, 2 * 3, 3, padding=1) for _ in range(2)])

    def forward(self, x):
        boxes, classes = [], []
        for stage, box, kind in zip(self.stages, self.boxes, self.classes, strict=True):
            x = stage(x)
            boxes.append(box(x).permute(0, 2, 3, 1).reshape(x.size(0), -1, 4))
            classes.append(kind(x).permute(0, 2, 3, 1).reshape(x.size(0), -1, 3))
        return {"boxes": torch.cat(boxes, 1), "scores": torch.cat(classes, 1)}


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 8, 2), conv(8, 12, 2), conv(12, 16, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(c, 8, 1) for c in (8, 12, 16)])
        self.smooth = nn.ModuleList([conv(8, 8) for _ in range(3)])

    def forward(self, x):
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        y = self.lateral[2](features[2])
        found = {"p5": self.smooth[2](y)}
        for i, name in ((1, "p4"), (0, "p3")):
            y = self.lateral[i](features[i]) + F.interpolate(y, scale_factor=2.0, mode="nearest")
            found[name] = self.smooth[i](y)
        return found


class Hypercolumn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 4), conv(4, 6, 2), conv(6, 8, 2)])
        self.head = nn.Conv2d(18, 1, 1)

    def forward(self, x):
        columns, size = [], x.shape[2:]
        for stage in self.stages:
            x = stage(x)
            columns.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
        return self.head(torch.cat(columns, 1)).squeeze(1)


class Espcn(nn.Module):
    def __init__(self, scale=2):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 5, padding=2), nn.Tanh(), nn.Conv2d(12, 8, 3, padding=1), nn.Tanh()
        )
        self.up = nn.Sequential(nn.Conv2d(8, scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x):
        return self.up(self.features(x))


class BicubicSkip(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (
            nn.Conv2d(3, 8, 3, 1, 1),
            nn.Conv2d(8, 8, 3, 1, 1),
            nn.Conv2d(8, 12, 3, 1, 1),
        )

    def forward(self, x):
        y = F.relu(self.first(x))
        y = F.pixel_shuffle(self.last(F.relu(self.second(y)) + y), 2)
        return y + F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)


class Denoiser(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth):
            layers += [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
        self.net = nn.Sequential(*layers, nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, x):
        return x - self.net(x)


class StyleTransfer(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(3, 8, 5), nn.ReLU())
        self.residual = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.up = nn.Conv2d(8, 3, 3)

    def forward(self, x):
        y = self.down(x)
        y = F.max_pool2d(self.residual(y) + y, 2)
        y = F.interpolate(y, mode="nearest", scale_factor=2)
        return self.up(F.pad(y, (1, 1, 1, 1), mode="reflect"))


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(3, 8), nn.Linear(8, 10)
        self.gate = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Hardsigmoid())

    def forward(self, x):
        y = self.conv(x)
        b, c, _, _ = y.size()
        scale = self.gate(F.adaptive_avg_pool2d(y, 1).view(b, c)).view(b, c, 1, 1)
        return self.head((y * scale.expand_as(y)).mean((2, 3)))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.ReLU()
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4, 8, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.start = nn.Linear(12, 8 * 4 * 4)
        self.net = nn.Sequential(
            *(nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(True)),
            *(nn.ConvTranspose2d(6, 3, 4, 2, 1, bias=False), nn.Tanh()),
        )

    def forward(self, z):
        return self.net(F.relu(self.start(z)).view(-1, 8, 4, 4))


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 8, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)),
            *(nn.Conv2d(8, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.2, inplace=True)),
            *(nn.Conv2d(8, 1, 4, 1, 0, bias=False), nn.Sigmoid()),
        )

    def forward(self, x):
        return self.net(x).view(-1, 1).squeeze(1)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ELU(alpha=0.5), nn.Flatten(), nn.Linear(512, 12), nn.ELU(0.5)
        )
        self.mu, self.logvar = nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, x):
        y = self.net(x)
        return self.mu(y), self.logvar(y).clamp(-1, 1)


GREY = normal((1, 12, 12))
KINDS = (
    Kind("unet_transposed", "A", UNet, IMAGE),
    Kind("unet_bilinear", "A", lambda: UNet("bilinear"), IMAGE),
    Kind("fcn", "A", Fcn, IMAGE),
    Kind("deeplab", "A", DeepLab, IMAGE),
    Kind("yolo", "A", Yolo, IMAGE),
    Kind("ssd", "", Ssd, IMAGE),
    Kind("pyramid", "A", Pyramid, IMAGE),
    Kind("hypercolumn", "A", Hypercolumn, IMAGE),
    Kind("super_resolution", "A", Espcn, GREY),
    Kind("super_resolution_bicubic", "A", BicubicSkip, normal((3, 8, 8))),
    Kind("denoiser", "", Denoiser, GREY),
    Kind("style_transfer", "A", StyleTransfer, IMAGE),
    Kind("gate", "", Gate, IMAGE),
    Kind("autoencoder", "A", Autoencoder, normal((1, 16, 16))),
    Kind("generator", "A", Generator, normal((12,))),
    Kind("discriminator", "D", Discriminator, IMAGE),
    Kind("vae_encoder", "D", Encoder, IMAGE),
)
