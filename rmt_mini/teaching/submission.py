"""The process that runs one submission: ``python -m rmt_mini.teaching.submission <REQUEST >ANSWERS``.

``grading`` starts it, one for each submission, and kills it when its time is up. It runs the cells as a notebook would,
then judges each exercise, and appends to ANSWERS as it goes, so that what was judged before a kill counts. Both are
files without a name, so that no cell can put something else in their place.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import psutil
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from rmt_mini.teaching.checks import Verdict, judge
from rmt_mini.teaching.checks.limit import time_limit

PR_SET_CHILD_SUBREAPER = 36  # of prctl
GLANCE = 0.2  # seconds between two looks at whether the grader still runs


def adopt_orphans(adopt: bool) -> None:
    """Let later processes whose parent has ended become this one's children, or not; without effect off Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(adopt), 0, 0, 0)


def kill_children(pid: int) -> None:
    """Kill all processes that a process started, and theirs."""
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            child.kill()


def _shell() -> Any:
    config = Config()
    config.HistoryManager.enabled = False
    shell: Any = InteractiveShell.instance(config=config)
    shell.enable_gui = lambda gui=None: None  # there is none; without this, %matplotlib raises
    return shell


def _end_with(grader: int) -> None:
    """Kill this process and all that it started as soon as the grader has ended."""
    parent = os.getppid()
    while os.getppid() == parent and psutil.pid_exists(grader):
        sleep(GLANCE)
    kill_children(os.getpid())
    if os.name == "posix":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _judged(name: str, names: dict[str, Any], limit: float) -> Verdict:
    if name not in names:
        return Verdict(name, False, f"{name} is not there; it was deleted, or its cell does not run")
    reason = "an error that cannot be printed"
    with suppress(BaseException), time_limit(limit):  # an answer's error may raise, or never end, where it is printed
        try:
            own = getattr(names[name], "__name__", name)
            if own == name:
                return judge(names[name])
            reason = f"it is the function {str(own)!r}; define it under its own name"
        except BaseException as error:  # an answer may raise anything, also where it is compared
            reason = f"{type(error).__name__}: {error}"
    return Verdict(name, False, f"{name} cannot be judged: {reason}")


def _writer() -> Callable[[dict[str, Any]], None]:
    """Take standard output for answers alone; what is printed and read from now on is lost and empty."""
    file, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    write, dumps = os.write, json.dumps  # a cell may replace those of the modules

    def record(what: dict[str, Any]) -> None:
        write(file, f"\n{dumps(what)}\n".encode())  # a line of its own, whatever was printed while modules loaded

    return record


def main() -> None:
    """Run the cells of REQUEST and judge its exercises; ends the process, whatever threads and children are left."""
    asked, own = json.load(sys.stdin.buffer), os.getpid()
    write = _writer()
    adopt_orphans(True)
    threading.Thread(target=_end_with, args=(asked["grader"],), daemon=True).start()
    os.chdir(asked["folder"])
    sys.path.insert(0, "")  # modules beside the notebook, as in a kernel
    shell = _shell()
    end = monotonic() + asked["cells_limit"]
    for number, source in enumerate(asked["sources"], 1):
        write({"at": f"in code cell {number}"})
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # a cell may have replaced them
        with suppress(BaseException), time_limit(max(0.01, asked["cell_share"] * (end - monotonic()))):
            shell.run_cell(source)
        if os.getpid() != own:  # the cell forked, and this is the copy
            os._exit(0)
    for name in asked["names"]:
        write({"at": f"in {name}"})
        verdict = _judged(name, shell.user_ns, asked["judge_limit"])
        write({"exercise": name, "passed": verdict.passed, "told": verdict.told[: asked["longest"]]})
    kill_children(own)
    os._exit(0)


if __name__ == "__main__":
    main()
