"""A run that was stopped or killed continues to what the unbroken run would have left, byte by byte."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.errors import Stopped, UserError
from rmt_mini.runs.run import resume, run
from rmt_mini.stages.midtrain import StepResult
from tests.runs.test_run import interrupted, read, settings
from tests.stages.tiny import closing

MEASURED = {"rollout_seconds", "update_seconds", "trunk_seconds", "peak_memory_mb"}  # no two runs agree in these


def left(folder: Path) -> dict[str, Any]:
    """What a run left, without what is measured: seconds, memory, dates."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    report = (folder / "report.md").read_text()
    names = ("checkpoint/*", "positions.json", "*.jsonl", "evaluation.json", "samples.json", "preflight.json")
    paths = [path for name in names for path in sorted(folder.glob(name)) if path.name != "metrics.jsonl"]
    whole = {path.name: path.read_bytes() for path in paths}
    return whole | {
        "metrics": [{name: value for name, value in line.items() if name not in MEASURED} for line in metrics],
        "findings": report[: report.index("## Settings")] if "## Settings" in report else report[:2000],
    }


def test_a_killed_run_keeps_the_seconds_of_what_was_done(tmp_path: Path) -> None:
    """SIGKILL leaves run.json as it last was; a stage that ended, and steps whose state was saved, are in it."""
    path, kept = tmp_path / "run", {}

    def die(result: StepResult) -> None:
        kept.update(read(path, "run.json")["seconds"])
        kept["steps"] = kept.get("steps", 0.0) + result.metrics.rollout_seconds + result.metrics.update_seconds
        if result.metrics.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(Stopped):
        run(settings(tmp_path, steps=6, state_seconds=0.0), on_step=die, progress=False)
    assert {"loading", "evaluation", "cold_start", "preflight", "midtrain", "saving"} <= set(kept)
    assert kept["midtrain"] >= 0.9 * kept["steps"] - 0.02
    before = read(path, "run.json")["seconds"]
    resume(path, progress=False)
    done = read(path, "run.json")["seconds"]
    assert done["cold_start"] == before["cold_start"] > 0
    assert done["midtrain"] > before["midtrain"] >= kept["midtrain"]


@pytest.mark.parametrize("step", [0, 5])
def test_broken_after_a_step(step: int, unbroken: Path, tmp_path: Path) -> None:
    def die(result: StepResult) -> None:
        if result.metrics.step == step:
            raise SystemExit

    with pytest.raises(SystemExit):
        run(settings(tmp_path, steps=6, state_seconds=0.0), on_step=die, progress=False)
    seen: list[int] = []
    resume(tmp_path / "run", on_step=lambda result: seen.append(result.metrics.step), progress=False)
    assert seen == list(range(step + 1, 6))
    assert left(tmp_path / "run") == left(unbroken)


