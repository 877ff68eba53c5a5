"""What an FS-neuron imitates: the activation's function, domain and usual inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from math import inf
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError

POWERS_OF_TWO = "powers_of_two"  # f(x) = x by a code whose every number is one: what its spikes gate is shifted
_Interval = tuple[float, float]


class _Kind(NamedTuple):
    function: Callable[[Tensor], Tensor]
    domain: _Interval  # that a fit is made for by default
    turning_points: tuple[float, ...] = ()  # where the derivative changes sign
    main_region: _Interval | None = None
    typical_inputs: tuple[float, float] | None = None  # mean and variance
    degree: float | None = None  # n, where f(a x) = a^n f(x) for a > 0


# The paper's fitting domains and main region (section 1.2.1), and the mean and variance of the gate inputs of SiLU in
# EfficientNet-B7 and of ReLU in ResNet50 (Fig. 7). Functions of the same shape take over what SiLU and ReLU have.
_SILU_DOMAIN, _SILU_REGION, _SILU_INPUTS = (-8.0, 12.0), (-2.0, 2.0), (-0.112, 1.99)
_RELU_INPUTS = (-0.3697, 2.19)
_KINDS: dict[str, _Kind] = {
    "relu": _Kind(torch.relu, (-inf, inf), typical_inputs=_RELU_INPUTS, degree=1),
    "silu": _Kind(F.silu, _SILU_DOMAIN, (-1.278464542761074,), _SILU_REGION, _SILU_INPUTS),
    "sigmoid": _Kind(torch.sigmoid, (-10.0, 10.0)),
    "tanh": _Kind(torch.tanh, (-5.0, 5.0)),
    "gelu": _Kind(F.gelu, _SILU_DOMAIN, (-0.7517915246935645,), _SILU_REGION, _SILU_INPUTS),
    "gelu_tanh": _Kind(
        lambda x: F.gelu(x, approximate="tanh"), _SILU_DOMAIN, (-0.7524614220710163,), _SILU_REGION, _SILU_INPUTS
    ),
    "hardswish": _Kind(F.hardswish, _SILU_DOMAIN, (-1.5,), _SILU_REGION, _SILU_INPUTS),
    "hardsigmoid": _Kind(F.hardsigmoid, (-6.0, 6.0)),
    "softplus": _Kind(F.softplus, _SILU_DOMAIN, (), _SILU_REGION, _SILU_INPUTS),
    "elu": _Kind(F.elu, _SILU_DOMAIN, (), _SILU_REGION, _RELU_INPUTS),
    "identity": _Kind(lambda x: x, (-8.0, 8.0), degree=1),
    POWERS_OF_TWO: _Kind(lambda x: x, (-8.0, 8.0)),
    "leaky_relu": _Kind(F.leaky_relu, _SILU_DOMAIN, (), _SILU_REGION, _RELU_INPUTS, degree=1),
    "mish": _Kind(F.mish, _SILU_DOMAIN, (-1.1924312145154952,), _SILU_REGION, _SILU_INPUTS),
    "exp": _Kind(torch.exp, (-10.0, 0.0)),
    "reciprocal": _Kind(torch.reciprocal, (0.5, 8.0), degree=-1),
    "rsqrt": _Kind(torch.rsqrt, (0.125, 8.0), degree=-0.5),
    "square": _Kind(torch.square, (-4.0, 4.0), (0.0,), degree=2),
}
ACTIVATIONS = tuple(_KINDS)
_SETTINGS = {"leaky_relu": ("negative_slope",)}  # those that a named activation may have; others are expressions
_OTHER_NAMES = {"swish": "silu", "hard_swish": "hardswish", "hard_sigmoid": "hardsigmoid", "gelu_new": "gelu_tanh"}


@dataclass(frozen=True)
class Activation:
    """An activation function: one by name, or any elementwise expression of one signal.

    Names: relu, silu, sigmoid, tanh, gelu, gelu_tanh, hardswish, hardsigmoid, softplus, elu, leaky_relu, mish,
    identity, powers_of_two, exp, reciprocal, rsqrt, square; all as in torch, and powers_of_two f(x) = x by a code whose
    every d and offset is a power of two. ReLU6 is `Activation("relu", cap=6.0)`.

    Args:
        name: one of the names, or what an expression is to be called.
        cap: of a ReLU.
        settings: as (name, value), those that differ from torch's defaults.
        expression: what the function computes, as text that whoever made it can read; "" for a named activation.
        function: the expression's function of a tensor.
        power: of an expression, its `degree` if it has one.

    Raises:
        FewSpikesError: an unknown name, or a cap that is no finite number > 0 on a relu.

    >>> Activation("relu", cap=6.0)(torch.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    name: str
    cap: float | None = None
    settings: tuple[tuple[str, float], ...] = ()
    expression: str = ""
    function: Callable[[Tensor], Tensor] | None = field(default=None, compare=False, repr=False)
    power: float | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.function is not None and self.expression:
            return
        if not isinstance(self.name, str) or self.name not in _KINDS or self.expression:
            near = [_OTHER_NAMES.get(str(self.name)), *get_close_matches(str(self.name), ("relu6", *_KINDS), 1)]
            hint = next((f"did you mean {name!r}? " for name in near if name), "")
            raise FewSpikesError(f"unknown activation {checks.said(self.name)}; {hint}known: {', '.join(_KINDS)}")
        if self.cap is not None and self.name != "relu":
            raise FewSpikesError(f"a cap must be on a relu; got {checks.said(self.cap)} on {self.name!r}")
        if self.cap is not None:
            object.__setattr__(self, "cap", checks.positive("a cap", self.cap))
        for name, value in self.settings:
            if name not in _SETTINGS.get(self.name, ()):
                raise FewSpikesError(f"{self.name} has no setting {checks.said(name)}")
            checks.finite(f"{name} of {self.name}", value)

    def __call__(self, x: Tensor) -> Tensor:
        """f(x), elementwise."""
        if self.function is not None:
            return self.function(x)
        named = _KINDS[self.name].function
        if self.cap is not None:
            return x.clamp(0.0, self.cap)
        return partial(named, **dict(self.settings))(x) if self.settings else named(x)

    @property
    def is_plain(self) -> bool:
        """Whether it is a named function with torch's own settings: what tables are made for."""
        return not self.settings and not self.expression

    @property
    def label(self) -> str:
        """The name that reports show: "silu", "relu", "relu6", "relu[0,3.5]", "leaky_relu(0.1)"."""
        if self.settings:
            return f"{self.name}({', '.join(f'{value:g}' for _, value in self.settings)})"
        if self.cap is None:
            return self.name
        return "relu6" if self.cap == 6.0 else f"relu[0,{self.cap:g}]"

    @property
    def domain(self) -> _Interval:
        """The inputs that a fit is made for by default; without ends for a ReLU, whose range says them."""
        return (-inf, inf) if self.expression else _KINDS[self.name].domain

    @property
    def turning_points(self) -> tuple[float, ...] | None:
        """Where f' changes its sign, so that between them f is monotone; None: not known.

        So the largest error of a staircase on one of its steps lies at an end of the step or at a turning point.
        """
        return _KINDS[self.name].turning_points if self.is_plain else None

    @property
    def main_region(self) -> _Interval | None:
        """The part of the domain that the paper's loss weighs more; None where nothing is weighed more."""
        return None if self.expression else _KINDS[self.name].main_region

    @property
    def typical_inputs(self) -> tuple[float, float] | None:
        """Mean and variance of this activation's usual inputs (the paper's, or those of a like function)."""
        return None if self.expression else _KINDS[self.name].typical_inputs

    @property
    def degree(self) -> float | None:
        """n where f(a x) = a^n f(x) for a > 0, up to a cap: then a scale per channel changes nothing but the code."""
        return self.power if self.expression else _KINDS[self.name].degree

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        content: dict[str, Any] = {"name": self.name, "cap": self.cap}
        content |= {"settings": dict(self.settings)} if self.settings else {}
        return content | ({"expression": self.expression} if self.expression else {})

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Activation":
        """The reverse of `to_json` for a named activation."""
        settings = content.get("settings", {})
        return cls(content["name"], content["cap"], tuple((str(k), float(v)) for k, v in settings.items()))
