"""Which positions convolutions and pools take along an axis, as boolean matrices [inputs, outputs] for `contract`."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

Matrix = Bool[Tensor, "inputs outputs"]


def window(inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> Matrix:
    """Output o takes the inputs o stride - padding + k dilation, k = 0, ..., kernel - 1, as far as there are any."""
    column = torch.arange(outputs).expand(kernel, -1)
    row = column * stride - padding + torch.arange(kernel)[:, None] * dilation
    inside = (row >= 0) & (row < inputs)
    matrix = torch.zeros(inputs, outputs, dtype=torch.bool)
    matrix[row[inside], column[inside]] = True
    return matrix


def adaptive_window(inputs: int, outputs: int) -> Matrix:
    """Output o of an adaptive pool takes inputs floor(o inputs / outputs) to ceil((o + 1) inputs / outputs) - 1."""
    row, column = torch.arange(inputs)[:, None], torch.arange(outputs)
    first = column * inputs // outputs
    end = -(-(column + 1) * inputs // outputs)
    return (first <= row) & (row < end)


def groups_matrix(inputs: int, outputs: int, groups: int) -> Matrix:
    """Each output channel takes all input channels of its group."""
    row, column = torch.arange(inputs)[:, None], torch.arange(outputs)
    return row // (inputs // groups) == column // (outputs // groups)


def conv_windows(
    stride: Any, padding: Any, dilation: Any, x: Sequence[int], weight: Sequence[int], out: Sequence[int]
) -> list[Matrix]:
    """One matrix for each spatial axis of a convolution, from its settings and the shapes."""
    count = len(weight) - 2
    strides, dilations = spread(stride, count), spread(dilation, count)
    kernels = tuple(weight[2:])
    if padding == "same":
        # Of an odd total, PyTorch pads the odd row at the end.
        paddings = tuple(d * (k - 1) // 2 for d, k in zip(dilations, kernels, strict=True))
    else:
        paddings = spread(0 if padding == "valid" else padding, count)
    return [
        window(inputs, outputs, kernel, stride, padding, dilation)
        for inputs, outputs, kernel, stride, padding, dilation in zip(
            x[-count:], out[-count:], kernels, strides, paddings, dilations, strict=True
        )
    ]


def spread(value: Any, count: int) -> tuple[int, ...]:
    """One number for each of `count` axes, from a number or a list of one or `count` numbers."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * count if len(values) == 1 else values
