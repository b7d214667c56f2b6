"""A soak finds a leak, and finds none where there is none."""

import json
import logging
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rmt_mini.engine.memory import keep_freed_memory
from rmt_mini.errors import UserError
from rmt_mini.report.plots import Figured
from tests import soak as room
from tests.runs.test_run import settings
from tests.soak import Soak, growth, main, soak

ROOT = Path(__file__).resolve().parents[2]
KEPT = 200_000  # bytes that a leaking step keeps


def test_growth_is_the_slope_after_the_first_quarter() -> None:
    flat = [float(step) for step in range(10)] + [9 + 0.001 * (-1) ** step for step in range(30)]
    slope, low, high = growth(flat)
    assert abs(slope) < 0.1
    assert low < 0 < high
    assert growth([0.2 * step for step in range(40)]) == pytest.approx((200.0, 200.0, 200.0))
    with pytest.raises(UserError, match="2 steps are too few"):
        growth([1, 2])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs /proc and glibc")
@pytest.mark.parametrize("leaks", [False, True])
def test_a_leak_is_found_and_none_where_there_is_none(leaks: bool) -> None:
    """Though the process has freed and kept far more than is leaked."""
    kept: list[torch.Tensor] = []

    def work(on_step: Callable[[object], None]) -> None:
        keep_freed_memory()
        spare = [torch.ones(KEPT // 4) for _ in range(400)]
        del spare
        for _ in range(28):
            tensor = torch.ones(KEPT // 4)
            if leaks:
                kept.append(tensor)
            on_step(None)

    found = soak(work)
    assert len(found.resident_mb) == 28
    assert found.leaks is leaks
    slope, *_ = growth(found.resident_mb)
    assert abs(slope - 200 * leaks) < 40


def test_warnings_are_counted_by_what_they_say(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="transformers")

    def work(on_step: Callable[[object], None]) -> None:
        for step in range(8):
            logging.getLogger("rmt_mini.stages").warning("Step %d: no news", step)
            on_step(None)
        logging.getLogger("transformers.x").warning("once")
        warnings.warn("twice", UserWarning, stacklevel=1)

    before = list(logging.getLogger().handlers)
    found = soak(work).warnings
    assert logging.getLogger().handlers == before
    assert found.pop("rmt_mini.stages: Step N: no news") == 8
    assert found.pop("transformers.x: once") == 1
    (python,) = found
    assert python.startswith("py.warnings: ")
    assert "UserWarning: twice" in python


def test_the_command_writes_its_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figured, "png", lambda _: b"")  # other tests draw
    monkeypatch.setattr(room, "preset", lambda _, **given: settings(tmp_path, **given))
    monkeypatch.setattr(room, "SMALL", {"evaluation_positions": 9, "warmup_steps": 0})
    monkeypatch.setattr(sys, "argv", ["soak", "--steps", "4", "--out", str(tmp_path / "out")])
    main()
    found = Soak(**json.loads((tmp_path / "out" / "soak.json").read_text(encoding="utf-8")))
    assert found.line().startswith("4 steps: memory ")
    assert not [text for text, count in found.warnings.items() if count > 1]


def test_the_readme_says_what_was_recorded() -> None:
    recorded = Soak(**json.loads((ROOT / "data/soak/soak.json").read_text(encoding="utf-8")))
    assert (len(recorded.resident_mb), recorded.leaks, recorded.warnings) == (2000, False, {})
    assert recorded.line() in (ROOT / "README.md").read_text(encoding="utf-8")
