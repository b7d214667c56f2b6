"""Score answers in a process of its own, which is killed if it takes too long.

Scorers work out what an answer says, and 9**9**9**9 never ends; Python cannot interrupt that, least of all in a thread.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from loky import ProcessPoolExecutor

SECONDS = 3.0  # for one answer
START_SECONDS = 300.0  # for the imports; the machine may be busy


class Referee:
    """``score``, which must be picklable, in another process that starts with the first answer."""

    def __init__(self, score: Callable[..., float]) -> None:
        self._score, self._lock = score, threading.Lock()
        self._process: ProcessPoolExecutor | None = None

    def __call__(self, *args: Any, **named: Any) -> float:
        """Return the score; 0.0 if the scorer raises, is too slow or ends its process."""
        with self._lock:
            self._process = self._process or self._started()
            try:
                return float(self._process.submit(_scored, args, named).result(SECONDS))
            except BaseException as error:  # an interrupted call leaves a busy process as well
                self._process.shutdown(kill_workers=True)
                self._process = None
                if isinstance(error, TimeoutError | BrokenExecutor):
                    return 0.0
                raise

    def _started(self) -> ProcessPoolExecutor:
        # a module of the current folder must not take the place of one that scoring needs
        safe = {"PYTHONSAFEPATH": "1"}
        process = ProcessPoolExecutor(1, initializer=_start, initargs=(self._score,), env=safe)
        weakref.finalize(self, process.shutdown, kill_workers=True)
        process.submit(int).result(START_SECONDS)
        return process


def _start(score: Callable[..., float]) -> None:
    """Take the scorer, leave Ctrl-C to the parent, print nothing, and end when the parent does."""
    global _score
    _score = score
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _scored(args: Any, named: Any) -> float:
    try:
        return float(_score(*args, **named))
    except Exception:  # some scorers raise on what is no answer at all
        return 0.0
