"""An FS-neuron as a map of intervals: its exact error, spikes and their gradient, compiled.

A code turns the input line into intervals, each with one spike pattern. Step t splits the interval in which its
threshold falls and moves the part that fires by h[t]. Weight, weighted target and spike weight of an interval are
differences of prefix sums over a grid, so one evaluation costs microseconds, whatever the number of samples.

For fixed T and h the spike patterns are fixed, so the best d and offset solve a linear system. Because they are the
best, the error's derivative in T and h is that of the intervals' edges alone: at an edge x between patterns with
outputs a (left) and b (right), moving the edge right changes the error by weight(x) ((f(x) - a)^2 - (f(x) - b)^2).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from fewspikes.base.errors import FewSpikesError
from fewspikes.fitting.problem import Problem, Vector
from fewspikes.neuron.parameters import FSParameters

MAX_INTERVALS = 6144  # a good code of 16 steps has some hundreds
_RIDGE = 1e-13  # of the total weight: keeps steps that never fire from making the system singular
_EDGE, _MOVED, _WEIGHT, _TARGET, _INPUTS = range(5)  # columns of Work.place


class Work(NamedTuple):
    """Space for one evaluation after another, so that none has to ask for memory.

    The intervals are a linked list from left to right: interval i begins at place[i, 0] and ends where next[i]
    begins; the first is 0, and the list ends with the domain.
    """

    place: Vector  # [MAX_INTERVALS, 5]: left edge, sum of the resets so far, and the prefix sums at the edge
    pattern: NDArray[np.int64]  # [MAX_INTERVALS]: bit t is set where step t fires
    next: NDArray[np.int64]  # [MAX_INTERVALS]
    born: NDArray[np.int64]  # [MAX_INTERVALS]: the step that made the left edge
    spikes: NDArray[np.int64]  # [MAX_INTERVALS]
    A: Vector  # [K + 1, K + 1] of the least squares A d = b
    b: Vector  # [K + 1]
    d: Vector  # [K + 1], the offset last
    slopes: Vector  # [2, 2 K]: the gradients of error and spikes
    table: Vector  # [6, 3, 16]: sums by the pattern of four steps, see `unfold`


@numba.njit(cache=True, nogil=True)
def dot(a: Vector, b: Vector) -> float:
    """The sum of products, term by term: the same bits on every machine, and without scipy, which numba's own needs."""
    found = 0.0
    for i in range(len(a)):
        found += a[i] * b[i]
    return found


@numba.njit(cache=True, nogil=True)
def workspace(K: int) -> Work:
    """A new `Work` for codes of K steps."""
    return Work(
        np.empty((MAX_INTERVALS, 5)),
        np.empty(MAX_INTERVALS, np.int64),
        np.empty(MAX_INTERVALS, np.int64),
        np.empty(MAX_INTERVALS, np.int64),
        np.empty(MAX_INTERVALS, np.int64),
        np.empty((K + 1, K + 1)),
        np.empty(K + 1),
        np.zeros(K + 1),
        np.empty((2, 2 * K)),
        np.zeros((6, 3, 16)),
    )


@numba.njit(cache=True, nogil=True)
def place_at(x: float, problem: Problem, place: Vector) -> None:
    """Fill in an edge at x and the prefix sums there."""
    bins = len(problem.densities)
    position = (x - problem.low) * (bins / (problem.high - problem.low))
    j = min(max(int(position), 0), bins - 1)
    share = position - j
    left, right = problem.sums[j], problem.sums[j + 1]
    place[_EDGE] = x
    place[_WEIGHT] = left[0] + share * (right[0] - left[0])
    place[_TARGET] = left[1] + share * (right[1] - left[1]) - share * (1 - share) * left[2]
    place[_INPUTS] = left[3] + share * (right[3] - left[3])


