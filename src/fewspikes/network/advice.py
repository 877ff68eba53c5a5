"""Where accuracy went, in words: the sites whose errors the output feels most, why they err, and what to try."""

from collections.abc import Sequence

from fewspikes.network.sites import SiteDiagnosis, SiteReport

_MOSTLY = 0.6  # of a site's own error: a range of least error clips a few inputs on purpose and loses up to half by it
_SMALL = 0.01  # relative own error that is not the site's fault
_IDLE = 0.25  # of the steps; a ReLU needs all of its, but a searched code may keep one for rare inputs
_COUNTS = 0.005  # share of the output's error below which a site is not worth a line
_NAMED = 5  # sites listed in one line


def worst(sites: Sequence[SiteReport], n: int, repaired: bool) -> list[str]:
    """One line for each of the `n` diagnosed sites that add most to the output's error, worst first.

    Sites that add less than half a percent of it are left out. `repaired`: whether repair per channel was tried.
    """
    known = [(site, site.diagnosis) for site in sites if site.diagnosis is not None]
    if not known:
        return ["not diagnosed: give `convert` images as calibration"]
    total = sum(found.output_error for _, found in known)
    if not total > 0:
        return ["no site adds to the output's error"]
    repaired = repaired or any(site.shifted or site.scaled for site in sites)
    ranked = sorted(known, key=lambda pair: -pair[1].output_error)[: max(n, 0)]
    shares = [found.output_error / total for _, found in ranked]
    return [
        _line(site, found, share, repaired)
        for (site, found), share in zip(ranked, shares, strict=True)
        if share >= _COUNTS
    ]


def oddities(sites: Sequence[SiteReport]) -> list[str]:
    """Sites whose output is constant, a line each, and one line for the channels that never fire."""
    known = [(site.name, site.diagnosis) for site in sites if site.diagnosis is not None]
    lines = [
        f"{name}: constant, the ANN's output here is one number everywhere in {found.images} images; it needs no "
        "neurons, and its relative errors are over its mean square"
        for name, found in known
        if found.constant
    ]
    silent = sorted(((f.silent_channels, f.channels, name) for name, f in known if f.silent_channels), reverse=True)
    if silent:
        named = ", ".join(f"{name} {count} of {channels}" for count, channels, name in silent[:_NAMED])
        lines.append(
            f"{sum(count for count, _, _ in silent)} channels never fire in {known[0][1].images} images, so they stay "
            f"at their offset: {named}{', ...' if len(silent) > _NAMED else ''}"
        )
    return lines


def _line(site: SiteReport, found: SiteDiagnosis, share: float, repaired: bool) -> str:
    why, remedy = _reason(site, found, repaired)
    inherited = ""
    if found.inherited_error > found.own_error:
        inherited = f"; {_percent(found.inherited_error)} of {_percent(found.error)} at its output comes from before it"
    return f"{site.name}: {100 * share:.0f}% of the output's error; {why}{inherited}. Try {remedy}"


def _reason(site: SiteReport, found: SiteDiagnosis, repaired: bool) -> tuple[str, str]:
    """Why the site errs, and what to try."""
    more = "distilling" if repaired else "calibrating with repair=True"
    own = f"its own error is {_percent(found.own_error)} of its variance"
    if found.clipped_error > _MOSTLY:
        low, high = site.domain
        return (
            f"{_percent(found.clipped_fraction)} of its inputs lie outside its range [{low:.3g}, {high:.3g}] and make "
            f"{_percent(found.clipped_error)} of its own error",
            "calibrating on more images, or on images like these",
        )
    if found.idle_steps > (0 if site.alpha is not None else _IDLE * site.K):
        return (
            f"{found.idle_steps} of its {site.K} steps never fire: its range is too wide for what it sees ({own})",
            "calibrating on images like these, so that its code is fitted to them",
        )
    if found.own_error < _SMALL:
        return f"{own}, which is little, but the output feels it", f"a step more here, or {more}"
    return f"K={site.K} is few here ({own})", f"K={site.K + 1} or {site.K + 2} here, or {more}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 * share:.0f}%"
