"""Score answers in a process of its own, which is killed if it takes too long.

Scorers work out what an answer says, and 9**9**9**9 never ends; Python cannot interrupt that, least of all in a thread.
"""

import json
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

SECONDS = 10.0  # for one answer; the machine may be busy
START_SECONDS = 300.0  # for the imports


class Referee:
    """A scorer in another process, which starts with the first answer and makes it by ``make(*args)``, of a module."""

    def __init__(self, make: Callable[..., Callable[..., float]], *args: Any) -> None:
        self._first = [make.__module__, make.__qualname__, *args]
        self._child: Popen[str] | None = None
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> float:
        """Return the score; 0.0 if the scorer raises, is too slow or ends its process."""
        with self._lock:
            # nothing is kept if this call is interrupted: the next one would read the reply to this one
            child, self._child = self._child or self._started(), None
            reply = _ask(child, args, SECONDS)
            self._child = child if reply else None
            return float(reply or 0.0)

    def _started(self) -> Popen[str]:
        # -P: a module of the current folder must not take the place of one that scoring needs
        command = [sys.executable, "-P", "-m", "rmt_mini.worlds.referee"]
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        child = Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=os.environ | paths, text=True)
        weakref.finalize(self, _end, child)
        if not _ask(child, self._first, START_SECONDS):
            raise RuntimeError(f"the process that scores answers did not start: {' '.join(command)}")
        return child


def _ask(child: Popen[str], message: Any, seconds: float) -> str:
    """Send a message and return the line that answers it; empty if the process ended or took too long."""
    timer, reply = threading.Timer(seconds, child.kill), ""
    timer.start()
    with suppress(OSError):
        print(json.dumps(message), file=child.stdin, flush=True)
        reply = child.stdout.readline() if child.stdout else ""
    timer.cancel()
    if not reply:
        _end(child)
    return reply


def _end(child: Popen[str]) -> None:
    with suppress(OSError), child:  # closes the pipes, and a message may be left in one
        child.kill()


def serve() -> None:
    """Make the scorer that the first message asks for, and score the answers of all others, until the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a Ctrl-C ends
    replies = sys.stdout
    with redirect_stdout(sys.stderr):  # scorers print
        module, name, *args = json.loads(sys.stdin.readline())
        score = getattr(import_module(module), name)(*args)
        print("ready", file=replies, flush=True)
        for line in sys.stdin:
            value = 0.0
            with suppress(Exception):  # some scorers raise on what is no answer at all
                value = float(score(*json.loads(line)))
            print(value, file=replies, flush=True)


if __name__ == "__main__":
    serve()
