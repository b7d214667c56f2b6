"""Make students' copies and an nbgrader course out of the solved exercises: ``rmt-mini release``.

The solved notebooks are the one source. An exercise is a code cell that defines the learner's function, with the
solution between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, and ends in ``check(name)``; the cell above it says
what is asked, how hard it is, and gives hints.

A student's copy has ``raise NotImplementedError`` in the solution's place, and the solution folded away under the
hints. nbgrader wants an exercise in two cells, one that the student writes and one that is locked and gives points,
and makes the students' copies itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from rmt_mini.errors import UserError
from rmt_mini.files import write_keeping
from rmt_mini.teaching.checks import EXERCISES
from rmt_mini.teaching.lessons import FOLDER, METADATA, read_notebook

SOLVED, STUDENTS = FOLDER / "solutions", FOLDER / "exercises"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = 'raise NotImplementedError("your code goes here")'
_REGION = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}\n(?P<body>.*?)^[ \t]*{END}\n", re.MULTILINE | re.DOTALL)
_CHECK = re.compile(r"^check\((?P<name>\w+)\)\s*\Z", re.MULTILINE)
CONFIG = '''"""An nbgrader course over the exercises; nbgrader's own documentation says what else can be set."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "rmt_mini"
c.ClearSolutions.code_stub = {"python": %r}
c.ExecutePreprocessor.timeout = 120
'''


def sets(folder: Path = SOLVED) -> list[Path]:
    """Return the solved exercise sets, in the order of their lessons.

    Raises:
        UserError: if there are none.
    """
    found = sorted(folder.glob("*.ipynb"))
    if not found:
        raise UserError(f"no solved exercises are in {folder}; they come with a clone of the repository, not a wheel")
    return found


def exercise_of(source: str) -> str | None:
    r"""Return the name of the exercise that a cell asks for; None where it is no exercise.

    Example:
        >>> exercise_of(f"def f():\n    {BEGIN}\n    return 1\n    {END}\n\n\ncheck(f)")
        'f'
    """
    ends = _CHECK.search(source)
    return ends["name"] if ends and BEGIN in source else None


def stub(source: str) -> str:
    r"""Take the solution out of a cell.

    Example:
        >>> print(stub(f"def f():\n    {BEGIN}\n    return 1\n    {END}\n"))
        def f():
            raise NotImplementedError("your code goes here")
    """
    return _REGION.sub(lambda found: f"{found['indent']}{STUB}\n", source)


def solution(source: str) -> str:
    """Return a cell without the marks of its solution and without its check."""
    return _CHECK.sub("", _REGION.sub(lambda found: found["body"], source)).rstrip() + "\n"


def student_copy(solved: Any) -> Any:
    """Make the copy that a student works in: stubs, solutions folded away, no outputs."""
    cells: list[Any] = []
    for cell in _plain(solved):
        if cell.cell_type == "code" and exercise_of(cell.source):
            cells[
                -1
            ].source += (
                f"\n\n<details><summary>Solution</summary>\n\n```python\n{solution(cell.source)}```\n\n</details>"
            )
            cell.source = stub(cell.source)
        cells.append(cell)
    return _notebook(solved, cells)


def graded_copy(solved: Any) -> Any:
    """Make nbgrader's source: each exercise a cell for the answer and a locked one with its points."""
    return _notebook(solved, [made for cell in _plain(solved) for made in _for_nbgrader(cell)])


def _for_nbgrader(cell: Any) -> Iterator[Any]:
    name = exercise_of(cell.source) if cell.cell_type == "code" else None
    if name is None:
        cell.metadata = _graded(cell, f"given-{cell.id}", locked=True)
        yield cell
        return
    answer, test = copy.deepcopy(cell), copy.deepcopy(cell)
    answer.source = _CHECK.sub("", cell.source).rstrip() + "\n"
    answer.metadata = _graded(cell, name, solution=True)
    test.id = f"{cell.id}-check"
    test.source = f"from rmt_mini.teaching.checks import check\n\ncheck({name});"
    test.metadata = _graded(cell, f"check-{name}", grade=True, locked=True, points=EXERCISES[name].points)
    yield from (answer, test)


def _graded(cell: Any, identity: str, **marks: Any) -> Any:
    plain = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
    made = plain | {"grade_id": identity, "cell_type": cell.cell_type} | marks
    return nbformat.from_dict({"nbgrader": made})


def _plain(notebook: Any) -> list[Any]:
    """Return copies of a notebook's cells without what running them left behind."""
    cells: list[Any] = copy.deepcopy(notebook.cells)
    for number, cell in enumerate(cells):
        cell.id, cell.metadata = f"cell-{number:02d}", nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return cells


def _notebook(solved: Any, cells: list[Any]) -> Any:
    made = copy.deepcopy(solved)
    made.metadata, made.cells = nbformat.from_dict(METADATA), cells
    return made


def release(students: Path = STUDENTS, nbgrader: Path | None = None, folder: Path = SOLVED) -> list[Path]:
    """Write students' copies and, if asked for, an nbgrader course.

    A notebook that is there already and differs, because somebody typed in it or its solution has changed, moves to
    the folder ``old`` beside it, or of the course. A course's ``nbgrader_config.py`` is left as it is.

    Args:
        students: folder of the students' copies.
        nbgrader: folder of the course, or None: ``source/SET/SET.ipynb`` and ``nbgrader_config.py``.
        folder: of the solved exercises.

    Returns:
        The files that were written, none where all are up to date.

    Raises:
        UserError: if there are no solved exercises, one asks for an exercise that has no check, or ``students`` is
            the folder of the solved ones.
    """
    if students.resolve() == folder.resolve():
        raise UserError(f"{str(students)!r} holds the solved exercises; choose another folder with --students")
    written = []
    for path in sets(folder):
        solved = read_notebook(path)
        _require_known(path, solved)
        copies = [(students, students / path.name, student_copy(solved))]
        if nbgrader is not None:  # not in source/: nbgrader would hand out what is kept there
            copies.append((nbgrader, nbgrader / "source" / path.stem / path.name, graded_copy(solved)))
        for top, target, made in copies:
            if write_keeping(target, nbformat.writes(made) + "\n", old=top / "old"):
                written.append(target)
    if nbgrader is not None and not (nbgrader / "nbgrader_config.py").exists():
        written.append(nbgrader / "nbgrader_config.py")
        write_keeping(written[-1], CONFIG % STUB)
    return written


def _require_known(path: Path, solved: Any) -> None:
    names = [exercise_of(cell.source) for cell in solved.cells if cell.cell_type == "code"]
    unknown = [name for name in names if name and name not in EXERCISES]
    if unknown:
        raise UserError(f"{path.name} asks for {unknown[0]!r}, which has no check in rmt_mini.teaching.checks")
