"""One bad submission costs its own points: the others are graded, in time, and their marks are written."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from rmt_mini.cli import main
from rmt_mini.teaching import grading
from rmt_mini.teaching.grading import Report, grade
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
    "endless": "while True:\n    pass",
    "thread": "import threading, time\n\nthreading.Thread(target=time.sleep, args=(1000,)).start()",
    "children": (
        "import os, subprocess\n\n"
        "started = [os.fork(), subprocess.Popen(['sleep', '1000'], start_new_session=True).pid]\n"
        "if started[0] == 0:\n    time.sleep(1000)\n"
        "open('pids', 'w').write(repr(started))"
    ),
}
HANGS = (
    "import os, signal, subprocess, time\n\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
    "started = [os.fork(), subprocess.Popen(['sleep', '1000'], start_new_session=True).pid]\n"
    "if started[0]:\n    open('pids', 'w').write(repr(started))\n"
    "while True:\n    pass"
)
ENDS = {
    "import os\nos._exit(7)": "exit code 7, in code cell 1",
    "import builtins\nbuiltins.issubclass = builtins.isinstance = None": "exit code 1, in code cell 1",
}
MARKED = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def submission(folder: Path, *sources: str) -> Path:
    """Write the solved set with further cells before its own, all of one id, and one without a source."""
    notebook = read_notebook(SET)
    notebook.cells[:0] = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook.cells.append(nbformat.v4.new_code_cell())
    del notebook.cells[-1]["source"]
    for cell in notebook.cells:
        cell.id = "same"
    (folder / "submission.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    return folder / "submission.ipynb"


def assert_none_runs(pids: Sequence[int]) -> None:
    time.sleep(0.2)
    alive = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    assert alive == []


def test_what_a_submission_does_to_its_process_costs_no_other_points(tmp_path: Path) -> None:
    report = grade(submission(tmp_path, *SURVIVED.values()), limit=32)
    assert (report.points, report.of) == (8, 8), report.text()
    pids = json.loads((tmp_path / "pids").read_text())
    assert len(pids) == 2
    assert_none_runs(pids)


def test_a_submission_that_hangs_is_killed_at_its_deadline_with_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    report = grade(submission(tmp_path, HANGS), limit=12)
    assert time.monotonic() - began < 20
    assert (report.points, report.of) == (0, 8)
    assert {mark.told for mark in report.marks} == {"not judged: it had not ended after 12 seconds, in code cell 1"}
    assert_none_runs(json.loads((tmp_path / "pids").read_text()))


@pytest.mark.parametrize("source", ENDS)
def test_a_submission_that_ends_its_process_gets_a_report(source: str, tmp_path: Path) -> None:
    report = grade(submission(tmp_path, source))
    assert (report.points, report.of) == (0, 8)
    assert {mark.told for mark in report.marks} == {f"not judged: its process ended with {ENDS[source]}"}


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
    assert "ValueError" in report.marks[1].told
    assert "SystemExit" in report.marks[2].told
    assert report.marks[3].told == "not judged: its process ended with exit code 1, in budget_adherence"
    assert len(report.text().encode("utf-8")) < 20_000


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

    def graded(path: Path) -> Report:
        seen.append(len(json.loads(out.read_text())))
        if path.name == "c":
            raise KeyboardInterrupt
        return Report(str(path), (), "")

    monkeypatch.setattr(grading, "grade", graded)
    with pytest.raises(SystemExit) as ended:
        main(["grade", "a", "b", "c", "--json", str(out)])
    assert ended.value.code == 130
    assert seen == [0, 1, 2]
    assert [report["notebook"] for report in json.loads(out.read_text())] == ["a", "b"]


def test_a_class_is_graded_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("json.py").write_text("raise SystemExit")  # of a student's, in the folder where a teacher types
    Path("a.ipynb").touch()
    submission(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    Path("marks.json").write_text("last year's")
    with pytest.raises(SystemExit) as ended:
        main(["grade", "a.ipynb", "submission.ipynb", str(SET), "--json", "marks.json"])
    assert ended.value.code == 2
    assert "error: 1 of 3 notebooks could not be graded, 'a.ipynb' first" in capsys.readouterr().err
    marks = json.loads(Path("marks.json").read_text())
    assert [(one["points"], one["of"]) for one in marks] == [(0, 0), (0, 8), (8, 8)]
    assert marks[1]["marks"][0]["told"] == "not judged: its process ended with exit code -11, in code cell 1"
    assert Path("marks.old-1.json").read_text() == "last year's"
