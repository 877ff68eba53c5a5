"""The recurrence of the FS-neuron. It stands here once; every engine must equal it bit for bit."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.neuron.parameters import FSParameters

Fires = Callable[[Tensor, Tensor], Tensor]


class TriangleSpike(torch.autograd.Function):
    """z = (v >= T), with the pseudo-derivative dz/dv = -dz/dT = max(0, 1 - |v - T|).

    Source: paper, section 1.2.1 (triangle-shaped pseudo-derivative for the Heaviside step).
    """

    @staticmethod
    def forward(ctx: Any, v: Tensor, T: Tensor) -> Tensor:  # type: ignore[override]
        """The Heaviside step of v - T."""
        ctx.save_for_backward(v, T)
        return heaviside(v, T)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The gradient times the triangle."""
        v, T = ctx.saved_tensors
        slope = grad * (1 - (v - T).abs()).clamp_min(0)
        return slope, -slope.sum_to_size(T.shape)


def heaviside(v: Tensor, T: Tensor) -> Tensor:
    """1 where v >= T, else 0, in v's dtype; a NaN never fires."""
    return (v >= T).to(v.dtype)


def spike_train(x: Tensor, T: Iterable[Tensor], h: Iterable[Tensor], fires: Fires = heaviside) -> Iterator[Tensor]:
    """Yield z[1], z[2], ..., z[K], each of x's shape and dtype with values 0 and 1.

    Equation: v[1] = x;  z[t] = fires(v[t], T[t]);  v[t+1] = v[t] - h[t] z[t].

    Args:
        x: gate inputs, any shape, float32 or float64.
        T, h: K thresholds and resets, each a tensor that broadcasts against x, in x's dtype.
        fires: the step function; `TriangleSpike.apply` makes the train differentiable.

    Source: paper, equations (1) and (2).
    """
    v = x
    for threshold, reset in zip(T, h, strict=True):
        z = fires(v, threshold)
        yield z
        v = v - reset * z


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return said(value)
    return f"a nested tensor of {value.dtype}" if value.is_nested else f"{value.layout} of {value.dtype}"


def cast(p: FSParameters, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """T, h, d (each [K]) and the offset (scalar), rounded once to the dtype and moved to the device of `like`."""
    if not isinstance(like, Tensor) or like.layout != torch.strided or like.is_nested:
        raise FewSpikesError(f"FS-neurons take a dense tensor; got {_described(like)}")
    if like.dtype not in (torch.float32, torch.float64):  # fewer bits cannot hold the code
        raise FewSpikesError(
            f"FS-neurons compute in float32 or float64; got {like.dtype}. Leave autocast, or convert it with .float()"
        )
    check_fits(p, like.dtype)
    T, h, d, offset = (
        torch.as_tensor(np.array(values)).to(like.device, like.dtype) for values in (p.T, p.h, p.d, p.offset)
    )
    return T, h, d, offset


def check_fits(p: FSParameters, dtype: torch.dtype) -> None:
    """Raise FewSpikesError unless a floating dtype holds the code: beyond its range numbers and outputs become inf."""
    largest = max(float(np.abs(p.numbers).max()), float(np.abs(p.d).sum() + abs(p.offset)))
    most = torch.finfo(dtype).max
    if largest > most:
        raise FewSpikesError(
            f"T, h, d and the largest output must be numbers of {dtype}, {most:.3g} at most; got "
            f"{largest:.3g} ({p.activation}, K={p.K}). Use float64, or scale the network's weights"
        )


def encode(x: Float[Tensor, "*shape"], p: FSParameters) -> Bool[Tensor, "K *shape"]:
    """The spikes z[t] that the FS-neuron fires for each gate input.

    Args:
        x: gate inputs, float32 or float64.
        p: the neuron's parameters.

    Raises:
        FewSpikesError: another dtype.

    >>> from fewspikes import relu_parameters
    >>> encode(torch.tensor([5.0]), relu_parameters(K=3, alpha=8.0)).squeeze(1).tolist()
    [True, False, True]
    """
    T, h, _, _ = cast(p, x)
    return torch.stack([z.bool() for z in spike_train(x, T, h)])


def decode(z: Bool[Tensor, "K *shape"], p: FSParameters, dtype: torch.dtype = torch.float32) -> Float[Tensor, "*shape"]:
    """The value that spikes stand for: y = c + sum over t of d[t] z[t], added in the order of t.

    Args:
        z: spikes, first axis K.
        p: the neuron's parameters.
        dtype: of the result, torch.float32 or torch.float64.

    Raises:
        FewSpikesError: z has another number of steps than p.

    Source: paper, equation (3).
    """
    if z.ndim < 1 or len(z) != p.K:
        raise FewSpikesError(f"spikes of {p.K} steps wanted, first axis K; got shape {tuple(z.shape)}")
    like = torch.empty((), dtype=dtype, device=z.device)
    _, _, d, offset = cast(p, like)
    y = offset.expand(z.shape[1:]).clone()
    for weight, spikes in zip(d, z, strict=True):
        y = y + weight * spikes.to(dtype)
    return y
