"""`FSNeuron`: the neuron as a module, with a place for whoever counts its spikes."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewspikes.kernels.dispatch import run
from fewspikes.neuron import cast
from fewspikes.parameters import FSParameters

Observer = Callable[[Tensor, Tensor], None]


class FSNeuron(nn.Module):
    """A layer of FS-neurons that share one set of parameters.

    Differentiable: the spikes' pseudo-derivative is the triangle max(0, 1 - |v - T|).

    Args:
        parameters: T, h, d and offset; the module computes in its input's dtype.

    Attributes:
        table: the parameters.
        observers: functions (gate inputs, spikes per element) called after each forward pass.

    Source: paper, Fig. 2b.

    >>> from fewspikes import relu_parameters
    >>> FSNeuron(relu_parameters(K=3, alpha=8.0))(torch.tensor([5.3, -1.0]))
    tensor([5., 0.])
    """

    def __init__(self, parameters: FSParameters) -> None:
        super().__init__()
        self.table = parameters
        self.observers: list[Observer] = []
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """y = c + sum over t of d[t] z[t], elementwise; raises FewSpikesError unless float32 or float64."""
        y, spikes = run(x, *self._parameters_for(x), count=bool(self.observers))
        if spikes is not None:
            for observe in tuple(self.observers):
                observe(x.detach(), spikes)
        return y

    def _parameters_for(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The parameters in x's dtype and on its device, kept for the next call."""
        key = (x.dtype, x.device)
        if key in self._cast:
            return self._cast[key]
        with torch.inference_mode(False):  # the next call may want gradients
            made = cast(self.table, x)
        if type(made[0]) is Tensor and not torch.compiler.is_compiling():  # not one of a tracer's stand-ins
            self._cast[key] = made
        return made

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        return f"{self.table.activation}, K={self.table.K}"
