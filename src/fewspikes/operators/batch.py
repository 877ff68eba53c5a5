"""Which image of a batch each position comes from: a spiking network computes every image by itself.

One walk over the whole graph follows the batch axis of all inputs and forgets their other axes, so that tables stay
small. Neurons and elementwise operators pass it on, others by their rows. Where no row tells, an operator works along
the axes that it names, or on each position by itself where it keeps the shape, or else on everything at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

from torch import Tensor

from fewspikes.graph.graph import HISTORY, INPUT, NEXT, OUTPUT, PASSING, SITE, STEP, Batch, Graph, Node, refs, sizes
from fewspikes.operators.call import Call, Relation
from fewspikes.operators.rule import Bookkeeping, Digital, Linear, Lookup, Rules, Shapes
from fewspikes.operators.rules import is_known
from fewspikes.operators.summing import sums_of
from fewspikes.reach import boxes
from fewspikes.reach.boxes import Box, identity, is_empty
from fewspikes.reach.factors import Unknown
from fewspikes.reach.union import meet, unite

_IMAGES = 7  # followed side by side: a shift by fewer is seen
_MIXED = (
    "the images of a batch are mixed by {}; a spiking network computes each by itself: work on other axes, put a "
    "constant (a buffer) in place of what comes from other images, or leave it to the code that calls the network"
)
_MOVED = "images come to other places by {}; return every tensor with the batch on axis 0, each image at its own place"


def batch_problems(graph: Graph, tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, list[Node]]:
    """Where a graph does not compute each image by itself: the nodes by what is wrong, in words with {} for them.

    Args:
        graph: with the shapes of its tensors.
        tensors: its constants.
        rules: the rows.
    """
    walk = _Walk(graph, tensors, rules)
    moving = [walk.moving(name) for name in graph.output.reads if walk.is_elsewhere(name)]
    return {words: nodes for words, nodes in ((_MIXED, walk.mixing), (_MOVED, moving)) if nodes}


def followed_images(graph: Graph, tensors: Mapping[str, Tensor], rules: Rules) -> Mapping[str, Any]:
    """By node, the positions of its result that each of a few images reaches, as far as they can be followed."""
    return _Walk(graph, tensors, rules).known


class _Walk:
    """The walk.

    Attributes:
        graph: for a fixed number of images.
        known: by node, what each image reaches of its result; of several results, by their index.
        mixing: the nodes at which two images first meet.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor], rules: Rules) -> None:
        self.given = graph
        self.graph = Graph(tuple(replace(node, shape=_fixed(node)) for node in graph))
        self.tensors, self.rules, self.known, self.mixing = tensors, rules, dict[str, Any](), list[Node]()
        for node in self.graph:
            try:
                found = self._reached(node)
            except Unknown:  # too large to follow
                continue
            if any(_is_mixed(relation) for relation in (found.values() if isinstance(found, dict) else [found])):
                self.mixing.append(node)
            elif found:
                self.known[node.name] = found

    def is_elsewhere(self, name: str) -> bool:
        """Whether the batch is not axis 0 of a node's result, or an image is at another's place."""
        relation = self.known.get(name)
        if relation is None:
            return False
        shape = self.given[name].shape or ()
        return shape[:1] != (Batch(1),) or not all(_is_in_place(box) for box in relation)

    def moving(self, name: str) -> Node:
        """The first node on the way to this one from which on images are elsewhere."""
        node = self.graph[name]
        for before in node.reads:
            relation = self.known.get(before)
            if isinstance(relation, dict) or (relation and not all(_is_in_place(box) for box in relation)):
                return self.moving(before)
        return node

    def _reached(self, node: Node) -> Any:
        if node.operator == INPUT:
            return _followed(sizes(node.shape or (), _IMAGES))
        if node.operator == OUTPUT:
            return ()
        if node.operator == SITE:
            return self.known.get(node.reads[0], ())
        if node.operator == "getitem":
            return self.known.get(node.reads[0], {}).get(node.arguments["index"], ())
        if node.operator == NEXT:  # every time step by itself, or images meet
            return unite(box for name in node.reads for box in self.known.get(name, ()))
        if node.operator in PASSING:
            return self._passing(node)
        call = Call(node, self.graph, self.rules, frozenset(self.known), self.known, self.tensors)
        shapes = next(iter(self.rules.of(Shapes, node.short)), None)
        if shapes is not None:
            return () if shapes.reach is None else _tidied(shapes.reach(call))
        return self._through(call) if call.signals else ()

    def _through(self, call: Call) -> Any:
        kinds: tuple[type[Linear | Digital | Lookup | Bookkeeping], ...] = (Linear, Digital, Lookup, Bookkeeping)
        rows = (self.rules.find(kind, call) for kind in kinds)
        rule = next((row for row in rows if row is not None and row.reach is not None), None)
        if isinstance(rule, Digital) and rule in self.rules.own and rule.reach is None:  # its trial told
            return _tidied(_whole_images(box, call.shape) for box in _given(call))
        if rule is None or rule.reach is None:
            return self._by_shape(call)
        if isinstance(rule, Linear) and rule.outputs is not None and rule.outputs[1] == 1:  # a convolution
            relation = call.boxes(next(iter(call.signals)))
            if all(_is_in_front(box) for box in relation):
                return _tidied(_dense_but_in_front(box, call.shape) for box in relation)
        found = list(rule.reach(call))
        if isinstance(rule, Linear | Lookup) and rule.several:
            return {index: _tidied(piece) for index, piece in enumerate(found)}  # type: ignore[arg-type]
        return _tidied(found)  # type: ignore[arg-type]

    def _passing(self, node: Node) -> Relation:
        """Into a loop, through it and out of it: any time step may reach any other."""
        found: Relation = self.known.get(node.reads[0], ())
        if node.operator == STEP:
            axis = node.arguments["dim"]
            return _tidied(boxes.drop(sums_of(box, [axis], True), axis) for box in found)
        if node.operator == HISTORY:
            axis = node.arguments["dim"]
            size = self.graph.sizes(node.name, _IMAGES)[axis]
            return _tidied(boxes.dense(boxes.insert(box, axis), axis, size) for box in found)
        return found

    def _by_shape(self, call: Call) -> Any:
        """What an operator without a reach may do, by the axes that it names and by its shape."""
        if call.node.shape is not None:
            return self._spread(call, call.node)
        pieces = [user for user in call.graph.users(call.node.name) if user.operator == "getitem"]
        return {piece.arguments["index"]: self._spread(call, piece) for piece in pieces}

    def _spread(self, call: Call, result: Node) -> Relation:
        """The tensors that it takes, each with the named axes as one, broadcast to the shape of the result."""
        named, shape = call.get("dim", call.get("dims")), self.graph.sizes(result.name, _IMAGES)
        dims = named if isinstance(named, list) else [] if named is None else [named]
        given = [_joined(box, dims, len(shape)) for box in _given(call)]
        keeps = all(_fits(box, shape) for box in given)
        counts = any(isinstance(size, Batch) for size in self.given[result.name].shape or ())
        if not keeps and counts and not is_known(call.node.operator, self.rules):
            raise Unknown("what it does is not known")
        return _tidied(boxes.broadcast(box if keeps else _everything(box), shape) for box in given)


