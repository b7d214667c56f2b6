"""The whole run on the micro-world, as ``rmt-mini run micro`` does it: thinking comes to help, and gets short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmt_mini.config import preset
from rmt_mini.runs.run import run

SEED = 12  # none that a setting was chosen by


@pytest.mark.slow
def test_rmt_teaches_short_thoughts_that_help(tmp_path: Path) -> None:
    result = run(preset("micro", seed=SEED, out=str(tmp_path / "run")), progress=False)
    found = result.evaluation
    before, after = found["before"], found["after"]
    gain = found["gain"]
    assert gain["think_after_minus_before"]["low"] > 0.1
    assert gain["saying_think_after_minus_ntp_before"]["low"] > 0.3  # read
    assert gain["calculable_think_after_minus_ntp_before"]["difference"] > 0  # thought out; too few for an interval
    assert gain["noise_think_after_minus_ntp_before"]["low"] < 0.05  # nothing tells
    assert found["length_change"]["all"]["high"] < 0
    assert after["think"]["thought_length"] < 0.6 * before["think"]["thought_length"]
    assert after["think"]["closed_share"] > before["think"]["closed_share"]
    assert before["ntp"]["sorts"]["noise"]["n"] > before["ntp"]["sorts"]["calculable"]["n"] > 5
    foretold = json.loads((result.folder / "preflight.json").read_text())
    assert foretold["signal_groups"] >= 0.25
    report = (result.folder / "report.md").read_text()
    assert "**Thinking improved.**" in report
    assert "## Pre-flight" in report
