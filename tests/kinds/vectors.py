"""Perceptrons with activations of all sorts, and networks for control and physics."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from kinds.kind import Kind, even, normal

VECTOR = normal((6,))


class Perceptron(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.activation = (
            nn.Linear(6, 12),
            nn.Linear(12, 12),
            nn.Linear(12, 3),
            activation,
        )

    def forward(self, x):
        return self.fc3(self.activation(self.fc2(self.activation(self.fc1(x)))))


class Siren(nn.Module):
    def __init__(self, omega=5.0):
        super().__init__()
        self.omega, self.layers, self.head = (
            omega,
            nn.ModuleList([nn.Linear(2, 16), nn.Linear(16, 16)]),
            nn.Linear(16, 3),
        )
        with torch.no_grad():
            self.layers[1].weight.uniform_(-math.sqrt(6 / 16) / omega, math.sqrt(6 / 16) / omega)

    def forward(self, x):
        for layer in self.layers:
            x = torch.sin(self.omega * layer(x))
        return self.head(x)


class Nerf(nn.Module):
    def __init__(self, frequencies=3):
        super().__init__()
        self.register_buffer("bands", 2.0 ** torch.arange(frequencies))
        self.fc1, self.fc2 = nn.Linear(3 * (1 + 2 * frequencies), 16), nn.Linear(16 + 3, 16)
        self.density, self.color = nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, x):
        angles = (x[..., None] * self.bands).flatten(-2)
        y = torch.cat([x, torch.sin(angles), torch.cos(angles)], dim=-1)
        y = F.relu(self.fc2(torch.cat([F.relu(self.fc1(y)), x], dim=-1)))
        return torch.cat([torch.sigmoid(self.color(y)), F.relu(self.density(y))], dim=-1)


class Physics(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1))

    def forward(self, x, t):
        return self.net(torch.cat([x, t], dim=1))


class Frames(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 8, 4, stride=2), nn.Conv2d(8, 8, 3)
        self.fc1, self.fc2 = nn.Linear(8 * 3 * 3, 16), nn.Linear(16, 4)

    def forward(self, frames):
        x = frames.float() / 255.0
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        return self.fc2(F.relu(self.fc1(x.view(x.size(0), -1))))


class Dueling(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.value, self.advantage = nn.Linear(16, 1), nn.Linear(16, 4)

    def forward(self, x):
        x = self.body(x)
        advantage = self.advantage(x)
        return self.value(x) + advantage - advantage.mean(dim=1, keepdim=True)


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.mean, self.std, self.critic = nn.Linear(16, 2), nn.Linear(16, 2), nn.Linear(16, 1)

    def forward(self, x):
        x = self.body(x)
        return (2.0 * torch.tanh(self.mean(x)), F.softplus(self.std(x)) + 1e-4), self.critic(x).squeeze(-1)


class GaussianPolicy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.mean, self.log_std = nn.Linear(6, 16), nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, x):
        x = F.relu(self.body(x))
        return self.mean(x), torch.clamp(self.log_std(x), min=-2, max=1).exp()


class TwinCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.q1, self.q2 = (nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 1)) for _ in range(2))

    def forward(self, state, action):
        x = torch.cat([state, action], 1)
        return torch.min(self.q1(x), self.q2(x))


class Maxout(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8 * 3), nn.Linear(8, 3)

    def forward(self, x):
        y, _ = self.fc1(x).view(-1, 8, 3).max(dim=-1)
        return torch.tanh(self.fc2(y))


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.Sigmoid())
        self.out = nn.Linear(8, 1)

    def forward(self, a, b):
        return self.out(torch.abs(self.tower(a) - self.tower(b)))


class RadialBasis(nn.Module):
    def __init__(self, centres=10):
        super().__init__()
        self.project, self.out = nn.Linear(6, centres), nn.Linear(centres, 3)
        self.gamma = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.out(torch.exp(-self.gamma * self.project(x).pow(2)))


class Beta(nn.Module):
    def __init__(self, features=12):
        super().__init__()
        self.beta = nn.Parameter(torch.linspace(0.5, 1.5, 3)[torch.arange(features) % 3])

    def forward(self, x):
        return x * torch.sigmoid(self.beta * x)


class ResMlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha, self.beta = nn.Parameter(0.5 + torch.rand(8)), nn.Parameter(0.1 * torch.randn(8))
        self.fc1, self.fc2, self.scale = nn.Linear(8, 16), nn.Linear(16, 8), nn.Parameter(torch.rand(8))

    def forward(self, x):
        y = torch.addcmul(self.beta, self.alpha, x)
        x = x + self.scale * self.fc2(F.gelu(self.fc1(y)))
        return x.mean(dim=list(range(1, x.dim())))


class IndexTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.randperm(8))
        self.register_buffer("where", torch.randint(0, 8, (1, 5)))
        self.table = nn.Parameter(torch.randn(20, 8))
        self.register_buffer("index", torch.randint(0, 20, (8,)))
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(5, 2)

    def forward(self, x):
        y = F.relu(self.fc1(x[:, self.order]) + self.table[self.index].mean(0))
        return self.fc2(y.gather(1, self.where.expand(x.size(0), -1)))


def frames(n):
    """Stacked grey pictures of bytes."""
    return (torch.randint(0, 256, (n, 4, 12, 12), dtype=torch.uint8),)


def perceptrons(**activations):
    """A kind for each activation, by its name."""
    return tuple(
        Kind(name, "D", lambda activation=activation: Perceptron(activation), VECTOR)
        for name, activation in activations.items()
    )


KINDS = (
    Kind("siren", "D", Siren, even(2)),
    Kind("nerf", "D", Nerf, even(3)),
    Kind("physics", "", Physics, normal((1,), (1,))),
    Kind("frames", "A", Frames, frames),
    Kind("dueling", "", Dueling, VECTOR),
    Kind("actor_critic", "D", ActorCritic, VECTOR),
    Kind("gaussian_policy", "D", GaussianPolicy, VECTOR),
    Kind("twin_critic", "C", TwinCritic, normal((6,), (2,))),
    Kind("maxout", "C", Maxout, VECTOR),
    Kind("siamese", "D", Siamese, normal((6,), (6,))),
    Kind("radial_basis", "D", RadialBasis, VECTOR),
    Kind("prelu", "D", lambda: Perceptron(nn.PReLU()), VECTOR),
    Kind("prelu_channels", "D", lambda: Perceptron(nn.PReLU(12)), VECTOR),
    Kind("swish_beta", "D", lambda: Perceptron(Beta()), VECTOR),
    Kind("res_mlp", "A", ResMlp, normal((5, 8))),
    Kind("index_table", "A", IndexTable, normal((8,))),
    *perceptrons(
        leaky=nn.LeakyReLU(0.3),
        selu=nn.SELU(),
        celu=nn.CELU(0.7),
        softplus=nn.Softplus(beta=2.0, threshold=10),
        hardtanh=nn.Hardtanh(-2.0, 2.0),
        clamped=lambda x: x.clamp(-0.5, 1.5),
        threshold=nn.Threshold(0.1, -0.2),
        softsign=nn.Softsign(),
        log_sigmoid=nn.LogSigmoid(),
        hardshrink=nn.Hardshrink(0.3),
        square=lambda x: 0.3 * x**2,
        relu_squared=lambda x: F.relu(x).square(),
        squareplus=lambda x: (x + torch.sqrt(x * x + 4)) / 2,
        erf_gelu=lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
        quick_gelu=lambda x: x * torch.sigmoid(1.702 * x),
        snake=lambda x: x + torch.sin(x).pow(2),
        cosine=torch.cos,
        where=lambda x: torch.where(x > 0, x, 0.1 * x),
        bent=lambda x: x / (1 + x.abs()),
        log1p=lambda x: torch.sign(x) * torch.log1p(x.abs()),
        reciprocal=lambda x: 1 / (1 + x.exp()),
    ),
)
