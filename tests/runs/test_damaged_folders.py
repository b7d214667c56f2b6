"""Files of a run that were cut off, lost lines, or hold something else: the right result, or one clear line."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmt_mini.files import Evaluation, Notes, read_lines
from rmt_mini.records import StepMetrics
from rmt_mini.report.report import write_report
from rmt_mini.runs.run import resume
from tests.outcomes import either
from tests.runs.test_run import interrupted
from tests.runs.test_run import settings as run_settings

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its second step of four, its state saved."""
    folder = tmp_path_factory.mktemp("broken")
    return interrupted(run_settings(folder, steps=4, state_seconds=0.0), step=1)


@pytest.fixture(scope="module")
def unbroken(broken: Path) -> dict[str, Any]:
    return results_of(broken)


@contextmanager
def damaged(path: Path, content: bytes) -> Iterator[None]:
    """Damage a file for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    yield
    path.write_bytes(before)


def copy_of(broken: Path) -> Path:
    """Copy the folder beside the original: the paths in its settings stay true."""
    path = broken.with_name("copy")
    shutil.rmtree(path, ignore_errors=True)
    return Path(shutil.copytree(broken, path))


def results_of(broken: Path) -> dict[str, Any]:
    """What comes of resuming, in a copy."""
    path = copy_of(broken)
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
        ("run.json", lambda c: c.replace(b'"start"', b'"stark"'), "run.json' is damaged (start: Field required)"),
        ("run.json", lambda c: c.replace(b'"steps": 4', b'"steps": "x"'), "run.json' is damaged (steps is 'x'; "),
        ("metrics.jsonl", lambda c: lose_a_line(c, 0), "metrics.jsonl' is damaged (some of the 2 steps"),
        ("metrics.jsonl", lambda c: c[:-9], "metrics.jsonl' is damaged"),
        ("metrics.jsonl", lambda c: c + b'{"step": 2, "half', ""),  # of a step that is done again
        ("rollouts.jsonl", lambda c: b"\xff\n5\n" + c[7:], ""),  # a log of samples, from which nothing follows
        ("answers.jsonl", lambda c: lose_a_line(c, 3), ""),  # asked of the untrained model, which is at hand
        ("answers.jsonl", lambda c: lose_a_line(c, -2), "answers from before the first step are missing"),
        ("positions.json", lambda c: c.replace(b'"trunk": 0', b'"trunk": 9', 1), "positions.json' is damaged"),
        ("samples.json", lambda _: b"[]", "samples.json' is damaged"),
        ("preflight.json", lambda _: b"{", "preflight.json' is damaged"),
    ],
)  # fmt: skip
def test_a_run_resumes_from_a_damaged_folder_as_it_would_have(
    name: str, harm: Callable[[bytes], bytes], words: str, broken: Path, unbroken: dict[str, Any]
) -> None:
    with damaged(broken / name, harm((broken / name).read_bytes())):
        found, message = either(lambda: results_of(broken))
    if words:
        assert words in (message or "")
    else:
        assert (message, found) == (None, unbroken)


def test_the_advice_of_the_message_helps(broken: Path, unbroken: dict[str, Any]) -> None:
    """A line of metrics is lost: without the states the run trains again, to the same end."""
    path = copy_of(broken)
    (path / "metrics.jsonl").write_bytes(b"")
    _, message = either(lambda: resume(path, progress=False))
    assert "without its folder state/ the run trains again" in (message or "")
    shutil.rmtree(path / "state")
    assert resume(path, progress=False).evaluation == unbroken["evaluation"]


FILES = ("run.json", "samples.json", "preflight.json", "metrics.jsonl", "rollouts.jsonl")


@given(data=st.data())
@settings(max_examples=80)
def test_a_report_over_any_damage_is_written_or_refused_in_one_line(data: st.DataObject, broken: Path) -> None:
    path = broken / data.draw(st.sampled_from(FILES))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content)))
    garbage = data.draw(st.sampled_from([b"", b"\0" * 9, b"5\n", b"null", b"[]", b"NaN\n", b"\xff\xfe", b"[" * 3000]))
    end = data.draw(st.sampled_from([len(content), place, place + 1]))
    with damaged(path, bytes(content[:place]) + garbage + bytes(content[end:])):
        table, message = either(lambda: write_report(broken))
    assert table or str(path) in (message or "")


def test_recorded_runs_are_read() -> None:
    recorded = {path.parent: Notes.read(path.parent) for path in DATA.rglob("run.json")}
    runs = {folder: notes for folder, notes in recorded.items() if notes.kind == "mid-training"}
    assert {*runs} >= {DATA / "laptop", DATA / "micro/seed0"}
    for folder, notes in runs.items():
        assert notes.status == "done"
        assert Evaluation.read(folder).after
        lines = read_lines(folder / "metrics.jsonl", StepMetrics)
        assert (len(lines.good), lines.skipped) == (notes.settings.steps, 0)