@numba.njit(cache=True, nogil=True)
def unfold(table: Vector, column: int, steps: int, found: Vector) -> None:
    """Empty a table of sums by pattern into sums by step: found[t] = sum over the patterns in which step t fires.

    A pattern is cut into groups of four steps, table[group, column, four bits], so that adding an interval to all of
    its steps takes a few additions without a branch.
    """
    for group in range((steps + 3) // 4):
        sums = table[group, column]
        for bit in range(3, -1, -1):
            half, total = 1 << bit, 0.0
            for k in range(half):
                upper = sums[half + k]
                total += upper
                sums[k] += upper
                sums[half + k] = 0.0
            if 4 * group + bit < steps:
                found[4 * group + bit] = total
        sums[0] = 0.0


@numba.njit(cache=True, nogil=True)
def fire(i: int, t: int, reset: float, work: Work) -> float:
    """Let interval i fire at step t: add it to the least squares; returns the share of inputs in it."""
    here, there = work.place[i], work.place[work.next[i]]
    weight = there[_WEIGHT] - here[_WEIGHT]
    pattern = work.pattern[i]
    for group in range((t + 3) // 4):
        work.table[group, 0, (pattern >> (4 * group)) & 15] += weight
    work.A[t, t] += weight
    work.b[t] += there[_TARGET] - here[_TARGET]
    work.pattern[i] = pattern | (1 << t)
    work.spikes[i] += 1
    here[_MOVED] += reset
    return float(there[_INPUTS] - here[_INPUTS])


@numba.njit(cache=True, nogil=True)
def intervals(p: Vector, problem: Problem, work: Work) -> tuple[int, float]:
    """Make the intervals of the code p = (T, h) and, on the way, the least-squares system for its d and offset.

    Returns the number of intervals (0: too many) and the mean spikes.
    """
    K = len(p) // 2
    place, pattern, after, born, spikes = work.place, work.pattern, work.next, work.born, work.spikes
    A, b = work.A, work.b
    A[:, :] = 0.0
    b[:] = 0.0
    work.table[:] = 0.0
    place_at(problem.low, problem, place[0])
    place_at(problem.high, problem, place[1])
    place[0, _MOVED] = place[1, _MOVED] = 0.0
    pattern[0], spikes[0], born[0], after[0] = 0, 0, -1, 1
    n, mean = 2, 0.0  # the end of the domain is kept as an interval, too
    for t in range(K):
        threshold, reset = p[t], p[K + t]
        i = 0
        while i != 1:
            following = after[i]
            split = threshold + place[i, _MOVED]
            if split <= place[i, _EDGE]:
                mean += fire(i, t, reset, work)
            elif split < place[following, _EDGE]:
                if n == MAX_INTERVALS:
                    return 0, np.inf
                place_at(split, problem, place[n])
                place[n, _MOVED] = place[i, _MOVED]
                pattern[n], spikes[n], born[n], after[n], after[i] = pattern[i], spikes[i], t, following, n
                mean += fire(n, t, reset, work)
                n += 1
            i = following
        unfold(work.table, 0, t, A[t])
    if problem.offset:
        for t in range(K):
            A[K, t] = A[t, t]
        A[K, K], b[K] = place[1, _WEIGHT], place[1, _TARGET]
    return n - 1, mean


@numba.njit(cache=True, nogil=True)
def solve(A: Vector, b: Vector, x: Vector) -> None:
    """Solve the symmetric system A x = b by Cholesky; only the lower part of A is read, and it is overwritten."""
    n = len(b)
    for j in range(n):
        s = A[j, j]
        for k in range(j):
            s -= A[j, k] * A[j, k]
        A[j, j] = np.sqrt(max(s, 1e-300))
        for i in range(j + 1, n):
            s = A[i, j]
            for k in range(j):
                s -= A[i, k] * A[j, k]
            A[i, j] = s / A[j, j]
    for i in range(n):
        s = b[i]
        for k in range(i):
            s -= A[i, k] * x[k]
        x[i] = s / A[i, i]
    for i in range(n - 1, -1, -1):
        s = x[i]
        for k in range(i + 1, n):
            s -= A[k, i] * x[k]
        x[i] = s / A[i, i]


@numba.njit(cache=True, nogil=True)
def least_squares(p: Vector, problem: Problem, work: Work) -> tuple[float, float]:
    """Solve for d and the offset of the code p = (T, h).

    Fills work.d with the solution (the offset last, counted from `problem.middle`) and returns the weighted squared
    error and the mean spikes; infinite where there are too many intervals.
    """
    n, spikes = intervals(p, problem, work)
    if n == 0:
        return np.inf, np.inf
    for t in range(len(work.b)):
        work.A[t, t] += _RIDGE * problem.sums[-1, 0]
    solve(work.A, work.b, work.d)
    # sum w (f - y)^2 = sum w f^2 - d . b at the optimum (the ridge adds a term of its own size)
    return max(problem.square - dot(work.d, work.b), 1e-300), spikes


@numba.njit(cache=True, nogil=True)
def mirror(A: Vector, n: int) -> None:
    """Copy the lower part of A[:n, :n] to the upper one."""
    for i in range(n):
        for j in range(i):
            A[j, i] = A[i, j]


@numba.njit(cache=True, nogil=True)
def error_of(d: Vector, problem: Problem, work: Work) -> float:
    """The weighted squared error with the weights d, [K + 1] or [K], after `intervals` and `mirror`."""
    error = problem.square
    for i in range(len(d)):
        error -= 2 * d[i] * work.b[i]
        for j in range(len(d)):
            error += d[i] * d[j] * work.A[i, j]
    return float(max(error, 1e-300))


@numba.njit(cache=True, nogil=True)
def outputs(d: Vector, table: Vector) -> None:
    """Fill table[group, 0] with the sums of d over each pattern of a group of four steps."""
    K = len(d) - 1
    for group in range((K + 3) // 4):
        sums = table[group, 0]
        sums[0] = 0.0
        for bit in range(4):
            step = 4 * group + bit
            weight = d[step] if step < K else 0.0
            for k in range(1 << bit):
                sums[(1 << bit) + k] = sums[k] + weight


@numba.njit(cache=True, nogil=True)
def slopes(problem: Problem, work: Work) -> None:
    """Fill work.slopes with the gradients of error and mean spikes in (T, h), after `least_squares`."""
    K, bins = len(work.d) - 1, len(problem.densities)
    groups = (K + 3) // 4
    scale = bins / (problem.high - problem.low)
    of_error, of_spikes = work.slopes[0], work.slopes[1]
    of_error[:] = 0.0
    of_spikes[:] = 0.0
    outputs(work.d, work.table)
    table = work.table
    i, left = -1, 0.0
    following = 0
    while following != 1:
        before, i = i, following
        following = work.next[i]
        pattern = work.pattern[i]
        right = work.d[K]
        for group in range(groups):
            right += table[group, 0, (pattern >> (4 * group)) & 15]
        if before >= 0:
            position = (work.place[i, _EDGE] - problem.low) * scale
            j = min(max(int(position), 0), bins - 1)
            density = problem.densities[j]
            weight, f, inputs = density[0], density[1] + (position - j - 0.5) * density[3], density[2]
            of_edge = weight * (right - left) * (2 * f - left - right)
            more = inputs * (work.spikes[before] - work.spikes[i])
            born = work.born[i]
            of_error[born] += of_edge
            of_spikes[born] += more
            common = pattern & ((1 << born) - 1)  # the resets that moved this edge
            for group in range((born + 3) // 4):
                bits = (common >> (4 * group)) & 15
                table[group, 1, bits] += of_edge
                table[group, 2, bits] += more
        left = right
    unfold(table, 1, K, of_error[K:])
    unfold(table, 2, K, of_spikes[K:])


def parameters_of(
    code: Vector, problem: Problem, label: str = "custom", provenance: Mapping[str, Any] | None = None
) -> FSParameters:
    """The neuron of the code (T, h) with the best d and offset for `problem`, and its domain."""
    K = len(code) // 2
    work = workspace(K)
    least_squares(code, problem, work)
    offset = float(work.d[K]) + problem.middle if problem.offset else 0.0
    return FSParameters(code[:K], code[K:], work.d[:K], offset, label, (problem.low, problem.high), provenance)


def constant_neuron(
    problem: Problem, K: int, value: float, label: str = "custom", provenance: Mapping[str, Any] | None = None
) -> FSParameters:
    """A neuron with one value only.

    With an offset it never fires; without one its first step always fires, unless the value is 0.
    """
    span = problem.high - problem.low
    T, d, offset = np.full(K, problem.high + span), np.zeros(K), value
    if not problem.offset and value != 0:
        T[0], d[0], offset = problem.low - span, value, 0.0
    return FSParameters(T, np.zeros(K), d, offset, label, (problem.low, problem.high), provenance)


def error_and_spikes(p: FSParameters, problem: Problem) -> tuple[float, float]:
    """The weighted squared error and the mean spikes of any neuron on the problem.

    Raises:
        FewSpikesError: the neuron has more than 6144 steps of its staircase.
    """
    work = workspace(p.K)
    n, spikes = intervals(np.concatenate([p.T, p.h]), problem._replace(offset=True), work)
    if n == 0:
        raise FewSpikesError(f"a code of K={p.K} has too many intervals to be measured here, over {MAX_INTERVALS}")
    mirror(work.A, p.K + 1)
    return error_of(np.append(p.d, p.offset - problem.middle), problem, work), float(spikes)