def test_a_request_stops_after_the_step_and_says_how_to_continue(unbroken: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def ask(result: StepResult) -> None:
        if result.metrics.step in (1, 3):
            stop.set()

    with pytest.raises(Stopped, match=r"^stopped; .*: rmt-mini resume .*run$"):
        run(settings(tmp_path, steps=6, state_seconds=3600.0), on_step=ask, progress=False, stop=stop)
    assert read(tmp_path / "run", "run.json")["status"] == "interrupted"
    # asked for after the save of that step, so the step is done again; a request before it saves it
    for _ in range(2):
        stop.clear()
        with pytest.raises(Stopped):
            resume(tmp_path / "run", on_step=lambda _: stop.set(), progress=False, stop=stop)
    stop.clear()
    resume(tmp_path / "run", progress=False, stop=stop)
    assert left(tmp_path / "run") == left(unbroken)
    notes = read(tmp_path / "run", "run.json")
    assert (len(notes["resumed"]), notes["status"]) == (3, "done")


def test_a_policy_in_memory_is_given_again(tmp_path: Path) -> None:
    path = interrupted(settings(tmp_path, state_seconds=0.0, model="in-memory"), closing())
    with pytest.raises(UserError, match=r"model_digest was .* and is .* now"):
        resume(path, closing(seed=5), progress=False)
    assert len(resume(path, closing(), progress=False).metrics) == 3


def test_what_has_changed_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = interrupted(settings(tmp_path, state_seconds=0.0))
    text = (path / "run.json").read_text()
    for old, new, words in (
        ('"learning_rate": 0.001', '"learning_rate": 0.002', r"setting learning_rate was 0.001 .* and is 0.002 now"),
        ('"rmt-mini": "', '"rmt-mini": "9.', r"version of rmt-mini was '9\..*' when it was saved and is '"),
    ):
        assert old in text
        (path / "run.json").write_text(text.replace(old, new))
        with pytest.raises(UserError, match=words):
            resume(path, progress=False)
    (path / "run.json").write_text(text)
    tales = tmp_path / "tales.txt"
    tales.write_text(tales.read_text() + "\n\n\nOne more tale, about a cat and a dog.")
    with pytest.raises(UserError, match=r"corpus_digest was .*; restore it, or start a new run"):
        resume(path, progress=False)
    tales.write_text(tales.read_text().rsplit("\n\n\n", 1)[0])
    (path / "run.json").write_text(text.replace('"torch": "', '"torch": "1.'))
    caplog.clear()
    resume(path, progress=False)
    assert sum("Changed since the run started: torch 1." in record.message for record in caplog.records) == 1


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = run(settings(tmp_path), progress=False)
    before = left(first.folder)
    assert not (first.folder / "state").exists()
    again = resume(first.folder, progress=False)
    assert "nothing is left to do" in caplog.text
    assert left(first.folder) == before
    assert (again.evaluation, len(again.metrics), again.table) == (first.evaluation, 3, first.table)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from rmt_mini.cli import main; main()", *arguments]


def flags(config: RMTConfig) -> list[str]:
    """Return settings as the command line takes them."""
    found: list[str] = []
    for name, value in config.to_dict().items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            found.append(flag if value else f"--no-{flag[2:]}")
        elif name != "preset":
            found += [flag, *map(str, value if isinstance(value, list | tuple) else (value,))]
    return found


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def test_sigterm_ends_in_good_order(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = flags(settings(tmp_path, steps=40, state_seconds=0.0))
    process = subprocess.Popen(
        command("run", "laptop", *arguments), env=environment(), text=True, stderr=subprocess.PIPE
    )
    while process.poll() is None and not (out / "state").exists():
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1].endswith(f"rmt-mini resume {out}")
    assert "Traceback" not in said
    assert read(out, "run.json")["status"] == "interrupted"


def _live(config: RMTConfig) -> None:
    """One life of a run, in a process that will be killed."""
    torch.set_num_threads(1)
    path = Path(config.out)
    if (path / "run.json").exists():
        resume(path, progress=False)
    else:
        run(config, progress=False)


def _moment(folder: Path) -> tuple[str, ...]:
    """How far a run had come: the files it has, and the names of its states."""
    return tuple(sorted(path.name for pattern in ("*", "state/*") for path in folder.glob(pattern)))


@pytest.mark.slow
def test_killed_at_many_moments(tmp_path: Path) -> None:
    config = settings(tmp_path, steps=30, state_seconds=0.0, save_every=3)
    context = multiprocessing.get_context("forkserver")  # a life begins with everything imported
    context.set_forkserver_preload(["rmt_mini.runs.run", "tests.runs.test_resume"])
    whole = context.Process(target=_live, args=(config.replace(out=str(tmp_path / "whole")),))
    whole.start()
    whole.join(300)
    assert whole.exitcode == 0
    source, kills, moments = random.Random(0), 0, set()
    while kills < 60:
        life = context.Process(target=_live, args=(config,))
        life.start()
        # loading takes the first of it; slow stages get their chance
        life.join(source.uniform(0.05, 0.6) * 1.03**kills)
        if life.exitcode is not None:
            break
        life.kill()
        life.join()
        kills += 1
        moments.add(_moment(tmp_path / "run"))
    else:
        _live(config)
    assert life.exitcode in (0, -signal.SIGKILL)
    assert kills >= 8
    assert len(moments) >= 6, moments
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    assert not [path for path in (tmp_path / "run").rglob(".*")]


def test_no_more_states_are_saved_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr("rmt_mini.runs.run.save_state", lambda _, state: saved.append(state.plain["step"]))
    run(settings(tmp_path, steps=5, state_seconds=3600.0, warmup_steps=0), progress=False)
    assert saved == []
