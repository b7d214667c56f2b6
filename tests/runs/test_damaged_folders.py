"""Run folders in which files were cut off, lost lines, or had bytes flipped.

What reads them gives the right result or one clear line: never another exception, and no number that is not the run's.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_run import settings as run_settings

from rmt_mini import run as run_function
from rmt_mini.cli import main
from rmt_mini.engine.model import load_policy
from rmt_mini.errors import Stopped
from rmt_mini.records import Position
from rmt_mini.report import plots, report
from rmt_mini.report.report import write_report
from rmt_mini.report.seeds import across_seeds
from rmt_mini.runs.run import evaluate_checkpoint, resume, run
from rmt_mini.stages import reading
from tests.outcomes import either

LINES = ("metrics.jsonl", "rollouts.jsonl", "answers.jsonl")
WHOLE = ("run.json", "evaluation.json", "samples.json", "preflight.json", "positions.json")
GARBAGE = st.sampled_from(
    [
        b"",
        b"\n\n",
        b"\0" * 50,
        b"5\n",
        b"null",
        b"[]",
        b"{}\n",
        b"NaN\n",
        b'"text"',
        b"\xff\xfe",
        b"[" * 3000,
        b'{"step": 0}\n',
    ]
)
room = __import__("sys").modules[run_function.__module__]  # rmt_mini.runs.run, behind the function of that name


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    return run(run_settings(folder, steps=3), progress=False).folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures, which takes a second."""
    monkeypatch.setattr(report, "_figures", lambda *_: ())


class Damaged:
    """A file that is damaged, and made whole again behind the block."""

    def __init__(self, path: Path, content: bytes | None) -> None:
        self.path, self.content, self.before = path, content, path.read_bytes()

    def __enter__(self) -> None:
        self.path.unlink() if self.content is None else self.path.write_bytes(self.content)

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self.before)


def cut(data: st.DataObject, before: bytes) -> bytes:
    return before[: data.draw(st.integers(0, len(before)))]


def flipped(data: st.DataObject, before: bytes) -> bytes:
    changed = bytearray(before)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(before) - 1))] = data.draw(
            st.integers(0, 255) | st.sampled_from(b'0919"{}[],\n')
        )
    return bytes(changed)


def without_lines(data: st.DataObject, before: bytes) -> bytes:
    lines = before.splitlines(keepends=True)
    kept = data.draw(st.lists(st.booleans(), min_size=len(lines), max_size=len(lines)))
    return b"".join(line for line, keep in zip(lines, kept, strict=True) if keep)


def with_garbage(data: st.DataObject, before: bytes) -> bytes:
    place = data.draw(st.integers(0, len(before)))
    return before[:place] + data.draw(GARBAGE) + before[place:]


def replaced(data: st.DataObject, before: bytes) -> bytes:
    return data.draw(GARBAGE | st.binary(max_size=9))


DAMAGES = (cut, flipped, without_lines, with_garbage, replaced)
damages = st.sampled_from(DAMAGES)


def damaged(data: st.DataObject, folder: Path, names: tuple[str, ...]) -> tuple[Path, bytes]:
    path = folder / data.draw(st.sampled_from(names))
    return path, data.draw(damages)(data, path.read_bytes())


def filled(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if line.strip()]


# --- the report --------------------------------------------------------------------------------------------------


def told_over(page: str) -> dict[str, int]:
    """How many lines of which file a report says that it passed over."""
    found = re.search(r"\*\*Not readable, and passed over: (.*)\.\*\*", page)
    return {name: int(count) for count, name in re.findall(r"(\d+) lines? of (\w+\.jsonl)", found[1])} if found else {}


@given(data=st.data())
@settings(max_examples=150)
def test_a_report_over_damaged_files(data: st.DataObject, done: Path, quick: None) -> None:
    path, content = damaged(data, done, (*LINES, *WHOLE))
    own, before = path_lines(done, path.name), (done / "report.md").read_text(encoding="utf-8")
    with Damaged(path, content):
        table, message = either(lambda: write_report(done))
        page = (done / "report.md").read_text(encoding="utf-8")
        if message is not None:
            assert path.name in message
            assert page == before  # nothing half new
            return
        assert table
        lines, over = filled(content), told_over(page)
        assert set(over) <= {path.name}
        if path.name == "metrics.jsonl":
            read = 3 if "steps recorded" not in page else int(re.search(r"with (\d+) of 3 steps", page)[1])
            assert read + over.get(path.name, 0) == len(lines)
            assert read >= len({*lines} & {*own})


