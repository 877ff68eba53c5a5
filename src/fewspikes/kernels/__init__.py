"""The recurrence applied to whole tensors: one dispatch, engines that are equal bit for bit."""

from fewspikes.kernels import compiled
from fewspikes.kernels.dispatch import apply, engine_for, run
from fewspikes.kernels.module import FSNeuron, count_outside, overwriting

__all__ = ["FSNeuron", "apply", "compiled", "count_outside", "engine_for", "overwriting", "run"]
