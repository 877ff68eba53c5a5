"""How a network is converted: frozen settings that check themselves and go into the network and its file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

from fewspikes.base.checks import MOST_SEED, at_least_0, one_of, positive, price, said, whole
from fewspikes.base.errors import FewSpikesError
from fewspikes.neuron.parameters import MAX_STEPS
from fewspikes.operators.choices import WITHOUT_ROWS
from fewspikes.operators.rule import Rules
from fewspikes.operators.rules import RULES, choices

_EVERY = "every kind"
_ALL_SPIKE = ("neurons", "gated", "shifted")  # words that leave nothing digital
EFFORTS = ("quick", "normal", "long")


@dataclass(frozen=True)
class Codes:
    """Which code each site gets.

    Attributes:
        K: time steps of every site, 1 to 24, or by site name; None: 8 with images, without them the paper's.
        alpha: one range > 0 for all uncapped ReLUs; wins over images and switches repairs off. A cap (ReLU6) wins over
            alpha.
        rounding: "nearest" (least error) or "down" (the paper's) for ReLUs; None: nearest with images or K, else down.
        offset: whether a fitted code may have an offset, the value that silence stands for. It becomes a bias of the
            layers that follow; False is for chips with one bias per channel.
        spike_price: the rise of the output's squared error, as a share of the output's variance, that one spike per
            neuron is worth, >= 0: minimise error / variance + spike_price * spikes per neuron.
        effort: of a site's fit: "quick" (milliseconds), "normal" (a second or two) or "long".
        repair: shift and scale channels where that brings their outputs closer to the ANN's; None: with images, unless
            alpha is given.

    Raises:
        FewSpikesError: a value out of range, or a price or repairs where alpha or rounding="down" leaves them nothing
            to act on.

    >>> Codes(K=6, spike_price=0.01).to_json()["K"]
    6
    """

    K: int | Mapping[str, int] | None = None
    alpha: float | None = None
    rounding: str | None = None
    offset: bool = True
    spike_price: float = 0.0
    effort: str = "normal"
    repair: bool | None = None

    def __post_init__(self) -> None:
        steps = partial(whole, "K", least=1, most=MAX_STEPS)
        by_site = isinstance(self.K, Mapping)
        _set(self, "K", {str(n): steps(k) for n, k in self.K.items()} if by_site else _optional(steps, self.K))  # type: ignore[union-attr]
        _set(self, "alpha", _optional(partial(positive, "alpha"), self.alpha))
        _set(self, "spike_price", price("spike_price", self.spike_price))
        _optional(partial(one_of, "rounding", known=("down", "nearest")), self.rounding)
        one_of("effort", self.effort, EFFORTS)
        if not isinstance(self.offset, bool):
            raise FewSpikesError(f"offset must be True or False; got {said(self.offset)}")
        if self.repair is not None and not isinstance(self.repair, bool):
            raise FewSpikesError(f"repair must be True, False or None; got {said(self.repair)}")
        if self.spike_price and (self.alpha is not None or self.rounding == "down"):
            given = "alpha" if self.alpha is not None else "rounding='down'"
            raise FewSpikesError(f"spike_price cannot act: {given} leaves no choice of codes; leave one of them out")
        if self.repair and self.alpha is not None:
            raise FewSpikesError("repair=True cannot act: alpha keeps every range as it is; leave one of them out")

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Codes":
        """The reverse of `to_json`; raises FewSpikesError for anything else."""
        return cls(**_known(cls, content))


@dataclass(frozen=True)
class Budget:
    """What a network may cost, in place of K; None sets no limit.

    Attributes:
        drop: points of top-1 (100 - agreement without labels) on held-out images, >= 0.
        steps: time steps from an image to its output, >= 1.
        spikes: mean spikes per neuron per image, > 0.
        minimise: "steps" or "spikes": what there should be little of within the limits, where a drop is limited.

    Raises:
        FewSpikesError: no limit at all, one out of range, or fewest spikes without a limit of the drop.

    >>> print(Budget(drop=0.2, steps=80))
    drop=0.2 and steps=80
    """

    drop: float | None = None
    steps: int | None = None
    spikes: float | None = None
    minimise: str = "steps"

    def __post_init__(self) -> None:
        if self.drop is None and self.steps is None and self.spikes is None:
            raise FewSpikesError("a budget needs a limit: drop, steps or spikes (max_drop, max_steps or max_spikes)")
        _set(self, "drop", _optional(partial(at_least_0, "drop"), self.drop))
        _set(self, "steps", _optional(partial(whole, "steps", least=1), self.steps))
        _set(self, "spikes", _optional(partial(positive, "spikes"), self.spikes))
        one_of("minimise", self.minimise, ("steps", "spikes"))
        if self.minimise == "spikes" and self.drop is None:
            raise FewSpikesError("minimise='spikes' needs a limit of the drop: without one a silent network has fewest")

    def __str__(self) -> str:
        given = ("drop", self.drop), ("steps", self.steps), ("spikes", self.spikes)
        return " and ".join(f"{name}={value:g}" for name, value in given if value is not None)

    @property
    def held_out_every(self) -> int:
        """One image in so many is held out for measuring: half of them where a drop is limited."""
        return 4 if self.drop is None else 2

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Budget":
        """The reverse of `to_json`; raises FewSpikesError for anything else."""
        return cls(**_known(cls, content))


@dataclass(frozen=True)
class Settings:
    """All that decides what `convert` makes of a model and its images.

    Attributes:
        codes: of the sites.
        budget: in place of K, or None.
        circuits: what becomes of each kind of operator, and of modules by pattern, see `circuits_of`.
        distil: minutes, or None.
        seed: of the searches, and of distilling.
    """

    codes: Codes = field(default_factory=Codes)
    budget: Budget | None = None
    circuits: Mapping[str, str] = field(default_factory=lambda: circuits_of(None))
    distil: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget is not None and (self.codes.K is not None or self.codes.alpha is not None):
            raise FewSpikesError("a budget chooses K and ranges: give neither K nor alpha with it")
        _set(self, "seed", whole("seed", self.seed, 0, MOST_SEED))
        _set(self, "distil", _optional(partial(positive, "distil, in minutes,"), self.distil))

    def to_json(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Settings":
        """The reverse of `to_json`; raises FewSpikesError for anything else."""
        made = dict(content) if isinstance(content, Mapping) else {}
        made["codes"] = Codes.from_json(made.get("codes") or {})
        made["budget"] = _optional(Budget.from_json, made.get("budget"))
        return cls(**_known(cls, made))


def circuits_of(given: str | Mapping[str, str] | None, rules: Rules = RULES) -> dict[str, str]:
    """What becomes of each kind of circuit, by kind, and what was chosen for modules by their paths' pattern.

    One word stands for all operators that know it; with "neurons", "gated" and "shifted" the inputs come as spikes,
    too, and what cannot be gated is made of neurons.

    Raises:
        FewSpikesError: a kind or a value that is not built.

    >>> circuits_of({"max": "neurons", "layer4.*": "digital"})["layer4.*"]
    'digital'
    """
    built = choices(rules)
    if isinstance(given, str):
        rows = {kind: values for kind, values in built.items() if kind not in WITHOUT_ROWS}
        chosen = {kind: given for kind, values in rows.items() if given in values}
        if given in _ALL_SPIKE:
            chosen = {kind: "neurons" for kind, values in rows.items() if "neurons" in values} | chosen
            chosen |= {"input": "spikes"}
        chosen = chosen or {_EVERY: given}
    elif given is None or isinstance(given, Mapping):
        chosen = {str(key): value for key, value in (given or {}).items()}
    else:
        raise FewSpikesError(f'circuits= takes one word or a dict such as {{"max": "neurons"}}; got {said(given)}')
    every = {value for values in built.values() for value in values}
    for key, value in chosen.items():
        is_pattern = key not in built and key != _EVERY
        if value not in (every if is_pattern else built.get(key, ())):
            listed = "; ".join(f"{known}: {' or '.join(values)}" for known, values in built.items())
            what = f"modules {said(key)}" if is_pattern else key if key == _EVERY else said(key)
            alone = dict.fromkeys(v for kind, values in built.items() if kind not in WITHOUT_ROWS for v in values)
            words = f"; one word for all: {' or '.join(alone)}" if isinstance(given, str) else ""
            raise FewSpikesError(f"circuits: {what}: {said(value)} is not built; there is {listed}{words}")
    return {kind: values[0] for kind, values in built.items()} | chosen


def _set(made: Any, name: str, value: Any) -> None:
    object.__setattr__(made, name, value)


def _optional(make: Any, given: Any) -> Any:
    return None if given is None else make(given)


def _known(kind: Any, content: Any) -> dict[str, Any]:
    """The content, if it is of this kind."""
    if not isinstance(content, Mapping) or not set(content) <= {one.name for one in fields(kind)}:
        raise FewSpikesError(f"these are no settings of the kind {kind.__name__}: {str(content)[:80]}")
    return dict(content)
