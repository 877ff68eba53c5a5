"""Relations as unions of boxes: a pair that several paths connect is one pair."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from operator import mul

from fewspikes.reach.boxes import Axes, Box, is_empty
from fewspikes.reach.factors import Factor, Unknown, join
from fewspikes.reach.reshaping import regroup

# Intersections in one union. More would need a network that adds up a dozen linear branches without a neuron between.
MAX_TERMS = 1024


def unite(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """The same relation in fewer boxes: none within another, no two that differ in one factor only."""
    kept: list[Box] = []
    for box in boxes:
        _insert(kept, box)
    return tuple(kept)


def disjoint_terms(boxes: Sequence[Box]) -> list[tuple[int, Box]]:
    """Boxes with signs; the pairs of each times its sign add up to the pairs of the union (inclusion and exclusion)."""
    terms: list[tuple[int, Box]] = []
    for box in boxes:
        common = [(-sign, meet(other, box)) for sign, other in terms]
        terms += [(1, box), *((sign, both) for sign, both in common if not is_empty(both))]
        if len(terms) > MAX_TERMS:
            raise Unknown(f"{len(boxes)} overlapping branches are too many to count")
    return terms


def meet(a: Box, b: Box) -> Box:
    """The pairs that are in both boxes."""
    pairs, axes = _align(a, b)
    return Box(tuple(Factor(f.table & g.table, f.labels) for f, g in pairs), axes)


def _insert(kept: list[Box], box: Box) -> None:
    for other in kept:
        both = _as_one(other, box)
        if both is not None:
            kept.remove(other)
            return _insert(kept, both)
    kept.append(box)
    return None


def _as_one(a: Box, b: Box) -> Box | None:
    """The union of two boxes if it is a box: one lies within the other, or they differ in one factor."""
    pairs, axes = _align(a, b)
    outside_a = [i for i, (f, g) in enumerate(pairs) if bool((g.table & ~f.table).any())]
    outside_b = [i for i, (f, g) in enumerate(pairs) if bool((f.table & ~g.table).any())]
    if not outside_a or not outside_b:
        return b if outside_a else a
    if len(set(outside_a + outside_b)) > 1:
        return None
    either = (Factor(f.table | g.table, f.labels) for f, g in pairs)
    return Box(tuple(part for factor in either for part in factor.separated()), axes)


def _align(a: Box, b: Box) -> tuple[list[tuple[Factor, Factor]], Axes]:
    """The factors of two boxes side by side, over the same labels each time; and the axes, of both."""
    sizes = [_common(a, b, axis) for axis in range(len(a.axes))]
    a, b = _in_atoms(a, sizes), _in_atoms(b, sizes)
    pairs = []
    for labels in _components([f.labels for f in (*a.factors, *b.factors)]):
        order = sorted(labels)
        left, right = (join(f for f in box.factors if f.labels[0] in labels).ordered(order) for box in (a, b))
        pairs.append((left, right))
    return pairs, a.axes


def _common(a: Box, b: Box, axis: int) -> list[int]:
    """Sizes of atoms that both boxes can have on an axis; the whole axis if their own do not fit together."""
    strides = {1}
    for box in (a, b):
        strides.update(accumulate((box.size(label) for label in reversed(box.axes[axis])), mul))
    chain = sorted(strides)
    steps = list(pairwise(chain))
    if any(outer % inner for inner, outer in steps):
        return [chain[-1]]
    return [outer // inner for inner, outer in reversed(steps)]


def _in_atoms(box: Box, sizes: list[list[int]]) -> Box:
    """The box with atoms of these sizes, labelled 0, 1, ... in order."""
    box = regroup(box, [n for axis in sizes for n in axis])
    for at in range(len(box.axes)):
        box = box.single(at)
    names = {axis[0]: at for at, axis in enumerate(box.axes)}
    factors = tuple(replace(f, labels=tuple(names.get(n, n) for n in f.labels)) for f in box.factors)
    ends = [0, *accumulate(len(axis) for axis in sizes)]
    return Box(factors, tuple(tuple(range(first, end)) for first, end in pairwise(ends)))


def _components(groups: Iterable[tuple[int, ...]]) -> list[set[int]]:
    """Sets of labels closed under standing in one factor."""
    components: list[set[int]] = []
    for group in groups:
        touching = [c for c in components if c & set(group)]
        components = [c for c in components if not c & set(group)] + [set(group).union(*touching)]
    return components
