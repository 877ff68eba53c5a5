"""Which parameters each site gets: the paper's setting, a given range, or the least error on what it sees."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from fewspikes.base.errors import FewSpikesError, warn
from fewspikes.base.progress import in_threads
from fewspikes.conversion.settings import Codes
from fewspikes.fitting import fit_site, least_error_relu
from fewspikes.fitting.histogram import Histogram
from fewspikes.fitting.weights import Weights
from fewspikes.measure.calibration import Calibration
from fewspikes.neuron.activation import Activation
from fewspikes.neuron.known_codes import (
    PAPER_RELU_ALPHA,
    PAPER_RELU_STEPS,
    SHIPPED,
    published,
    relu_parameters,
    shipped,
)
from fewspikes.neuron.parameters import FSParameters
from fewspikes.operators.rewriting import Site

DEFAULT_STEPS = 8  # with calibration and no K
SHIPPED_STEPS = 16  # the paper's setting of an activation that the paper has no table for
PUBLISHED = ("silu", "sigmoid")
TABLES = ("relu", *SHIPPED)
_NAMED = 8  # sites listed in a message


class Tables:
    """The parameters that settings give each site.

    Without K and calibration this is the paper's setting: ReLU K=10, alpha=25 (a capped ReLU: its cap), rounded down;
    SiLU and sigmoid by their published tables, every other activation by the shipped one of K=16.

    Args:
        sites: of the network.
        codes: the settings.
        calibration: what the sites see, or None.
        seed: of the searches.
        leaders: by site, the one whose K it has if it is given none.
        fixed: by site, parameters that no setting changes.

    Raises:
        FewSpikesError: a K for a site that is not there, none for one that is, or a calibration of other sites.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        codes: Codes,
        calibration: Calibration | None,
        seed: int = 0,
        leaders: Mapping[str, str] | None = None,
        fixed: Mapping[str, FSParameters] | None = None,
    ) -> None:
        self.fixed, self.leaders = dict(fixed or {}), dict(leaders or {})
        self.sites = {site.name: site for site in sites if site.name not in self.fixed}
        if calibration is not None and set(calibration.sites) != {site.name for site in sites}:
            raise FewSpikesError(
                f"the calibration is for {len(calibration.sites)} other sites than the network's {len(sites)}; "
                "calibrate again"
            )
        if isinstance(codes.K, Mapping):
            own = {name: steps for name, steps in codes.K.items() if name not in self.fixed}
            codes = replace(codes, K=_of_leaders(own, self.leaders))
            _check_names(codes.K, list(self.sites))  # type: ignore[arg-type]
        paper = codes.K is None and calibration is None
        self.codes = replace(codes, rounding=codes.rounding or ("down" if paper else "nearest"))
        self.calibration, self.seed = calibration, seed

    def all(self, progress: bool | None = None) -> dict[str, FSParameters]:
        """Parameters by site name; warns where a setting has no effect."""
        _warn(list(self.sites.values()), self.codes, self.calibration)
        if self.calibration is None:
            _check_tables(list(self.sites.values()))
        jobs = [partial(self.of, name) for name in self.sites]
        done = in_threads(jobs, torch.get_num_threads(), "fitting", progress)  # the search holds no lock
        return self.fixed | dict(zip(self.sites, done, strict=True))

    def of(self, name: str, K: int | None = None, price: float = 0.0) -> FSParameters:
        """The parameters of one site.

        Args:
            name: of the site.
            K: in place of the settings'.
            price: of a spike per neuron of the site, as a rise of its own error over its variance.
        """
        if name in self.fixed:
            return self.fixed[name]
        activation, codes = self.sites[name].activation, self.codes
        seen, weights = self._seen(name)
        steps = K or (codes.K[name] if isinstance(codes.K, Mapping) else codes.K)
        if activation.name == "relu" and (seen is None or codes.alpha is not None):
            given = PAPER_RELU_ALPHA if codes.alpha is None else codes.alpha
            steps = steps or (PAPER_RELU_STEPS if seen is None else DEFAULT_STEPS)
            scale = given if activation.cap is None else activation.cap
            return relu_parameters(steps, scale, str(codes.rounding), activation.cap)
        if seen is None:
            return _table(self.sites[name], steps)
        steps = steps or DEFAULT_STEPS
        if activation.name == "relu" and codes.rounding == "down":
            return least_error_relu(steps, seen, "down", activation.cap)
        settings = {"offset": codes.offset, "spike_price": price, "seed": self.seed, "effort": codes.effort}
        try:
            return fit_site(activation, steps, seen, weights=weights, **settings)  # type: ignore[arg-type]
        except FewSpikesError as error:
            raise FewSpikesError(f"site {name}: {error}") from None

    def _seen(self, name: str) -> tuple[Histogram | None, Weights | None]:
        """The gate inputs of a site, over their channel's range if it has one, and what errors count there."""
        if self.calibration is None:
            return None, None
        weights = self.calibration.weights.get(name)
        own = weights is not None and name in self.calibration.ranges
        return weights.inputs if own else self.calibration.sites[name], weights  # type: ignore[union-attr]


def _warn(sites: Sequence[Site], codes: Codes, calibration: Calibration | None) -> None:
    has_open = any(site.activation == Activation("relu") for site in sites)
    if codes.alpha is not None and not has_open:
        warn("alpha has no effect: the network has no uncapped ReLU")
    if codes.K is not None and calibration is None and codes.alpha is None and has_open:
        given = codes.K if isinstance(codes.K, int) else "by site"
        warn(
            f"K={given} without calibration data: alpha={PAPER_RELU_ALPHA:g} for every ReLU. "
            "Give images to calibrate on, so that each range is fitted, or alpha to silence this"
        )


def _of_leaders(given: Mapping[str, int], leaders: Mapping[str, str]) -> dict[str, int]:
    """K by site, also of those that follow another one."""
    return {name: given[leader] for name, leader in leaders.items() if leader in given} | dict(given)


def _check_names(given: Mapping[str, int], names: Sequence[str]) -> None:
    """One K for each site and no other."""
    unknown = [name for name in given if name not in names]
    if unknown:
        listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
        raise FewSpikesError(f"K by site: there is no site {unknown[0]!r}; this network's sites are {listed}")
    missing = [name for name in names if name not in given]
    if missing:
        raise FewSpikesError(
            f"K by site: site {missing[0]!r} has no K ({len(missing)} of {len(names)} sites lack one); name each site"
        )


def _check_tables(sites: Sequence[Site]) -> None:
    """Without images every site needs an activation that there is a table for."""
    fitted = [site for site in sites if not site.activation.is_plain or site.activation.name not in TABLES]
    if fitted:
        listed = ", ".join(f"{site.name} is {site.activation.label}" for site in fitted[:_NAMED])
        more = ", ..." if len(fitted) > _NAMED else ""
        raise FewSpikesError(
            f"no tables for {len(fitted)} of {len(sites)} sites: {listed}{more}; give images, so that they are fitted"
        )


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
