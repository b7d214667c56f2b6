"""Students' copies, the nbgrader course and our own grader, over the exercises that are really there."""

import json
import logging
import os
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from rmt_mini.cli import main
from rmt_mini.errors import UserError
from rmt_mini.teaching.checks import EXERCISES
from rmt_mini.teaching.checks.exercise import BEGIN, END, SOLVED, exercise_of, solution
from rmt_mini.teaching.grading import grade_all
from rmt_mini.teaching.lessons import lessons, read_notebook
from rmt_mini.teaching.release import STUDENTS, release, stub

SET = "03_budget"


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("solved", lessons(SOLVED), ids=lambda path: path.stem)
def test_a_set_asks_for_its_exercises_and_says_how_hard_each_is_and_what_it_is_worth(solved: Path) -> None:
    cells, number, minutes, asked = read_notebook(solved).cells, int(solved.stem[:2]), 0, []
    for above, cell in pairwise(cells):
        name = exercise_of(cell.source) if cell.cell_type == "code" else None
        if name is None:
            continue
        asked.append(name)
        head, facts = [line for line in above.source.splitlines() if line][:2]
        assert head.startswith(f"### Exercise {number}.")
        _, _, length, points = facts.split(" · ")
        minutes += int(length.removesuffix(" minutes"))
        assert points.removesuffix("s") == f"{EXERCISES[name].points} point"
        assert above.source.count("<details><summary>Hint ") >= 2
        assert '"""' in cell.source
    assert asked == [one.name for one in EXERCISES.values() if int(one.stem[:2]) == number]
    assert f"About **{minutes} minutes**" in cells[0].source


def test_students_copies_are_fresh_and_fold_the_solutions_away(tmp_path: Path) -> None:
    """Make them again with ``rmt-mini release``."""
    made = release(tmp_path, solutions=True)
    assert [int(path.stem[:2]) for path in made] == [1, 2, 3, 4, 5, 6, 7, 8]
    for path in made:
        assert path.read_bytes() == (STUDENTS / path.name).read_bytes(), path.name
        sources, notebook = code_of(path), read_notebook(path)
        assert not any(BEGIN in source or END in source for source in sources)
        assert all(not cell.get("outputs") for cell in notebook.cells)
        words = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        answers = [source for source in code_of(SOLVED / path.name) if exercise_of(source)]
        assert words.count("<details><summary>Solution</summary>") == len(answers)
        for source in answers:
            assert solution(source) in words
            assert stub(source) in sources


def test_copies_for_a_class_have_no_solutions_but_for_a_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["release", "--students", str(tmp_path / "class"), "--nbgrader", str(tmp_path / "course")]
    main(command)
    written = capsys.readouterr().out.split()
    assert str(tmp_path / "class" / f"{SET}.ipynb") in written
    assert str(tmp_path / "course" / "source" / SET / f"{SET}.ipynb") in written
    main(["release", "--students", str(tmp_path / "folded"), "--solutions"])
    for copy in sorted((tmp_path / "class").glob("*.ipynb")):
        folded = (STUDENTS / copy.name).read_text(encoding="utf-8")
        given = copy.read_text(encoding="utf-8")
        assert "Solution</summary>" in folded
        assert "Solution</summary>" not in given + (tmp_path / "course/source" / copy.stem / copy.name).read_text()
        for source in code_of(SOLVED / copy.name):
            if exercise_of(source):
                assert solution(source).splitlines()[-1] not in given
        assert [cell.source for cell in read_notebook(copy).cells if cell.cell_type == "code"] == code_of(
            STUDENTS / copy.name
        )
        assert (tmp_path / "folded" / copy.name).read_text(encoding="utf-8") == folded
    for folder, again in ((STUDENTS, ["release"]), (tmp_path, command)):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        capsys.readouterr()
        main(again)
        assert capsys.readouterr().out == "Nothing to write: all copies are up to date.\n"
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_solved_set_earns_full_points() -> None:
    for one in grade_all([SOLVED / "01_next_token_reasoning.ipynb", SOLVED / "08_the_loop.ipynb"]):
        assert one.points == one.of > 0, one.text()


def test_a_notebook_shows_a_wrong_answers_slip_and_no_traceback(tmp_path: Path) -> None:
    source = "from rmt_mini.teaching.checks import check\n\ndef length_reward(length, budget):\n    return length / 0\n"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{source}\ncheck(length_reward)")])
    NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (error,) = notebook.cells[0].outputs
    (shown,) = error.traceback
    assert "ZeroDivisionError: division by zero\nin your line 4: return length / 0" in shown
    assert "teaching/checks" not in shown


def test_a_release_keeps_what_was_typed_and_names_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a student's copy, in nbgrader's source and in its configuration."""
    caplog.set_level(logging.INFO)
    students, course = tmp_path / "students", tmp_path / "course"
    release(students, course, solutions=True)
    name, source, config = f"{SET}.ipynb", course / "source" / SET, course / "nbgrader_config.py"
    typed = (students / name).read_text(encoding="utf-8").replace("raise NotImplementedError", "pass  # mine")
    (students / name).write_text(typed, encoding="utf-8")
    (source / name).write_text("a teacher's", encoding="utf-8")
    config.write_text("c = get_config()", encoding="utf-8")
    assert set(release(students, course, solutions=True)) == {students / name, source / name}
    kept = students / "old" / f"{SET}.old-1.ipynb"
    assert kept.read_text(encoding="utf-8") == typed
    assert str(kept) in caplog.text
    assert (course / "old" / f"{SET}.old-1.ipynb").read_text(encoding="utf-8") == "a teacher's"
    assert [path.name for path in source.iterdir()] == [name]  # nbgrader hands out whatever lies here
    assert config.read_text(encoding="utf-8") == "c = get_config()"
    assert (students / name).read_bytes() == (STUDENTS / name).read_bytes()
    with pytest.raises(UserError, match="holds the solved exercises; choose another folder"):
        release(SOLVED / ".")


def test_nbgrader_gives_a_solved_submission_full_points_and_an_open_one_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # nbgrader starts alembic
    api_of = pytest.importorskip("nbgrader.apps").NbGraderAPI
    from traitlets.config import Config

    release(tmp_path / "students", nbgrader=tmp_path)
    api = api_of(config=Config({"CourseDirectory": {"root": str(tmp_path)}, "NbGrader": {"logfile": ""}}))
    made = api.generate_assignment(SET, force=True, create=True)
    assert made["success"], made
    given = read_notebook(tmp_path / "release" / SET / f"{SET}.ipynb")
    assert BEGIN not in json.dumps(given)
    assert "raise NotImplementedError" in json.dumps(given)
    for student, source in (("solved", tmp_path / "source"), ("open", tmp_path / "release")):
        target = tmp_path / "submitted" / student / SET
        target.mkdir(parents=True)
        (target / f"{SET}.ipynb").write_text((source / SET / f"{SET}.ipynb").read_text())
        graded = api.autograde(SET, student)
        assert graded["success"], graded
    with api.gradebook as book:
        scores = {one.student.id: (one.score, one.max_score) for one in book.assignment_submissions(SET)}
    assert scores == {"solved": (8, 8), "open": (0, 8)}
