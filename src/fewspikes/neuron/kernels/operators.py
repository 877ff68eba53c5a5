"""`torch.ops.fewspikes.staircase`: the recurrence as one operator, which torch.compile and torch.export keep whole.

Eager code never comes here: calling the engines directly is quicker.
"""

import torch
from torch import Tensor

from fewspikes.neuron.kernels import compiled, cuda, reference


@torch.library.custom_op("fewspikes::staircase", mutates_args=())
def staircase(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """y and the spikes per element (uint8), by the plain loop; T, h, d [K] and the offset are like x."""
    return reference.apply(x, T, h, d, offset, count=True)  # type: ignore[return-value]


@staircase.register_kernel("cpu")
def _(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    return compiled.apply(x, T, h, d, offset, count=True)  # type: ignore[return-value]


@staircase.register_kernel("cuda")
def _(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    return (cuda if cuda.AVAILABLE else reference).apply(x, T, h, d, offset, count=True)  # type: ignore[no-any-return]


@staircase.register_fake
def _(x: Tensor, T: Tensor, h: Tensor, d: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.uint8)
