"""One fit by search or by backpropagation through time, from a problem to a neuron that keeps its limits."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting import bptt
from fewspikes.fitting.code import parameters_of
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.quantised import search_on_grid
from fewspikes.fitting.search import Pool
from fewspikes.fitting.searching import look
from fewspikes.fitting.silent import constant_code, is_constant, mean_value
from fewspikes.fitting.staircase import least_squares, workspace
from fewspikes.neuron.parameters import FSParameters, Grid

SLACK = 0.001  # a search may end so much above its own limit, relative, so that limit is set so much lower
_NEXT_TO_NONE = 0.01  # spikes: a limit below that may be met by silence


@dataclass(frozen=True)
class Settings:
    """How to fit, checked.

    Attributes:
        K: time steps.
        method: "search" or "bptt".
        effort: "quick", "normal" or "long".
        seed: of everything random.
        grid: the values that the parameters may take, if not all.
        warm: whether a search may begin from the shipped tables, too.
        progress: whether to show a bar; None: on a terminal.
    """

    K: int
    method: str
    effort: str
    seed: int
    grid: Grid | None = None
    warm: bool = True
    progress: bool | None = False


def fitted(problem: Problem, settings: Settings) -> tuple[FSParameters, Grid | None]:
    """The neuron, without label and provenance, and the grid with its scale.

    Raises:
        FewSpikesError: nothing found keeps to the problem's limit of spikes.
    """
    if is_constant(problem):
        code, d, offset = constant_code(problem, settings.K, mean_value(problem))
        made = FSParameters(code[: settings.K], code[settings.K :], d, offset)
        return (made, None) if settings.grid is None else _rounded(made, settings.grid)
    if settings.method == "bptt":
        return _trained(problem, settings)
    pool = look(problem, settings.K, settings.effort, settings.seed, settings.warm, settings.progress)
    if settings.grid is not None:
        return search_on_grid(problem, pool, settings.grid, settings.effort, settings.seed, settings.progress)
    return parameters_of(_allowed(pool, problem), problem, "", (problem.low, problem.high), {}), None


def _allowed(pool: Pool, problem: Problem) -> Vector:
    """The best code of the pool that keeps to the limit; one that never fires where next to no spikes are allowed."""
    K = pool.codes.shape[1] // 2
    work, fewest = workspace(K), np.inf
    for code in pool.codes[pool.values < np.inf]:
        _, spikes = least_squares(code, problem, work)
        if spikes <= problem.limit * (1 + SLACK):
            return np.asarray(code, np.float64)
        fewest = min(fewest, spikes)
    if problem.limit > _NEXT_TO_NONE:
        raise FewSpikesError(
            f"no code of at most {problem.limit:.4g} mean spikes was found, the fewest are {fewest:.4g}; "
            "allow more, or use effort='long'"
        )
    return np.concatenate([np.full(K, 2 * problem.high - problem.low), np.zeros(K)])


def _trained(problem: Problem, settings: Settings) -> tuple[FSParameters, Grid | None]:
    training = {
        "quick": bptt.Training(restarts=8, steps=300),
        "normal": bptt.Training(),
        "long": bptt.Training(restarts=64, steps=6000),
    }[settings.effort]
    code, d, offset = bptt.train(problem, settings.K, settings.seed, training, settings.grid, settings.progress)
    made = FSParameters(code[: settings.K], code[settings.K :], d, offset)
    return (made, None) if settings.grid is None else _rounded(made, settings.grid)


def _rounded(p: FSParameters, grid: Grid) -> tuple[FSParameters, Grid]:
    grid = grid.scaled_for(p)
    return p.quantize(grid.bits, grid.low, grid.high, endpoint=grid.endpoint, scale=grid.scale), grid


def words(inputs: Any) -> Any:
    """The inputs as provenance states them."""
    return list(inputs) if isinstance(inputs, tuple) else inputs if isinstance(inputs, str) else "measured"
