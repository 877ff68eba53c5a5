"""Ctrl-C ends a command soon, whatever it is at."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

CODE = 130  # what shells report of a command ended by Ctrl-C
_PATIENCE = 2.0  # seconds


def listen() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt as usual, and ends the process where nothing comes of that.

    An exception in a callback of C++, of which torch.export has many, is printed or dropped, and the work goes on.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupt)


def leave() -> NoReturn:
    """End the process at once: at its usual end Python would wait for threads that still fit."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        print("interrupted", file=sys.__stderr__, flush=True)  # sys.stderr may be turned elsewhere just now
    os._exit(CODE)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    timer = threading.Timer(_PATIENCE, leave)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt
