"""Which outputs an input reaches: boolean tables, and nothing else.

The words, each with one meaning in this room:

- **source**: the tensor that is followed (the output of a layer of neurons). **target**: a tensor that linear maps have
  made of it. A source element and a target element are a **pair**, connected where the one reaches the other.
- **axis**: a dimension of the source or of the target; axis 0 is the batch. **position**: an index along it.
- **relation**: all connected pairs of a source and a target, a union of boxes.
- **box**: a set of pairs that is a product of factors: those that all its factors allow.
- **factor**: a boolean table with one dimension for each of a few labels.
- **label**: the number of a factor's dimension: -1 - k is axis k of the source, 0, 1, ... are atoms of the target. Each
  stands in exactly one factor of a box.
- **atom**: a part of a target axis. The axis is its atoms, row-major; an axis of one position may have none.

So no table of all pairs is ever written: one for the channels, one for the rows, one for the columns is enough.

A tensor of 2 images, 2 channels and 3 positions begins as the source and the target of itself, with one factor an axis:

>>> from dataclasses import replace
>>> from fewspikes.reach.boxes import contract, dense, identity
>>> from fewspikes.reach.reshaping import reshape
>>> from fewspikes.reach.union import disjoint_terms, unite
>>> from fewspikes.reach.windows import groups_matrix, window
>>> def show(box):
...     print("axes of the target:", box.axes)
...     for factor in box.factors:
...         print(factor.labels, factor.table.int().tolist())
>>> source = identity((2, 2, 3))
>>> show(source)
axes of the target: ((0,), (1,), (2,))
(-1, 0) [[1, 0], [0, 1]]
(-2, 1) [[1, 0], [0, 1]]
(-3, 2) [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

**Flatten and a linear map.** Flattening touches no table: the last axis now has two atoms. A linear map to 4 features
takes both whole, so that nothing ties the source's channels, its positions and the features (the new atom 1) to each
other: each has a factor of its own. Images stay apart.

>>> flat = reshape(source, (2, 6))
>>> flat.axes
((0,), (1, 2))
>>> mapped = dense(flat, axis=1, size=4)
>>> show(mapped)
axes of the target: ((0,), (1,))
(-1, 0) [[1, 0], [0, 1]]
(-2,) [1, 1]
(-3,) [1, 1, 1]
(1,) [1, 1, 1, 1]
>>> mapped.pairs  # 2 images, 6 elements each, 4 features
48

**A channel shuffle** of 4 channels in 2 groups: reshape, swap two axes, reshape. The atom of the channels is split into
atoms 1 and 2, which then stand the other way round and are merged into one again. The table has a row for each source
channel: 0, 1, 2, 3 go to 0, 2, 1, 3.

>>> channels = identity((2, 4))
>>> split = reshape(channels, (2, 2, 2))
>>> split.axes
((0,), (1,), (2,))
>>> swapped = replace(split, axes=((0,), (2,), (1,)))
>>> shuffled = reshape(swapped, (2, 4))
>>> show(shuffled)
axes of the target: ((0,), (2,))
(-1, 0) [[1, 0], [0, 1]]
(-2, 2) [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]

A convolution in 2 groups takes target channels 0 and 1 together, and 2 and 3, so each source channel reaches 2 of them:

>>> grouped = contract(shuffled, 1, groups_matrix(4, 4, groups=2))
>>> show(grouped)
axes of the target: ((0,), (2,))
(-1, 0) [[1, 0], [0, 1]]
(-2, 2) [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]

**A sum of branches** is a relation of several boxes. For a tensor plus its shuffle one box is enough, because the two
differ in one factor only; a window over 4 positions plus a map over 3 channels is two boxes. A pair in both of them is
one pair, so those in common are taken off again:

>>> len(unite([channels, shuffled]))
1
>>> x = identity((2, 3, 4))
>>> branches = unite([contract(x, 2, window(4, 4, kernel=3, stride=1, padding=1)), dense(x, 1, 3)])
>>> [(sign, box.pairs) for sign, box in disjoint_terms(branches)]
[(1, 60), (1, 72), (-1, 24)]
"""
