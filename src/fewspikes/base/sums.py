"""Sums of many numbers that come out the same to the last bit whatever the number of threads.

torch deals one large sum to its threads, so its rounding depends on how many there are. Sums of rows it does not cut.
"""

import numpy as np
import torch
from torch import Tensor

_ROW = 1 << 14  # torch adds fewer than 2^15 numbers in one thread


def total(x: Tensor) -> Tensor:
    """The sum of all elements, a scalar in their dtype; differentiable."""
    x = x.reshape(-1)
    while len(x) > _ROW:
        whole = len(x) // _ROW * _ROW
        x = torch.cat([x[:whole].view(-1, _ROW).sum(1), x[whole:].sum().view(1)])
    return x.sum()


def row_sums(x: Tensor) -> Tensor:
    """The sums over the last axis."""
    return total(x).reshape(x.shape[:-1]) if x.shape[:-1].numel() == 1 else x.sum(-1)


def count_true(mask: Tensor) -> int:
    """How many elements are True; on the CPU numpy counts them twenty times as fast as torch."""
    return int(np.count_nonzero(mask.numpy()) if mask.device.type == "cpu" else mask.sum())


def mean(x: Tensor) -> Tensor:
    """The mean of all elements; NaN of none."""
    return total(x) / x.numel()


def variance(x: Tensor) -> float:
    """The variance of all elements about their mean, in float64."""
    wide = x.double()
    return float(mean((wide - mean(wide)).square()))
