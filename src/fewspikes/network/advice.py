"""Where accuracy went, in words: the sites whose errors the output feels most, why they err, and what to try."""

from collections.abc import Sequence

from fewspikes.base.wording import counted
from fewspikes.network.sites import SiteDiagnosis, SiteReport

_MOSTLY = 0.6  # of a site's own error: a range of least error clips a few inputs on purpose and loses up to half by it
_SMALL = 0.01  # relative own error that is not the site's fault
_IDLE = 0.25  # of the steps; a ReLU needs all of its, but a searched code may keep one for rare inputs
_COUNTS = 0.005  # share of the output's error below which a site is not worth a line
_NAMED = 5  # sites listed in one line


def worst(sites: Sequence[SiteReport], n: int, repaired: bool, item: str = "image") -> list[str]:
    """Lines on the `n` diagnosed sites that add most to the output's error, worst first.

    Sites that err for one reason and have one remedy share a line; those that add under half a percent are left out.

    Args:
        sites: of a network.
        n: how many.
        repaired: whether repair per channel was tried.
        item: how one input is called.
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
    alike: dict[tuple[str, str, bool], list[tuple[str, float, float]]] = {}
    for (site, found), share in zip(ranked, shares, strict=True):
        if share >= _COUNTS:
            key = *_reason(site, found, repaired, item), found.inherited_error > found.own_error
            alike.setdefault(key, []).append((site.name, share, found.own_error))
    return [_line(blamed, *reason) for reason, blamed in alike.items()]


def oddities(sites: Sequence[SiteReport], item: str = "image") -> list[str]:
    """Sites whose output is constant, a line each, and one line for the channels that never fire."""
    known = [(site.name, site.diagnosis) for site in sites if site.diagnosis is not None]
    lines = [
        f"{name}: constant, the ANN's output here is one number everywhere in {counted(found.images, item)}; it needs "
        "no neurons, and its relative errors are over its mean square"
        for name, found in known
        if found.constant
    ]
    silent = sorted(((f.silent_channels, f.channels, name) for name, f in known if f.silent_channels), reverse=True)
    if silent:
        named = ", ".join(f"{name} {count} of {channels}" for count, channels, name in silent[:_NAMED])
        total, seen = sum(count for count, _, _ in silent), counted(known[0][1].images, item)
        stay = "never fires in {}, so it stays at its" if total == 1 else "never fire in {}, so they stay at their"
        more = ", ..." if len(silent) > _NAMED else ""
        lines.append(f"{counted(total, 'channel')} {stay.format(seen)} offset: {named}{more}")
    return lines


def _line(sites: Sequence[tuple[str, float, float]], why: str, remedy: str, passes_on: bool) -> str:
    """What is said of sites that err for one reason.

    Args:
        sites: name, share of the output's error and own relative error of each.
        why: the reason, perhaps with a place for their own errors.
        remedy: what to try.
        passes_on: whether more error comes from before them than they make.
    """
    shares = ", ".join(f"{name}: {100 * share:.0f}%" for name, share, _ in sites)
    errors = ", ".join(_percent(own) for _, _, own in sites)
    own, passing = f"its own error is {errors} of its variance", "; it passes on more error than it adds"
    if len(sites) > 1:
        own, passing = f"their own errors are {errors} of their variances", "; they pass on more error than they add"
    return f"{shares} of the output's error; {why.format(own=own)}{passing if passes_on else ''}. Try {remedy}"


def _reason(site: SiteReport, found: SiteDiagnosis, repaired: bool, item: str) -> tuple[str, str]:
    """Why the site errs, perhaps with a place for its own error, and what to try."""
    more = "distilling" if repaired else "calibrating with repair=True"
    if found.clipped_error > _MOSTLY:
        low, high = site.domain
        return (
            f"{_percent(found.clipped_fraction)} of its inputs lie outside its range [{low:.3g}, {high:.3g}] and make "
            f"{_percent(found.clipped_error)} of its own error",
            f"calibrating on more {item}s, or on {item}s like these",
        )
    if found.idle_steps > (0 if site.alpha is not None else _IDLE * site.K):
        return (
            f"{found.idle_steps} of its {site.K} steps never fire: its range is too wide for what it sees ({{own}})",
            f"calibrating on {item}s like these, so that its code is fitted to them",
        )
    if found.own_error < _SMALL:
        return "{own}, which is little, but the output feels it", f"a step more here, or {more}"
    return f"K={site.K} is few here ({{own}})", f"K={site.K + 1} or {site.K + 2} here, or {more}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.995 else f"{100 * share:.0f}%"
