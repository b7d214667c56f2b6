"""Metrics in trackers are those of metrics.jsonl and curve.jsonl, each once, in a resumed run too."""

import importlib.util
import json
import math
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rmt_mini import files
from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.files import CurvePoint, Notes
from rmt_mini.runs import compare, tracking
from rmt_mini.runs.journal import first_notes
from rmt_mini.runs.run import resume, run
from tests.report import made
from tests.runs.test_resume import left
from tests.runs.test_run import interrupted, settings

Logged = dict[str, dict[int, float]]  # name -> step -> value


def needs(name: str) -> Any:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


def split(value: Any) -> list[tuple[str, Any]]:
    return list(zip(("/easy", "/medium", "/hard"), value, strict=True)) if isinstance(value, list) else [("", value)]


def in_files(folder: Path) -> Logged:
    """Names and values as they are in the run folder, read without the package's own flattening."""
    found: Logged = {}
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        for name, value in line.items():
            for more, one in split(value):
                if one is not None and name != "step":
                    found.setdefault(name + more, {})[line["step"]] = one
    for line in map(json.loads, (folder / "curve.jsonl").read_text().splitlines()):
        for name in ("plain", "think", "thought_length"):
            found.setdefault(f"held_out/{name}", {})[line["step"]] = line[name]
    return found


def in_tensorboard(folder: Path) -> Logged:
    """Read event files by TensorBoard's own reader; a step that comes twice is an error."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0})
    events.Reload()
    found: Logged = {}
    for name in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(name)]
        assert steps == sorted(set(steps)), name
        found[name] = {event.step: event.value for event in events.Scalars(name)}
    return found


def assert_equal(shown: Logged, recorded: Logged) -> None:
    """The same names and steps, and the same values as far as single precision goes."""
    assert {name: [*steps] for name, steps in shown.items()} == {name: [*steps] for name, steps in recorded.items()}
    for name, values in recorded.items():
        for step, value in values.items():
            assert math.isclose(shown[name][step], value, rel_tol=1e-6, abs_tol=1e-12), (name, step)


@needs("tensorboard")
def test_tensorboard_has_every_value_and_nothing_else_changes(unbroken: Path, tmp_path: Path) -> None:
    changes = {"kl_weight": 0.1, "clip_epsilon": 0.2}
    run(settings(tmp_path, steps=3, report_to="tensorboard", **changes), progress=False)
    shown = in_tensorboard(tmp_path / "run")
    assert {"reward", "policy_entropy", "kl", "clip_share", "held_out/plain", "held_out/think"} <= shown.keys()
    assert_equal(shown, in_files(tmp_path / "run"))
    assert not (unbroken / "tensorboard").exists()
    assert Notes.read(unbroken).tracking_id is None


@needs("tensorboard")
@pytest.mark.parametrize(("first", "seconds"), [("tensorboard", 0.0), ("tensorboard", 3600.0), ("none", 0.0)])
def test_a_resumed_run_continues_its_log(first: str, seconds: float, unbroken: Path, tmp_path: Path) -> None:
    # state is saved after each step, or never: then three steps are taken back
    interrupted(settings(tmp_path, steps=6, state_seconds=seconds, report_to=first), step=2)
    resume(tmp_path / "run", progress=False, changes={"report_to": "tensorboard"})
    assert_equal(in_tensorboard(tmp_path / "run"), in_files(tmp_path / "run"))
    assert left(tmp_path / "run") == left(unbroken)  # results do not depend on where they are shown


@needs("tensorboard")
def test_runs_of_a_comparison_report_each_into_its_folder(tmp_path: Path) -> None:
    from rmt_mini.arms import arms_named

    config = settings(tmp_path, steps=2, warmup_steps=0, seed=1)
    arms = arms_named(config, ["ntp"])
    compare.compare(config, arms, seeds=1, progress=False)
    config = config.replace(report_to="tensorboard")
    folder, _ = compare.compare(config, arms, seeds=2, workers=1, progress=False)
    reported = {path.parent.name for path in folder.glob("runs/*/tensorboard")}
    assert reported == {"rmt-seed2", "ntp-seed2"}  # the others were done
    for name in reported:
        assert_equal(in_tensorboard(folder / "runs" / name), in_files(folder / "runs" / name))


def stopped_and_resumed(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Logged:
    """Report a run of five steps that stops after its third and goes on from its second; returns what should be there.

    Nothing outside of this machine can be reached from this process meanwhile.
    """

    def cut(*_: object, **__: object) -> None:
        raise OSError("the network is cut")

    monkeypatch.setattr(socket, "getaddrinfo", cut)
    folder.mkdir()
    notes = first_notes("mid-training", RMTConfig(report_to=name))  # type: ignore[arg-type]
    notes.tracking_id = "a1b2c3"
    steps = [made.step(step, reward=0.1 * step, kl=0.125 if step % 2 else None) for step in range(5)]
    first, last = (CurvePoint(step=step, plain=step / 10, think=0.5, thought_length=3.5) for step in (0, 5))
    stopped = tracking.start(folder, notes, 0)
    assert stopped is not None
    stopped.log([first, *steps[:3]])
    stopped.close()
    resumed = tracking.start(folder, notes, 2)
    assert resumed is not None
    resumed.log([first, *steps[:2]])  # what is recorded of steps that a state knows
    resumed.log([*steps[2:], last])
    resumed.close()
    (folder / "metrics.jsonl").write_text(files.as_lines(steps))
    (folder / "curve.jsonl").write_text(files.as_lines([first, last]))
    return in_files(folder)


@needs("trackio")
def test_trackio_has_every_value_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "db"))  # read when it is imported
    expected = stopped_and_resumed(tmp_path / "run", "trackio", monkeypatch)
    from trackio.sqlite_storage import SQLiteStorage

    assert SQLiteStorage.get_runs("rmt_mini") == ["run-a1b2c3"]
    shown: Logged = {}
    for line in SQLiteStorage.get_logs("rmt_mini", "run-a1b2c3"):
        for name, value in line.items():
            if name not in ("step", "timestamp"):
                assert line["step"] not in shown.setdefault(name, {}), (name, line)
                shown[name][line["step"]] = value
    assert_equal(shown, expected)
    assert capsys.readouterr().out == ""


@needs("wandb")
def test_wandb_has_every_value_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    expected = stopped_and_resumed(tmp_path / "run", "wandb", monkeypatch)
    found = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert {path.stem for path in found} == {"run-a1b2c3"}
    assert_equal(in_wandb(found[-1]), expected)
    assert capsys.readouterr().out == ""


def records_of(path: Path) -> Iterator[bytes]:
    """Read wandb's file: seven bytes, then blocks of 32 KiB of pieces: crc, length, place in the record, bytes."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # too little is left of the block
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def in_wandb(path: Path) -> Logged:
    from wandb.proto.wandb_internal_pb2 import Record

    shown: Logged = {}
    for data in records_of(path):
        record = Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            line = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            step = line.pop("_step", record.history.step.num)
            for name, value in line.items():
                if not name.startswith("_"):
                    shown.setdefault(name, {})[step] = value
    return shown