def path_lines(folder: Path, name: str) -> list[bytes]:
    return filled((folder / name).read_bytes())


@given(data=st.data(), name=st.sampled_from(["metrics.jsonl", "rollouts.jsonl"]))
def test_a_report_counts_what_it_could_not_read(data: st.DataObject, name: str, done: Path, quick: None) -> None:
    """Cut off anywhere, every whole line is read, and half a line is told."""
    before = (done / name).read_bytes()
    content = cut(data, before)
    *whole, half = content.split(b"\n")
    with Damaged(done / name, content):
        write_report(done)
    page = (done / "report.md").read_text(encoding="utf-8")
    complete = bool(half) and half in before.split(b"\n")
    assert told_over(page) == ({} if not half or complete else {name: 1})
    if name == "metrics.jsonl":
        count = len(whole) + complete
        assert (f"**The run is done, with {count} of 3 steps recorded.**" in page) == (count < 3)


def test_a_report_in_words(done: Path, quick: None) -> None:
    first, *others = (done / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    with Damaged(done / "metrics.jsonl", b"".join([first, b"{}\n", b"\xff\n", *others])):
        rollouts = (done / "rollouts.jsonl").read_bytes()
        with Damaged(done / "rollouts.jsonl", rollouts + b'{"step": 2, "thou'):
            write_report(done)
    page = (done / "report.md").read_text(encoding="utf-8")
    assert (
        "**Not readable, and passed over: 2 lines of metrics.jsonl and 1 line of rollouts.jsonl.** What follows is "
        "computed from the others."
    ) in page
    write_report(done)
    assert "passed over" not in (done / "report.md").read_text(encoding="utf-8")


@given(data=st.data())
@settings(max_examples=15)
def test_figures_over_damaged_metrics(data: st.DataObject, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "save", lambda *_: None)
    path, content = damaged(data, done, ("metrics.jsonl", "evaluation.json"))
    with Damaged(path, content):
        either(lambda: write_report(done))


def test_numbers_that_no_run_can_have_are_refused(done: Path, quick: None) -> None:
    found = json.loads((done / "evaluation.json").read_text())
    for change in (1.5, -0.1, float("nan"), 1e308, "0.5", None, [], True):
        found["after"]["think"]["hard"]["accuracy"] = change
        with Damaged(done / "evaluation.json", json.dumps(found).encode()):
            _, message = either(lambda: write_report(done))
        assert message is not None
        assert "evaluation.json' is damaged (after.think.hard" in message


# --- several seeds -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_seeds(done: Path) -> dict[str, Any]:
    return across_seeds([done])


@given(data=st.data())
@settings(max_examples=100)
def test_seeds_over_damaged_files(data: st.DataObject, done: Path, of_seeds: dict[str, Any]) -> None:
    path, content = damaged(data, done, ("answers.jsonl", "evaluation.json", "run.json"))
    unharmed = filled(content) == path_lines(done, path.name)
    with Damaged(path, content):
        _, message = either(lambda: across_seeds([done]))
    if message is not None:
        assert not unharmed
        assert str(done) in message
    elif path.name == "answers.jsonl":
        assert len(filled(content)) == len(path_lines(done, path.name))  # no answer is missing or made up


@given(data=st.data(), how=st.sampled_from([cut, without_lines]))
def test_answers_that_are_missing_are_never_passed_over(
    data: st.DataObject, how: Callable[[st.DataObject, bytes], bytes], done: Path, of_seeds: dict[str, Any]
) -> None:
    path = done / "answers.jsonl"
    content = how(data, path.read_bytes())
    unharmed = filled(content) == path_lines(done, path.name)
    with Damaged(path, content):
        found, message = either(lambda: across_seeds([done]))
    assert (message is None) == unharmed
    assert found == (of_seeds if unharmed else None)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda lines: [*lines[1:], lines[0]], "one answer to every position"),  # all there, but "before" is shifted
        (lambda lines: [lines[1], lines[0], *lines[2:]], "one answer to every position"),
        (lambda lines: lines[:-1], "one answer to every position"),
        (lambda lines: lines * 2, "one answer to every position"),
        (lambda lines: [line for line in lines if b'"after"' not in line], "one answer to every position"),
        (lambda lines: [], "one answer to every position"),
        (lambda lines: [lines[0][:-9] + b"\n", *lines[1:]], "1 of its lines cannot be read"),
        (lambda lines: [lines[0].replace(b'"before"', b'"befour"'), *lines[1:]], "1 of its lines cannot be read"),
        (
            lambda lines: [re.sub(rb'"length": \d+', b'"length": -1', lines[0]), *lines[1:]],
            "1 of its lines cannot be read",
        ),
    ],
)
def test_answers_out_of_step_are_refused(harm: Callable[[list[bytes]], list[bytes]], words: str, done: Path) -> None:
    """They are compared position by position, so each must stand where its partner stands."""
    with Damaged(done / "answers.jsonl", b"".join(harm((done / "answers.jsonl").read_bytes().splitlines(True)))):
        _, message = either(lambda: across_seeds([done]))
    assert message is not None
    assert words in message


