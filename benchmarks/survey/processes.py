"""Each model in a process of its own, with a time limit and a memory limit; what it found out so far outlives it."""

import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

_FORK = multiprocessing.get_context("fork")  # the packages are imported once, not in each process
Row = dict[str, Any]
Work = Callable[[], Iterator[Row]]


@dataclass(frozen=True)
class Limits:
    """Of each process: seconds, and MiB of memory."""

    seconds: float
    mib: int


@dataclass
class _Running:
    name: str
    process: BaseProcess
    rows: Connection
    started: float = field(default_factory=time.perf_counter)
    row: Row = field(default_factory=dict)


def finished(jobs: Sequence[tuple[str, Work]], at_once: int, limits: Limits) -> Iterator[tuple[str, Row]]:
    """Do named pieces of work and yield the last row of each, as they end.

    A row has a `status`: that of the work, or "over the limit", or "crashed", and then `why`; and `seconds_in_all`.
    """
    waiting, running = list(reversed(jobs)), list[_Running]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_started(*waiting.pop(), limits))
            wait([one.rows for one in running], timeout=0.5)
            for one in list(running):
                if _is_over(one, limits):
                    running.remove(one)
                    yield one.name, one.row | {"seconds_in_all": round(time.perf_counter() - one.started, 2)}
    finally:
        for one in running:
            one.process.kill()


def _started(name: str, work: Work, limits: Limits) -> _Running:
    receive, send = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_work, args=(work, send, limits.mib))
    process.start()
    send.close()
    return _Running(name, process, receive)


def _is_over(one: _Running, limits: Limits) -> bool:
    """Whether a process has ended, by itself or because it was too slow; its last row is kept."""
    try:
        while one.rows.poll():
            one.row = one.rows.recv()
    except EOFError:
        one.process.join()
        if one.process.exitcode:
            one.row |= {"status": "crashed", "why": f"exit code {one.process.exitcode}"}
        return True
    if time.perf_counter() - one.started < limits.seconds:
        return False
    one.process.kill()
    one.process.join()
    last = [*one.row.get("seconds", {"start": 0})][-1]
    one.row |= {"status": "over the limit", "why": f"more than {limits.seconds:g} s, after the step {last}"}
    return True


def _work(work: Work, rows: Connection, mib: int) -> None:
    """In the new process: send each row; and one for what ends it, whatever that is."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    resource.setrlimit(resource.RLIMIT_DATA, (mib << 20, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    torch.set_num_threads(1)
    row: Row = {}
    try:
        for row in work():
            rows.send(row)
    except BaseException as error:  # whatever it is, the survey is about it
        said = f"{type(error).__name__}: {error}"
        is_memory = isinstance(error, MemoryError) or "can't allocate memory" in said
        frame = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{' '.join(said.split())[:300]} ({Path(frame.filename).name}:{frame.lineno})"
        rows.send(row | {"status": "over the limit" if is_memory else "crashed", "why": why})
