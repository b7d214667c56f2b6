"""Score answers in a process of its own, which is killed if it takes too long.

Scorers work out what an answer says, and 9**9**9**9 never ends. Python cannot interrupt that: a signal reaches the main
thread only, and only between two operations. So every scorer that calculates runs here, from any thread alike.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from typing import Any

SECONDS = 3.0  # for one answer
START_SECONDS = 300.0  # for the imports; the machine may be busy


class Referee:
    """A scorer in another process, which starts with the first answer.

    Args:
        make: a function of a module; called once in the process, it returns the scorer.
        args: its arguments; these, and those of every call, are such as JSON keeps.

    Example:
        >>> from rmt_mini.worlds.mathematics import comparison
        >>> judge = Referee(comparison)
        >>> judge("478/2", "239", "How many?"), judge("9^{9^{9^{9^9}}}", "239", "How many?")
        (1.0, 0.0)
    """

    def __init__(self, make: Callable[..., Callable[..., float]], *args: Any) -> None:
        self._first = [make.__module__, make.__qualname__, *args]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **named: Any) -> float:
        """Return the score; 0.0 if the scorer raises, is too slow or ends its process."""
        with self._lock:
            # nothing is kept if this call is interrupted: the next one would read the reply to this one
            process, self._process = self._process or self._started(), None
            reply = _ask(process, [args, named], SECONDS)
            self._process = process if reply else None
            return float(reply or 0.0)

    def _started(self) -> subprocess.Popen[bytes]:
        # -P: a module of the current folder must not take the place of one that scoring needs
        command = [sys.executable, "-P", "-m", "rmt_mini.worlds.referee"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        weakref.finalize(self, _end, process)
        if not _ask(process, self._first, START_SECONDS):
            raise RuntimeError(f"the process that scores answers did not start: {' '.join(command)}")
        return process


def _ask(process: subprocess.Popen[bytes], message: Any, seconds: float) -> bytes:
    """Send a message and return the line that answers it; empty if the process ended or took too long."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()
        reply = process.stdout.readline()
    except OSError:
        reply = b""
    timer.cancel()
    if not reply:
        _end(process)
    return reply


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError), process:  # closes the pipes, and a message may be left in one
        process.kill()


def serve() -> None:
    """Make the scorer that the first message asks for, and score the answers of all others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a Ctrl-C ends
    messages, replies = sys.stdin.buffer, sys.stdout
    with redirect_stdout(sys.stderr):  # scorers print
        module, name, *args = json.loads(messages.readline())
        score = getattr(import_module(module), name)(*args)
        print("ready", file=replies, flush=True)
        for line in messages:  # until the parent has ended
            args, named = json.loads(line)
            try:
                value = float(score(*args, **named))
            except Exception:  # some scorers raise on what is no answer at all
                value = 0.0
            print(value, file=replies, flush=True)


if __name__ == "__main__":
    serve()
