"""Rows of operators that pick or fill positions by constant indices."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor

from fewspikes.operators.call import Call
from fewspikes.operators.rule import linear, moves
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box
from fewspikes.reach.factors import check_size


def _indexes_within_images(call: Call) -> bool:
    """Whether positions of one axis of an image are picked by a constant."""
    axis, index = call.axis(), call.fixed("index")
    if axis == 0 or index is None or index.dtype not in (torch.int64, torch.int32) or index.ndim != 1:
        return False
    size = call.shape_of("self")[axis]
    return len(index) > 0 and int(index.min()) >= 0 and int(index.max()) < size


@moves("index_select", takes=_indexes_within_images)
def picked(call: Call) -> Iterable[Box]:
    """Positions along an axis in the order of an index, some perhaps never and some several times."""
    axis, matrix = call.axis(), _one_hot(call)
    return [boxes.contract(box, axis, matrix) for box in call.boxes()]


@linear("index_add", terms=("self", "source"), takes=_indexes_within_images)
def added_at(call: Call) -> Iterable[Box]:
    """A tensor, and on the positions that an index names another one."""
    axis, matrix = call.axis(), _one_hot(call).T
    yield from call.connected(call.node.arguments["self"])
    for box in call.connected(call.node.arguments["source"]):
        yield boxes.contract(box, axis, matrix)


def _one_hot(call: Call) -> Bool[Tensor, "positions index"]:
    """Which position of the axis each entry of the index names."""
    index, size = call.fixed("index"), call.shape_of("self")[call.axis()]
    assert index is not None
    check_size((size, len(index)))
    return torch.arange(size)[:, None] == index


ROWS = (picked, added_at)
