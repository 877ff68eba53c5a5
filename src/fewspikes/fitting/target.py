"""What a fit imitates: a named activation, or a function of the user's own, checked."""

from collections.abc import Callable

import torch
from torch import Tensor

from fewspikes.base.checks import said
from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting.problem import BINS, Function
from fewspikes.neuron.activation import POWERS_OF_TWO, Activation

_PROBES = 257  # points on which a function is checked; odd, so that no vector width divides them
_ZOOMS, _GROWTH = 3, 1000.0  # at a pole 1 / x each look closer, 8192 times, finds values so many times as large
_STEADY, _RISE = 0.5, 0.001  # at a pole of log each look adds as much; where a function is continuous, ever less
_OWN = "a function of the user's own"
_SAME = 1e-9  # relative; a vector unit may round the last bits of a value differently from place to place


def target_of(what: str | Activation | Callable[[Tensor], Tensor]) -> Activation:
    """The target by name ("relu6" among them), or a function of the user's own, of which nothing else is known.

    Raises:
        FewSpikesError: an unknown name, or neither a name nor a function.
    """
    if isinstance(what, Activation):
        return what
    if what == POWERS_OF_TWO:
        raise FewSpikesError(f"{POWERS_OF_TWO} is found in closed form, where circuits= asks for it; fit 'identity'")
    if isinstance(what, str):
        return Activation("relu", 6.0) if what == "relu6" else Activation(what)
    if not callable(what):
        raise FewSpikesError(f"the target must be an activation's name or a function of a tensor; got {said(what)}")
    return Activation(getattr(what, "__name__", type(what).__name__), expression=_OWN, function=what)


def check_function(function: Function, label: str, domain: tuple[float, float]) -> None:
    """Try a function on the domain.

    Raises:
        FewSpikesError: it raises, returns no float64 tensor of its input's shape, NaN or inf, or is not elementwise.
    """
    x = torch.linspace(*domain, _PROBES, dtype=torch.float64)
    y = _values(function, label, x)
    at = _pole(function, label, domain)
    if at is not None:
        raise FewSpikesError(
            f"{label} is not finite at x = {at:g}, within {domain[0]:.4g} to {domain[1]:.4g} (what a site sees, with a "
            "margin); choose a domain without that point, or a function that stays finite, such as 1 / (|x| + 0.1)"
        )
    order = torch.randperm(_PROBES, generator=torch.Generator().manual_seed(0))
    tries = ((x[order], y[order]), (x[: _PROBES // 2], y[: _PROBES // 2]), (x[None, 1:].T, y[None, 1:].T))
    size = float(y.abs().max())
    for part, wanted in tries:
        if not torch.allclose(_values(function, label, part), wanted, rtol=_SAME, atol=_SAME * size):
            raise FewSpikesError(
                f"{label} is not elementwise: its values change with the place or the company of an input; "
                "give a function of one number, such as torch.tanh"
            )


def _pole(function: Function, label: str, domain: tuple[float, float]) -> float | None:
    """Where the function is not finite, or grows beyond all bounds as one looks closer; None: nowhere found."""
    (low, high), sizes, middle = domain, list[float](), 0.0
    for _ in range(_ZOOMS):
        x = torch.linspace(low, high, 2 * BINS + 1, dtype=torch.float64)
        y = _values(function, label, x)
        if not bool(y.isfinite().all()):
            return float(x[~y.isfinite()][0])
        middle = middle if sizes else float(y.median())
        i = int((y - middle).abs().argmax())
        sizes.append(abs(float(y[i]) - middle))
        if sizes[-1] > _GROWTH * sizes[0]:
            return float(x[i])
        low, high = float(x[max(i - 1, 0)]), float(x[min(i + 1, 2 * BINS)])
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    return float(x[i]) if second > _STEADY * first > _STEADY * _RISE * sizes[0] else None


def _values(function: Function, label: str, x: Tensor) -> Tensor:
    try:
        y = function(x)
    except Exception as error:
        raise FewSpikesError(
            f"{label} raised on a float64 tensor of shape {tuple(x.shape)}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != torch.float64:
        got = f"{y.dtype}, {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise FewSpikesError(f"{label} must return a float64 tensor of its input's shape {tuple(x.shape)}; got {got}")
    return y.detach()
