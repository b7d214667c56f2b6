"""Grade exercise notebooks, each exercise by its check: ``rmt-mini grade NOTEBOOK ...``.

A submission's code runs in a process of its own (``submission``), which is killed, with its children, when its
time is up. Its own calls of ``check`` count for nothing, the grader's do. The code runs with the rights of whoever
grades: grade strangers' work in a container.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from rmt_mini.errors import UserError
from rmt_mini.files import ESCAPED
from rmt_mini.teaching.checks import EXERCISES
from rmt_mini.teaching.lessons import read_notebook
from rmt_mini.teaching.submission import kill_children

LIMIT = 240.0  # seconds for a whole submission
CELL_SHARE = 0.25  # of the limit: most that one cell may take, so that an endless one costs its own points alone
LONGEST = 2000  # characters of what a check says: a submission's own error messages are part of it
_CHECK = re.compile(r"^check\((\w+)\)[; \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Mark:
    """What an exercise was given.

    Attributes:
        exercise: its name.
        points, of: given, and possible.
        told: what the check says.
    """

    exercise: str
    points: int
    of: int
    told: str


@dataclass(frozen=True)
class Report:
    """What a notebook was given.

    Attributes:
        notebook: its path.
        marks: of each exercise, in the notebook's order.
        reason: why it has no marks; "" where it has some.
    """

    notebook: str
    marks: tuple[Mark, ...]
    reason: str = ""

    @property
    def points(self) -> int:
        """Points given."""
        return sum(mark.points for mark in self.marks)

    @property
    def of(self) -> int:
        """Points that could be had."""
        return sum(mark.of for mark in self.marks)

    def text(self) -> str:
        """Write it for a person."""
        lines = [f"{self.notebook}: {self.points} of {self.of} points"]
        if self.reason:
            lines.append(f"  not graded: {self.reason}")
        for mark in self.marks:
            told = mark.told.replace("\n", "\n    ")
            lines.append(f"  {mark.points}/{mark.of}  {mark.exercise}\n    {told}")
        return "\n".join(lines).encode("utf-8", ESCAPED).decode("utf-8")  # a path or an error may not be UTF-8

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {"points": self.points, "of": self.of} | asdict(self)


def grade(path: Path, limit: float = LIMIT) -> Report:
    """Run a submission and check each of its exercises.

    Args:
        path: a student's copy, worked in.
        limit: seconds for all of it.

    Returns:
        The marks, 0 with a reason for what could not be judged; no marks where it is no notebook or has no exercise.
    """
    try:
        sources = [str(cell.get("source", "")) for cell in read_notebook(path).cells if cell.cell_type == "code"]
    except (UserError, OSError, AttributeError, TypeError) as error:  # JSON may hold anything in a notebook's place
        return Report(str(path), (), str(error)[:LONGEST])
    names = list(dict.fromkeys(name for source in sources for name in _CHECK.findall(source) if name in EXERCISES))
    if not names:
        return Report(str(path), (), "it has no exercise; a cell of one ends in check(...)")
    names = [one.name for one in EXERCISES.values() if one.lesson == EXERCISES[names[0]].lesson]  # also deleted ones
    verdicts, end = _run([_CHECK.sub("", source) for source in sources], names, path.parent, limit)
    return Report(str(path), tuple(_mark(name, verdicts.get(name, {"passed": False, "told": end})) for name in names))


def _mark(name: str, verdict: Mapping[str, Any]) -> Mark:
    of = EXERCISES[name].points
    return Mark(name, of if verdict["passed"] else 0, of, str(verdict["told"])[:LONGEST])


def _run(
    sources: Sequence[str], names: Sequence[str], folder: Path, limit: float
) -> tuple[dict[str, dict[str, Any]], str]:
    """Run cells in a process of their own; return what was judged, and how and where the process ended."""
    asked = {"sources": sources, "names": names, "folder": str(folder.resolve()), "cell_limit": CELL_SHARE * limit}
    with tempfile.TemporaryDirectory() as scratch:
        request, answers = Path(scratch, "request.json"), Path(scratch, "answers.jsonl")
        request.write_text(json.dumps(asked), encoding="utf-8")
        answers.touch()
        nowhere = subprocess.DEVNULL  # a flood of output fills nothing
        process = subprocess.Popen(
            # -P: a module of the current folder must not take the place of one that grading needs
            [sys.executable, "-P", "-m", "rmt_mini.teaching.submission", str(request), str(answers)],
            stdin=nowhere,
            stdout=nowhere,
            stderr=nowhere,
            env=os.environ | {"MPLBACKEND": "agg"},
            start_new_session=True,
        )
        try:
            end = f"its process ended with exit code {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            end = f"it had not ended after {limit:g} seconds"
        finally:
            _kill(process)
        verdicts, at = {}, "before its first cell"
        for line in answers.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last line may be cut off by the kill
                record = json.loads(line)
                at = record.get("at", at)
                if "exercise" in record:
                    verdicts[record["exercise"]] = record
    return verdicts, f"not judged: {end}, {at}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a submission's process and what it started, except for a daemon whose parent has ended."""
    if process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            kill_children(process.pid)
    if os.name == "posix":  # children whose parent has ended are still of the same group
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
