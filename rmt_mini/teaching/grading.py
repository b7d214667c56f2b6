"""Grade exercise notebooks, each exercise by its check: ``rmt-mini grade NOTEBOOK ...``.

A submission's code runs in a kernel of its own, with limits on time; its own calls of ``check`` count for nothing, the
grader's do. The code runs with the rights of whoever grades: grade strangers' work in a container.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from rmt_mini.errors import UserError
from rmt_mini.teaching.checks import EXERCISES, Verdict, judge
from rmt_mini.teaching.lessons import read_notebook

LIMIT = 60.0  # seconds for a cell of the submission
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
    """

    notebook: str
    marks: tuple[Mark, ...]

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
        for mark in self.marks:
            told = mark.told.replace("\n", "\n    ")
            lines.append(f"  {mark.points}/{mark.of}  {mark.exercise}\n    {told}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {"points": self.points, "of": self.of} | asdict(self)


def grade(path: Path, limit: float = LIMIT) -> Report:
    """Run a submission and check each of its exercises.

    Args:
        path: a student's copy, worked in.
        limit: seconds for each of its cells.

    Raises:
        UserError: if it is no notebook, or asks for no exercise.
    """
    submitted = read_notebook(path)
    sources = [cell.source for cell in submitted.cells if cell.cell_type == "code"]
    names = list(dict.fromkeys(name for source in sources for name in _CHECK.findall(source) if name in EXERCISES))
    if not names:
        raise UserError(f"{str(path)!r} has no exercise; a cell of one ends in check(...)")
    names = [one.name for one in EXERCISES.values() if one.lesson == EXERCISES[names[0]].lesson]  # also deleted ones
    told = _run([_CHECK.sub("", source) for source in sources], names, path, limit)
    return Report(str(path), tuple(_mark(name, told[name]) for name in names))


def _mark(name: str, verdict: Mapping[str, Any]) -> Mark:
    of = EXERCISES[name].points
    return Mark(name, of if verdict["passed"] else 0, of, str(verdict["told"]))


def _run(sources: Sequence[str], names: Sequence[str], path: Path, limit: float) -> dict[str, Any]:
    """Run cells, errors or not, and return what the checks say behind them."""
    nonce = secrets.token_hex(8)
    asks = [f"from rmt_mini.teaching.grading import tell\ntell({name!r}, globals(), {nonce!r})" for name in names]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in [*sources, *asks]])
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=limit, allow_errors=True, interrupt_on_timeout=True, resources=place).execute()
    return {
        name: _verdict(cell.get("outputs", []), nonce)
        for name, cell in zip(names, notebook.cells[len(sources) :], strict=True)
    }


def _verdict(outputs: Sequence[Any], nonce: str) -> dict[str, Any]:
    """Read what the grader's own cell put out."""
    for output in outputs:
        for line in output.get("text", "").splitlines():
            if line.startswith(nonce):
                found: dict[str, Any] = json.loads(line.removeprefix(nonce))
                return found
    errors = [f": {one.get('ename')}: {one.get('evalue')}" for one in outputs if one.output_type == "error"]
    return {"passed": False, "told": f"no verdict, as if the kernel had ended{errors[0] if errors else ''}"}


def tell(name: str, names: Mapping[str, Any], nonce: str) -> None:
    """Write the verdict on one exercise to standard output, for the grader; runs in the submission's kernel.

    Args:
        name: the exercise.
        names: what the submission's code has defined.
        nonce: what the line begins with.
    """
    if name in names:
        verdict = judge(names[name])
    else:
        verdict = Verdict(name, False, f"{name} is not there; it was deleted, or its cell does not run")
    sys.stdout.write(f"\n{nonce}{json.dumps(asdict(verdict))}\n")
