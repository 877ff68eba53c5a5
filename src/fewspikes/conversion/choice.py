"""Which parameters each site gets: the paper's setting, a given range, or the least error on what it sees."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any

import torch

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.progress import in_threads
from fewspikes.fitting import fit_site, least_error_relu, shipped
from fewspikes.measure.calibration import Calibration
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.known_codes import PAPER_RELU_ALPHA, PAPER_RELU_STEPS, published, relu_parameters
from fewspikes.neuron.parameters import MAX_STEPS, FSParameters
from fewspikes.operators.rewriting import Site

DEFAULT_STEPS = 8  # with calibration data and no K
SHIPPED_STEPS = 16  # the paper's setting of an activation that the paper has no table for
PUBLISHED = ("silu", "sigmoid")
_NAMED = 8  # sites listed in a message


@dataclass(frozen=True)
class Choice:
    """What decides a site's parameters.

    Attributes:
        K: time steps of every site, or by site name; None: 8 with calibration, without it the paper's.
        alpha: one range for all uncapped ReLUs, instead of calibration.
        rounding: "nearest" or "down" for ReLUs; None: nearest with data or K, else down.
        offset: whether a fitted code may have an offset.
        spike_weight: price of a spike per neuron, in log squared error.
        effort: effort of a fit: "quick", "normal" or "long".
        seed: of the search.

    Raises:
        FewSpikesError: a price that is no number >= 0.
    """

    K: int | Mapping[str, int] | None = None
    alpha: float | None = None
    rounding: str | None = None
    offset: bool = True
    spike_weight: float = 0.0
    effort: str = "normal"
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isfinite(self.spike_weight) and self.spike_weight >= 0):
            raise FewSpikesError(f"spike_weight must be a number >= 0; got {self.spike_weight}")


def choose(
    sites: Sequence[Site], choice: Choice, calibration: Calibration | None, progress: bool | None = None
) -> dict[str, FSParameters]:
    """Parameters by site name.

    Without K and calibration this is the paper's setting: ReLU K=10, alpha=25 (a capped ReLU: its cap), rounded down;
    SiLU and sigmoid by their published tables, every other activation by the shipped one of K=16.

    Raises:
        FewSpikesError: a setting out of range, a K without a table, or a calibration of other sites.
    """
    choice = _checked(choice, sites, calibration)
    jobs = [partial(site_parameters, site, choice, calibration) for site in sites]
    done = in_threads(jobs, torch.get_num_threads(), "fitting", progress)  # the search holds no lock
    return {site.name: table for site, table in zip(sites, done, strict=True)}


def _checked(choice: Choice, sites: Sequence[Site], calibration: Calibration | None) -> Choice:
    """The choice with checked numbers and its defaults filled in."""
    names = {site.name for site in sites}
    if calibration is not None and set(calibration.sites) != names:
        raise FewSpikesError(
            f"the calibration is for {len(calibration.sites)} other sites than the network's {len(sites)}; "
            "calibrate again"
        )
    K = _by_site(choice.K, [site.name for site in sites]) if isinstance(choice.K, Mapping) else _whole(choice.K)
    paper = K is None and calibration is None
    rounding = ("down" if paper else "nearest") if choice.rounding is None else choice.rounding
    if rounding not in ("down", "nearest"):
        raise FewSpikesError(f"rounding must be 'down' or 'nearest'; got {rounding!r}")
    if choice.effort not in ("quick", "normal", "long"):
        raise FewSpikesError(f"effort must be 'quick', 'normal' or 'long'; got {choice.effort!r}")
    alpha = _number(choice.alpha)
    _warn(sites, K, alpha, calibration)
    return replace(choice, K=K, alpha=alpha, rounding=rounding)


def _warn(sites: Sequence[Site], K: object, alpha: float | None, calibration: Calibration | None) -> None:
    has_open = any(site.activation == Activation("relu") for site in sites)
    if alpha is not None and not has_open:
        warn("alpha has no effect: the network has no uncapped ReLU")
    if K is not None and calibration is None and alpha is None and has_open:
        given = K if isinstance(K, int) else "by site"
        warn(
            f"K={given} without calibration data: alpha={PAPER_RELU_ALPHA:g} for every ReLU. "
            "Give images to calibrate on, so that each range is fitted, or alpha to silence this"
        )


def _by_site(given: Mapping[Any, Any], names: Sequence[str]) -> dict[str, int]:
    """K by site name, one for each site and no other."""
    unknown = [name for name in given if name not in names]
    if unknown:
        listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        raise FewSpikesError(f"K by site: there is no site {unknown[0]!r}; this network's sites are {listed}")
    missing = [name for name in names if name not in given]
    if missing:
        raise FewSpikesError(
            f"K by site: site {missing[0]!r} has no K ({len(missing)} of {len(names)} sites lack one); name each site"
        )
    return {name: _whole(given[name]) or DEFAULT_STEPS for name in names}


def _whole(K: Any) -> int | None:
    try:
        whole = None if K is None else operator.index(K)
    except TypeError:
        whole = 0
    if isinstance(K, bool) or (whole is not None and not 1 <= whole <= MAX_STEPS):
        raise FewSpikesError(f"K must be a whole number from 1 to {MAX_STEPS}; got {K!r}")
    return whole


def _number(alpha: Any) -> float | None:
    try:
        return None if alpha is None else float(alpha)
    except (TypeError, ValueError):
        raise FewSpikesError(f"alpha must be a number; got {alpha!r}") from None


def site_parameters(site: Site, choice: Choice, calibration: Calibration | None) -> FSParameters:
    """The parameters of one site, by a choice that `choose` would pass."""
    activation, seen = site.activation, None if calibration is None else calibration.sites[site.name]
    K = choice.K[site.name] if isinstance(choice.K, Mapping) else choice.K
    if activation.name == "relu" and (seen is None or choice.alpha is not None):
        steps = K or (PAPER_RELU_STEPS if seen is None else DEFAULT_STEPS)
        given = PAPER_RELU_ALPHA if choice.alpha is None else choice.alpha
        scale = given if activation.cap is None else activation.cap
        return relu_parameters(steps, scale, str(choice.rounding), activation.cap)
    if seen is None:
        return _table(site, K)
    steps = K or DEFAULT_STEPS
    if activation.name == "relu" and choice.rounding == "down":
        return least_error_relu(steps, seen, "down", activation.cap)
    weight, effort, seed = choice.spike_weight, choice.effort, choice.seed
    return fit_site(activation, steps, seen, offset=choice.offset, spike_price=weight, seed=seed, effort=effort)


def _table(site: Site, K: int | None) -> FSParameters:
    name = site.activation.name
    if K is None and name in PUBLISHED:
        return published(name)
    try:
        return shipped(name, K or SHIPPED_STEPS)
    except FewSpikesError as error:
        raise FewSpikesError(
            f"site {site.name} is a {site.activation.label}: {error}; give images to calibrate on, so that it is fitted"
        ) from None
