"""One bad submission costs its own points: the others are graded, in time, and their marks are written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from rmt_mini.cli import main
from rmt_mini.teaching import grading
from rmt_mini.teaching.checks import EXERCISES
from rmt_mini.teaching.grading import Mark, Report, grade
from rmt_mini.teaching.lessons import read_notebook
from rmt_mini.teaching.release import SOLVED

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
    "files": (
        "import os, stat\n\n"
        "junk = [b'1', b'\\xff', b'{\"passed\": true}', b'{\"exercise\": []}', b'[' * 100_000]\n"
        "for number in range(3, 64):\n"
        "    try:\n"
        "        if stat.S_ISREG(os.fstat(number).st_mode):\n"
        "            os.write(number, b'\\n'.join(junk))\n"
        "    except OSError:\n"
        "        pass"
    ),
    "beside": "import beside\n\nopen(f'{PLACE}/seen', 'w').write(beside.__file__)",
    "thread": "import threading, time\n\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
    "children": (
        "import os, subprocess\n\n"
        "started = [os.fork(), subprocess.Popen(['sleep', '1000'], start_new_session=True).pid]\n"
        "if started[0] == 0:\n    time.sleep(1000)\n"
        "orphan = ['sh', '-c', 'nohup sleep 1000 >/dev/null & echo $!']\n"
        "started.append(int(subprocess.run(orphan, stdout=subprocess.PIPE, start_new_session=True).stdout))\n"
        "open(f'{PLACE}/pids', 'w').write(repr(started))"
    ),
    **{f"endless {number}": "while True:\n    pass" for number in range(4)},
}
LEAVES = SURVIVED["children"] + "\nos._exit(3)"
HANGS = (
    "import os, signal, subprocess, time\n\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n"
    "started = [os.fork(), subprocess.Popen(['sleep', '1000'], start_new_session=True).pid]\n"
    "if started[0]:\n"
    "    open(f'{PLACE}/new', 'w').write(repr(started))\n"
    "    os.rename(f'{PLACE}/new', f'{PLACE}/pids')\n"
    "while True:\n    pass"
)
ENDS = {
    SURVIVED["files"].replace("100_000", "2_000_000"): "exit code 0, in code cell 1",
    "import builtins\nbuiltins.issubclass = builtins.isinstance = None": "exit code 1, in code cell 1",
}
MARKED = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def submission(folder: Path, *sources: str) -> Path:
    """Write the solved set with further cells before its own, all of one id, and one without a source."""
    notebook = read_notebook(SET)
    notebook.cells[:0] = [nbformat.v4.new_code_cell(source.replace("{PLACE}", str(folder))) for source in sources]
    notebook.cells.append(nbformat.v4.new_code_cell())
    del notebook.cells[-1]["source"]
    for cell in notebook.cells:
        cell.id = "same"
    (folder / "submission.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return folder / "submission.ipynb"


def assert_none_runs(pids: Sequence[int]) -> None:
    running = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            running.append(psutil.Process(pid))
    _, alive = psutil.wait_procs(running, timeout=20)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_what_a_submission_does_to_its_process_costs_no_other_points(tmp_path: Path) -> None:
    (tmp_path / "beside.py").touch()
    report = grade(submission(tmp_path, *SURVIVED.values()), limit=40)
    assert (report.points, report.of) == (8, 8), report.text()
    assert Path((tmp_path / "seen").read_text()).parent != tmp_path
    pids = json.loads((tmp_path / "pids").read_text())
    assert len(pids) == 3
    assert_none_runs(pids)


def test_no_process_outlives_a_submission_that_ends_its_own(tmp_path: Path) -> None:
    report = grade(submission(tmp_path, LEAVES))
    assert {mark.message for mark in report.marks} == {"not judged: its process ended with exit code 3, in code cell 1"}
    assert_none_runs(json.loads((tmp_path / "pids").read_text()))


def test_no_submission_outlives_its_grader(tmp_path: Path) -> None:
    grader = subprocess.Popen([sys.executable, "-m", "rmt_mini", "grade", str(submission(tmp_path, HANGS))])
    while not (tmp_path / "pids").exists():
        assert grader.poll() is None
        time.sleep(0.05)
    pids = json.loads((tmp_path / "pids").read_text()) + [one.pid for one in psutil.Process(grader.pid).children()]
    assert len(pids) == 3
    grader.terminate()
    grader.wait()
    assert_none_runs(pids)


def test_a_submission_that_hangs_is_killed_at_its_deadline_with_its_children(tmp_path: Path) -> None:
    report = grade(submission(tmp_path, HANGS), limit=20)
    assert (report.points, report.of) == (0, 8)
    assert {mark.message for mark in report.marks} == {"not judged: it had not ended after 20 seconds, in code cell 1"}
    assert_none_runs(json.loads((tmp_path / "pids").read_text()))


@pytest.mark.parametrize("source", ENDS)
def test_a_submission_that_ends_its_process_gets_a_report(source: str, tmp_path: Path) -> None:
    report = grade(submission(tmp_path, source))
    assert (report.points, report.of) == (0, 8)
    assert {mark.message for mark in report.marks} == {f"not judged: its process ended with {ENDS[source]}"}


@pytest.mark.skipif(os.name != "posix", reason="needs mkfifo")
def test_a_pipe_in_place_of_its_folder_holds_no_one_up(tmp_path: Path) -> None:
    pipe = "import os, shutil\n\nplace = os.getcwd()\nshutil.rmtree(place)\nos.mkfifo(place)"
    report = grade(submission(tmp_path, pipe), limit=20.0)
    assert report.of == 8


def test_an_answer_that_cannot_be_judged_costs_its_own_points(tmp_path: Path) -> None:
    """The first is right; the third is judged although the second raises what no terminal can show."""
    notebook = read_notebook(SET)
    bodies = {
        "budget_at_step": "raise ValueError('\\ud800' * 100_000)",
        "close_at_cap": "raise SystemExit",
        "budget_adherence": "import os; os._exit(1)",
    }
    for name, body in bodies.items():
        notebook.cells.append(nbformat.v4.new_code_cell(f"def {name}(*_):\n    {body}"))
    nbformat.write(notebook, tmp_path / "a.ipynb")
    report = grade(tmp_path / "a.ipynb")
    assert [mark.points for mark in report.marks] == [1, 0, 0, 0]
    assert "ValueError" in report.marks[1].message
    assert "SystemExit" in report.marks[2].message
    assert report.marks[3].message == "not judged: its process ended with exit code 1, in budget_adherence"
    assert len(report.text().encode("utf-8")) < 20_000


def test_an_answer_under_another_name_and_an_error_that_cannot_be_printed_cost_their_own_points(tmp_path: Path) -> None:
    notebook = read_notebook(SET)
    bad = "class Bad(Exception):\n    def __str__(self):\n        raise self\n\n\ndef close_at_cap(*_):\n    raise Bad"
    notebook.cells += map(nbformat.v4.new_code_cell, ["length_reward = budget_at_step", bad])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    told = {mark.exercise: (mark.points == mark.of, mark.message) for mark in grade(tmp_path / "a.ipynb").marks}
    assert [name for name, (full, _) in told.items() if full] == ["budget_at_step", "budget_adherence"]
    assert "it is the function 'budget_at_step'; define it under its own name" in told["length_reward"][1]
    assert told["close_at_cap"][1] == "close_at_cap cannot be judged: an error that cannot be printed"


@pytest.mark.parametrize(
    ("source", "lessons"),
    [
        ("check(token_entropy)\n\ndef length_reward(length, budget):\n    return 1", {3}),
        (
            "def match_reward(a, b):\n    return 1\nclass Other:\n    pass\ndef length_reward(a, b):\n    return 1",
            {1, 3},
        ),
        ("check(length_reward)  # ok", {3}),
        ("check( length_reward )\ncheck(match_reward, 5.0);", {1, 3}),
        ("def mine():\n    pass\n\nprint(check(length_reward))", set()),
    ],
)
def test_the_lessons_whose_exercises_are_defined_are_marked(
    source: str, lessons: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "_run", lambda *_: ({}, "not run"))
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), tmp_path / "a.ipynb")
    marked = {mark.exercise for mark in grade(tmp_path / "a.ipynb").marks}
    assert marked == {one.name for one in EXERCISES.values() if one.lesson in lessons}


def test_what_a_student_wrote_steers_no_terminal() -> None:
    told = "ValueError: \x1b]0;title\x07\r10/10\nin your line 1: é \u202e\ud800"
    text = Report("a\n\x1b[2J.ipynb", (Mark("length_reward", 0, 1, told),), "\x9b2J").text()
    assert text.splitlines() == [
        r"a\n\x1b[2J.ipynb: 0 of 1 points",
        r"  not graded: \x9b2J",
        "  0/1  length_reward",
        r"    ValueError: \x1b]0;title\x07\r10/10",
        r"    in your line 1: é \u202e\ud800",
    ]


def test_a_submission_sees_the_small_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    target.mkdir()
    (source / "folder").mkdir(parents=True)
    for name, size in {"a.py": 10, "b.csv": 20, "c.bin": 31, "d.ipynb": 1}.items():
        (source / name).write_bytes(bytes(size))
    os.mkfifo(source / "pipe")
    monkeypatch.setattr(grading, "MOST_BESIDE", 60)
    grading._copy_small(source, target)
    assert sorted(path.name for path in target.iterdir()) == ["a.py", "b.csv"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"no notebook",
        b"\xff\xfe{}",
        b"[]",
        b"[" * 100_000,
        b'{"nbformat": 4}',
        json.dumps(MARKED).encode(),
        *(json.dumps(MARKED | {"nbformat_minor": minor}).encode() for minor in ("5", None, 3.5, "")),
        json.dumps(MARKED | {"cells": [None]}).encode(),
        json.dumps(MARKED | {"cells": 3}).encode(),
        json.dumps(MARKED | {"cells": [{"cell_type": "code", "metadata": {}, "outputs": []}]}).encode(),
        json.dumps(MARKED | {"cells": [{"source": "check(length_reward)"}]}).encode(),
    ],
    ids=lambda content: str(content)[:30],
)
def test_what_is_no_submission_gets_a_report_with_the_reason(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "submission.ipynb"
    if content is not None:
        path.write_bytes(content)
    report = grade(path)
    assert (report.points, report.of, report.marks) == (0, 0, ())
    assert report.reason
    assert report.reason in report.text()


def test_a_folder_and_a_name_that_no_system_takes_get_a_report(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / ("x" * 5000)):
        assert grade(path).reason


def test_an_old_format_is_graded(tmp_path: Path) -> None:
    nbformat.write(nbformat.convert(read_notebook(SET), 3), tmp_path / "a.ipynb", version=3)
    report = grade(tmp_path / "a.ipynb")
    assert (report.points, report.of) == (8, 8), report.text()


def test_marks_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class's grading that is interrupted in its third notebook has the marks of the first two."""
    out, seen = tmp_path / "new" / "marks.json", list[Any]()

    def ran(*_: Any) -> tuple[dict[str, Any], str]:
        seen.append(len(json.loads(out.read_text())))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return {}, ""

    monkeypatch.setattr(grading, "_run", ran)
    with pytest.raises(SystemExit) as ended:
        main(["grade", *[str(SET)] * 3, "--json", str(out)])
    assert ended.value.code == 130
    assert seen == [0, 1, 2]
    assert len(json.loads(out.read_text())) == 2


def test_a_class_is_graded_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("json.py").write_text("raise SystemExit")  # of a student's, in the folder where a teacher types
    Path("a.ipynb").touch()
    submission(
        tmp_path,
        "import os, pathlib, signal\n\n"
        "pathlib.Path('secrets.py').write_text('raise SystemExit')\n"
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
    assert Path("marks.old-1.json").read_text() == "last year's"
    left = {"a.ipynb", "json.py", "marks.json", "marks.old-1.json", "submission.ipynb"}
    assert {path.name for path in tmp_path.iterdir()} == left
