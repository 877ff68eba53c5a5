"""From the search's plain vector (T, h) to the parameters of a neuron."""

from collections.abc import Mapping
from typing import Any

from fewspikes.fitting.problem import Problem, Vector
from fewspikes.fitting.staircase import least_squares, workspace
from fewspikes.neuron.parameters import FSParameters


def parameters_of(
    code: Vector, problem: Problem, label: str, domain: tuple[float, float], provenance: Mapping[str, Any]
) -> FSParameters:
    """The neuron of the code (T, h) with the best d and offset for `problem`."""
    K = len(code) // 2
    work = workspace(K)
    least_squares(code, problem, work)
    offset = float(work.d[K]) + problem.middle if problem.offset else 0.0
    return FSParameters(code[:K], code[K:], work.d[:K], offset, label, domain, provenance)
