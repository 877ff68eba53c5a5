"""Synapses written out: for each neuron those that a spike of it reaches, each with its weight.

Which there are follows from the graph alone. Their weights are found by sending spikes: all neurons that share no
target may fire at once, so a convolution needs as many tries as one of its windows has elements, and not one for each
neuron.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewspikes.reach.pairs import Pairs

_AT_ONCE = 64  # tries in one batch


class Synapses(NamedTuple):
    """Of a layer to a sum: the spikes of neuron s go to target[first[s] : first[s + 1]], each with its weight."""

    first: NDArray[np.int64]
    target: NDArray[np.int32]
    weight: NDArray[Any]


def weighed(pairs: Pairs, neurons: int, targets: int, sent: Callable[[Tensor], Tensor], dtype: Any) -> Synapses:
    """The synapses between pairs.

    Args:
        pairs: that are connected.
        neurons, targets: how many there are.
        sent: what arrives, [tries, targets], where spikes [tries, neurons] are sent; linear.
        dtype: of the weights.
    """
    target = pairs.target.astype(np.int32)
    groups = coloured(pairs.first, target, targets)
    weight = np.empty(len(target), dtype)
    count = int(groups.max()) + 1 if neurons else 0
    for begin in range(0, count, _AT_ONCE):
        end = min(begin + _AT_ONCE, count)
        chosen = np.flatnonzero((groups >= begin) & (groups < end))
        spikes = np.zeros((end - begin, neurons))
        spikes[groups[chosen] - begin, chosen] = 1
        arrived = sent(torch.from_numpy(spikes)).double().numpy()
        _read(pairs.first, target, groups, chosen, begin, arrived, weight)
    return Synapses(pairs.first, target, weight)


@numba.njit(cache=True, nogil=True)
def _read(
    first: NDArray[np.int64],
    target: NDArray[np.int32],
    groups: NDArray[np.int64],
    chosen: NDArray[np.int64],
    begin: int,
    arrived: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    for s in chosen:
        for i in range(first[s], first[s + 1]):
            weight[i] = arrived[groups[s] - begin, target[i]]


@numba.njit(cache=True, nogil=True)
def coloured(first: NDArray[np.int64], target: NDArray[np.int32], targets: int) -> NDArray[np.int64]:
    """A group for each neuron, so that no two of a group share a target; the first group that is free.

    Source: Curtis, Powell and Reid 1974, "On the estimation of sparse Jacobian matrices".
    """
    neurons = len(first) - 1
    groups = np.zeros(neurons, np.int64)
    words = 4
    taken = np.zeros((targets, words), np.uint64)
    union = np.zeros(words, np.uint64)
    for s in range(neurons):
        union[:] = 0
        for i in range(first[s], first[s + 1]):
            for w in range(words):
                union[w] |= taken[target[i], w]
        group = -1
        for w in range(words):
            if union[w] != np.uint64(0xFFFFFFFFFFFFFFFF):
                for bit in range(64):
                    if not (union[w] >> np.uint64(bit)) & np.uint64(1):
                        group = w * 64 + bit
                        break
                break
        if group < 0:
            group = words * 64
            wider = np.zeros((targets, 2 * words), np.uint64)
            wider[:, :words] = taken
            taken, words = wider, 2 * words
            union = np.zeros(words, np.uint64)
        groups[s] = group
        for i in range(first[s], first[s + 1]):
            taken[target[i], group // 64] |= np.uint64(1) << np.uint64(group % 64)
    return groups
