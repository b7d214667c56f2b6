"""The process that runs one submission: ``python -m rmt_mini.teaching.submission REQUEST ANSWERS``.

``grading`` starts it, one for each submission, and kills it when its time is up. It runs the cells as a notebook would,
then judges each exercise, and appends to ANSWERS as it goes, so that what was judged before a kill counts.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from rmt_mini.teaching.checks import Verdict, judge
from rmt_mini.teaching.checks.limit import time_limit


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


def _judged(name: str, names: dict[str, Any]) -> Verdict:
    if name not in names:
        return Verdict(name, False, f"{name} is not there; it was deleted, or its cell does not run")
    try:
        return judge(names[name])
    except BaseException as error:  # an answer may raise anything, also where it is compared or printed
        return Verdict(name, False, f"{name} cannot be judged: {type(error).__name__}: {error}")


def main() -> None:
    """Run the cells of REQUEST and judge its exercises; ends the process, whatever threads and children are left."""
    request, answers = map(Path, sys.argv[1:])
    asked, own = json.loads(request.read_text(encoding="utf-8")), os.getpid()
    with answers.open("a", encoding="utf-8", buffering=1) as file:
        os.chdir(asked["folder"])
        sys.path.insert(0, "")  # modules beside the notebook, as in a kernel
        shell = _shell()
        for number, source in enumerate(asked["sources"], 1):
            file.write(json.dumps({"at": f"in code cell {number}"}) + "\n")
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # a cell may have replaced them
            with suppress(BaseException), time_limit(asked["cell_limit"]):
                shell.run_cell(source)
            if os.getpid() != own:  # the cell forked, and this is the copy
                os._exit(0)
        for name in asked["names"]:
            file.write(json.dumps({"at": f"in {name}"}) + "\n")
            file.write(json.dumps(asdict(_judged(name, shell.user_ns))) + "\n")
    kill_children(own)
    os._exit(0)


if __name__ == "__main__":
    main()
