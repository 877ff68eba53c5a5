"""Networks that take signals in time, words, points, graphs and volumes."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from kinds.kind import Kind, normal, numbers

WORDS = numbers(20, (8,))


class WaveNet(nn.Module):
    def __init__(self, dilations=(1, 2, 4)):
        super().__init__()
        self.start = nn.Conv1d(1, 6, 1)
        self.filters = nn.ModuleList([nn.Conv1d(6, 6, 2, dilation=d) for d in dilations])
        self.gates = nn.ModuleList([nn.Conv1d(6, 6, 2, dilation=d) for d in dilations])
        self.skips = nn.ModuleList([nn.Conv1d(6, 8, 1) for _ in dilations])
        self.end = nn.Conv1d(8, 4, 1)

    def forward(self, x):
        x, skip = self.start(x), 0
        for f, g, s in zip(self.filters, self.gates, self.skips, strict=True):
            padded = F.pad(x, (f.dilation[0], 0))
            y = torch.tanh(f(padded)) * torch.sigmoid(g(padded))
            skip = skip + s(y)
            x = x + y
        return self.end(F.relu(skip))


class Chomp(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x[:, :, : -self.size].contiguous()


class Tcn(nn.Module):
    def __init__(self, channels=(4, 8, 8)):
        super().__init__()
        layers = []
        for i, (a, b) in enumerate(pairwise(channels)):
            conv = weight_norm(nn.Conv1d(a, b, 3, padding=2 * 2**i, dilation=2**i))
            layers += [conv, Chomp(2 * 2**i), nn.ReLU(), nn.Dropout(0.2)]
        self.net, self.head = nn.Sequential(*layers), nn.Linear(channels[-1], 3)

    def forward(self, x):
        return self.head(self.net(x)[:, :, -1])


class AudioCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 5)

    def forward(self, spectrogram):
        x = spectrogram.unsqueeze(1)
        x = F.avg_pool2d(F.relu_(self.bn1(self.conv1(x))), 2)
        x = torch.mean(F.relu_(self.bn2(self.conv2(x))), dim=3)
        x1, _ = torch.max(x, dim=2)
        return self.fc(x1 + torch.mean(x, dim=2))


class OneDUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.bottom = nn.Conv1d(1, 6, 3, padding=1), nn.Conv1d(6, 8, 3, padding=1)
        self.up, self.head = nn.ConvTranspose1d(8, 6, 2, stride=2), nn.Conv1d(12, 1, 1)

    def forward(self, x):
        a = F.relu(self.down(x))
        y = F.relu(self.up(F.relu(self.bottom(F.max_pool1d(a, 2)))))
        return self.head(torch.cat([a, y], 1))


class TextCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6, padding_idx=0)
        self.convs = nn.ModuleList([nn.Conv1d(6, 5, k) for k in (2, 3)])
        self.fc = nn.Linear(10, 2)

    def forward(self, words):
        x = self.embedding(words).permute(0, 2, 1)
        found = [F.relu(conv(x)) for conv in self.convs]
        return self.fc(torch.cat([F.max_pool1d(y, y.shape[2]).squeeze(2) for y in found], dim=1))


class BagOfWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.fc1, self.fc2 = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, words):
        return self.fc2(F.relu(self.fc1(self.embedding(words).mean(dim=1))))


class Recommender(nn.Module):
    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(20, 6), nn.Embedding(20, 6)
        self.mlp = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, user, item):
        return self.mlp(torch.cat([self.users(user), self.items(item)], dim=-1)).squeeze(-1)


class Table(nn.Module):
    def __init__(self, sizes=(5, 7)):
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(n, 3) for n in sizes])
        self.bn, self.layers = nn.BatchNorm1d(4), nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, categories, values):
        found = [embedding(categories[:, i]) for i, embedding in enumerate(self.embeddings)]
        return self.layers(torch.cat([*found, self.bn(values)], 1))


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(20, 6), nn.Embedding(8, 6)
        self.mlp, self.head = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6)), nn.Linear(6, 20)

    def forward(self, words):
        x = self.words(words) + self.positions(torch.arange(words.shape[1], device=words.device))
        return self.head(x + self.mlp(x))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 6, 8))
        self.tokens = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
        self.channels = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    def forward(self, x):
        x = x + self.table
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return (x + self.channels(x)).mean(1)


class Fourier(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp, self.head = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)), nn.Linear(8, 3)

    def forward(self, x):
        x = x + self.mlp(torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
        return self.head(x.mean(dim=1))


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 16, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(8), nn.BatchNorm1d(16)
        self.fc1, self.fc2 = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(x, 2, keepdim=True)[0].view(-1, 16)
        return self.fc2(F.relu(self.fc1(x)))


class PointSegmentation(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 12, 1), nn.Conv1d(20, 5, 1)

    def forward(self, x):
        n = x.size(2)
        local = F.relu(self.conv1(x))
        whole = F.relu(self.conv2(local)).max(dim=2, keepdim=True).values
        return self.conv3(torch.cat([local, whole.repeat(1, 1, n)], 1)).transpose(2, 1).contiguous()


class DeepSets(nn.Module):
    def __init__(self):
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8))
        self.rho = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        return self.rho(self.phi(x).sum(dim=1))


class Gcn(nn.Module):
    def __init__(self, nodes=6):
        super().__init__()
        edges = (torch.rand(nodes, nodes) < 0.4).float()
        adjacency = ((edges + edges.t()) > 0).float() + torch.eye(nodes)
        scale = adjacency.sum(1).rsqrt()
        self.register_buffer("adjacency", scale[:, None] * adjacency * scale[None])
        self.lin1, self.lin2 = nn.Linear(4, 8, bias=False), nn.Linear(8, 3, bias=False)

    def forward(self, x):
        x = F.relu(torch.matmul(self.adjacency, self.lin1(x)))
        return torch.einsum("ij,bjc->bic", self.adjacency, self.lin2(x))


class Messages(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("sources", torch.tensor([0, 1, 2, 3, 0, 4]))
        self.register_buffer("targets", torch.tensor([1, 2, 3, 4, 2, 0]))
        self.message, self.update = nn.Linear(8, 6), nn.Linear(10, 4)

    def forward(self, x):
        given = torch.cat([x[:, self.sources], x.index_select(1, self.targets)], dim=-1)
        sent = F.relu(self.message(given))
        received = torch.zeros(x.size(0), x.size(1), 6).index_add(1, self.targets, sent)
        return F.relu(self.update(torch.cat([x, received], -1))).sum(1)


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.Conv3d(4, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.AdaptiveAvgPool3d(1)),
        )
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class C3d(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.pool1 = nn.Conv3d(3, 6, 3, padding=1), nn.MaxPool3d((1, 2, 2), stride=(1, 2, 2))
        self.conv2, self.pool2 = nn.Conv3d(6, 8, 3, padding=1), nn.MaxPool3d(2, padding=(0, 1, 1))
        self.fc = nn.Linear(8 * 2 * 3 * 3, 4)

    def forward(self, x):
        x = self.pool1(F.relu(self.conv1(x)))
        return self.fc(self.pool2(F.relu(self.conv2(x))).view(-1, 8 * 2 * 3 * 3))


class VNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.bottom = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 6, 3, padding=1)
        self.up, self.head = nn.ConvTranspose3d(6, 4, 2, 2), nn.Conv3d(12, 2, 1)

    def forward(self, x):
        a = F.relu(self.down(x))
        b = F.relu(self.bottom(F.avg_pool3d(a, 2)))
        again = F.interpolate(F.max_pool3d(a, 2), scale_factor=2, mode="trilinear", align_corners=False)
        return self.head(torch.cat([a, F.relu(self.up(b)), again], 1))


class TemporalShift(nn.Module):
    def __init__(self, frames=4):
        super().__init__()
        self.frames, self.conv1, self.conv2 = frames, nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        n, t, c, h, w = x.shape
        y = F.relu(self.conv1(x.view(n * t, c, h, w)))
        y = F.relu(self.conv2(self.shift(y, n, t)))
        return self.fc(y.mean((2, 3)).view(n, t, -1).mean(1))

    def shift(self, y, n, t):
        y = y.view(n, t, *y.shape[1:])
        out = torch.zeros_like(y)
        out[:, :-1, :2] = y[:, 1:, :2]
        out[:, 1:, 2:4] = y[:, :-1, 2:4]
        out[:, :, 4:] = y[:, :, 4:]
        return out.view(n * t, *y.shape[2:])


class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        y = torch.cumsum(F.relu(self.lin1(x)), dim=1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        return self.lin2(y)


def categories(n):
    """Two columns of categories, and values."""
    return torch.stack([torch.randint(0, 5, (n,)), torch.randint(0, 7, (n,))], 1), torch.randn(n, 4)


class Lstm(nn.Module):
    """Two layers in both directions; the mean over time is classified."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.cells(x)[0].mean(1))


