"""A comparison from its arms to its report, whole and interrupted: done runs stay, and the outcome is the same."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import rmt_mini.runs.compare as room
import rmt_mini.runs.exams as exam_room
from rmt_mini.cli import main
from rmt_mini.runs.compare import compare, go_on, report, run_folder
from rmt_mini.config import RMTConfig
from rmt_mini.errors import Stopped, UserError
from rmt_mini.runs.pre_and_post import posttrain_run
from rmt_mini.runs.run import run
from rmt_mini.arms import arms_named
from tests.runs.test_resume import command, environment
from tests.runs.test_run import settings

NAMES = ("ntp", "ntp-equal-compute", "rpt", "rmt")
CELL = {"accuracy", "low", "high", "n"}


def small_one(folder: Path, **changes: Any) -> RMTConfig:
    defaults = {"steps": 2, "warmup_steps": 0, "evaluation_positions": 24, "preflight_positions": 3, "seed": 5}
    return settings(folder, **{**defaults, "out": str(folder / "compared"), **changes})


def numbers(folder: Path) -> Any:
    """What a comparison found, without what is measured in seconds."""
    found = json.loads((folder / "comparison.json").read_text())
    for arm in found["arms"].values():
        for name in ("seconds", "rl_seconds", "cold_start_seconds"):
            arm.get("compute", {}).pop(name, None)
    return {name: found[name] for name in ("arms", "paired", "relative", "lengths", "seeds")}


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (folder / "runs").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    config = small_one(folder)
    compare(config, arms_named(config, NAMES), seeds=2, workers=1, progress=False)
    return folder / "compared"


def test_the_files_of_the_contract(whole: Path) -> None:
    found = json.loads((whole / "comparison.json").read_text())
    assert set(found["arms"]) == {"base-ntp", "base-ntr", *NAMES}
    for arm in found["arms"].values():
        assert all(set(arm[tier]) == CELL for tier in ("easy", "medium", "hard", "average"))
        assert arm["thought_length"] >= 0
    assert {"a", "b", "tier", "difference", "low", "high"} == set(found["paired"][0])
    assert found["seeds"] == [5, 6]
    assert (whole / "report.md").read_text().startswith("# RMT, its baseline")
    assert (whole / "figures" / "arms.png").exists()


def test_arms_take_equal_steps_but_one_takes_equal_compute(whole: Path) -> None:
    took = {name: json.loads((whole / "comparison.json").read_text())["arms"][name]["compute"] for name in NAMES}
    assert [took[name]["steps"] for name in ("ntp", "rpt", "rmt")] == [2, 2, 2]
    assert took["ntp-equal-compute"]["steps"] > 10
    assert took["ntp-equal-compute"]["operations"] == pytest.approx(took["rmt"]["operations"], rel=0.1)
    assert took["ntp"]["rl_operations"] == took["ntp"]["rl_tokens"] == took["rpt"]["ntp_tokens"] == 0
    assert 0 < took["rmt"]["rl_operations"] < took["rmt"]["operations"]
    assert sum(took["rmt"]["rl_tokens_by_tier"]) == took["rmt"]["rl_tokens"]


def test_given_again_nothing_is_run(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, was = stamps(whole), numbers(whole)
    config = small_one(whole.parent)
    compare(config, arms_named(config, NAMES), seeds=2, workers=1, progress=False)
    monkeypatch.setattr(room, "run", lambda *_, **__: pytest.fail("a run was begun"))
    report(whole)
    assert (stamps(whole), numbers(whole)) == (before, was)


def test_stopped_in_the_middle_and_taken_up(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, begun = threading.Event(), 0

    def stopping(config: RMTConfig, **given: Any) -> Any:
        nonlocal begun
        begun += 1
        return run(config, on_step=lambda _: stop.set() if begun == 3 else None, **given)

    monkeypatch.setattr(room, "run", stopping)
    config, folder = small_one(tmp_path), tmp_path / "compared"
    with pytest.raises(Stopped, match=rf"^stopped; to go on: rmt-mini resume {folder}$"):
        compare(config, arms_named(config, NAMES), seeds=2, workers=1, progress=False, stop=stop)
    assert begun == 3
    third = run_folder(folder, "rmt", 5)
    assert json.loads((third / "run.json").read_text())["status"] == "interrupted"
    with pytest.raises(UserError, match=r"lacks 6 runs, '.*ntp-seed6' first"):
        report(folder)
    done = {path: stamp for path, stamp in stamps(folder).items() if "rmt-seed5" not in path}
    monkeypatch.undo()
    go_on(folder, workers=1, progress=False)
    assert {path: stamp for path, stamp in stamps(folder).items() if path in done} == done
    assert numbers(folder) == numbers(whole)


def test_arms_and_seeds_may_be_added_but_settings_not_changed(tmp_path: Path) -> None:
    config, folder = small_one(tmp_path), tmp_path / "compared"
    compare(config, arms_named(config, ["rmt"]), seeds=1, workers=1, progress=False)
    before = stamps(folder)
    compare(config, arms_named(config, ["ntp"]), seeds=1, workers=1, progress=False)
    assert before.items() <= stamps(folder).items()
    assert "ntp" in json.loads((folder / "comparison.json").read_text())["arms"]
    other = config.replace(learning_rate=0.5)
    with pytest.raises(UserError, match=r"a comparison with other settings \(learning_rate\); choose another"):
        compare(other, arms_named(other), seeds=1, workers=1, progress=False)


def test_a_folder_in_use_and_a_bad_model_leave_nothing(tmp_path: Path) -> None:
    config = small_one(tmp_path)
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is in use"):
        compare(config, arms_named(config), progress=False)
    with pytest.raises(UserError, match=r"model '.*absent' is neither"):
        compare(config.replace(model=str(tmp_path / "absent"), out=str(tmp_path / "new")), arms_named(config))
    assert not (tmp_path / "new").exists()
    for nothing in (tmp_path, tmp_path / "compared"):
        with pytest.raises(UserError, match="holds no comparison"):
            go_on(nothing)


@pytest.mark.parametrize(("positions", "warned"), [(60, True), (900, False)])
def test_too_few_positions_are_warned_of(
    positions: int, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "go_on", lambda *_: "")
    config = small_one(tmp_path, evaluation_positions=positions)
    compare(config, arms_named(config), seeds=5, progress=False)
    said = [one.message for one in caplog.records if "a difference of two arms is known to within" in one.message]
    assert bool(said) == warned
    if warned:
        # 1.96 x 0.54 / 300^0.5 = 6.1 points; (1.96 x 0.54 / 0.0365)^2 / 5 = 168.2
        assert "60 positions and 5 seeds" in said[0]
        assert "within about 6.1 points" in said[0]
        assert "take 169 positions" in said[0]


def test_the_command_line_reports_only(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stamps(whole)
    (whole / "report.md").unlink()
    main(["compare", "laptop", "--out", str(whole), "--report-only"])
    assert "| RMT |" in capsys.readouterr().out
    assert (whole / "report.md").exists()
    assert stamps(whole) == before


SITTING = {"steps": 2, "documents_per_step": 3, "group_size": 4, "budget_start": 4, "evaluation_fraction": 0.5}


def test_exams_are_sat_by_all_and_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(exam_room, "go_on", lambda *_: "")
        exam_room.exams(whole)  # of a model that is not the micro-world's
        usual = whole / "exams/gym-chain_sum/exams.json"
        assert json.loads(usual.read_text())["arms"] == ["base", "ntp", "rpt", "rmt"]
        usual.unlink()
    settings: dict[str, Any] = {"source": "micro", "count": 8, "samples": 2, "every": 1, "changes": SITTING}
    stop, begun = threading.Event(), []

    def stopping(*given: Any) -> Any:
        begun.append(given[4]["out"])
        if len(begun) == 2:
            stop.set()
        return posttrain_run(*given)

    monkeypatch.setattr(exam_room, "posttrain_run", stopping)
    with pytest.raises(Stopped, match=rf"^stopped; to go on: rmt-mini resume {whole / 'exams/micro'}$"):
        exam_room.exams(whole, ["rmt"], workers=1, progress=False, stop=stop, **settings)
    monkeypatch.undo()
    first = whole / "exams/micro/base-seed5"
    stamp = (first / "run.json").stat().st_mtime_ns
    main(["resume", str(whole / "exams/micro")])
    assert (first / "run.json").stat().st_mtime_ns == stamp
    outcome = json.loads((whole / "posttraining.json").read_text())
    found = outcome["micro"]
    assert list(found["arms"]) == ["base", "rmt"]
    assert [one["step"] for one in found["arms"]["rmt"]] == [0, 1, 2]
    assert found["seeds"] == [5, 6]
    assert "## Post-training: kinds of questions that no text has" in (whole / "report.md").read_text()
    assert (whole / "figures" / "posttraining-micro.png").exists()
    exam_room.exams(whole, ["rmt"], workers=1, progress=False, **(settings | {"source": "micro-text"}))
    assert json.loads((whole / "posttraining.json").read_text()).keys() == {"micro", "micro-text"}
    assert "## Post-training: the calculations of the mid-training text" in (whole / "report.md").read_text()
    notes = json.loads((whole / "exams/micro/rmt-seed6/run.json").read_text())
    assert notes["config"]["model"] == str(run_folder(whole, "rmt", 6) / "checkpoint")
    for changes, words in (({"count": 14}, "other settings \\(count\\)"), ({"arms": ["sft"]}, "arm 'sft' is not in")):
        with pytest.raises(UserError, match=words):
            exam_room.exams(whole, workers=1, **(settings | changes))


def flags(folder: Path, **changes: Any) -> list[str]:
    """Make the command line of a small comparison."""
    config, plain = small_one(folder, **changes), RMTConfig().to_dict()
    shown = [(f"--{name.replace('_', '-')}", v) for name, v in config.to_dict().items() if v != plain[name]]
    words = [(flag, *map(str, value)) if isinstance(value, tuple) else (flag, str(value)) for flag, value in shown]
    own = ["--arms", ",".join(NAMES), "--seeds", "2", "--workers", "2"]
    return ["laptop", *own, *itertools.chain(*words)]


MANY = {"steps": 8, "state_seconds": 0.0}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("unbroken")
    config = small_one(folder, **MANY)
    compare(config, arms_named(config, NAMES), seeds=2, workers=2, progress=False)
    return numbers(folder / "compared")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle(number: int, unbroken: Any, tmp_path: Path) -> None:
    arguments, folder = flags(tmp_path, **MANY), tmp_path / "compared"

    def begin() -> subprocess.Popen[str]:
        # a session of its own, so that a signal can go to all of it as a terminal sends it
        return subprocess.Popen(
            command("compare", *arguments), env=environment(), text=True, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    process = begin()
    done = run_folder(folder, "ntp", 5)
    while process.poll() is None and not (room.is_done(done) and list(folder.glob("runs/r*-seed5/state"))):
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=120)
    before = {path: stamp for path, stamp in stamps(folder).items() if str(done) in path}
    assert "Traceback" not in said
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert said.strip().splitlines()[-1] == f"Stopped; to go on: rmt-mini resume {folder}"
        states = {json.loads(path.read_text())["status"] for path in folder.glob("runs/*/run.json")}
        assert states == {"done", "interrupted"}
    time.sleep(1)  # a killed parent's workers see it within a moment
    process = begin()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert before.items() <= stamps(folder).items()
    assert numbers(folder) == unbroken
