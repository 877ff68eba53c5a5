"""What an FS-neuron imitates: the activation's function, domain and usual inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from fewspikes.errors import FewSpikesError

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "sigmoid": torch.sigmoid,
}
# The paper's fitting domains and main region (section 1.2.1).
_DOMAINS = {"relu": (-inf, inf), "silu": (-8.0, 12.0), "sigmoid": (-10.0, 10.0)}
_MAIN_REGIONS = {"silu": (-2.0, 2.0)}
# Mean and variance of the gate inputs in EfficientNet-B7 and ResNet50 (paper, Fig. 7).
_TYPICAL_INPUTS = {"silu": (-0.112, 1.99), "relu": (-0.3697, 2.19)}


@dataclass(frozen=True)
class Activation:
    """An activation function by name; a ReLU may carry a cap (ReLU6 is `Activation("relu", cap=6.0)`).

    >>> Activation("relu", cap=6.0)(torch.tensor([-1.0, 2.0, 9.0]))
    tensor([0., 2., 6.])
    """

    name: str
    cap: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _FUNCTIONS:
            raise FewSpikesError(f"unknown activation {self.name!r}; known: {', '.join(_FUNCTIONS)}")
        if self.cap is not None and (self.name != "relu" or not isfinite(self.cap) or self.cap <= 0):
            raise FewSpikesError(f"a cap must be a finite number > 0 on a relu; got {self.cap} on {self.name!r}")

    def __call__(self, x: Tensor) -> Tensor:
        """f(x), elementwise."""
        return _FUNCTIONS[self.name](x) if self.cap is None else x.clamp(0.0, self.cap)

    @property
    def label(self) -> str:
        """The name that reports show: "silu", "relu", "relu6", "relu[0,3.5]"."""
        if self.cap is None:
            return self.name
        return "relu6" if self.cap == 6.0 else f"relu[0,{self.cap:g}]"

    @property
    def domain(self) -> tuple[float, float]:
        """The inputs that a fit is made for."""
        return _DOMAINS[self.name]

    @property
    def main_region(self) -> tuple[float, float] | None:
        """The part of the domain that the paper's loss weighs more, if it names one."""
        return _MAIN_REGIONS.get(self.name)

    @property
    def typical_inputs(self) -> tuple[float, float] | None:
        """Mean and variance of this activation's usual inputs, if the paper states them."""
        return _TYPICAL_INPUTS.get(self.name)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        return {"name": self.name, "cap": self.cap}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Activation":
        """The reverse of `to_json`."""
        return cls(content["name"], content["cap"])
