"""Grade exercise notebooks, each exercise by its check: ``rmt-mini grade NOTEBOOK ...``.

A submission's code runs in a process and a temporary folder of its own (``submission``). The process is killed, with
all that it started, when its time is up. Its own calls of ``check`` are ignored; the grader calls its own. The code
runs with the rights of whoever grades: grade strangers' work in a container.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rmt_mini.report.markdown import macro
from rmt_mini.teaching.checks.exercise import EXERCISES
from rmt_mini.teaching.lessons import read_notebook
from rmt_mini.teaching.submission import TAG, kill_tagged

LIMIT = 240.0  # seconds for a whole submission
CELLS_SHARE = 0.7  # of the limit: most that all cells together may take; the rest is for judging
MOST_ANSWERS = 1_000_000  # bytes that are read of what a submission's process wrote
MOST_BESIDE = 1_000_000  # bytes of a file beside a notebook that it may read

Verdicts = dict[str, tuple[bool, str]]  # exercise -> whether it passed, and the message of its check


@dataclass(frozen=True)
class Mark:
    """The points of one exercise, and the message of its check."""

    exercise: str
    points: int
    of: int
    message: str


@dataclass(frozen=True)
class Report:
    """The marks of a notebook, in the order of its exercises; where it has none, the reason."""

    notebook: str
    marks: tuple[Mark, ...]
    reason: str = ""

    @property
    def points(self) -> int:
        """Points earned."""
        return sum(mark.points for mark in self.marks)

    @property
    def of(self) -> int:
        """Points possible."""
        return sum(mark.of for mark in self.marks)

    def text(self) -> str:
        """Write it for a person."""
        return macro("tables.md.j2", "marks", self, _printable)

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {"points": self.points, "of": self.of} | asdict(self)


def _printable(line: str) -> str:
    """Escape what would control a terminal, or what it cannot show."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


def grade_all(paths: Sequence[Path], limit: float = LIMIT) -> Iterator[Report]:
    """Run submissions, with copies of the small files beside them, and check their exercises.

    All are read before the first one runs. What cannot be judged in ``limit`` seconds earns 0 points; the message says
    why. What is no notebook, or has no exercise, has no marks.
    """
    read = [_sources(path) for path in paths]
    for path, sources in zip(paths, read, strict=True):
        yield Report(str(path), (), sources) if isinstance(sources, str) else _graded(path, sources, limit)


def _sources(path: Path) -> list[str] | str:
    """Return what is in a notebook's code cells, or why that cannot be read."""
    try:
        return [str(cell.get("source", "")) for cell in read_notebook(path).cells if cell.cell_type == "code"]
    except Exception as error:  # a JSON file need not be a notebook
        return str(error) or type(error).__name__


def _graded(path: Path, sources: Sequence[str], limit: float) -> Report:
    """Mark all exercises, also deleted ones, of the lessons that a notebook defines some of, or else checks."""
    defined, checked = (
        {EXERCISES[name].stem for name in re.findall(pattern, "\n".join(sources), re.MULTILINE) if name in EXERCISES}
        for pattern in (r"^(?:def|class)\s+(\w+)", r"^check\(\s*(\w+)")
    )
    exercises = [one for one in EXERCISES.values() if one.stem in (defined or checked)]
    if not exercises:
        return Report(str(path), (), "it has no exercise; a cell of one ends in check(...)")
    try:
        verdicts, end = _run(sources, [one.name for one in exercises], path.parent, limit)
    except Exception as error:  # such as a folder that no one can remove: the other notebooks are still graded
        return Report(str(path), (), f"{type(error).__name__}: {error}")
    found = [(one, *verdicts.get(one.name, (False, end))) for one in exercises]
    return Report(str(path), tuple(Mark(one.name, one.points * right, one.points, said) for one, right, said in found))


def _run(sources: Sequence[str], names: Sequence[str], beside: Path, limit: float) -> tuple[Verdicts, str]:
    """Run cells in a process of their own; return what was judged, and how and where the process ended."""
    tag = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, tempfile.TemporaryFile() as answers:
        folder = Path(scratch, "work")  # below the one that is removed: a submission may put a pipe in its place
        folder.mkdir()
        for file in beside.iterdir():
            with suppress(OSError):  # not readable
                if file.is_file() and file.suffix != ".ipynb" and file.stat().st_size <= MOST_BESIDE:
                    shutil.copy(file, folder)
        asked = {"sources": sources, "names": names, "folder": str(folder), "grader": os.getpid()}
        try:
            # -P: a module of the current folder must not replace one that grading needs
            process = subprocess.run(
                [sys.executable, "-P", "-m", "rmt_mini.teaching.submission"],
                input=json.dumps(asked | {"seconds": CELLS_SHARE * limit}).encode(),
                stdout=answers,
                stderr=subprocess.DEVNULL,
                timeout=limit,
                env=os.environ | {"MPLBACKEND": "agg", TAG: tag},
                start_new_session=True,
            )
            end = f"its process ended with exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            end = f"it had not ended after {limit:g} seconds"
        finally:
            kill_tagged(tag)
        answers.seek(0)
        verdicts, at = dict[str, tuple[bool, str]](), "before its first cell"
        for line in answers.read(MOST_ANSWERS).splitlines():
            with suppress(ValueError, RecursionError):  # the last line may be cut off by the kill
                match json.loads(line):
                    case {"at": str(place)}:
                        at = place
                    case {"exercise": str(name), "passed": bool(passed), "message": str(message)}:
                        verdicts[name] = passed, message
    return verdicts, f"not judged: {end}, {at}"
