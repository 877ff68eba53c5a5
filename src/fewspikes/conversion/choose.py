"""Which parameters each site gets: the paper's setting, a given range, or the least error on what it sees."""

import operator
import warnings
from collections.abc import Sequence
from typing import Any

from fewspikes.activations import Activation
from fewspikes.calibration import Calibration
from fewspikes.conversion.rewrite import Site
from fewspikes.errors import FewSpikesError, FewSpikesWarning
from fewspikes.fitting import least_error_relu
from fewspikes.parameters import (
    MAX_STEPS,
    PAPER_RELU_ALPHA,
    PAPER_RELU_STEPS,
    FSParameters,
    published,
    relu_parameters,
)

DEFAULT_STEPS = 8  # with calibration data and no K


def choose(
    sites: Sequence[Site],
    K: int | None,
    alpha: float | None,
    rounding: str | None,
    calibration: Calibration | None,
) -> dict[str, FSParameters]:
    """Parameters by the site's module name.

    Without K and calibration this is the paper's setting: ReLU K=10, alpha=25 (a capped ReLU: its cap), rounded down;
    SiLU and sigmoid by their published tables.

    Raises:
        FewSpikesError: K out of range, a K without a table, or a calibration of other sites.
    """
    K, alpha = _whole(K), _number(alpha)
    if calibration is not None and set(calibration.sites) != {site.name for site in sites}:
        raise FewSpikesError(
            f"the calibration is for {len(calibration.sites)} other sites than the network's {len(sites)}; "
            "calibrate again"
        )
    paper = K is None and calibration is None
    steps = (PAPER_RELU_STEPS if paper else DEFAULT_STEPS) if K is None else K
    rounding = ("down" if paper else "nearest") if rounding is None else rounding
    if rounding not in ("down", "nearest"):
        raise FewSpikesError(f"rounding must be 'down' or 'nearest'; got {rounding!r}")
    has_open = any(site.activation == Activation("relu") for site in sites)
    if alpha is not None and not has_open:
        message = "alpha has no effect: the network has no uncapped ReLU"
        warnings.warn(message, FewSpikesWarning, stacklevel=4)
    if K is not None and calibration is None and alpha is None and has_open:
        warnings.warn(
            f"K={K} without calibration data: alpha={PAPER_RELU_ALPHA:g} for every ReLU. "
            "Give images to calibrate on, so that each range is fitted, or alpha to silence this",
            FewSpikesWarning,
            stacklevel=4,
        )
    return {site.target: _parameters(site, K, steps, alpha, rounding, calibration) for site in sites}


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


def _parameters(
    site: Site, K: int | None, steps: int, alpha: float | None, rounding: str, calibration: Calibration | None
) -> FSParameters:
    activation = site.activation
    if activation.name != "relu":
        return _table(site, K)
    if calibration is not None and alpha is None:
        return least_error_relu(steps, calibration.sites[site.name], rounding, activation.cap)
    given = PAPER_RELU_ALPHA if alpha is None else alpha
    return relu_parameters(steps, given if activation.cap is None else activation.cap, rounding, activation.cap)


def _table(site: Site, K: int | None) -> FSParameters:
    table = published(site.activation.name)
    if K not in (None, table.K):
        raise FewSpikesError(
            f"site {site.name} is a {site.activation.label}, whose table has K={table.K}; there is none for K={K}: "
            "leave K out to use each activation's own"
        )
    return table
