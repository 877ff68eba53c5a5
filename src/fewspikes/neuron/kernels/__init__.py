"""The recurrence applied to whole tensors: one dispatch, engines that are equal bit for bit."""

from fewspikes.neuron.kernels import compiled
from fewspikes.neuron.kernels.dispatch import apply, engine_for, run

__all__ = ["apply", "compiled", "engine_for", "run"]
