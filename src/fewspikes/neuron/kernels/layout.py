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


def _in_order(x: Tensor) -> torch.Tensor:
    return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True))
