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
sizes = Shapes(("sym_size", "ones_like", "zeros_like", "full_like", "zeros", "ones", "full", "new_zeros", "new_ones"))

ROWS = (product, sizes)
