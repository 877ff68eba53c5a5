"""The paper's own fit: backpropagation through time with a triangle for the step's derivative; a reference to beat."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewspikes.base.progress import track
from fewspikes.fitting.problem import Problem
from fewspikes.neuron.grid import Grid
from fewspikes.neuron.parameters import FSParameters
from fewspikes.neuron.recurrence import TriangleSpike, spike_train

_POINTS = 512  # inputs of a step: one from each cell of an even division of the domain, at random


class Training(NamedTuple):
    """How long the reference trains: restarts side by side as one batch, Adam's steps, its first learning rate."""

    restarts: int = 24
    steps: int = 1500
    rate: float = 0.01


TRAININGS = {
    "quick": Training(restarts=8, steps=300),
    "normal": Training(),
    "long": Training(restarts=64, steps=6000),
}


class Code(NamedTuple):
    """The parameters of R neurons: T, h, d [R, K] and the offset [R, 1]."""

    T: Tensor
    h: Tensor
    d: Tensor
    offset: Tensor


def train(
    problem: Problem, K: int, seed: int, training: Training, grid: Grid | None = None, progress: bool | None = False
) -> FSParameters:
    """The best of many neurons trained by Adam on the problem's objective.

    With a grid the forward pass sees rounded parameters, and the gradient passes straight through the rounding.
    """
    random = torch.Generator().manual_seed(seed)
    code = _begin(problem, K, training.restarts, random)
    learned = [t.requires_grad_() for t in code[: 4 if problem.offset else 3]]
    adam = torch.optim.Adam(learned, training.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, training.steps)
    for _ in track(range(training.steps), "training by backpropagation", training.steps, progress):
        x, f, weight, density = _sample(problem, random)
        error, spikes = _errors(_rounded(code, grid), x, f, weight, density)
        paid = error + problem.spike_cost * spikes
        loss = paid / paid.detach() + problem.preference * spikes  # the gradient of log(paid)
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        schedule.step()
    return _best(problem, _rounded(code, grid))


def _begin(problem: Problem, K: int, restarts: int, random: torch.Generator) -> Code:
    """Binary codes of different sizes with noise; weights like the resets, as for a line of slope 1."""
    size = (problem.high - problem.low) / 2 * (0.5 + 0.5 * torch.rand(restarts, 1, generator=random))
    ratio = 0.5 + 0.35 * torch.rand(restarts, 1, generator=random)
    h = size * ratio ** torch.arange(K)
    T, d = (h * (1 + 0.2 * noise[0]) + 0.5 * noise[1] for noise in torch.randn(2, 2, restarts, K, generator=random))
    return Code(T, h.clone(), d, torch.zeros(restarts, 1))


def _sample(problem: Problem, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs [N], f there, and their shares of the weight and of the inputs, each summing to 1."""
    bins = len(problem.densities)
    place = (torch.arange(_POINTS) + torch.rand(_POINTS, generator=random)) / _POINTS
    rows = torch.from_numpy(problem.densities[(place.numpy() * bins).astype(np.int64).clip(0, bins - 1)]).float()
    x = problem.low + (problem.high - problem.low) * place
    return x, rows[:, 1] + problem.middle, rows[:, 0] / rows[:, 0].sum(), rows[:, 2] / rows[:, 2].sum()


def _errors(code: Code, x: Tensor, f: Tensor, weight: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted squared error and the mean spikes of each neuron, [R]."""
    T, h, d, offset = code
    y, spikes = offset.expand(-1, len(x)), torch.zeros(len(T), len(x))
    T_columns, h_columns = ([t[:, k : k + 1] for k in range(t.shape[1])] for t in (T, h))
    train = spike_train(x.expand(len(T), -1), T_columns, h_columns, TriangleSpike.apply)
    for k, z in enumerate(train):
        y = y + d[:, k : k + 1] * z
        spikes = spikes + z
    return ((y - f) ** 2) @ weight, spikes @ density


def _rounded(code: Code, grid: Grid | None) -> Code:
    if grid is None:
        return code
    return Code(*(t + (torch.from_numpy(grid.round(t.detach().numpy())).float() - t.detach()) for t in code))


def _best(problem: Problem, code: Code) -> FSParameters:
    """The neuron of least objective on the whole grid of the problem."""
    bins = len(problem.densities)
    x = torch.from_numpy(problem.low + (np.arange(bins) + 0.5) * (problem.high - problem.low) / bins).float()
    rows = torch.from_numpy(problem.densities).float()
    with torch.no_grad():
        weight, density = rows[:, 0] / rows[:, 0].sum(), rows[:, 2] / rows[:, 2].sum()
        error, spikes = _errors(code, x, rows[:, 1] + problem.middle, weight, density)
    allowed = torch.where(spikes <= problem.limit, 0.0, torch.inf)
    best = int(torch.argmin(torch.log(error + problem.spike_cost * spikes) + problem.preference * spikes + allowed))
    T, h, d, offset = (t[best].detach().double().numpy() for t in code)
    return FSParameters(T, h, d, float(offset[0]))
