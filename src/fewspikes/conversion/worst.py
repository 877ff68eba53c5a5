"""Where accuracy went, in words: the sites whose errors the output feels most, why they err, and what to try."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewspikes.conversion.report import SiteDiagnosis, SiteReport

_MOSTLY = 0.6  # of a site's own error: a range of least error clips a few inputs on purpose and loses up to half by it
_SOUND = 0.01  # relative own error that needs no remedy


def worst(sites: Sequence["SiteReport"], n: int) -> list[str]:
    """One line for each of the `n` diagnosed sites that add most to the output's error, worst first."""
    known = [(site, site.diagnosis) for site in sites if site.diagnosis is not None]
    if not known:
        return ["not diagnosed: give images to `convert`, or call fewspikes.diagnose(snn, images)"]
    total = sum(found.output_error for _, found in known)
    repaired = any(site.shifted or site.scaled for site in sites)
    ranked = sorted(known, key=lambda pair: -pair[1].output_error)
    return [_line(site, found, total, repaired) for site, found in ranked[: max(n, 0)]]


def oddities(sites: Sequence["SiteReport"]) -> list[str]:
    """Sites that never change, and channels that never fire, one line each."""
    lines = []
    for site in sites:
        found = site.diagnosis
        if found is None:
            continue
        if found.constant:
            lines.append(
                f"{site.name}: constant, its activation is the same everywhere in {found.images} images; "
                "neurons are not needed for it, and its relative errors are over its mean square"
            )
        if found.silent_channels:
            lines.append(
                f"{site.name}: {found.silent_channels} of {found.channels} channels never fire in {found.images} "
                "images; they stay at their offset and could be pruned"
            )
    return lines


def _line(site: "SiteReport", found: "SiteDiagnosis", total: float, repaired: bool) -> str:
    share = 100 * found.output_error / total if total > 0 else 0.0
    why, remedy = _reason(site, found, repaired)
    inherited = ""
    if found.error > 0 and found.inherited_error > found.own_error:
        inherited = f"; {_percent(found.inherited_error)} of {_percent(found.error)} at its output comes from before it"
    return f"{site.name}: {share:.0f}% of the output's error; {why}{inherited}. Try {remedy}"


def _reason(site: "SiteReport", found: "SiteDiagnosis", repaired: bool) -> tuple[str, str]:
    """Why the site errs, and what to try."""
    more = "distilling" if repaired else "calibrating with repair=True"
    own = f"off by {_percent(found.own_error)} by itself"
    if found.clipped_error > _MOSTLY:
        low, high = site.domain
        return (
            f"{_percent(found.clipped_fraction)} of its inputs lie outside its range [{low:.3g}, {high:.3g}] and make "
            f"{_percent(found.clipped_error)} of its own error",
            "calibrating on more images, or on images like these",
        )
    if found.idle_steps:
        return (
            f"{found.idle_steps} of its {site.K} steps never fire, so its range is too wide for what it sees ({own})",
            "calibrating on images like these, so that its code is fitted to them",
        )
    if found.own_error < _SOUND:
        return f"its own error is small ({own}), but the output is sensitive to it", f"a step more here, or {more}"
    return f"K={site.K} is few here ({own})", f"K={site.K + 1} or {site.K + 2} here, or {more}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 * share:.0f}%"
