"""Boxes in loops over time: a label in the place of the axis of time, as the rows within see one time step alone."""

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from fewspikes.reach.boxes import Box, contract, dense, drop, insert, take
from fewspikes.reach.factors import Factor, check_size


def with_label(box: Box, label: int, steps: Bool[Tensor, " steps"]) -> Box:
    """The same at some time steps, told by a new label."""
    return box.swap((), [Factor(steps, (label,))])


def entered(box: Box, axis: int, label: int, backwards: bool) -> Box:
    """The axis of time as a label: what the source reaches at each time step."""
    box = box.single(axis)
    at = box.axes[axis][0]
    factor = box.factor_of(at).last(at)
    table = factor.table.flip(-1) if backwards else factor.table
    gone = tuple(label if n == at else n for n in factor.labels)
    return replace(box.swap([box.factor_of(at)], [Factor(table, gone)]), axes=(*box.axes[:axis], *box.axes[axis + 1 :]))


def shown(box: Box, label: int, lag: int, is_source: bool) -> Box:
    """The label as a last axis again, so many time steps later; one that belongs to the source stays there, too."""
    factor = box.factor_of(label).last(label)
    steps = factor.table.shape[-1]
    later = torch.ones(steps, steps).diagonal(lag).diag_embed(lag)[:steps, :steps].bool()
    check_size((*factor.table.shape, steps))
    table, time = factor.table[..., None] & later, box.fresh()
    made = Factor(table, (*factor.labels, time)) if is_source else Factor(table.any(-2), (*factor.labels[:-1], time))
    return replace(box.swap([box.factor_of(label)], [made]), axes=(*box.axes, (time,)))


def along(box: Box, axis: int, backwards: bool) -> Box:
    """The last axis, that of time, at another place."""
    if backwards:
        steps = box.shape[-1]
        box = contract(box, len(box.axes) - 1, torch.eye(steps, dtype=torch.bool).flip(1))
    *others, time = box.axes
    return replace(box, axes=(*others[:axis], time, *others[axis:]))


def at_the_end(box: Box) -> Box:
    """The last time step of the last axis."""
    axis = len(box.axes) - 1
    steps = box.shape[axis]
    return drop(take(box, axis, slice(steps - 1, steps)), axis)


def always(box: Box, steps: int) -> Box:
    """The same at every time step, along a new last axis."""
    axis = len(box.axes)
    return dense(insert(box, axis), axis, steps)
