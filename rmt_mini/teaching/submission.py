"""The process that runs one submission: ``python -m rmt_mini.teaching.submission <REQUEST >ANSWERS``.

``grading`` starts it, one for each submission, and kills it when its time is up. It runs the cells as a notebook would,
then judges each exercise, and appends to ANSWERS as it goes, so that what was judged before a kill counts. ANSWERS is a
file without a name, so that no cell can replace it.
"""

import json
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import psutil
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from rmt_mini.teaching import checks
from rmt_mini.teaching.checks import LIMIT, Verdict, judge, time_limit

TAG = "RMT_MINI_SUBMISSION"  # an environment variable that every process of a submission inherits
LONGEST = 2000  # characters of a check's message: a submission's own error messages are part of it
GLANCE = 0.2  # seconds between two looks at whether the grader still runs


def kill_tagged(tag: str) -> None:
    """Kill every process but this one that was started with this tag, wherever its parent has gone."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended meanwhile, or belongs to someone else
            if process.pid != os.getpid() and process.environ().get(TAG) == tag:
                process.kill()


def _end_with(grader: int) -> None:
    """End this process and all that it started as soon as the grader has ended."""
    while os.getppid() == grader:
        sleep(GLANCE)
    kill_tagged(os.environ[TAG])
    os._exit(1)


def _judged(name: str, names: Mapping[str, Any]) -> Verdict:
    reason = f"{name} cannot be judged: an error that cannot be printed"
    with suppress(BaseException), time_limit(2 * LIMIT):  # an answer's error may raise where it is printed
        try:
            if name not in names:
                reason = f"{name} is missing; it was deleted, or its cell does not run"
            elif (own := getattr(names[name], "__name__", name)) != name:
                reason = f"{name} cannot be judged: it is the function {str(own)!r}; define it under its own name"
            else:
                return judge(names[name])
        except BaseException as error:  # an answer may raise anything, also where it is compared
            reason = f"{name} cannot be judged: {type(error).__name__}: {error}"
    return Verdict(name, False, reason)


def main() -> None:
    """Run the cells of REQUEST and judge its exercises; ends the process, whatever threads and children are left."""
    asked, own = json.load(sys.stdin.buffer), os.getpid()
    # standard output is for answers alone: what is printed from now on is lost, and what is read is empty
    answers, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    write, dumps = os.write, json.dumps  # a cell may replace those of the modules

    def record(**what: Any) -> None:
        write(answers, f"\n{dumps(what)}\n".encode())  # a line of its own, whatever was printed while modules loaded

    threading.Thread(target=_end_with, args=(asked["grader"],), daemon=True).start()
    os.chdir(asked["folder"])
    sys.path.insert(0, "")  # modules beside the notebook, as in a kernel
    checks.check = lambda *_, **__: None  # type: ignore[assignment]  # the exercises are judged once, below
    shell: Any = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.enable_gui = lambda gui=None: None  # there is none; without this, %matplotlib raises
    end = monotonic() + asked["seconds"]
    for number, source in enumerate(asked["sources"], 1):
        record(at=f"in code cell {number}")
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # a cell may have replaced them
        with suppress(BaseException), time_limit(max(0.01, (end - monotonic()) / 3)):  # an endless cell leaves some
            shell.run_cell(source)
        if os.getpid() != own:  # the cell forked, and this is the copy
            os._exit(0)
    for name in asked["names"]:
        record(at=f"in {name}")
        verdict = _judged(name, shell.user_ns)
        record(exercise=name, passed=verdict.passed, message=verdict.message[:LONGEST])
    os._exit(0)


if __name__ == "__main__":
    main()