def _given(call: Call) -> list[Box]:
    """What each image reaches of the tensors that a call takes."""
    names = dict.fromkeys(ref.name for ref in refs(call.node.arguments))
    return [box for name in names for box in call.known.get(name, ())]


def _joined(box: Box, dims: Sequence[int], axes: int) -> Box:
    count = len(box.axes)
    return sums_of(box, [dim % count for dim in dims if count], count == axes)


def _fits(box: Box, shape: Sequence[int]) -> bool:
    sizes = zip(box.shape[::-1], shape[::-1], strict=False)
    return len(box.axes) <= len(shape) and all(size in (1, wanted) for size, wanted in sizes)


def _everything(box: Box) -> Box:
    return boxes.tidy(replace(sums_of(box, range(len(box.axes)), True), axes=()))


def _fixed(node: Node) -> tuple[int, ...] | None:
    return None if node.shape is None else tuple(sizes(node.shape, _IMAGES))


def _followed(shape: Sequence[int]) -> Relation:
    """An input: axis 0 counts the images, the other axes of the source are forgotten."""
    box = identity(shape[:1])
    for size in shape[1:]:
        box = boxes.insert(box, len(box.axes))
        box = boxes.dense(box, len(box.axes) - 1, size)
    return (box,)


def _tidied(found: Iterable[Box]) -> Relation:
    return unite(box for box in map(boxes.tidy, found) if not is_empty(box))


def _is_in_front(box: Box) -> bool:
    """Whether the image depends on the position along axis 0 alone."""
    return set(box.factor_of(-1).labels) <= {-1, *box.axes[0]}


def _dense_but_in_front(box: Box, shape: Sequence[int]) -> Box:
    for axis, size in enumerate(shape[1:], 1):
        box = boxes.dense(box, axis, size)
    return box


def _whole_images(box: Box, shape: Sequence[int]) -> Box:
    """All of each image reaches all of it in the result."""
    box = sums_of(box, range(1, len(box.axes)), False)
    for size in shape[1:]:
        box = boxes.insert(box, len(box.axes))
        box = boxes.dense(box, len(box.axes) - 1, size)
    return box


def _is_in_place(box: Box) -> bool:
    """Whether each position along axis 0 comes from the image of its number at most."""
    box = box.single(0)
    at = box.axes[0][0]
    factor = box.factor_of(at)
    if -1 not in factor.labels:
        return False
    for label in set(factor.labels) - {-1, at}:
        factor = factor.any_over(label)
    table = factor.ordered([-1, at]).table
    return table.shape[0] == table.shape[1] and bool(table.sum() == table.diagonal().sum())


def _is_mixed(relation: Relation) -> bool:
    """Whether two images reach one position."""
    if any(bool((box.factor_of(-1).last(-1).table.sum(-1) > 1).any()) for box in relation):
        return True
    by_image = [[_of_image(box, image) for image in range(_IMAGES)] for box in relation] if len(relation) > 1 else []
    return any(
        not is_empty(meet(a[i], b[j])) for a, b in combinations(by_image, 2) for i, j in permutations(range(_IMAGES), 2)
    )


def _of_image(box: Box, image: int) -> Box:
    """What one image reaches."""
    factor = box.factor_of(-1).last(-1)
    return box.swap([box.factor_of(-1)], [replace(factor, table=factor.table[..., image], labels=factor.labels[:-1])])
