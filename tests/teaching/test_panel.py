"""The control panel and its run in the background: started, paused, resumed, compared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rmt_mini.config import preset
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import Evaluation, read_metrics
from rmt_mini.records import StepMetrics
from rmt_mini.report.plots import side_by_side
from rmt_mini.teaching import live
from rmt_mini.teaching.live import DONE, FAILED, PAUSED, RUNNING, LiveRun
from rmt_mini.teaching.widgets import panel as room
from rmt_mini.teaching.widgets.panel import Panel, last_rollouts, panel_config

ROOT = Path(__file__).resolve().parents[2]
LONG = 60.0  # seconds that no wait here comes near
SMALL: dict[str, Any] = {
    "steps": 3, "documents_per_step": 2, "evaluation_positions": 6, "evaluation_documents": 10,
    "preflight_positions": 3, "group_size": 2,
}  # fmt: skip


def recorded() -> list[StepMetrics]:
    return read_metrics(ROOT / "data/micro/seed0")


class Script:
    """A fake run: takes a step when its event is set, and ends as a real one does."""

    def __init__(self, steps: int, ending: BaseException | None = None) -> None:
        self.steps, self.ending = steps, ending
        self.go = [threading.Event() for _ in range(steps)]
        self.metrics = recorded()

    def work(self, seen: Callable[[Any], None], stop: threading.Event) -> Any:
        for step, go in enumerate(self.go):
            assert go.wait(LONG)
            seen(SimpleNamespace(metrics=replace(self.metrics[step], step=step)))
            if stop.is_set():
                raise Stopped("runs/x")
        if self.ending is not None:
            raise self.ending
        return SimpleNamespace(table="a table")


def live_run(script: Script, folder: Path, changed: Callable[[], None] = lambda: None) -> LiveRun:
    return LiveRun(script.work, folder, preset("micro", **SMALL), [], changed)


def test_a_run_grows_step_by_step_and_is_paused_after_a_whole_step(tmp_path: Path) -> None:
    script, news = Script(3), threading.Semaphore(0)
    one = live_run(script, tmp_path, news.release)
    assert (one.state, one.metrics) == (RUNNING, [])
    script.go[0].set()
    assert news.acquire(timeout=LONG)
    assert [m.step for m in one.metrics] == [0]
    one.pause()
    assert one.state == RUNNING  # the step under way goes on
    script.go[1].set()
    assert one.wait(LONG)
    assert (one.state, [m.step for m in one.metrics]) == (PAUSED, [0, 1])


@pytest.mark.parametrize(("error", "message"), [(UserError("no room"), "no room"), (KeyError("x"), "KeyError: 'x'")])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_fails_has_a_message(tmp_path: Path, error: Exception, message: str) -> None:
    one = live_run(Script(0, error), tmp_path)
    assert one.wait(LONG)
    assert (one.state, one.message) == (FAILED, message)


def test_a_real_run_paused_and_resumed_is_the_unbroken_one(tmp_path: Path) -> None:
    config = preset("micro", **SMALL)
    whole = LiveRun.started(config.replace(out=str(tmp_path / "whole")))
    assert whole.wait(LONG)
    assert whole.state == DONE, whole.message

    broken: list[LiveRun] = []
    ready = threading.Event()

    def pause() -> None:
        assert ready.wait(LONG)
        broken[0].pause()

    broken.append(LiveRun.started(config.replace(out=str(tmp_path / "broken")), pause))
    ready.set()
    assert broken[0].wait(LONG)
    assert (broken[0].state, len(broken[0].metrics)) == (PAUSED, 1)
    rest = LiveRun.resumed(tmp_path / "broken")
    assert rest.wait(LONG)
    assert rest.state == DONE, rest.message
    assert [m.reward for m in rest.metrics] == [m.reward for m in whole.metrics]
    assert [m.rl_loss for m in rest.metrics] == [m.rl_loss for m in whole.metrics]
    assert Evaluation.read(rest.folder) == Evaluation.read(whole.folder)


def settings(**changes: Any) -> dict[str, Any]:
    return {name: control.value for name, control in Panel().controls.items()} | changes


def test_each_control_is_a_setting_of_the_run() -> None:
    base = panel_config(**settings())
    assert base.replace(**room.LITTLE) == preset("micro", steps=40, state_seconds=10.0, **room.LITTLE)
    for name, value in (
        ("steps", 7), ("budget_start", 30), ("budget_decay", 0.7), ("curriculum_start", 0.1), ("curriculum_end", 0.9),
        ("ntp_weight", 1.5), ("length_weight", 0.6), ("seed", 3),
    ):  # fmt: skip
        assert panel_config(**settings(**{name: value})) == base.replace(**{name: value})
    assert panel_config(**settings(late_mix="easy only")).tier_probs_late == (1.0, 0.0, 0.0)
    for arm in Panel().controls["arm"].options:
        config = panel_config(**settings(arm=arm))
        assert config.use_rl == (arm != "ntp")
        assert config.use_budget == (arm not in ("rpt", "rmt-no-budget", "rl-no-think"))


def start(panel: room.Panel, monkeypatch: pytest.MonkeyPatch, script: Script, folder: Path) -> None:
    monkeypatch.setattr(room, "REDRAWN", 0.0)
    fake = classmethod(lambda cls, config, changed: live_run(script, folder, changed))
    monkeypatch.setattr(live.LiveRun, "started", fake)
    panel.buttons["start"].click()


def usable(panel: room.Panel) -> set[str]:
    return {name for name, button in panel.buttons.items() if not button.disabled}


def test_buttons_serve_only_where_they_can_and_a_stopped_run_stays_for_comparison(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    panel, first, second = Panel(), Script(3), Script(3)
    assert usable(panel) == {"start", "resume"}
    start(panel, monkeypatch, first, tmp_path / "a")
    assert usable(panel) == {"pause", "stop"}
    panel.buttons["pause"].click()
    assert "Pausing" in panel.status.value
    panel.buttons["stop"].click()
    first.go[0].set()
    assert panel.run is not None
    assert panel.run.wait(LONG)
    assert usable(panel) == {"start", "resume"}
    assert "Paused after step 1 of 3" in panel.status.value
    earlier = panel.run.metrics
    assert side_by_side({"a": earlier}, 3).alt in panel.view.value
    start(panel, monkeypatch, second, tmp_path / "b")
    panel.against.value = "a"
    for go in second.go:
        go.set()
    assert panel.run.wait(LONG)
    assert panel.run.state == DONE
    assert side_by_side({"b": panel.run.metrics, "a": earlier}, 3).alt in panel.view.value


def test_what_is_impossible_is_an_error_in_place() -> None:
    panel = Panel()
    panel.controls["curriculum_start"].value = 0.9
    panel.buttons["start"].click()
    assert 'role="alert"' in panel.status.value
    assert "curriculum_start" in panel.status.value
    assert usable(panel) == {"start", "resume"}
    panel.buttons["resume"].click()
    assert "there is no run to continue" in panel.status.value
    panel.folder.value = "no/such/folder"
    panel.buttons["resume"].click()
    assert "no/such/folder" in panel.status.value


def test_what_a_model_wrote_is_text_in_the_table() -> None:
    one = {"tier": 0, "context": "a", "thought": "<script>x</script>", "answer": "b", "truth": "<b>", "closed": True}
    table = last_rollouts([one | {"advantage": -0.5, "match": 0.0}])._repr_html_()
    assert "<script>" not in table
    assert "&lt;b&gt;" in table
    assert "easy, advantage -0.50" in table
