"""The process that runs one submission: ``python -m rmt_mini.teaching.submission <REQUEST >ANSWERS``.

``grading`` starts it, kills it when its time is up, and judges what it writes; here are no right answers. It runs the
cells as a notebook would, then makes the calls of each exercise's cases, and appends to ANSWERS as it goes, so that
what was written before a kill counts. ANSWERS is a file without a name, so that no cell can replace it.
"""

import gc
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from itertools import accumulate
from time import monotonic, sleep
from types import ModuleType
from typing import Any

import psutil
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from rmt_mini.teaching import checks
from rmt_mini.teaching.checks import LIMIT, attempts, time_limit
from rmt_mini.teaching.checks.calls import restored, written

LONGEST = 2000  # characters of an error's message, which a submission writes
GLANCE = 0.2  # seconds between two looks at whether the grader still runs
CELL, GRACE = 30.0, 5  # seconds for a cell, and until what could not be interrupted ends the process
MEMORY = 2 << 30  # bytes that cells may take, and as many again that answers may take
REFUSED = ("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.", "ctypes.")


def seal(granted: Sequence[tuple[str, str]], hidden: Sequence[str]) -> None:
    """Take away what leads to right answers, as far as Python can: modules, files, and programs that could read them.

    Of ``rmt_mini`` only the names that are granted stay, and of the classroom what a cell calls, which does nothing.
    """
    kept = {(module, name): getattr(import_module(module), name) for module, name in granted}
    for module, name in (("begin", "begin"), ("checks", "check")):
        kept[f"{__package__}.{module}", name] = lambda *_, **__: None
    with time_limit(LIMIT):  # looks a C function up, which is refused later
        vars(checks)["EXERCISES"] = {}
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "rmt_mini"]:
        del sys.modules[loaded]
    for (module, name), value in kept.items():
        for parent in accumulate(module.split("."), "{}.{}".format):
            sys.modules.setdefault(parent, ModuleType(parent)).__path__ = []
        setattr(sys.modules[module], name, value)
    del sys.modules["subprocess"]._fork_exec, sys.modules["_posixsubprocess"].fork_exec  # which no hook sees
    gc.collect()
    stat, folder_of = os.stat, os.path.dirname

    def identity(path: Any) -> Any:
        with suppress(OSError, TypeError, ValueError):  # it is made now, or is no path
            return stat(path)[1:3]

    walked = [(top, files) for folder in hidden for top, _, files in os.walk(folder)]
    secret = {identity(os.path.join(top, file)) for top, files in walked for file in ("", *files)} - {None}

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        withheld = event == "import" and args[0].partition(".")[0] in ("rmt_mini", "_posixsubprocess")
        for path in args[:2] if event == "open" or event.startswith("os.") else ():
            with suppress(TypeError):  # the second may be a mode
                withheld = withheld or not secret.isdisjoint((identity(path), identity(folder_of(path) or ".")))
        if withheld or event.startswith(REFUSED):
            raise PermissionError(f"refused where a notebook is graded: {event} {args[:1]}")

    sys.addaudithook(refuse)


def _end_with(grader: int) -> None:
    """End this process as soon as the grader has ended."""
    while os.getppid() == grader:
        sleep(GLANCE)
    os._exit(1)


def _limited(seconds: float) -> AbstractContextManager[None]:
    """Interrupt a block after some seconds; the system ends the process if that has no effect."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)  # until the next one is set
    return time_limit(seconds)


def _limit_memory() -> None:
    with suppress(ValueError, OSError):  # not on every system
        most = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    """Run the cells of REQUEST and make its calls; ends the process, whatever threads are left."""
    asked = json.load(sys.stdin, object_hook=restored)
    write, dumps = os.write, json.dumps  # a cell may replace those of the modules
    # standard output is for answers alone: what is printed from now on is lost, and what is read is empty
    answers, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)

    def record(**what: Any) -> None:  # a line of its own, whatever was printed while modules loaded
        write(answers, f"\n{dumps(written(what))}\n".encode())

    threading.Thread(target=_end_with, args=(asked["grader"],), daemon=True).start()
    os.chdir(asked["folder"])
    sys.path.insert(0, "")  # modules beside the notebook, as in a kernel
    shell: Any = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.enable_gui = lambda gui=None: None  # there is none; without this, %matplotlib raises
    seal(asked["granted"], asked["hidden"])
    end = monotonic() + asked["seconds"]
    _limit_memory()
    for number, source in asked["sources"]:
        record(at=number)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # a cell may have replaced them
        with suppress(BaseException), _limited(min(CELL, max(0.01, (end - monotonic()) / 3))):  # leaves others some
            shell.run_cell(source)
    _limit_memory()
    for name, calls in asked["calls"].items():
        record(at=name)
        tried, failed = [], f"{name} cannot be judged: an error that cannot be printed"
        with suppress(BaseException), _limited(2 * LIMIT):  # an answer may raise anything, also where it is written
            try:
                if name not in shell.user_ns:
                    failed = f"{name} is missing; it was deleted, or its cell does not run"
                elif (own := getattr(shell.user_ns[name], "__name__", name)) != name:
                    failed = f"{name} cannot be judged: it is the function {str(own)!r}; define it under its own name"
                else:
                    tried = attempts(name, shell.user_ns[name], calls)
                    record(exercise=name, tried=[one._replace(error=one.error[:LONGEST]) for one in tried])
                    failed = ""
            except BaseException as error:
                failed = f"{name} cannot be judged: {type(error).__name__}: {error}"
        if failed:
            record(exercise=name, failed=failed[:LONGEST])
        classes = {one for trial in tried for one in trial.classes}
        if "MemoryError" in classes or (
            len(tried) < len(calls) and not failed and "NotImplementedError" not in classes
        ):
            break  # what it holds, or still does, is no other exercise's trouble: the others get a new process
    os._exit(0)


if __name__ == "__main__":
    main()