# --- a checkpoint, measured again ------------------------------------------------------------------------------


@pytest.fixture
def measuring(done: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Position]]]:
    """Note the positions that would be asked for, and load the checkpoint once."""
    seen: list[list[Position]] = []
    policy = load_policy(str(done / "checkpoint"), "cpu", "float32")
    monkeypatch.setattr(room, "load_policy", lambda *_: policy)
    monkeypatch.setattr(room, "evaluate", lambda _, __, ___, positions, ____: seen.append(positions) or {})
    return seen


@given(data=st.data())
def test_a_checkpoint_in_a_damaged_folder(data: st.DataObject, done: Path, measuring: list[list[Position]]) -> None:
    path, content = damaged(data, done, ("run.json", "positions.json"))
    wanted = [Position(**one) for one in json.loads((done / "positions.json").read_text())["positions"]]
    with Damaged(path, content):
        found, message = either(lambda: evaluate_checkpoint(done))
    assert (found is None) == (message is not None)
    if message is not None:
        assert str(done) in message or "corpus" in message or "model" in message
    else:
        asked = [(one.trunk, one.index) for one in measuring[-1]]
        assert asked == sorted(set(asked))
        assert path.name == "positions.json" or measuring[-1] == wanted


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("evaluate {}", "run.json"),
        ("evaluate {}", "positions.json"),
        ("resume {}", "run.json"),
        ("resume {}", "evaluation.json"),
        ("seeds {} --out {}-all", "run.json"),
        ("seeds {} --out {}-all", "evaluation.json"),
        ("seeds {} --out {}-all", "answers.jsonl"),
    ],
)
def test_the_command_line_says_it_in_one_line(
    command: str, name: str, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Damaged(done / name, b'{"half": '), pytest.raises(SystemExit) as ended:
        main(command.replace("{}", str(done)).split())
    assert ended.value.code == 2
    caught = capsys.readouterr()
    (line,) = [line for line in caught.err.splitlines() if line.startswith("error: ")]
    assert name in line
    assert "Traceback" not in caught.err
    assert not Path(f"{done}-all").exists()


# --- resume ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped behind its second step of four, its state saved."""
    folder = tmp_path_factory.mktemp("broken")

    def die(result: Any) -> None:
        if result.metrics.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(Stopped):
        run(run_settings(folder, steps=4, state_seconds=0.0), on_step=die, progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def unbroken(broken: Path) -> dict[str, Any]:
    return results_of(broken)


def results_of(broken: Path) -> dict[str, Any]:
    """What comes of going on, in a copy beside the original: the paths in its settings stay true."""
    path = broken.with_name("copy")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(broken, path)
    result = resume(path, progress=False)
    steps = [(one.step, one.reward, one.rl_loss, one.ntp_loss) for one in result.metrics]
    return {"evaluation": result.evaluation, "steps": steps, "answers": (path / "answers.jsonl").read_bytes()}


def lose_a_line(content: bytes, number: int) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([*lines[:number], *lines[number + 1 :]])


@pytest.mark.parametrize(
    ("name", "harm", "words"),
    [
        ("run.json", lambda c: c[:-30], "run.json' is damaged"),
        ("run.json", lambda c: c.replace(b'"status"', b'"statue"'), "it lacks 'status'"),
        ("run.json", lambda c: c.replace(b'"steps": 4', b'"steps": "4"'), "steps is '4'; give a whole number"),
        ("run.json", lambda c: c.replace(b'"steps": 4', b'"steps": 40'), "setting steps was 4 .* and is 40 now"),
        ("run.json", lambda c: c.replace(b'"model_digest"', b'"model digest"'), "lacks 'model_digest'"),
        ("metrics.jsonl", lambda c: lose_a_line(c, 0), "metrics.jsonl' is damaged: it lacks some of the 2 steps"),
        ("metrics.jsonl", lambda c: c[:-9], "metrics.jsonl' is damaged"),
        ("metrics.jsonl", lambda c: c + b'{"step": 2, "half', ""),  # of a step that is done again
        ("rollouts.jsonl", lambda c: b"\xff\n5\n" + c[7:], ""),  # a log of samples, from which nothing follows
        ("rollouts.jsonl", lambda _: b"", ""),
        ("answers.jsonl", lambda c: lose_a_line(c, 3), ""),  # asked of the untrained model, which is at hand
        ("answers.jsonl", lambda c: lose_a_line(c, -2), "lacks answers from before the first step"),
        ("positions.json", lambda c: c.replace(b'"trunk": 0', b'"trunk": 9', 1), "positions.json' is damaged"),
        ("positions.json", lambda c: c[:-5], "positions.json' is damaged"),
        ("samples.json", lambda _: b"[]", "samples.json' is damaged"),
        ("preflight.json", lambda _: b"{", "preflight.json' is damaged"),
    ],
)  # fmt: skip
def test_a_run_goes_on_from_a_damaged_folder_as_it_would_have(
    name: str, harm: Callable[[bytes], bytes], words: str, broken: Path, unbroken: dict[str, Any]
) -> None:
    before = (broken / name).read_bytes()
    content = harm(before)
    assert content != before
    with Damaged(broken / name, content):
        found, message = either(lambda: results_of(broken))
    if words:
        assert message is not None
        assert re.search(words, message)
        shutil.rmtree(broken.with_name("copy"))
    else:
        assert message is None
        assert found == unbroken


def test_what_the_line_advises_helps(broken: Path, unbroken: dict[str, Any]) -> None:
    """A line of metrics is lost: without the states the run trains again, to the same end."""
    path = broken.with_name("copy")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(broken, path)
    (path / "metrics.jsonl").write_bytes(b"")
    _, message = either(lambda: resume(path, progress=False))
    assert message is not None
    assert f"delete {str(path / 'state')!r} to train again" in message
    shutil.rmtree(path / "state")
    result = resume(path, progress=False)
    assert result.evaluation == unbroken["evaluation"]


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=60)
def test_a_run_goes_on_from_any_damage(data: st.DataObject, broken: Path, unbroken: dict[str, Any]) -> None:
    path, content = damaged(
        data, broken, ("metrics.jsonl", "rollouts.jsonl", "answers.jsonl", "run.json", "positions.json")
    )
    own_lines_only = {*filled(content)} <= {*path_lines(broken, path.name)}
    with Damaged(path, content):
        found, message = either(lambda: results_of(broken))
    if message is None and own_lines_only:  # so no number can differ
        assert found is not None
        assert found["evaluation"] == unbroken["evaluation"]
        assert found["steps"] == unbroken["steps"]


# --- the reader itself -----------------------------------------------------------------------------------------


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(value=ANY, name=st.sampled_from(["EVALUATION", "NOTES", "POSITIONS", "SAMPLES", "ROLLOUT", "METRICS", "ANSWER"]))
def test_no_other_json_has_the_shape_of_a_run(value: Any, name: str) -> None:
    assert reading.misfit(value, getattr(reading, name)) or (
        name in ("EVALUATION", "SAMPLES") and isinstance(value, dict)
    )


def test_recorded_runs_have_the_shape() -> None:
    """Also those of older versions, which the project ships."""
    data = Path(__file__).parents[1] / "data"
    folders = [data / "laptop", *(data / "micro" / f"seed{seed}" for seed in range(3))]
    for folder in folders:
        assert reading.read_notes(folder)["status"] == "done"
        assert reading.read_evaluation(folder)["after"]
        lines = reading.read_lines(folder / "metrics.jsonl", reading.METRICS)
        assert lines.passed_over == 0
        assert len(lines.good) == reading.read_notes(folder)["config"]["steps"]