def test_a_tracker_that_is_not_installed_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path, report_to="wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="report_to 'wandb' needs the package 'wandb'"):
        run(config, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_ends_no_run(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[int] = []

    def send(values: dict[str, float], step: int) -> None:
        sent.append(step)
        if step == 2:
            raise OSError("no route to host")

    monkeypatch.setitem(tracking.OPEN, "wandb", lambda *_: tracking.Tracker(0, send, lambda: None))
    monkeypatch.setattr(tracking, "require", lambda _: None)
    run(settings(tmp_path, steps=6, report_to="wandb"), progress=False)
    assert sent == [0, 0, 1, 2]  # the curve's first point, steps, and the point after two of them
    assert caplog.text.count("Reporting ends at step 2 (no route to host); the run goes on") == 1
    assert left(tmp_path / "run") == left(unbroken)


def test_a_tracker_that_does_not_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> tracking.Tracker:
        raise RuntimeError("no key\nis set")

    monkeypatch.setitem(tracking.OPEN, "wandb", fail)
    monkeypatch.setattr(tracking, "require", lambda _: None)
    with pytest.raises(
        UserError, match=r"wandb does not start \(no key is set\); set it up, or go on with report_to none"
    ):
        run(settings(tmp_path, report_to="wandb"), progress=False)
    resume(tmp_path / "run", progress=False, changes={"report_to": "none"})
    assert Notes.read(tmp_path / "run").status == "done"
