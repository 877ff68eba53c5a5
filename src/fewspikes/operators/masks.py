"""Masks in front of a softmax: what they leave out is a factor of 0 behind the exponential, so no -inf is anywhere.

    softmax(where(keep, s, -inf))    ->    e / sum(e) with e = keep * exp(s - m), m the maximum over what is kept

A mask is a constant, or bookkeeping of whole numbers, by image. What is added to scores counts as left out where it is
-10000 or lower; what is higher stays a sum.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fewspikes.base.errors import FewSpikesError
from fewspikes.graph.builder import Builder
from fewspikes.graph.graph import CONSTANT, Batch, Ref
from fewspikes.operators.call import Call
from fewspikes.operators.constants import number

_LOW = -1e4  # exp of this is 0, in float64 too
_FAR_BELOW = -16.0  # what neurons of exp take where a mask leaves something out: they stay silent


class Masked(NamedTuple):
    """Scores, and where they count: truths that broadcast to their shape, None where all do."""

    scores: Ref
    keep: Ref | None


def unmasked(call: Call, ref: Ref, g: Builder) -> Masked:
    """Scores without the masks that the model put on them.

    Args:
        call: that takes them.
        ref: the scores in the model's graph.
        g: where it is built.
    """
    node = call.graph[ref.name]
    found = None
    if node.short in _WAYS and node.name in call.carriers:
        found = _WAYS[node.short](_call_of(call, node.name), g)
    return Masked(g.now(ref), None) if found is None else found


def with_mask(call: Call, ref: Ref, scores: Ref, g: Builder) -> Masked:
    """Scores, and a mask that an operator takes beside them: truths (those that are true count), or what it adds."""
    node = call.graph[ref.name]
    if node.dtype == torch.bool:
        return Masked(scores, _truths(call, ref, g))
    if ref.name in call.carriers:
        added, keep = unmasked(call, ref, g)
        return Masked(g.put("add.Tensor", scores, added), keep)
    keep, rest = _parts(call, ref, g)
    return Masked(scores if rest is None else g.put("add.Tensor", scores, rest), keep)


def by_rows(call: Call, masked: Masked, axis: int, g: Builder) -> Masked:
    """The mask over all positions of an axis, counted from the end; None where it leaves nothing out.

    Raises:
        FewSpikesError: a constant that leaves all of a row out.
    """
    scores, keep = masked
    if keep is None:
        return masked
    size, value = g.shape(scores)[axis], constant_value(g, keep)
    if value is not None:
        if bool(value.all()):
            return Masked(scores, None)
        if not bool((value.any(axis) if value.ndim >= -axis else value).all()):
            raise FewSpikesError(
                f"{call.node.where}: its mask leaves all of a row out, of which a softmax is NaN; let each row keep "
                "one position at least, or leave the row out before"
            )
        return masked
    own = g.shape(keep)
    if len(own) >= -axis and own[axis] == size:
        return masked
    ones = g.constant(torch.ones([size, *[1] * (-axis - 1)], dtype=torch.bool))  # type: ignore[list-item]
    return Masked(scores, g.put("logical_and", keep, ones))


def with_a_kept_score(masked: Masked, axis: int, g: Builder) -> Ref:
    """The scores with the first one that counts in the place of those of its row that do not."""
    scores, keep = masked
    if keep is None:
        return scores
    value = constant_value(g, keep)
    if value is not None:
        first: Ref = g.constant(value & (value.cumsum(axis) == 1))
    else:
        first = g.put("logical_and", keep, g.put("eq.Scalar", g.put("cumsum", keep, axis), 1))
    return _chosen(g, keep, scores, g.put("sum.dim_IntList", zeroed(g, scores, first), [axis], True))


def silenced(g: Builder, x: Ref, keep: Ref | None) -> Ref:
    """What exp takes, so low where it does not count that neurons stay silent."""
    return x if keep is None else _chosen(g, keep, x, _FAR_BELOW)


def zeroed(g: Builder, x: Ref, keep: Ref | None) -> Ref:
    """`x` where it counts, else 0."""
    if keep is None:
        return x
    return g.put("mul.Tensor", x, keep) if _is_bookkept(g, keep) else g.put("where.ScalarOther", keep, x, 0.0)


def nothing_kept(g: Builder, keep: Ref | None, axis: int) -> Ref | None:
    """Truths, for rows of which a mask by image may leave all out; None where there are none."""
    if keep is None or not _is_bookkept(g, keep):
        return None
    return g.put("logical_not", g.put("any.dim", keep, axis, True))


def constant_value(g: Builder, ref: Ref) -> Tensor | None:
    """The tensor behind a constant of the new graph; None for anything else."""
    node = g.node(ref)
    return g.tensors[node.arguments["tensor"]] if node.operator == CONSTANT else None


def _is_bookkept(g: Builder, keep: Ref) -> bool:
    return g.node(keep).operator != CONSTANT


def _chosen(g: Builder, keep: Ref, x: Ref, other: Ref | float) -> Ref:
    """`x` where it counts, else another one."""
    if not _is_bookkept(g, keep):
        return g.put("where.ScalarOther" if isinstance(other, float) else "where.self", keep, x, other)
    return g.put("add.Tensor", zeroed(g, x, keep), g.put("mul.Tensor", g.put("logical_not", keep), other))


def _call_of(call: Call, name: str) -> Call:
    return Call(call.graph[name], call.graph, call.rules, call.carriers, tensors=call.tensors)


def _added(call: Call, g: Builder) -> Masked | None:
    """A sum with a mask, or with a bias in front of one."""
    names = call.signals & {"self", "other"}
    others = [call.node.arguments[name] for name in ("self", "other") if name not in names]
    if len(names) != 1 or call["alpha"] != 1 or not isinstance(others[0], Ref):
        return None
    found = unmasked(call, call.node.arguments[next(iter(names))], g)
    keep, rest = _parts(call, others[0], g)
    both = _both(g, found.keep, keep)
    return (
        None
        if both is None
        else Masked(found.scores if rest is None else g.put("add.Tensor", found.scores, rest), both)
    )


def _filled(call: Call, g: Builder) -> Masked | None:
    """Scores with something very low at the places of a mask."""
    given = call.node.arguments
    if call.signals != {"self"} or not _is_low(call, given["value"], g):
        return None
    return _also(call, given["self"], _not(g, _truths(call, given["mask"], g)), g)


def _picked(call: Call, g: Builder) -> Masked | None:
    """Scores where a mask is true, or false, and something very low elsewhere."""
    given = call.node.arguments
    condition = given["condition"]
    if call.signals == {"self"} and _is_low(call, given["other"], g):
        return _also(call, given["self"], _truths(call, condition, g), g)
    if call.signals == {"other"} and _is_low(call, given["self"], g):
        return _also(call, given["other"], _not(g, _truths(call, condition, g)), g)
    return None


_WAYS: dict[str, Callable[[Call, Builder], Masked | None]] = {"add": _added, "masked_fill": _filled, "where": _picked}


def _also(call: Call, scores: Ref, keep: Ref, g: Builder) -> Masked:
    """Scores of which a mask keeps some, and perhaps others in front of it."""
    before = unmasked(call, scores, g)
    return Masked(before.scores, _both(g, before.keep, keep))


def _is_low(call: Call, value: object, g: Builder) -> bool:
    found = number(value.name, call.graph, g.tensors, call.rules) if isinstance(value, Ref) else value
    return isinstance(found, int | float) and found <= _LOW


def _parts(call: Call, ref: Ref, g: Builder) -> tuple[Ref | None, Ref | None]:
    """Of what is added to scores, where it leaves them, and what is left to add."""
    value = _settled(call, ref, g)
    if value is None:
        added = g.now(ref)
        keep = g.put("gt.Scalar", added, _LOW)
        return keep, g.call("where.ScalarOther", keep, added, 0.0, like=g.shape(added))
    low = value <= _LOW
    if not bool(low.any()):
        return None, g.now(ref)
    rest = value.masked_fill(low, 0)
    return g.constant(~low), g.constant(rest) if bool(rest.any()) else None


def _truths(call: Call, ref: Ref, g: Builder) -> Ref:
    value = _settled(call, ref, g)
    return g.now(ref) if value is None else g.constant(value.to(torch.bool))


def _not(g: Builder, keep: Ref) -> Ref:
    value = constant_value(g, keep)
    return g.put("logical_not", keep) if value is None else g.constant(~value)


def _both(g: Builder, first: Ref | None, second: Ref | None) -> Ref | None:
    if first is None or second is None:
        return first if second is None else second
    a, b = constant_value(g, first), constant_value(g, second)
    return g.put("logical_and", first, second) if a is None or b is None else g.constant(a & b)


def _settled(call: Call, ref: Ref, g: Builder) -> Tensor | None:
    """The tensor behind a mask that is the same for each image; None for any other."""
    node = call.graph[ref.name]
    while node.short == "expand":
        node = call.graph[node.arguments["self"].name]
    value = g.value(Ref(node.name)) if node.operator == CONSTANT else call.fixed_behind(Ref(node.name))
    if value is None or value.is_meta:
        return None
    if not any(isinstance(size, Batch) for size in node.shape or ()):
        return value
    return value[:1] if isinstance(node.shape[0], Batch) and bool((value == value[:1]).all()) else None  # type: ignore
