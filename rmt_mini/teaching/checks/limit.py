"""A limit on the time that a learner's code may take, on every system and in every thread."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TooSlow(BaseException):
    """Raised in code that took too long; ``except Exception`` in it does not catch this."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block once it has taken so long, before the next line of Python.

    Example:
        >>> try:
        ...     with time_limit(0.05):
        ...         while True:
        ...             pass
        ... except TooSlow:
        ...     "ended"
        'ended'
    """
    thread, set_exception = ctypes.c_ulong(threading.get_ident()), ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, set_exception, (thread, ctypes.py_object(TooSlow)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        set_exception(thread, None)  # one that comes too late must not be raised
