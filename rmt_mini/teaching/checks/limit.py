"""A limit on the time that a learner's code may take, on every system and in every thread."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class TooSlow(BaseException):
    """Raised in code that took too long; ``except Exception`` in it does not catch this."""


def _raise(*_: Any) -> None:
    raise TooSlow


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block once it has taken so long.

    In the main thread of a system with alarms, this ends a sleep too; elsewhere it comes after the next line of Python.

    Example:
        >>> try:
        ...     with time_limit(0.05):
        ...         while True:
        ...             pass
        ... except TooSlow:
        ...     "ended"
        'ended'
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        before, outer = signal.signal(signal.SIGALRM, _raise), signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, *outer)  # of a limit around this one, or none
        return
    thread, set_exception = ctypes.c_ulong(threading.get_ident()), ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, set_exception, (thread, ctypes.py_object(TooSlow)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        set_exception(thread, None)  # what was raised too late must not come
