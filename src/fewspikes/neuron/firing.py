"""A layer while it fires, step by step."""

from torch import Tensor

from fewspikes.base.moments import Moment
from fewspikes.base.sums import count_true
from fewspikes.neuron.kernels import compiled
from fewspikes.neuron.kernels.layout import dense
from fewspikes.neuron.layer import FSNeuron


class Firing:
    """A layer while it fires.

    Args:
        neuron: its neurons.
        x: what they have taken in.
        when: the time step of their loop, and which images these are.
    """

    def __init__(self, neuron: FSNeuron, x: Tensor, when: Moment) -> None:
        self.neuron, self.when = neuron, when
        self._before: Tensor | None = None
        gated = dense(neuron.gate(x))
        self.v = gated.clone() if gated is x else gated
        self.T, self.h, self.d, self.offset = (value.to(x.device) for value in neuron.parameters_for(x))
        self._sent: tuple[Tensor, Tensor, int] | None = None  # spikes, what they are worth, and how many there are
        self._worth = neuron.worth(self.d)

    def fire(self, t: int) -> Tensor:
        """The spikes of one step, and what stays in the membranes."""
        threshold = self.neuron.threshold(self.v, t, self.when)
        if not threshold.ndim:
            self._sent = compiled.fire(self.v, threshold, self.h[t], self._worth[t], self.neuron.axis)
            return self._sent[0]
        z = self.v >= threshold
        self.v -= self.h[t] * z
        self._sent = None
        return z

    def heard(self, t: int, z: Tensor) -> Tensor:
        """How many of the spikes sent up to this step the receivers hear in it; to be asked once a step, in order."""
        found = self.neuron.heard(z, self._before, t, self.when)
        self._before = z
        return found

    def value(self, t: int, heard: Tensor) -> Tensor | None:
        """What spikes that are heard are worth at the synapses; None where there are none."""
        if self._sent is not None and heard is self._sent[0]:
            return self._sent[1] if self._sent[2] else None
        return self.neuron.ungate(self.d[t] * heard.to(self.v.dtype)) if count_true(heard) else None
