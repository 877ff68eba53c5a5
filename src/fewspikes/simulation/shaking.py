"""Weights with noise of each step."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.chance import noisy_weight
from fewspikes.simulation.plan import Plan, Way


class Shaken:
    """Ways whose weights have noise that changes with the global step, if the network's faults say so.

    Args:
        plan: of the network.
        snn: the network.
    """

    def __init__(self, plan: Plan, snn: SpikingNetwork) -> None:
        faults = snn.faults
        self._deviation = faults.weight_noise if faults is not None and faults.weighs_anew else 0.0
        self._seed = 0 if faults is None else faults.seed
        self._names = {id(plan.tensors[name]): name for name in plan.structure.weights} if self._deviation else {}
        self._now, self._found = 0, dict[str, Tensor]()

    def at(self, now: int, way: Way) -> Way:
        """A way as it is in one global step."""
        if not self._deviation:
            return way
        if now != self._now:
            self._now, self._found = now, {}
        steps = (step._replace(args=tuple(map(self._noisy, step.args))) for step in way.steps)
        return replace(way, steps=tuple(steps))

    def _noisy(self, value: Any) -> Any:
        name = self._names.get(id(value))
        if name is None:
            return value
        if name not in self._found:
            self._found[name] = noisy_weight(value, self._deviation, self._seed, "weight", name, self._now)
        return self._found[name]
