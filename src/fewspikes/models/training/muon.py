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
        matrices = [nn.Parameter(_matrix(kernel.detach())) for kernel in kernels]
        super().__init__(matrices, lr=rate, momentum=momentum, weight_decay=decay, nesterov=True)
        self._matrices = matrices

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step along the kernels' gradients."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            assert kernel.grad is not None
            matrix.grad = _like(kernel, kernel.grad)
        return super().step(closure)


def _matrix(kernel: Tensor) -> Tensor:
    """The kernel's own memory as [out, in * h * w], the columns in the order in which they lie there."""
    ordered = kernel if kernel.is_contiguous() else kernel.permute(0, 2, 3, 1)
    return ordered.view(len(kernel), -1)


def _like(kernel: Tensor, gradient: Tensor) -> Tensor:
    ordered = gradient if kernel.is_contiguous() else gradient.permute(0, 2, 3, 1)
    return ordered.reshape(len(kernel), -1)
