"""Rows of what is left digital, and of sizes and constants."""

from collections.abc import Iterable

from fewspikes.operators.call import Call
from fewspikes.operators.rule import Digital, Shapes
from fewspikes.operators.summing import broadcast
from fewspikes.reach.boxes import Box, contracted
from fewspikes.reach.windows import spread, window


def _multiplied(call: Call) -> Iterable[Box]:
    return broadcast(call, "self", "other")


def _pooled(call: Call) -> Iterable[Box]:
    kernel = call["kernel_size"]
    count = len(kernel)
    settings = (spread(call[name] or kernel, count) for name in ("stride", "padding", "dilation"))
    sizes = zip(call.shape_of("self")[-count:], call.shape[-count:], kernel, *settings, strict=True)
    return contracted(call.boxes(), len(call.shape) - count, [window(*size) for size in sizes])


product = Digital(
    ("mul",),
    kind="product",
    multiplies=True,
    reach=_multiplied,
    reason="a product of two signals is not a weighted sum of spikes; the paper leaves it to the digital processor",
)
max_pool = Digital(
    ("max_pool1d", "max_pool2d", "max_pool3d"),
    kind="max",
    reach=_pooled,
    reason="a maximum is not a weighted sum of spikes; circuits={'max': 'average'} changes the network instead",
)
_FILLED = ("ones_like", "zeros_like", "full_like", "zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
sizes = Shapes(("sym_size", *_FILLED))

ROWS = (max_pool, product, sizes)
