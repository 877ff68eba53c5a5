"""The parameters of an FS-neuron: T, h, d and the offset, checked once and never changed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewspikes.base.errors import FewSpikesError
from fewspikes.base.files import read_json, write_json
from fewspikes.neuron.activation import Activation

MAX_STEPS = 24  # a float32 holds 24 bits; more steps than bits cannot be told apart
PAPER = {
    "title": "Optimized spiking neurons can classify images with high accuracy through temporal coding with two spikes",
    "authors": "C. Stöckl, W. Maass",
    "doi": "10.1038/s42256-021-00311-4",
}
_FORMAT, _VERSION = "fewspikes-parameters", 1
_PUBLISHED = {"silu": "silu_k16_published.json", "sigmoid": "sigmoid_k12_published.json"}
PAPER_RELU_STEPS, PAPER_RELU_ALPHA = 10, 25.0


@dataclass(frozen=True, eq=False)
class FSParameters:
    """Thresholds T, resets h and output weights d of an FS-neuron with K steps, and its offset c.

    With v = x:  for t = 1..K:  z[t] = (v >= T[t]);  y += d[t] z[t];  v -= h[t] z[t],  and y starts at c.

    Args:
        T, h, d: K finite numbers each, 1 <= K <= 24; kept as read-only float64 arrays.
        offset: c, in units of the output; the value that silence stands for.
        activation: the label of what is imitated.
        domain: inputs (low, high) that the parameters were made for; outside them inputs count as clipped.
        provenance: where the numbers come from, as plain JSON data.

    Raises:
        FewSpikesError: lengths differ, K out of range, or a number is not finite.

    Source: paper, equations (1) to (3).

    >>> FSParameters(T=[2, 1], h=[2, 1], d=[2, 1]).K
    2
    """

    T: NDArray[np.float64]
    h: NDArray[np.float64]
    d: NDArray[np.float64]
    offset: float = 0.0
    activation: str = "custom"
    domain: tuple[float, float] = (-inf, inf)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __init__(
        self,
        T: Sequence[float] | NDArray[Any],
        h: Sequence[float] | NDArray[Any],
        d: Sequence[float] | NDArray[Any],
        offset: float = 0.0,
        activation: str = "custom",
        domain: tuple[float, float] = (-inf, inf),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        for name, values in (("T", T), ("h", h), ("d", d)):
            object.__setattr__(self, name, _vector(name, values))
        if not len(self.T) == len(self.h) == len(self.d):
            raise FewSpikesError(f"T, h and d must have one length K; got {len(self.T)}, {len(self.h)}, {len(self.d)}")
        object.__setattr__(self, "offset", _finite("offset", offset))
        object.__setattr__(self, "activation", str(activation))
        object.__setattr__(self, "domain", _interval(domain))
        object.__setattr__(self, "provenance", _plain(provenance or {}))

    @property
    def K(self) -> int:
        """Number of time steps."""
        return len(self.T)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FSParameters) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((*self.T.tolist(), *self.h.tolist(), *self.d.tolist(), self.offset))

    def quantize(
        self, bits: int, low: float = -8.0, high: float = 8.0, *, endpoint: bool = False, scale: float | None = 1.0
    ) -> "FSParameters":
        """Every number of T, h, d and the offset rounded to the nearest of 2^bits equally spaced values.

        Nothing is fitted again; `fewspikes.fit(..., bits=...)` finds better numbers on the same values.

        Args:
            bits, low, high, endpoint, scale: see `Grid`.

        Raises:
            FewSpikesError: bits, range or scale out of range.

        Source: paper, Fig. 8c, d.

        >>> relu_parameters(K=3, alpha=3.3).quantize(6).d
        array([1.75, 0.75, 0.5 ])
        """
        grid = Grid(bits, low, high, endpoint, scale).scaled_for(self)
        T, h, d, offset = (grid.round(values) for values in (self.T, self.h, self.d, np.array([self.offset])))
        provenance = {**self.provenance, "grid": grid.to_json()}
        return FSParameters(T, h, d, float(offset[0]), self.activation, self.domain, provenance)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files; an open end of the domain is null."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "activation": self.activation,
            "K": self.K,
            "domain": [end if isfinite(end) else None for end in self.domain],
            "T": self.T.tolist(),
            "h": self.h.tolist(),
            "d": self.d.tolist(),
            "offset": self.offset,
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "FSParameters":
        """The reverse of `to_json`; raises FewSpikesError where something is missing or wrong."""
        if content.get("version") != _VERSION:
            raise FewSpikesError(f"FS parameters of version {content.get('version')!r}; this library reads {_VERSION}")
        try:
            low, high = content["domain"]
            domain = (-inf if low is None else low, inf if high is None else high)
            T, h, d, offset = (content[name] for name in ("T", "h", "d", "offset"))
            return cls(T, h, d, offset, content["activation"], domain, content["provenance"])
        except FewSpikesError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise FewSpikesError(f"FS parameters are incomplete or malformed: {error!r}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters as JSON; the float64 numbers come back bit for bit."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FSParameters":
        """Read parameters written by `save`.

        Raises:
            FewSpikesError: the file is missing, is no such JSON, or holds invalid parameters.
        """
        return cls.from_json(read_json(path, _FORMAT))


@dataclass(frozen=True)
class Grid:
    """The values that a chip's parameters can take: 2^bits of them, equally spaced from low on, times a scale.

    Without its endpoint the spacing is (high - low) / 2^bits and the last value is one step below high; with it the
    spacing is (high - low) / (2^bits - 1) and the last value is high.

    Args:
        bits: Q, 1 to 24.
        low, high: the range.
        endpoint: whether high itself is a value.
        scale: what one unit of the values stands for; None: the least power of two with which the parameters fit in.

    Raises:
        FewSpikesError: bits out of range, an empty range, or a scale that is not positive.

    Source: paper, Fig. 8c, d (2^Q values in [-8, 8]).

    >>> Grid(8).step
    0.0625
    """

    bits: int
    low: float = -8.0
    high: float = 8.0
    endpoint: bool = False
    scale: float | None = 1.0

    def __post_init__(self) -> None:
        bits = self.bits
        if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 1 <= bits <= MAX_STEPS:
            raise FewSpikesError(f"bits must be a whole number from 1 to {MAX_STEPS}; got {bits!r}")
        _interval((_finite("low", self.low), _finite("high", self.high)))
        if self.scale is not None and not _finite("scale", self.scale) > 0:
            raise FewSpikesError(f"the scale must be > 0; got {self.scale}")

    @property
    def step(self) -> float:
        """The spacing, in units of the parameters."""
        return float((self.high - self.low) / (2**self.bits - self.endpoint) * (self.scale or 1.0))

    @property
    def first(self) -> float:
        """The lowest value, in units of the parameters."""
        return self.low * (self.scale or 1.0)

    def round(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The nearest value for each of `values`; what lies outside gets the value at that end."""
        places = np.clip(np.round((values - self.first) / self.step), 0, 2**self.bits - 1)
        return np.asarray(self.first + places * self.step, np.float64)

    def scaled_for(self, p: "FSParameters") -> "Grid":
        """With a scale: the given one, or the least power of two that keeps p's numbers from being cut off."""
        if self.scale is not None:
            return self
        if not self.low < 0 < self.high:
            raise FewSpikesError(f"a scale can be chosen for a range around 0 only; got [{self.low}, {self.high}]")
        numbers = np.concatenate([p.T, p.h, p.d, [p.offset]])
        need = max(float(numbers.max()) / self.high, float(numbers.min()) / self.low, 2.0**-60)
        return replace(self, scale=float(2.0 ** np.ceil(np.log2(need))))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files."""
        return asdict(self)


def relu_parameters(K: int = 10, alpha: float = 25.0, rounding: str = "down", cap: float | None = None) -> FSParameters:
    """The ReLU code in closed form: h[t] = d[t] = alpha 2^-t, a binary number, most significant bit first.

    "down" has T = h, the paper's code: y is x rounded down to a multiple of alpha 2^-K. "nearest" lowers every
    threshold by half a step, alpha 2^-(K+1): y is the nearest multiple. Both saturate at alpha (1 - 2^-K).

    Args:
        K: time steps, 1 to 24.
        alpha: the range, > 0, in units of the input.
        rounding: "down" or "nearest".
        cap: the cap of a capped ReLU (6 for ReLU6); its inputs above the cap are not clipped, they are at the cap.

    Raises:
        FewSpikesError: K, alpha or rounding out of range.

    Source: paper, section 1.2.2 ("down").

    >>> relu_parameters(K=3, alpha=8.0).d
    array([4., 2., 1.])
    """
    if isinstance(K, bool) or not isinstance(K, int | np.integer) or not 1 <= K <= MAX_STEPS:
        raise FewSpikesError(f"K must be a whole number from 1 to {MAX_STEPS}; got {K!r}")
    alpha = _finite("alpha", alpha)
    if not alpha > 0 or alpha * 2.0 ** -(K + 1) == 0:
        raise FewSpikesError(f"alpha must be a finite number > 0; got {alpha}")
    if rounding not in ("down", "nearest"):
        raise FewSpikesError(f"rounding must be 'down' or 'nearest'; got {rounding!r}")
    bits = alpha * 2.0 ** -np.arange(1, K + 1)
    lowered = alpha * 2.0 ** -(K + 1) if rounding == "nearest" else 0.0
    provenance = {"method": "closed form", "alpha": alpha, "rounding": rounding, "source": PAPER["doi"]}
    domain = (-inf, alpha if cap is None else inf)
    return FSParameters(bits - lowered, bits, bits, 0.0, Activation("relu", cap).label, domain, provenance)


def published(activation: str) -> FSParameters:
    """The parameters of the paper: "silu" (K=16), "sigmoid" (K=12), or "relu" (K=10, alpha=25, rounding down).

    Raises:
        FewSpikesError: the paper published none for this activation.

    >>> published("sigmoid").K
    12
    """
    if activation == "relu":
        return relu_parameters(PAPER_RELU_STEPS, PAPER_RELU_ALPHA, "down")
    if activation not in _PUBLISHED:
        raise FewSpikesError(f"no published parameters for {activation!r}; there are silu, sigmoid and relu")
    text = resources.files("fewspikes").joinpath("neuron", "tables", _PUBLISHED[activation]).read_text()
    return FSParameters.from_json(json.loads(text))


def round_scale(alpha: float, bits: int = 12) -> float:
    """Round a positive range to `bits` significant bits, so that alpha 2^-K k stays exact in float32 for K <= 12."""
    mantissa, exponent = np.frexp(alpha)
    return float(np.ldexp(np.round(np.ldexp(mantissa, bits)), int(exponent) - bits))


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise FewSpikesError(f"{name} must be a finite number; got {value!r}") from None
    if not isfinite(number):
        raise FewSpikesError(f"{name} must be a finite number; got {number}")
    return number


def _interval(domain: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in domain)
    except (TypeError, ValueError):
        raise FewSpikesError(f"the domain must be (low, high); got {domain!r}") from None
    if not low < high:
        raise FewSpikesError(f"the domain must be (low, high) with low < high; got {domain}")
    return low, high


def _plain(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that is sure to be JSON, so that saving cannot fail later."""
    try:
        content = json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise FewSpikesError(f"the provenance must be plain JSON data: {error}") from None
    return dict(content)


def _vector(name: str, values: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    try:
        vector = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise FewSpikesError(f"{name} must be a list of numbers; got {values!r}") from None
    if vector.ndim != 1 or not 1 <= len(vector) <= MAX_STEPS:
        raise FewSpikesError(f"{name} must hold from 1 to {MAX_STEPS} numbers; got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise FewSpikesError(f"{name} must be finite; got {vector}")
    vector.flags.writeable = False
    return vector
