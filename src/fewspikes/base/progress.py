"""Progress bars for long work, on stderr, so that stdout stays clean for results."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int | None, shown: bool | None = None) -> Iterator[T]:
    """Iterate over `items` with a bar that shows how far it is and how long it will take.

    Args:
        items: anything iterable.
        what: the words beside the bar.
        total: how many items there are; without it the bar only counts.
        shown: True or False; None shows it when stderr is a terminal.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)


def in_threads(jobs: Sequence[Callable[[], T]], threads: int, what: str, shown: bool | None = None) -> list[T]:
    """What each job returns, in their order; the bar is that of `track`.

    What a job raises, or Ctrl-C, is raised at once: jobs that run are left alone, and no other begins. Their threads
    are daemons, since Python would wait for others at its end.

    Args:
        jobs: independent of one another.
        threads: how many run at once.
        what, shown: as for `track`.
    """
    todo, done, over = SimpleQueue[int](), SimpleQueue[tuple[int, Any, BaseException | None]](), Event()
    for place in range(len(jobs)):
        todo.put(place)

    def work() -> None:
        while not over.is_set() and not todo.empty():
            with suppress(Empty):
                done.put(_result(jobs, todo.get_nowait()))

    for _ in range(min(threads, len(jobs))):
        Thread(target=work, daemon=True).start()
    found: dict[int, T] = {}
    try:
        for _ in track(range(len(jobs)), what, len(jobs), shown):
            place, result, error = done.get()
            if error is not None:
                raise error
            found[place] = result
    finally:
        over.set()
    return [found[place] for place in range(len(jobs))]


def _result(jobs: Sequence[Callable[[], T]], place: int) -> tuple[int, T | None, BaseException | None]:
    try:
        return place, jobs[place](), None
    except BaseException as error:  # raised where the result is waited for
        return place, None, error


@contextmanager
def watch(what: str, shown: bool | None = None) -> Iterator[Callable[[float, str], None]]:
    """A bar for work that is measured in shares: call what it gives with the share done (0 to 1) and a few words.

    Args:
        what: the words beside the bar.
        shown: True or False; None shows it when stderr is a terminal.
    """
    if not (sys.stderr.isatty() if shown is None else shown):
        yield lambda share, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0, words="")
        yield lambda share, words: bar.update(task, completed=share, words=words)
