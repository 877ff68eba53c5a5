"""`Faults`: what goes wrong in a network, and how often."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fewspikes.base.checks import MOST_SEED, finite, one_of, said, whole
from fewspikes.base.errors import FewSpikesError

_SHARES = ("lost", "late", "spurious", "stuck")
_NOISES = ("threshold_noise", "weight_noise")
_MOST_NOISE = 1e3  # of itself: far beyond any device


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Each draw depends on the seed and on what it is drawn for, and on nothing else.

    A spike is first lost, or late, or neither. Spurious spikes are neither lost nor late. The sender's reset stays
    whatever becomes of its spike, and spikes are counted as they are sent.

    Attributes:
        lost: the probability, 0 to 1, that a spike does not arrive; `at` says where it is drawn.
        late: the probability that a spike that is not lost arrives one step late: the receivers decode it with
            d[t+1]. At t = K it is lost. If the neuron fires in that step, too, both spikes are heard.
        spurious: the probability, per neuron and step in which it does not fire, that the receivers hear a spike all
            the same; the neuron's membrane is not reset.
        threshold_noise: s >= 0; each threshold is T (1 + s n), n standard normal. `each` says how often it is drawn.
        weight_noise: s >= 0; each weight is w (1 + s n), likewise. Weights are the matrices and
            kernels of weighted sums; biases, tables that are looked up, and factors of single signals have none.
        stuck: the probability, 0 to 1, that a neuron never fires, or always does.
        each: "network": noise of thresholds and weights is drawn once, per neuron and step of the code and per weight.
            "step": anew; thresholds at each step, time step and image, weights at each global step for all images,
            which only `simulate(engine="steps")` can do. Weights that take numbers, not spikes, act once, with one
            draw.
        at: "axon": a lost spike reaches no receiver. "synapse": drawn for each of its synapses, which only
            `simulate(engine="events")` can do.
        stuck_at: "silence" or "firing", in every step.
        seed: of all draws, a whole number >= 0.

    Raises:
        FewSpikesError: a value out of range.

    >>> Faults(lost=0.01, seed=3).to_json()["lost"]
    0.01
    """

    lost: float = 0.0
    late: float = 0.0
    spurious: float = 0.0
    threshold_noise: float = 0.0
    weight_noise: float = 0.0
    stuck: float = 0.0
    each: str = "network"
    at: str = "axon"
    stuck_at: str = "silence"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*_SHARES, *_NOISES):
            value, most = finite(name, getattr(self, name)), 1.0 if name in _SHARES else _MOST_NOISE
            if not 0 <= value <= most:
                raise FewSpikesError(f"{name} must be from 0 to {most:g}; got {said(getattr(self, name))}")
            object.__setattr__(self, name, value)
        one_of("each", self.each, ("network", "step"))
        one_of("at", self.at, ("axon", "synapse"))
        one_of("stuck_at", self.stuck_at, ("silence", "firing"))
        object.__setattr__(self, "seed", whole("seed", self.seed, 0, MOST_SEED))

    @property
    def lost_at_synapses(self) -> bool:
        """Whether each synapse loses spikes by itself."""
        return bool(self.lost) and self.at == "synapse"

    @property
    def weighs_anew(self) -> bool:
        """Whether weights change at every step."""
        return bool(self.weight_noise) and self.each == "step"

    def __str__(self) -> str:
        changed = (one for one in fields(self) if getattr(self, one.name) != one.default)
        return ", ".join(f"{one.name} {getattr(self, one.name)}" for one in changed) or "none"

    def check_engine(self, engine: str) -> None:
        """Raise FewSpikesError if an engine, "fast" or one of `simulate`, cannot have these faults."""
        needs = {
            "events": self.lost_at_synapses and "spikes lost per synapse (at='synapse')",
            "steps": self.weighs_anew and "weights with noise of each step (weight_noise, each='step')",
        }
        for able, what in needs.items():
            if what and engine != able:
                own = "the network itself" if engine == "fast" else f'engine="{engine}"'
                other = "at='axon'" if able == "events" else "each='network'"
                raise FewSpikesError(f'{what} are not for {own}; use simulate(snn, x, engine="{able}"), or {other}')

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Faults":
        """From plain data.

        Raises:
            FewSpikesError: no mapping, an unknown name, or a value out of range.
        """
        known = [one.name for one in fields(cls)]
        if not isinstance(content, Mapping):
            raise FewSpikesError(f"faults must be a dict of settings; got {said(content)}")
        unknown = next((name for name in content if name not in known), None)
        if unknown is not None:
            raise FewSpikesError(f"there is no fault {said(unknown)}; there are {', '.join(known)}")
        return cls(**content)
