"""A soak finds a leak, and finds none where there is none."""

from __future__ import annotations

import json
import logging
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rmt_mini.bench import soak as room
from rmt_mini.bench.soak import Soak, growth, main, soak
from rmt_mini.engine.memory import keep_freed_memory
from rmt_mini.errors import UserError
from rmt_mini.report.plots import Figured
from rmt_mini.runs.run import run
from tests.runs.test_run import settings
from tests.stages.tiny import closing

ROOT = Path(__file__).resolve().parents[2]
KEPT = 200_000  # bytes that a leaking step keeps


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Leave figures out: other tests draw them, and they take half of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figured, "png", lambda _: b"")
        yield


def test_growth_is_the_slope_after_the_first_quarter() -> None:
    settling = [1_000_000 * step for step in range(10)]
    flat = settling + [9_000_000 + 1000 * (-1) ** step for step in range(30)]
    slope, low, high = growth(flat)
    assert abs(slope) < 0.1
    assert low < 0 < high
    assert growth([step * KEPT for step in range(40)]) == pytest.approx((200.0, 200.0, 200.0))
    with pytest.raises(UserError, match="2 steps are too few"):
        growth([1, 2])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs /proc and glibc")
@pytest.mark.parametrize("leaks", [False, True])
def test_a_leak_is_found_and_none_where_there_is_none(leaks: bool, tmp_path: Path) -> None:
    """Though the process has freed and kept far more than is leaked."""
    config = settings(tmp_path, steps=28, evaluation_positions=9, preflight_positions=6, warmup_steps=1)
    kept: list[torch.Tensor] = []

    def work(on_step: Callable[[object], None]) -> None:
        keep_freed_memory()
        spare = [torch.ones(KEPT // 4) for _ in range(400)]
        del spare

        def after_step(result: object) -> None:
            tensor = torch.ones(KEPT // 4)
            if leaks:
                kept.append(tensor)
            on_step(result)

        run(config, closing(), on_step=after_step, progress=False)

    found = soak(work)
    assert found.steps == len(found.resident_mb) == 28
    if leaks:
        assert found.leaks
        assert 120 < found.slope_kb < 280
    else:  # few steps, so something may still settle
        assert abs(found.slope_kb) < 40
    assert [text for text, count in found.warnings.items() if count > 1] == []


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
    monkeypatch.setattr(room, "preset", lambda _, **given: settings(tmp_path, **given))
    monkeypatch.setattr(room, "SMALL", {"evaluation_positions": 9, "warmup_steps": 0})
    monkeypatch.setattr(sys, "argv", ["soak", "--steps", "6", "--out", str(tmp_path / "out")])
    main()
    found: dict[str, Any] = json.loads((tmp_path / "out" / "soak.json").read_text(encoding="utf-8"))
    assert found["steps"] == len(found["resident_mb"]) == 6
    assert Soak(**found).line().startswith("6 steps: memory ")


def test_the_readme_says_what_was_recorded() -> None:
    recorded = Soak(**json.loads((ROOT / "data/soak/soak.json").read_text(encoding="utf-8")))
    fitted = growth([round(1e6 * reading) for reading in recorded.resident_mb])
    assert (recorded.slope_kb, recorded.low_kb, recorded.high_kb) == pytest.approx(fitted)
    assert (recorded.steps, recorded.leaks, recorded.warnings) == (2000, False, {})
    assert recorded.line() in (ROOT / "README.md").read_text(encoding="utf-8")
