"""The tensors of a network's output, whatever holds them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def tensors_of(output: Any) -> list[Tensor]:
    """All tensors in a network's output, in order."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def floats(output: Any) -> list[Tensor]:
    """Those that are floating."""
    return [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]


def compared(output: Any) -> list[Tensor]:
    """Those that an error is measured on: the floating ones, or all where there is none."""
    return floats(output) or tensors_of(output)
