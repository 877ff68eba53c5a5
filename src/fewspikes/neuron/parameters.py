"""The parameters of an FS-neuron: T, h, d and the offset, checked once and never changed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewspikes.base import checks
from fewspikes.base.errors import FewSpikesError
from fewspikes.base.seals import TRIPS, Kind
from fewspikes.neuron.grid import Grid

MAX_STEPS = 24  # a float32 holds 24 bits; more steps than bits cannot be told apart
_PARAMETERS = Kind(
    "fewspikes-parameters", 1, "file of parameters", 'save them again, or take "sha256" out if you edited them'
)
_FIELDS = frozenset(("format", "version", "activation", "K", "domain", "T", "h", "d", "offset", "provenance"))


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
        object.__setattr__(self, "offset", checks.finite("offset", offset))
        object.__setattr__(self, "activation", str(activation))
        object.__setattr__(self, "domain", checks.interval("the domain", domain))
        object.__setattr__(self, "provenance", _plain(provenance or {}))

    @property
    def is_binary(self) -> bool:
        """Whether d are the bits of a binary number: outputs, without the offset, are whole multiples of the last d."""
        return bool(self.d[-1] > 0 and (self.d[:-1] == 2 * self.d[1:]).all())

    @property
    def K(self) -> int:
        """Number of time steps."""
        return len(self.T)

    @property
    def numbers(self) -> NDArray[np.float64]:
        """T, h, d and the offset in one vector, [3 K + 1]."""
        return np.concatenate([self.T, self.h, self.d, [self.offset]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FSParameters) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(tuple(self.numbers.tolist()))

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

        >>> FSParameters([1.65], [1.65], [1.65]).quantize(6).d
        array([1.75])
        """
        grid = Grid(bits, low, high, endpoint, scale).scaled_for(self.numbers)
        T, h, d, offset = (grid.round(values) for values in (self.T, self.h, self.d, np.array([self.offset])))
        provenance = {**self.provenance, "grid": grid.to_json()}
        return FSParameters(T, h, d, float(offset[0]), self.activation, self.domain, provenance)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON files; an open end of the domain is null."""
        return {
            "format": _PARAMETERS.format,
            "version": _PARAMETERS.version,
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
        try:
            if content["version"] != _PARAMETERS.version:
                raise FewSpikesError(f"they have version {content['version']!r:.50}, not {_PARAMETERS.version}")
            odd = sorted(set(content) - _FIELDS)
            if odd:
                raise FewSpikesError(f"unknown field {odd[0]!r:.50}; there are {', '.join(sorted(_FIELDS))}")
            low, high = content["domain"]
            domain = (-inf if low is None else low, inf if high is None else high)
            T, h, d, offset, label = (content[name] for name in ("T", "h", "d", "offset", "activation"))
            if not all(type(number) in (int, float) for number in (*T, *h, *d, offset, *domain)):
                raise FewSpikesError("T, h, d, offset and domain hold numbers")
            made = cls(T, h, d, offset, label, domain, content["provenance"])
            if not isinstance(label, str) or content.get("K", made.K) != made.K:
                raise FewSpikesError(
                    f"activation {checks.said(label)}, K = {checks.said(content.get('K'))}, {made.K} T"
                )
            return made
        except TRIPS as error:
            said = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise FewSpikesError(f"FS parameters are incomplete or malformed: {said}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters as JSON with their checksum; the float64 numbers come back bit for bit."""
        _PARAMETERS.write(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FSParameters":
        """Read parameters written by `save`, or by hand: a file without "sha256" is taken as it is.

        Raises:
            FewSpikesError: the file is missing, is no such JSON, was changed since `save` wrote it (take "sha256" out
                of a file that you edit), or holds invalid parameters.
        """
        content = _PARAMETERS.read(path, by_hand=True)
        with _PARAMETERS.reading(path):
            return cls.from_json(content)


def _plain(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that is sure to be JSON, so that saving cannot fail later."""
    try:
        content = json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise FewSpikesError(f"the provenance must be plain JSON data: {error}") from None
    return dict(content)


def _vector(name: str, values: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    try:
        given = np.array(values)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        given = np.array(None)
    if given.dtype.kind not in "fiu":  # words and truth values would become numbers, too
        raise FewSpikesError(f"{name} must be a list of numbers; got {checks.said(values)}")
    vector = given.astype(np.float64)
    if vector.ndim != 1 or not 1 <= len(vector) <= MAX_STEPS:
        raise FewSpikesError(f"{name} must hold from 1 to {MAX_STEPS} numbers; got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise FewSpikesError(f"{name} must be finite; got {checks.said(vector)}")
    vector.flags.writeable = False
    return vector
