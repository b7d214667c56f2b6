"""Make students' copies and an nbgrader course out of the solved exercises: ``rmt-mini release``.

A student's copy has ``raise NotImplementedError`` in the solution's place. For self-study the solution is folded away
under the hints in the cell above; for a class it is left out. nbgrader wants an exercise in two cells, one that the
student writes and one that is locked and gives points, and makes the students' copies itself.
"""

import copy
import re
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import ClearMetadataPreprocessor, ClearOutputPreprocessor

from rmt_mini.errors import UserError
from rmt_mini.files import write_keeping
from rmt_mini.teaching.checks.exercise import ENDS_IN_CHECK, EXERCISES, REGION, exercise_of, solution
from rmt_mini.teaching.lessons import FOLDER, METADATA, lessons, number_cells, read_notebook

SOURCE, STUDENTS = FOLDER / "solutions", FOLDER / "exercises"
STUB = 'raise NotImplementedError("your code goes here")'
FOLDED = "\n\n<details><summary>Solution</summary>\n\n```python\n%s```\n\n</details>"
TEST = "from rmt_mini.teaching.checks import check\n\ncheck(%s);"
EXPLAIN = re.compile(r"^\*\*Explain\.\*\*.*?(?=^#|^\*\*(?:Predict|Try)|\Z)", re.MULTILINE | re.DOTALL)
UNFOLD = "<details><summary>Explain</summary>"
UNMARKED = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
CONFIG = Path(__file__).with_name("nbgrader_config.j2").read_text(encoding="utf-8").format(stub=STUB)


def stub(source: str) -> str:
    """Replace the solution of a cell."""
    return REGION.sub(lambda found: f"{found['indent']}{STUB}\n", source)


def student_copy(solved: Any, solutions: bool) -> Any:
    """Make the copy that a student works in: stubs, no outputs; with ``solutions`` they are folded away above."""
    made = _plain(solved)
    for above, cell in zip(made.cells, made.cells[1:], strict=False):
        if cell.cell_type == "code" and exercise_of(cell.source):
            above.source += FOLDED % solution(cell.source) if solutions else ""
            cell.source = stub(cell.source)
    return made


def graded_copy(solved: Any) -> Any:
    """Make nbgrader's source: each exercise a cell for the answer and a locked one with its points."""
    made = _plain(solved)
    given, made.cells = made.cells, []

    def add(cell: Any, identity: str, **changes: bool | int) -> None:
        marks = UNMARKED | {"grade_id": identity, "cell_type": cell["cell_type"]} | changes
        made.cells.append(nbformat.from_dict({**cell, "metadata": {"nbgrader": marks}}))

    for cell in given:
        name = exercise_of(cell.source) if cell.cell_type == "code" else None
        if name is None:
            add(cell, f"given-{cell.id}", locked=True)
        else:
            add({**cell, "source": ENDS_IN_CHECK.sub("", cell.source).rstrip() + "\n"}, name, solution=True)
            points = EXERCISES[name].points
            check = {**cell, "source": TEST % name, "id": f"{cell.id}-check"}
            add(check, f"check-{name}", grade=True, locked=True, points=points)
    return made


def lesson_copy(lesson: Any, stem: str) -> Any:
    """Make the copy of a lesson that a student works in: no outputs, Explain folded away, a field for each prediction.

    What is written in a field is shown again where its explanation is.
    """
    made = _plain(lesson)
    given, made.cells, asked, open_ones = made.cells, [], 0, list[str]()

    def code(source: str) -> None:
        made.cells.append(nbformat.v4.new_code_cell(source))

    for cell in given:
        if cell.cell_type == "markdown":
            for explained in EXPLAIN.findall(cell.source):
                if open_ones:
                    code(f'outcome("{open_ones.pop()}")')
                folded = explained.strip().removeprefix("**Explain.** ")
                cell.source = cell.source.replace(explained, f"{UNFOLD}\n\n{folded}\n\n</details>\n\n").strip()
        made.cells.append(cell)
        if cell.cell_type == "markdown" and "**Predict" in cell.source:
            asked += 1
            open_ones = [f"{stem.partition('_')[0]}-{asked}"]
            code(f'Prediction("{open_ones[0]}")')
        elif cell.cell_type == "code" and "import begin" in cell.source:
            cell.source += "\n\nfrom rmt_mini.teaching.widgets.prediction import Prediction, outcome"
    number_cells(made)
    return made


def release_lessons(folder: Path) -> list[Path]:
    """Write students' copies of all lessons into a folder; return those that changed, as ``release`` does."""
    if folder.resolve() == FOLDER.resolve():
        raise UserError(f"{str(folder)!r} holds the lessons themselves; choose another folder")
    copies = {folder / path.name: lesson_copy(read_notebook(path), path.stem) for path in lessons()}
    return [
        path for path, made in copies.items() if write_keeping(path, nbformat.writes(made) + "\n", old=folder / "old")
    ]


def _plain(solved: Any) -> Any:
    """Return a copy of a notebook without what running it left."""
    made, _ = ClearOutputPreprocessor().preprocess(copy.deepcopy(solved), {})
    made, _ = ClearMetadataPreprocessor().preprocess(made, {})
    made.metadata = nbformat.from_dict(METADATA)
    number_cells(made)
    return made


def release(students: Path = STUDENTS, nbgrader: Path | None = None, solutions: bool | None = None) -> list[Path]:
    """Write students' copies and, if asked for, an nbgrader course in a folder; return the files that were written.

    Copies have solutions folded away if ``solutions`` says so, and by default in the project's own folder alone.
    A notebook that is there already and differs, because somebody typed in it or its solution has changed, moves to
    the folder ``old`` beside it, or of the course. A course's ``nbgrader_config.py`` is left as it is.
    """
    if students.resolve() == SOURCE.resolve():
        raise UserError(f"{str(students)!r} holds the solved exercises; choose another folder with --students")
    folded = students.resolve() == STUDENTS.resolve() if solutions is None else solutions
    written, solved_sets = list[Path](), lessons(SOURCE)
    if not solved_sets:
        raise UserError(f"no solved exercises are in {SOURCE}; they come with a clone of the repository")
    for path in solved_sets:
        solved = read_notebook(path)
        for name in (exercise_of(cell.source) for cell in solved.cells if cell.cell_type == "code"):
            if name is not None and name not in EXERCISES:
                raise UserError(f"{path.name} asks for {name!r}, which is in no file of rmt_mini/teaching/exercises")
        copies = [(students, students / path.name, student_copy(solved, folded))]
        if nbgrader is not None:  # the old one not in source/: nbgrader would hand it out
            copies.append((nbgrader, nbgrader / "source" / path.stem / path.name, graded_copy(solved)))
        for top, target, made in copies:
            if write_keeping(target, nbformat.writes(made) + "\n", old=top / "old"):
                written.append(target)
    if nbgrader is not None and not (config := nbgrader / "nbgrader_config.py").exists():
        write_keeping(config, CONFIG)
        written.append(config)
    return written
