"""One bad submission costs its own points: the others are graded, in time, and their marks are written."""

import json
import math
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
import torch

from rmt_mini.cli import main
from rmt_mini.teaching import grading
from rmt_mini.teaching.checks import EXERCISES, judge
from rmt_mini.teaching.checks.calls import difference, restored, written
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
    "programs": (
        "import multiprocessing, os, subprocess\n\nrefused, spawn = 0, multiprocessing.get_context('spawn')\n"
        "ways = [os.fork, os.forkpty, lambda: os.system('true'), lambda: subprocess.run(['true'])]\n"
        "ways += [lambda: os.posix_spawn('/bin/true', ['true'], {}), lambda: spawn.Process(target=print).start()]\n"
        "for start in ways:\n    try:\n        start()\n"
        "    except (PermissionError, AttributeError):\n        refused += 1\n"
        "open(f'{PLACE}/refused', 'w').write(f'{refused} of {len(ways)}')"
    ),
    **{f"endless {number}": "while True:\n    pass" for number in range(2)},
}
SLEEPS = "import time\n\nwhile True:\n    time.sleep(1000)"
DEAF = (
    "import os, signal\n\nfor number in (signal.SIGINT, signal.SIGALRM):\n    signal.signal(number, signal.SIG_IGN)\n"
    "open(f'{PLACE}/new', 'w').write(str(os.getpid()))\nos.rename(f'{PLACE}/new', f'{PLACE}/pid')\n" + SLEEPS
)
CHEATS = {
    "import": "from rmt_mini.method.budget import budget_at_step, length_reward",
    "reload": (
        "import sys\n\nfor name in [name for name in sys.modules if name.startswith('rmt_mini')]:\n"
        "    del sys.modules[name]\n"
        "from rmt_mini import length_reward"
    ),
    "exercise": (
        "from rmt_mini.teaching.checks.exercise import EXERCISES\n\nlength_reward = EXERCISES['length_reward'].build()"
    ),
    "judge": (
        "import sys, __main__\n\nfor module in [__main__, *sys.modules.values()]:\n"
        "    for name in ('judge', 'verdict_on', 'difference'):\n"
        "        if hasattr(module, name):\n            setattr(module, name, lambda *_, **__: '')"
    ),
    "frames": (
        "import gc, sys, types\n\nframes = [sys._getframe()]\n"
        "while frames[-1].f_back:\n    frames.append(frames[-1].f_back)\n"
        "named = [value for one in frames for value in (*one.f_globals.values(), *one.f_locals.values())]\n"
        "for value in [*named, *gc.get_objects()]:\n"
        "    if isinstance(value, types.FunctionType) and value.__name__ in ('length_reward', 'budget_at_step'):\n"
        "        globals()[value.__name__] = value\n"
        "    if isinstance(value, dict) and hasattr(value.get('length_reward'), 'build'):\n"
        "        length_reward = value['length_reward'].build()"
    ),
    "notebook": (
        "import pathlib, re\n\ntext = pathlib.Path('{ROOT}/notebooks/solutions/03_budget.ipynb').read_text()\n"
        "def length_reward(length, budget):\n    return eval(re.search(r'return (max.*budget.)', text)[1])"
    ),
    "source": "exec(open('{ROOT}/rmt_mini/method/budget.py').read())",
    "link": "import os\n\nos.link('{ROOT}/rmt_mini/method/budget.py', 'mine.py')\nfrom mine import length_reward",
    "planted": "import os\n\nos.mkdir('{ROOT}/rmt_mini/teaching/planted')",
    "moved": "import os\n\nopen('mine', 'w').close()\nos.rename('mine', '{ROOT}/rmt_mini/teaching/planted')",
    "program": (
        "import subprocess, sys\n\n"
        "code = 'from rmt_mini import length_reward as f\\nprint([[f(n, b) for n in range(99)] for b in (1, 9)])'\n"
        "table = eval(subprocess.run([sys.executable, '-c', code], capture_output=True).stdout)\n\n"
        "def length_reward(length, budget):\n    return table[budget - 1][length]"
    ),
    "C": "import ctypes\n\nsystem = ctypes.CDLL(None).system\n\ndef length_reward(*_):\n    return 1.0",
    "printed": (
        "check = lambda function: True\n"
        """print('{"exercise": "length_reward", "passed": true, "message": "right"}')"""
    ),
    "forged": (
        "import json, os\n\nsaid = {'exercise': 'length_reward', 'passed': True, 'message': 'right'}\n"
        "for place in range(3, 30):\n    try:\n        os.write(place, f'\\n{json.dumps(said)}\\n'.encode())\n"
        "    except OSError:\n        pass"
    ),
}
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


