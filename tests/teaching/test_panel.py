"""The control panel and its run in the background: started, paused, resumed, compared."""

import html
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rmt_mini.config import preset
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import as_lines, read_metrics
from rmt_mini.records import Text
from rmt_mini.report.plots import side_by_side
from rmt_mini.teaching.widgets import panel as room
from rmt_mini.teaching.widgets.panel import DONE, FAILED, STOPPED, LiveRun, Panel, last_rollouts, panel_config

ROOT = Path(__file__).resolve().parents[2]
LONG = 60.0  # seconds that no wait here comes near
SMALL: dict[str, Any] = {
    "steps": 3, "documents_per_step": 2, "evaluation_positions": 6, "evaluation_documents": 10,
    "preflight_positions": 3, "group_size": 2,
}  # fmt: skip


def scripted(
    folder: Path, gates: Sequence[threading.Event], changed: Callable[[], None] = bool, ending: Exception | None = None
) -> LiveRun:
    """A fake run: takes a step when its gate opens, and ends as a real one does."""
    metrics = read_metrics(ROOT / "data/micro/seed0")

    def work(seen: Callable[[Any], None], stop: threading.Event) -> Any:
        for step, gate in enumerate(gates):
            assert gate.wait(LONG)
            folder.mkdir(exist_ok=True)
            with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(as_lines([metrics[step]]))
            seen(SimpleNamespace(metrics=metrics[step], texts=[Text("a", (5, 6, 7), 0)], judged=[]))
            if stop.is_set():
                raise Stopped("runs/x")
        if ending is not None:
            raise ending

    return LiveRun(work, folder, preset("micro", **SMALL), changed)


@pytest.mark.parametrize(("error", "message"), [(UserError("no room"), "no room"), (KeyError("x"), "KeyError: 'x'")])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_fails_has_a_message(tmp_path: Path, error: Exception, message: str) -> None:
    one = scripted(tmp_path, [], ending=error)
    assert one.wait(LONG)
    assert (one.state, one.message) == (FAILED, message)


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


def usable(panel: room.Panel) -> set[str]:
    return {name for name, button in panel.buttons.items() if not button.disabled}


def test_buttons_serve_only_where_they_can_and_a_stopped_run_stays_for_comparison(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    panel, first, second = Panel(), *([threading.Event() for _ in range(3)] for _ in range(2))
    runs = iter(((tmp_path / "a", first), (tmp_path / "b", second)))
    monkeypatch.setattr(room, "REDRAWN", 0.0)
    monkeypatch.setattr(LiveRun, "started", lambda _, changed: scripted(*next(runs), changed))
    assert usable(panel) == {"start", "resume"}
    panel.buttons["start"].click()
    assert usable(panel) == {"pause", "stop"}
    panel.buttons["pause"].click()
    assert "Pausing" in panel.status.value
    panel.buttons["stop"].click()
    first[0].set()
    assert panel.run is not None
    assert panel.run.wait(LONG)
    assert usable(panel) == {"start", "resume"}
    assert "Stopped after step 1 of 3" in panel.status.value
    assert panel.run.state == STOPPED
    earlier, label = panel.run.metrics, panel.run.label
    assert side_by_side({"this run": earlier}, 3).alt in html.unescape(panel.view.value)
    assert panel.against.options[1] == (label, "a")
    panel.buttons["start"].click()
    panel.against.value = "a"
    for gate in second:
        gate.set()
    assert panel.run.wait(LONG)
    assert panel.run.state == DONE
    panel._keep(panel.run)
    assert panel.against.value == "a"  # still
    assert side_by_side({"this run": panel.run.metrics, label: earlier}, 3).alt in html.unescape(panel.view.value)


def test_a_run_is_labelled_by_what_differs_from_the_preset(tmp_path: Path) -> None:
    for changes, label in (
        ({}, "preset"),
        ({"budget_start": 30, "seed": 3}, "seed 3, B_0 30"),
        ({"arm": "rmt-no-ntp", "length_weight": 0.6}, "rmt-no-ntp, w 0.6"),
        ({"arm": "ntp"}, "ntp"),
        ({"late_mix": "easy only"}, "tier_probs_late (1.0, 0.0, 0.0)"),
    ):
        config = panel_config(**settings(**changes)).replace(out=str(tmp_path))
        run = LiveRun(lambda *_: None, tmp_path, config, bool)  # type: ignore[arg-type, return-value]
        assert run.wait(LONG)
        assert run.label == label


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
