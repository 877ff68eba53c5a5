"""Work dealt out to threads: to torch's own where they can be had, so that nobody waits for a core.

torch's OpenMP threads look for more work for a while after each operator, on the cores that other threads would need. A
team of the same library hands the work to these very threads. Elsewhere, and after a fork, a pool of ours does it.
"""

import ctypes
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

_SHARE = 1 << 16  # elements below which another thread does not pay
SUMMED = 1 << 17  # elements of a part where parts are summed


def share_out(work: Callable[[slice], Any], rows: int, size: int, by: int | None = None) -> list[Any]:
    """What `work` returns for each part of `rows` rows of `size` elements; in order.

    Any number of callers may do this at once; this thread works, too.

    Args:
        work: called with each part.
        rows, size: rows stay whole.
        by: elements of a part, so that sums over the parts do not depend on the number of threads; None: one part for
            each thread.
    """
    workers = min(torch.get_num_threads(), max(rows * size // _SHARE, 1), rows)
    step = max(-(-rows // max(workers, 1)) if by is None else by // max(size, 1), 1)
    parts = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    workers = min(workers, len(parts))
    if workers < 2:
        return [work(part) for part in parts]
    job = _Job(work, parts)
    start = _start_team()
    if start is not None:
        start(job, workers)
    else:
        others = [_pool(workers).submit(job.run) for _ in range(workers - 1)]
        job.run()
        for other in others:
            other.result()
    if job.error is not None:
        raise job.error
    return job.results


class _Job:
    """Parts that threads take one after the other, until none is left."""

    def __init__(self, work: Callable[[slice], Any], parts: list[slice]) -> None:
        self.work, self.parts, self.results = work, parts, [None] * len(parts)
        self.error: BaseException | None = None
        self._next = itertools.count()

    def run(self) -> None:
        """Take parts; never raises."""
        try:
            while (i := next(self._next)) < len(self.parts):
                self.results[i] = self.work(self.parts[i])
        except BaseException as error:  # it would get lost in a thread of a foreign library; share_out raises it
            self.error = error


_jobs: dict[int, _Job] = {}


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _member(key: int) -> None:
    _jobs[key].run()


@cache
def _start_team() -> Callable[[_Job, int], None] | None:
    """Runs a job in the OpenMP threads of torch; None where torch does not use GNU's library."""
    try:
        if "libgomp" not in Path("/proc/self/maps").read_text():  # the libraries in this process
            return None
        parallel = ctypes.CDLL("libgomp.so.1").GOMP_parallel  # loaded by torch already: the same one
    except (OSError, AttributeError):
        return None
    parallel.restype, parallel.argtypes = None, [type(_member), ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]

    def start(job: _Job, threads: int) -> None:
        key = id(job)
        _jobs[key] = job
        try:
            parallel(_member, key, threads, 0)
        finally:
            del _jobs[key]

    return start


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="fewspikes")


def _after_fork() -> None:
    """A child has none of its parent's threads: OpenMP's cannot be made again, ours can."""
    global _start_team
    _pool.cache_clear()
    _start_team = cache(lambda: None)  # type: ignore[assignment]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
