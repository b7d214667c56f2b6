"""Grade exercise notebooks, each exercise by its check: ``rmt-mini grade NOTEBOOK ...``.

A submission's code runs in a process and a temporary folder of its own (``submission``), which is killed when its time
is up. It has no right answers, and what it returns is judged here, by cases from a seed that learners do not know:
nothing that it replaces changes a mark. The code runs with the grader's rights: grade strangers' work in a container.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rmt_mini.errors import UserError
from rmt_mini.report.markdown import macro
from rmt_mini.teaching.checks import Trial, verdict_on
from rmt_mini.teaching.checks.calls import restored, written
from rmt_mini.teaching.checks.exercise import EXERCISES, SOLVED, Exercise, solved_cells
from rmt_mini.teaching.lessons import read_notebook

LIMIT = 240.0  # seconds for a whole submission
CELLS_SHARE = 0.7  # of the limit: most that all cells together may take; the rest is for judging
MOST_ANSWERS = 20_000_000  # bytes that are read of what a submission's process wrote
MOST_BESIDE = 1_000_000  # bytes of a file beside a notebook that it may read

HIDDEN = str(Path(__file__).parents[1]), str(SOLVED.parent)  # folders with right answers

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
    seed: str = ""

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


def grade_all(paths: Sequence[Path], limit: float = LIMIT, seed: str | None = None) -> Iterator[Report]:
    """Run submissions, with copies of the small files beside them, and check their exercises.

    Random cases are drawn from ``seed``, by default a new one, which the reports name. All submissions are read before
    the first one runs. What cannot be judged in ``limit`` seconds earns 0 points; the message says why. What is no
    notebook, or has no exercise, has no marks.
    """
    if sys.platform == "win32":
        raise UserError("grading needs limits of Linux or macOS; on Windows run rmt-mini grade in WSL")
    read, drawn = [_sources(path) for path in paths], secrets.token_hex(4) if seed is None else seed
    for path, sources in zip(paths, read, strict=True):
        yield Report(str(path), (), sources) if isinstance(sources, str) else _graded(path, sources, limit, drawn)


def _sources(path: Path) -> list[str] | str:
    """Return what is in a notebook's code cells, or why that cannot be read."""
    try:
        return [str(cell.get("source", "")) for cell in read_notebook(path).cells if cell.cell_type == "code"]
    except Exception as error:  # a JSON file need not be a notebook
        return str(error) or type(error).__name__


def _graded(path: Path, sources: Sequence[str], limit: float, seed: str) -> Report:
    """Mark all exercises, also deleted ones, of the lessons that a notebook is about.

    These are lessons of which it defines several exercises, or one that it checks a cell of. Without any: those of
    which it defines one, which may also be a helper of that name, or else those that it checks.
    """
    defined, checked = (
        [EXERCISES[name].stem for name in {*re.findall(pattern, "\n".join(sources), re.MULTILINE)} & EXERCISES.keys()]
        for pattern in (r"^(?:def|class)\s+(\w+)", r"^check\(\s*(\w+)")
    )
    sure = {stem for stem in defined if stem in checked or defined.count(stem) > 1}
    exercises = [one for one in EXERCISES.values() if one.stem in (sure or defined or checked)]
    if not exercises:
        return Report(str(path), (), "it has no exercise; a cell of one ends in check(...)")
    try:
        verdicts, end = _run(sources, exercises, path.parent, limit, seed)
    except Exception as error:  # such as a folder that no one can remove: the other notebooks are still graded
        return Report(str(path), (), f"{type(error).__name__}: {error}")
    found = [(one, *verdicts.get(one.name, (False, end))) for one in exercises]
    marks = tuple(Mark(one.name, one.points * right, one.points, said) for one, right, said in found)
    return Report(str(path), marks, seed=seed)


def _run(
    sources: Sequence[str], asked: Sequence[Exercise], beside: Path, limit: float, seed: str
) -> tuple[Verdicts, str]:
    """Run a submission until its exercises are judged, each time without what ended it; return why the rest is not."""
    deadline, cells, verdicts, end, without = monotonic() + limit, dict(enumerate(sources, 1)), Verdicts(), "", ""
    cases, names = {one.name: one.all_cases(seed) for one in asked}, {one.name for one in asked}
    imports = "\n".join(solved_cells(stem)[""] for stem in {one.stem for one in asked})
    found = re.findall(r"^from (rmt_mini(?!\.teaching)[.\w]*) import (.+)$", imports, re.MULTILINE)
    granted = [(module, name) for module, several in found for name in several.split(", ") if name not in names]
    while (left := names - set(verdicts)) and (seconds := deadline - monotonic()) > 0:
        calls = {one.name: [case.args for case in cases[one.name]] for one in asked if one.name in left}
        request = {"sources": [*cells.items()], "calls": calls, "granted": granted, "hidden": HIDDEN}
        ended, lines = _process(request, beside, seconds, limit)
        at: Any = None
        for line in lines:
            with suppress(Exception):  # the kill may cut off the last line, and a submission may write anything
                said = json.loads(line, object_hook=restored)
                at = said.get("at", at)
                if (name := said.get("exercise")) in left:
                    tried = [Trial(*one) for one in said.get("tried", ())]
                    right = None if "failed" in said else verdict_on(EXERCISES[name], cases[name], tried)
                    verdicts[name] = (right.passed, right.message) if right else (False, str(said["failed"]))
        if at in left:
            end = f"not judged: {ended}, in {at}"
            verdicts.setdefault(at, (False, end))
        elif at in cells:
            end = f"not judged: {ended}, in code cell {at}"
            without += f"\ncode cell {at} was left out: {ended}"
            del cells[at]
        else:
            return verdicts, f"not judged: {ended}, before its first cell"
    return {name: (right, said + without * (" is missing; " in said)) for name, (right, said) in verdicts.items()}, end


def _process(request: dict[str, Any], beside: Path, seconds: float, limit: float) -> tuple[str, list[bytes]]:
    """Run ``submission``; return how it ended, and the lines that it wrote."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, tempfile.TemporaryFile() as answers:
        folder = Path(scratch, "work")  # below the one that is removed: a submission may put a pipe in its place
        folder.mkdir()
        for file in beside.iterdir():
            with suppress(OSError):  # not readable
                if file.is_file() and file.suffix != ".ipynb" and file.stat().st_size <= MOST_BESIDE:
                    shutil.copy(file, folder)
        request |= {"folder": str(folder), "grader": os.getpid(), "seconds": CELLS_SHARE * seconds}
        try:
            # -P: a module of the current folder must not replace one that grading needs
            process = subprocess.run(
                [sys.executable, "-P", "-m", "rmt_mini.teaching.submission"],
                input=json.dumps(written(request)).encode(),
                stdout=answers,
                stderr=subprocess.DEVNULL,
                timeout=seconds,
                env=os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
            end = f"its process ended with exit code {process.returncode}"
            if process.returncode == -signal.SIGALRM:
                end = "it did not end, and could not be interrupted"
        except subprocess.TimeoutExpired:
            end = f"it had not ended after {limit:g} seconds"
        answers.seek(0)
        return end, answers.read(MOST_ANSWERS).splitlines()
