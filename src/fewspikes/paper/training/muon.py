"""torch's Muon for convolutions."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class KernelMuon(torch.optim.Muon):
    """Muon (Jordan et al. 2024) on kernels [out, in, h, w], each a matrix with a row for every output channel.

    torch's own takes matrices alone: it is given views of the kernels, and before each step their gradients.

    Args:
        kernels: parameters of 4 dimensions, contiguous or channels-last, where they will stay.
        rate, momentum: of the steps, whose singular values are about 1, or the square root of out / (in h w) if more.
        decay: share of a kernel that a step of rate 1 takes away.
    """

    def __init__(self, kernels: Sequence[nn.Parameter], rate: float, momentum: float, decay: float) -> None:
        self._kernels = kernels
        matrices = [nn.Parameter(_ordered(k.detach(), k).view(len(k), -1)) for k in kernels]  # the kernels' own memory
        super().__init__(matrices, lr=rate, momentum=momentum, weight_decay=decay, nesterov=True)
        self._matrices = matrices

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step along the kernels' gradients."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            assert kernel.grad is not None
            matrix.grad = _ordered(kernel.grad, kernel).reshape(matrix.shape)
        return super().step(closure)


def _ordered(tensor: Tensor, kernel: nn.Parameter) -> Tensor:
    """A tensor of a kernel's shape, its dimensions in the order in which the kernel lies in memory."""
    return tensor if kernel.is_contiguous() else tensor.permute(0, 2, 3, 1)
