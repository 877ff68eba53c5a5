"""Weights with noise that is drawn anew."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from fewspikes.network.spiking import SpikingNetwork
from fewspikes.neuron.chance import noisy_weight
from fewspikes.simulation.plan import Plan, Way


class Shaken:
    """Weights that have noise of each global step, if the network's faults say so.

    Numbers go through weights once, so there each has one draw, that of step 0.

    Args:
        plan: of the network.
        snn: the network.
    """

    def __init__(self, plan: Plan, snn: SpikingNetwork) -> None:
        faults = snn.faults
        self._deviation = faults.weight_noise if faults is not None and faults.weighs_anew else 0.0
        self._seed = 0 if faults is None else faults.seed
        self._tensors = snn.tensors
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

    def still(self, name: str) -> Tensor:
        """A constant as it is where numbers go through it."""
        tensor = self._tensors[name]
        return self._drawn(tensor, name, 0) if name in self._names.values() else tensor

    def _noisy(self, value: Any) -> Any:
        name = self._names.get(id(value))
        if name is None:
            return value
        if name not in self._found:
            self._found[name] = self._drawn(value, name, self._now)
        return self._found[name]

    def _drawn(self, value: Tensor, name: str, step: int) -> Tensor:
        return noisy_weight(value, self._deviation, self._seed, "weight", name, step)
