"""One bad submission costs its own points: the others are graded, in time, and their marks are written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest

from rmt_mini.cli import main
from rmt_mini.teaching import grading
from rmt_mini.teaching.checks import EXERCISES
from rmt_mini.teaching.checks.exercise import SOLVED
from rmt_mini.teaching.grading import LIMIT, Mark, Report, grade_all
from rmt_mini.teaching.lessons import read_notebook
from rmt_mini.teaching.release import STUDENTS

pytestmark = pytest.mark.filterwarnings("ignore:Non-unique cell id", "ignore:Cell is missing an id field")
SET = SOLVED / "03_budget.ipynb"
SURVIVED = {
    "quit": "quit()",
    "exit": "raise SystemExit(3)",
    "stdout": "import sys\nsys.stdout = sys.stderr = None",
    "recursion": "def again():\n    return again()\n\n\nagain()",
    "flood": "print('x' * 50_000_000)",
    "matplotlib": "%matplotlib inline\nimport matplotlib.pyplot as plt\n\nplt.show()",
    "input": "input('your name')",
    "names": "import json\n\njson.dumps = lambda *_, **__: '[]'",
    "beside": "import beside\n\nopen(f'{PLACE}/seen', 'w').write(beside.__file__)",
    "thread": "import threading, time\n\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
    "memory": "held = bytearray(1 << 50)",
    "children": (
        "import os, subprocess, time\n\n"
        "started = [os.fork(), subprocess.Popen(['sleep', '1000'], start_new_session=True).pid]\n"
        "if started[0] == 0:\n    time.sleep(1000)\n"
        "orphan = ['sh', '-c', 'nohup sleep 1000 >/dev/null & echo $!']\n"
        "started.append(int(subprocess.run(orphan, stdout=subprocess.PIPE, start_new_session=True).stdout))\n"
        "open(f'{PLACE}/pids', 'w').write(repr(started))"
    ),
    **{f"endless {number}": "while True:\n    pass" for number in range(2)},
}
LEAVES = SURVIVED["children"] + "\nos._exit(3)"
HANGS = (
    "import os, signal, subprocess, time\n\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "started = [os.fork(), subprocess.Popen(['sleep', '1000'], start_new_session=True).pid]\n"
    "if started[0]:\n"
    "    open(f'{PLACE}/new', 'w').write(repr(started))\n"
    "    os.rename(f'{PLACE}/new', f'{PLACE}/pids')\n"
    "while True:\n    time.sleep(1000)"
)
EMPTY = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'


def grade(path: Path, limit: float = LIMIT) -> Report:
    (report,) = grade_all([path], limit)
    return report


def submission(folder: Path, *sources: str, after: tuple[str, ...] = (), of: Path = SET) -> Path:
    """Write the solved set with further cells before and after its own, all of one id, and one without a source."""
    notebook = read_notebook(of)
    notebook.cells[:0] = [nbformat.v4.new_code_cell(source.replace("{PLACE}", str(folder))) for source in sources]
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in (*after, "")]
    del notebook.cells[-1]["source"]
    for cell in notebook.cells:
        cell.id = "same"
    (folder / "submission.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return folder / "submission.ipynb"


def assert_none_runs(folder: Path, *others: int) -> None:
    running = []
    for pid in [*json.loads((folder / "pids").read_text()), *others]:
        with suppress(psutil.NoSuchProcess):
            running.append(psutil.Process(pid))
    _, alive = psutil.wait_procs(running, timeout=20)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_what_a_submission_does_to_its_process_costs_no_points(tmp_path: Path) -> None:
    (tmp_path / "beside.py").touch()
    report = grade(submission(tmp_path, *SURVIVED.values()), limit=30)
    assert (report.points, report.of) == (8, 8), report.text()
    assert Path((tmp_path / "seen").read_text()).parent != tmp_path
    assert_none_runs(tmp_path)


@pytest.mark.parametrize(
    ("source", "end"),
    [
        (LEAVES, "its process ended with exit code 3, in code cell 1"),
        (HANGS, "it had not ended after 12 seconds, in code cell 1"),
    ],
)
def test_no_process_outlives_a_submission_that_exits_or_hangs(source: str, end: str, tmp_path: Path) -> None:
    report = grade(submission(tmp_path, source), limit=12)
    assert (report.points, report.of) == (0, 8)
    assert {mark.message for mark in report.marks} == {f"not judged: {end}"}
    assert_none_runs(tmp_path)


def test_no_submission_outlives_its_grader(tmp_path: Path) -> None:
    grader = subprocess.Popen([sys.executable, "-m", "rmt_mini", "grade", str(submission(tmp_path, HANGS))])
    while not (tmp_path / "pids").exists():
        assert grader.poll() is None
        time.sleep(0.05)
    (own,) = psutil.Process(grader.pid).children()
    grader.terminate()
    grader.wait()
    assert_none_runs(tmp_path, own.pid)


def test_each_answer_costs_its_own_points_alone(tmp_path: Path) -> None:
    """The first is right; the others raise what no terminal can show, what cannot be printed, or end the process."""
    bad = "class Bad(Exception):\n    def __str__(self):\n        raise self\n\n\ndef close_at_cap(*_):\n    raise Bad"
    surrogate = "def budget_at_step(*_):\n    raise ValueError('\\ud800' * 100_000)"
    report = grade(
        submission(tmp_path, after=(surrogate, bad, "def budget_adherence(*_):\n    import os; os._exit(1)"))
    )
    assert [mark.points for mark in report.marks] == [1, 0, 0, 0]
    assert "ValueError" in report.marks[1].message
    assert report.marks[2].message == "close_at_cap cannot be judged: an error that cannot be printed"
    assert report.marks[3].message == "not judged: its process ended with exit code 1, in budget_adherence"
    assert len(report.text().encode("utf-8")) < 20_000


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("def length_reward(length, budget):\n    return 1 - abs(length - budget) / budget\n", "falling below 0"),
        ("def length_reward(length, budget)\n    return 1\n", "missing"),
        ("while True:\n    pass\n", "missing"),
        ("length_reward = math.floor", "it is the function 'floor'; define it under its own name"),
    ],
)
def test_a_wrong_a_broken_and_an_endless_answer(cell: str, message: str, tmp_path: Path) -> None:
    notebook = read_notebook(SET)
    next(one for one in notebook.cells if "def length_reward" in one.source).source = cell
    nbformat.write(notebook, tmp_path / "a.ipynb")
    report = grade(tmp_path / "a.ipynb", limit=25)
    assert (report.points, report.of) == (7, 8), report.text()
    assert message in report.marks[0].message


def test_a_submission_cannot_pass_by_its_own_words(tmp_path: Path) -> None:
    """Neither a check that it redefines, nor a verdict that it prints, nor a deleted exercise earns a point."""
    verdict = json.dumps({"exercise": "length_reward", "passed": True, "message": "right"})
    faked = f"check = lambda function: True\nprint('''{verdict}''')\ndel budget_adherence"
    report = grade(submission(tmp_path, after=(faked,), of=STUDENTS / SET.name))
    assert (report.points, report.of) == (0, 8)
    assert "missing" in report.marks[-1].message


@pytest.mark.parametrize(
    ("source", "lessons"),
    [
        ("check(token_entropy)\n\ndef length_reward(length, budget):\n    return 1", {3}),
        ("def match_reward(a, b):\n    return 1\ndef length_reward(a, b):\n    return 1", {1, 3}),
        ("check( length_reward )\ncheck(match_reward, 5.0);  # ok", {1, 3}),
        ("def mine():\n    pass\n\nprint(check(length_reward))", set()),
    ],
)
def test_the_lessons_whose_exercises_are_defined_are_marked(
    source: str, lessons: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "_run", lambda *_: ({}, "not run"))
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), tmp_path / "a.ipynb")
    marked = {mark.exercise for mark in grade(tmp_path / "a.ipynb").marks}
    assert marked == {one.name for one in EXERCISES.values() if int(one.stem[:2]) in lessons}


def test_what_a_student_wrote_controls_no_terminal() -> None:
    message = "ValueError: \x1b]0;title\x07\r10/10\nin your line 1: é \u202e\ud800"
    text = Report("a\n\x1b[2J.ipynb", (Mark("length_reward", 0, 1, message),), "\x9b2J").text()
    assert text.splitlines() == [
        r"a\n\x1b[2J.ipynb: 0 of 1 points",
        r"  not graded: \x9b2J",
        "  0/1  length_reward",
        r"    ValueError: \x1b]0;title\x07\r10/10",
        r"    in your line 1: é \u202e\ud800",
    ]


@pytest.mark.parametrize("content", [None, "", "[" * 100_000, '{"nbformat": 4}', EMPTY], ids=range(5))
def test_what_is_no_submission_gets_a_report_with_the_reason(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "submission.ipynb"
    if content is not None:
        path.write_text(content)
    report = grade(path)
    assert (report.points, report.of, report.marks) == (0, 0, ())
    assert report.reason
    assert report.reason in report.text()


def test_a_class_is_graded_to_its_end_and_marks_are_written_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("json.py").write_text("raise SystemExit")  # of a student's, in the folder where a teacher types
    Path("a.ipynb").touch()
    submission(
        tmp_path,
        "import json, os, signal\n\n"
        "shown = json.load(open('{PLACE}/marks.json'))\n"
        "open('{PLACE}/seen', 'w').write(str(len(shown)))\n"
        "os.remove('{PLACE}/c.ipynb')\n"
        "os.kill(os.getpid(), signal.SIGSEGV)",
    )
    shutil.copy(SET, "c.ipynb")
    Path("marks.json").write_text("last year's")
    with pytest.raises(SystemExit) as ended:
        main(["grade", "a.ipynb", "submission.ipynb", "c.ipynb", "--json", "marks.json"])
    assert ended.value.code == 2
    assert "error: 1 of 3 notebooks could not be graded, 'a.ipynb' first" in capsys.readouterr().err
    marks = json.loads(Path("marks.json").read_text())
    assert [(one["points"], one["of"]) for one in marks] == [(0, 0), (0, 8), (8, 8)]
    assert marks[1]["marks"][0]["message"] == "not judged: its process ended with exit code -11, in code cell 1"
    assert Path("seen").read_text() == "1"
    assert Path("marks.old-1.json").read_text() == "last year's"
