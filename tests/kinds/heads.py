"""Networks with several inputs or outputs, in structures of their own, and with maxima in other places."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinds.kind import Kind, normal

VECTOR, IMAGE = normal((6,)), normal((3, 12, 12))
Heads = namedtuple("Heads", "logits features")


@dataclass
class Output:
    logits: Tensor
    features: Tensor
    loss: Tensor | None = None


class Heading(nn.Module):
    def __init__(self, structure):
        super().__init__()
        self.body, self.head, self.structure = nn.Sequential(nn.Linear(6, 12), nn.ReLU()), nn.Linear(12, 3), structure

    def forward(self, x):
        features = self.body(x)
        return self.structure(self.head(features), features)


class PictureAndTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.head = nn.Conv2d(3, 8, 3), nn.Linear(6, 8), nn.Linear(16, 2)

    def forward(self, image, table):
        a = F.relu(self.conv(image)).mean((2, 3))
        return self.head(torch.cat([a, F.relu(self.fc(table))], dim=1))


class Ranking(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 7))

    def forward(self, x):
        logits = self.net(x)
        values, places = logits.topk(3, dim=-1)
        return {"logits": logits, "class": logits.argmax(dim=1), "best": values, "places": places}


class Pooled(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv1, self.conv2, self.pool = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), pool
        self.head = nn.LazyLinear(4)
        self.head(torch.flatten(self.features(torch.zeros(1, 3, 12, 12)), 1))

    def features(self, x):
        return self.pool(F.relu(self.conv2(F.relu(self.conv1(x)))))

    def forward(self, x):
        return self.head(torch.flatten(self.features(x), 1))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        y = torch.maximum(self.a(x), self.b(x))
        return self.head(torch.relu(y).mean((2, 3)))


def by_name(n):
    """A picture and a table, by their names."""
    return {"image": torch.randn(n, 3, 12, 12), "table": torch.randn(n, 6)}


KINDS = (
    Kind("several_inputs", "", PictureAndTable, by_name),
    Kind("heads_dict", "", lambda: Heading(lambda a, b: {"logits": a, "features": b}), VECTOR),
    Kind("heads_ordered_dict", "", lambda: Heading(lambda a, b: OrderedDict(logits=a, features=b)), VECTOR),
    Kind("heads_named_tuple", "", lambda: Heading(Heads), VECTOR),
    Kind("heads_numbered", "O", lambda: Heading(lambda a, b: {0: a, 1: b}), VECTOR),
    Kind("heads_dataclass", "O", lambda: Heading(Output), VECTOR),
    Kind("heads_nested", "", lambda: Heading(lambda a, b: {"all": [a, (b, None)]}), VECTOR),
    Kind("ranking", "C", Ranking, VECTOR),
    Kind("max_indices_unread", "C", lambda: Pooled(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]), IMAGE),
    Kind("adaptive_max_pool", "C", lambda: Pooled(nn.AdaptiveMaxPool2d((2, 3))), IMAGE),
    Kind("global_max", "C", lambda: Pooled(lambda x: x.amax(dim=(-2, -1))), IMAGE),
    Kind("avg_and_max", "C", lambda: Pooled(lambda x: torch.cat([x.mean((2, 3)), x.flatten(2).max(-1)[0]], 1)), IMAGE),
    Kind("maximum_of_branches", "C", Branches, IMAGE),
)