def ends(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=30)
        return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    return True


def test_what_a_submission_does_to_its_process_costs_no_points(tmp_path: Path) -> None:
    (tmp_path / "beside.py").touch()
    report = grade(submission(tmp_path, *SURVIVED.values()), limit=75)
    assert (report.points, report.of) == (8, 8), report.text()
    assert Path((tmp_path / "seen").read_text()).parent != tmp_path
    assert (tmp_path / "refused").read_text() == "6 of 6"


def test_a_cell_that_ends_its_process_is_left_out_and_one_that_never_does_costs_all(tmp_path: Path) -> None:
    own = "def budget_adherence(*_):\n    return 0\n\n\nimport os; os._exit(3)"
    path = submission(tmp_path, "import os; os._exit(4)", after=(own,))
    notebook = read_notebook(path)
    place = next(n for n, cell in enumerate(notebook.cells) if "def length_reward" in cell.source)
    notebook.cells[place].source += "\nimport os; os._exit(5)"
    nbformat.write(notebook, path)
    report = grade(path)
    assert [mark.points for mark in report.marks] == [0, 2, 3, 2], report.text()
    missing = (
        "length_reward is missing; it was deleted, or its cell does not run\ncode cell 1 was left out: its process"
    )
    assert report.marks[0].message.startswith(missing)
    assert "was left out: its process ended with exit code 5" in report.marks[0].message
    report = grade(submission(tmp_path, DEAF), limit=15)
    assert {mark.message for mark in report.marks} == {"not judged: it had not ended after 15 seconds, in code cell 1"}
    assert ends(int((tmp_path / "pid").read_text()))


def test_an_endless_answer_and_one_that_takes_all_memory_cost_their_own_points_alone(tmp_path: Path) -> None:
    held = "held = []\n\n\ndef budget_adherence(*_):\n    while True:\n        held.append(bytearray(1 << 26))"
    sleeps = "def length_reward(*_):\n    import time\n    while True:\n        time.sleep(1000)"
    loops = "def budget_at_step(*_):\n    while True:\n        pass"
    report = grade(submission(tmp_path, after=(held, sleeps, loops)))
    assert [mark.points for mark in report.marks] == [0, 0, 3, 0], report.text()
    assert report.marks[0].message == "not judged: it did not end, and could not be interrupted, in length_reward"
    assert (
        "had not ended when the 10 seconds for all cases were up.\nLikely slip: a loop that" in report.marks[1].message
    )
    assert "raises MemoryError\nin your line 6: held.append" in report.marks[3].message
    assert "Likely slip: a list or a tensor that grows without end." in report.marks[3].message


def test_no_submission_outlives_its_grader(tmp_path: Path) -> None:
    grader = subprocess.Popen([sys.executable, "-m", "rmt_mini", "grade", str(submission(tmp_path, DEAF))])
    while not (tmp_path / "pid").exists():
        assert grader.poll() is None
        time.sleep(0.05)
    grader.terminate()
    grader.wait()
    assert ends(int((tmp_path / "pid").read_text()))


def test_no_answer_is_found_and_no_verdict_is_changed_from_within(tmp_path: Path) -> None:
    cheats = tuple(source.replace("{ROOT}", str(SOLVED.parents[1])) for source in CHEATS.values())
    report = grade(submission(tmp_path, after=cheats, of=STUDENTS / SET.name))
    assert report.points == 0, report.text()
    assert not (SOLVED.parents[1] / "rmt_mini/teaching/planted").exists()
    assert {mark.message.partition(": ")[0] for mark in report.marks} <= {
        *(f"{mark.exercise} is not written yet" for mark in report.marks)
    }


