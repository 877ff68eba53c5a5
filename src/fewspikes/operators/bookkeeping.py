"""Rows of what computes on whole numbers, sizes and constants, and of tables that whole numbers look up."""

from collections.abc import Iterable, Iterator

from fewspikes.graph.graph import CONSTANT, OUTPUT, Node, Ref
from fewspikes.operators.call import IMAGES, Call, Relation
from fewspikes.operators.driven import is_image_number, numbers_images
from fewspikes.operators.rule import Bookkeeping, Digital, Linear, Lookup, Shapes
from fewspikes.operators.summing import sums_of
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box, identity
from fewspikes.reach.factors import Unknown
from fewspikes.reach.reshaping import reshape

_CAST = "_to_copy"


def _looked_up(call: Call) -> Iterable[Box]:
    """All columns of the row that each number picks."""
    axis = len(call.shape) - 1
    (name,) = call.signals
    return [boxes.dense(boxes.insert(box, axis), axis, call.shape[axis]) for box in call.boxes(name)]


def _bagged(call: Call) -> Iterable[Iterable[Box]]:
    """All columns of the rows that the numbers of each bag pick; bags are equally long."""
    (numbers,), (bags, *_), columns = call.shape_of("indices"), call.shape_of("offsets"), call.shape_of("weight")[1]
    if numbers % bags:
        raise Unknown("bags of different lengths")
    rows = [sums_of(reshape(box, (bags, numbers // bags)), [1], True) for box in call.boxes("indices")]
    yield [boxes.dense(box, 1, columns) for box in rows]


def _picks_rows(call: Call) -> bool:
    """Whether a constant of floats is looked up."""
    table = call.graph[call.node.arguments["self"].name]
    return table.operator == CONSTANT and not table.is_whole


def _indexed(call: Call) -> Iterator[Box]:
    """What one tensor of indices for each of some axes picks; where these numbers are the images', it is theirs."""
    picking = {axis: ref for axis, ref in enumerate(call["indices"]) if ref is not None}
    count = max(len(call.graph.sizes(ref.name, IMAGES)) for ref in picking.values())
    axes = list(picking)
    first = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    for ref in picking.values():
        for box in call.connected(ref):
            yield _placed(boxes.broadcast(box, call.shape[first : first + count]), first, call)
    if not (0 in picking and numbers_images(call, picking[0])):
        for box in call.connected(call.node.arguments["self"]):
            left = sums_of(box, axes, False)
            for _ in range(count):
                left = boxes.insert(left, first)
            yield boxes.broadcast(left, call.shape)


def _placed(box: Box, first: int, call: Call) -> Box:
    """The box with axes of one position in front and behind, broadcast."""
    for _ in range(first):
        box = boxes.insert(box, 0)
    while len(box.axes) < len(call.shape):
        box = boxes.insert(box, len(box.axes))
    return boxes.broadcast(box, call.shape)


def _combined(call: Call) -> Iterator[Box]:
    """A matrix product: rows of the first, columns of the second."""
    first, second = (ref for ref in call.node.arguments.values() if isinstance(ref, Ref))
    for box in call.connected(first):
        yield boxes.broadcast(boxes.dense(box, len(box.axes) - 1, call.shape[-1]), call.shape)
    for box in call.connected(second):
        yield boxes.broadcast(boxes.dense(box, len(box.axes) - 2, call.shape[-2]), call.shape)


def _is_returned(call: Call, node: Node) -> bool:
    """Whether nothing but the caller gets a result, however it is moved before."""
    return all(
        user.operator == OUTPUT or ((user.operator == "getitem" or _moves(call, user)) and _is_returned(call, user))
        for user in call.graph.users(node.name)
    )


def _moves(call: Call, node: Node) -> bool:
    return node.short == _CAST or any(row.moves for row in call.rules.of(Linear, node.short))


def _counted(call: Call) -> Relation:
    """Numbers up to that of the images, one for each; nothing for any others."""
    return (identity(call.shape),) if is_image_number(call.node, call.graph) else ()


def _writes_into_each_image(call: Call) -> bool:
    """Whether one number goes to a place of each image, which whole numbers name."""
    given = call.node.arguments
    one = call.graph[given["values"].name]
    return numbers_images(call, given["indices"][0]) and one.shape == () and one.operator == CONSTANT


def _written(call: Call) -> Iterator[Box]:
    yield from call.connected(call.node.arguments["self"])
    for ref in call.node.arguments["indices"]:
        for box in call.connected(ref):
            yield _placed(box, 0, call)


ranked = Digital(
    ("argmax", "argmin", "topk", "sort", "argsort"),
    takes=lambda call: _is_returned(call, call.node),
    reason="an order is no weighted sum of spikes; it is read from the network's outputs",
)
rounded = Digital(
    (_CAST,),
    takes=lambda call: call.node.is_whole and _is_returned(call, call.node),
    reason="whole numbers are made of the network's outputs",
)
table = Lookup(("embedding",), channels=-1, reach=_looked_up)
bags = Lookup(("embedding_bag",), channels=-1, several=True, reach=_bagged)
rows_of = Lookup(("index",), channels=-1, takes=_picks_rows, reach=_indexed)
sizes = Shapes(("sym_size", "empty_like", "scalar_tensor", "linspace"))
zeros = Shapes(("zeros", "zeros_like", "new_zeros"), fill=lambda call: 0)
ones = Shapes(("ones", "ones_like", "new_ones"), fill=lambda call: 1)
filled = Shapes(("full", "full_like", "new_full"), fill=lambda call: call["fill_value"])
numbers = Shapes(("arange",), reach=_counted)
picked = Bookkeeping(("index",), reach=_indexed)
written = Bookkeeping(("index_put",), reach=_written, takes=_writes_into_each_image)
classes = Bookkeeping(("one_hot",), reach=_looked_up)
combined = Bookkeeping(
    ("matmul", "mm", "bmm"), reach=_combined, takes=lambda call: len(call.shape_of("self")) > 1 and len(call.shape) > 1
)
plain = Bookkeeping(
    (
        *(_CAST, "where", "fill", "copy", "gather", "index_select", "diff", "tril", "triu", "scatter"),
        *("__and__", "__or__", "__xor__", "__lshift__", "__rshift__", "floor_divide", "isin", "bucketize", "prod"),
        *("any", "all", "max", "min", "amax", "amin", "argmax", "argmin", "sort", "argsort", "topk", "cummax"),
        *("cummin", "cumprod", "count_nonzero", "repeat_interleave", "expand_as", "diagonal", "movedim", "softmax"),
    )
)

ROWS = (
    ranked,
    rounded,
    table,
    bags,
    rows_of,
    sizes,
    zeros,
    ones,
    filled,
    numbers,
    picked,
    written,
    classes,
    combined,
    plain,
)