class Gru(nn.Module):
    """The last state is classified."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.GRU(6, 12, batch_first=True), nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.cells(x)[1][-1])


KINDS = (
    Kind("wavenet", "", WaveNet, normal((1, 24))),
    Kind("tcn", "", Tcn, normal((4, 16))),
    Kind("audio_cnn", "C", AudioCnn, normal((12, 16))),
    Kind("unet_1d", "A", OneDUNet, normal((1, 16))),
    Kind("text_cnn", "B", TextCnn, WORDS),
    Kind("bag_of_words", "B", BagOfWords, WORDS),
    Kind("recommender", "B", Recommender, numbers(20, (), ())),
    Kind("table", "B", Table, categories),
    Kind("positions", "AB", Positions, WORDS),
    Kind("mixer", "", Mixer, normal((6, 8))),
    Kind("fourier", "A", Fourier, normal((6, 8))),
    Kind("pointnet", "C", PointNet, normal((3, 20))),
    Kind("point_segmentation", "AC", PointSegmentation, normal((3, 20))),
    Kind("deep_sets", "", DeepSets, normal((7, 3))),
    Kind("gcn", "A", Gcn, normal((6, 4))),
    Kind("messages", "A", Messages, normal((5, 4))),
    Kind("lstm", "H", Lstm, normal((10, 6))),
    Kind("gru", "H", Gru, normal((10, 6))),
    Kind("volume", "AC", Volume, normal((1, 8, 8, 8))),
    Kind("c3d", "AC", C3d, normal((3, 4, 8, 8))),
    Kind("vnet", "AC", VNet, normal((1, 8, 8, 8))),
    Kind("temporal_shift", "A", TemporalShift, normal((4, 3, 8, 8))),
    Kind("running_mean", "A", Running, normal((9, 3))),
)
