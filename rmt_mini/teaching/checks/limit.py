"""A limit on the time that a learner's code may take, on every system and in every thread."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class TooSlow(BaseException):
    """Raised in code that took too long; no ``except Exception`` in it holds this up."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in what runs inside once it has taken so long.

    Where the system has an alarm and this is the main thread, the alarm ends a sleep too. Elsewhere it comes behind
    the next line of Python.

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
        yield from _by_alarm(seconds)
    else:
        yield from _by_thread(seconds)


def _by_alarm(seconds: float) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    outer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *outer)  # of a limit around this one, or none


def _by_thread(seconds: float) -> Iterator[None]:
    watched, ended, guard = ctypes.c_ulong(threading.get_ident()), threading.Event(), threading.Lock()

    def throw(what: Any) -> None:
        with guard:
            if not ended.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(watched, what)

    timer = threading.Timer(seconds, throw, (ctypes.py_object(TooSlow),))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with guard:
            ended.set()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(watched, None)  # what was thrown too late must not come
