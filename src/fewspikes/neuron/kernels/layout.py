"""Memory layouts: an elementwise kernel may take the elements in the order of memory."""

import numpy as np
import torch
from torch import Tensor


def dense(x: Tensor) -> Tensor:
    """The same values, copied only if their memory has gaps or repeats."""
    return x if _in_order(x).is_contiguous() else x.contiguous()


def flat(x: Tensor) -> np.ndarray:
    """The elements of a dense tensor on the CPU in the order of memory, without a copy."""
    array: np.ndarray = _in_order(x).reshape(-1).numpy()
    return array


def stride_of(x: Tensor, axis: int) -> int:
    """How far neighbours along the axis of a dense tensor are apart in memory; 1 where there is one position only.

    Nobody steps along such an axis, so its stride may be any number, 0 too.
    """
    return 1 if x.shape[axis] == 1 else x.stride(axis)


def _in_order(x: Tensor) -> torch.Tensor:
    return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True))