def test_private_cases_find_what_was_learned_by_heart_and_a_seed_repeats_them(tmp_path: Path) -> None:
    exercise = EXERCISES["close_at_cap"]
    known = {repr(case.args): case.gives for case in exercise.all_cases()}

    def close_at_cap(*args: object) -> object:
        return known.get(repr(args))

    assert judge(close_at_cap).passed
    assert not judge(close_at_cap, seed="another").passed
    table = f"known = {known!r}\n\n\ndef close_at_cap(*args):\n    return known.get(repr(args))"
    path = submission(tmp_path, after=(table,))
    (one,), (other,) = grade_all([path], seed="7"), grade_all([path])
    assert [mark.points for mark in one.marks] == [1, 2, 0, 2]
    assert one.marks[2].message == judge(close_at_cap, seed="7").message  # of the same cases
    assert (one.seed, len(other.seed), other.marks[2].points) == ("7", 8, 0)


@pytest.mark.parametrize(
    "value", [[1, (2.5, None), True, "é\ud800"], {"a": [math.nan, math.inf]}, torch.ones(2, 0, 3).bool(), range(3)]
)
def test_what_an_answer_is_survives_the_way_to_the_grader(value: Any) -> None:
    read = json.loads(json.dumps(written(value)), object_hook=restored)
    assert difference(read, value) == difference(value, read) == ""
    assert type(read) is type(value) or isinstance(value, range)
    assert repr(json.loads(json.dumps(written(print)), object_hook=restored)) == repr(print)


def test_each_answer_costs_its_own_points_alone(tmp_path: Path) -> None:
    """The first is right; the others raise what no terminal can show, what cannot be printed, or end the process."""
    bad = "class Bad(Exception):\n    def __str__(self):\n        raise self\n\n\ndef close_at_cap(*_):\n    raise Bad"
    surrogate = "def budget_at_step(*_):\n    raise ValueError('\\ud800' * 100_000)"
    report = grade(
        submission(tmp_path, after=(surrogate, bad, "def budget_adherence(*_):\n    import os; os._exit(1)"))
    )
    assert [mark.points for mark in report.marks] == [1, 0, 0, 0]
    assert "ValueError" in report.marks[1].message
    assert "raises Bad, which cannot be printed\nin your line 7: raise Bad" in report.marks[2].message
    assert report.marks[3].message == "not judged: its process ended with exit code 1, in budget_adherence"
    assert len(report.text().encode("utf-8")) < 20_000


def test_a_wrong_a_broken_and_a_borrowed_answer(tmp_path: Path) -> None:
    notebook = read_notebook(SET)
    for name, source in (
        ("length_reward", "def length_reward(length, budget):\n    return 1 - abs(length - budget) / budget\n"),
        ("budget_at_step", "def budget_at_step(*_)\n    return 1\n"),
        ("close_at_cap", "close_at_cap = math.floor"),
    ):
        next(one for one in notebook.cells if f"def {name}" in one.source).source = source
    nbformat.write(notebook, tmp_path / "a.ipynb")
    report = grade(tmp_path / "a.ipynb")
    assert [mark.points for mark in report.marks] == [0, 0, 0, 2], report.text()
    wrong, broken, borrowed = (mark.message for mark in report.marks[:3])
    assert "falling below 0" in wrong
    assert "budget_at_step is missing" in broken
    assert "it is the function 'floor'; define it under its own name" in borrowed


@pytest.mark.parametrize(
    ("source", "lessons"),
    [
        ("check(token_entropy)\n\ndef length_reward(length, budget):\n    return 1", {3}),
        ("def token_entropy(a):\n    return 1\ncheck(token_entropy)\ndef length_reward(a, b):\n    return 1", {2}),
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
        main(["grade", "a.ipynb", "submission.ipynb", "c.ipynb", "--json", "marks.json", "--seed", "of a class"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out.count("8 of 8 points") == 2
    assert "error: 1 of 3 notebooks could not be graded, 'a.ipynb' first" in said.err
    marks = json.loads(Path("marks.json").read_text())
    assert [(one["points"], one["of"]) for one in marks] == [(0, 0), (8, 8), (8, 8)]
    assert marks[1]["seed"] == marks[2]["seed"] == "of a class"
    assert Path("seen").read_text() == "1"
    assert Path("marks.old-1.json").read_text() == "last year's"
