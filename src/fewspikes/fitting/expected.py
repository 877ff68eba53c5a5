"""What a neuron is worth on a problem: its weighted squared error and its mean spikes, from its exact steps."""

import numpy as np

from fewspikes.fitting.bounds import staircase
from fewspikes.fitting.problem import Problem
from fewspikes.fitting.staircase import place_at
from fewspikes.neuron.parameters import FSParameters


def expected(p: FSParameters, problem: Problem) -> tuple[float, float]:
    """The weighted squared error and the mean spikes of any neuron; a search's own give the same for its best d.

    Both sum to what the problem's weight and inputs sum to (1 where nothing else is said).
    """
    edges, outputs, patterns = staircase(p, (problem.low, problem.high))
    places = np.zeros((len(edges), 5))
    for edge, place in zip(edges, places, strict=True):
        place_at(edge, problem, place)
    weight, target, inputs = np.diff(places[:, 2:], axis=0).T
    y = outputs - problem.middle
    spikes = np.array([int(pattern).bit_count() for pattern in patterns])
    return float(problem.square + np.sum(y**2 * weight - 2 * y * target)), float(spikes @ inputs)
