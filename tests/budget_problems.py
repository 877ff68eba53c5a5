"""Networks with all that a budget needs."""

import torch
from torch import nn

import fewspikes as fs
from fewspikes.conversion.allocation import allocate
from fewspikes.measure.deal import Images
from fewspikes.measure.measurement import Beside, measure


class Branched(nn.Module):
    """Two ReLUs in a row, and beside them a third whose output counts a hundredth."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.aside = nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(6, 12)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        on = self.relu2(self.second(self.relu1(self.first(x))))
        return self.head(on + 0.01 * self.relu3(self.aside(x)))


class Joined(nn.Module):
    """Two branches, of two sites and of one, that meet before a third; a shape is read from the longer one."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(6, 6) for _ in range(4))
        self.relu_a, self.relu_b, self.relu_c, self.relu_d = (nn.ReLU() for _ in range(4))

    def forward(self, x):
        long = self.relu_b(self.b(self.relu_a(self.a(x))))
        aside = self.relu_c(self.c(x) + torch.zeros_like(long))
        return self.relu_d(self.d(long + aside))


class Problem:
    """A network with all that a budget needs: closed forms, no repair."""

    def __init__(self, model, shape, held=64, labels=True):
        self.model = model.eval().requires_grad_(False)
        x = 2 * torch.randn(64 + held, *shape)
        self.images = Images((x[:64],))
        self.snn = fs.convert(model, x[:1], K=4, alpha=4.0)
        truth = self.model(x[64:]).argmax(1) if labels else None
        self.kept = Images((x[64:],), truth)
        self.built = []

    def parameters(self, name, K):
        return fs.relu_parameters(K, 6.0, "nearest")

    def build(self, k, quick):
        self.built.append((dict(k), quick))
        return self.snn.with_neurons({name: fs.FSNeuron(self.parameters(name, steps)) for name, steps in k.items()})

    @property
    def given(self):
        return self.snn, self.parameters, self.build, self.images, self.kept

    def allocate(self, **limits):
        return allocate(*self.given, fs.Budget(**limits))

    def held(self, snn):
        return measured(snn, self.kept)

    def error(self, snn):
        return self.held(snn).error


def measured(snn, images):
    """The network beside its own ANN."""
    return measure(snn, Beside(images, snn.as_ann()), expected=True)


def branched(**options):
    torch.manual_seed(5)
    return Problem(Branched(), (6,), **options)


def in_a_row():
    """Three sites in a row; 0.001 of the middle one's output and all of the last one's matters."""
    torch.manual_seed(6)
    layers = [nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 5)]
    return Problem(nn.Sequential(*layers), (6,))
