"""Rows of what is left digital, and of sizes and constants."""

from collections.abc import Iterable

from fewspikes.operators.call import Call
from fewspikes.operators.rule import Digital, Shapes
from fewspikes.operators.summing import broadcast
from fewspikes.reach.boxes import Box


def _multiplied(call: Call) -> Iterable[Box]:
    return broadcast(call, "self", "other")


product = Digital(
    ("mul",),
    kind="product",
    multiplies=True,
    reach=_multiplied,
    reason="a product of two signals is not a weighted sum of spikes; the paper leaves it to the digital processor",
)
sizes = Shapes(("sym_size",))
zeros = Shapes(("zeros", "zeros_like", "new_zeros"), fill=lambda call: 0)
ones = Shapes(("ones", "ones_like", "new_ones"), fill=lambda call: 1)
filled = Shapes(("full", "full_like", "new_full"), fill=lambda call: call["fill_value"])

ROWS = (product, sizes, zeros, ones, filled)
