"""The whole run on the micro-world, as ``rmt-mini run micro`` does it: thinking comes to help, and gets short."""

from pathlib import Path

import pytest

from rmt_mini.config import preset
from rmt_mini.files import Preflight
from rmt_mini.runs.run import run

SEED = 12  # none that a setting was chosen by


@pytest.mark.slow
def test_rmt_teaches_short_thoughts_that_help(tmp_path: Path) -> None:
    result = run(preset("micro", seed=SEED, checked_positions=0, out=str(tmp_path / "run")), progress=False)
    found = result.evaluation
    before, after, gain = found.before, found.after, found.gain
    assert before is not None
    assert after is not None
    low = {name: change.low or 0.0 for name, change in gain.items()}
    assert low["think_after_minus_before"] > 0.1
    assert low["saying_think_after_minus_ntp_before"] > 0.3  # read
    assert (gain["calculable_think_after_minus_ntp_before"].difference or 0) > 0  # too few for an interval
    assert low["noise_think_after_minus_ntp_before"] < 0.05  # nothing predicts it
    assert found.length_change["all"].sign == -1
    assert after.think.thought_length < 0.6 * before.think.thought_length
    assert after.think.closed_share > before.think.closed_share
    assert before.ntp.sorts["noise"].n > before.ntp.sorts["calculable"].n > 5
    assert Preflight.read(result.folder).signal_groups >= 0.25
    report = (result.folder / "report.md").read_text()
    assert "**Thinking improved.**" in report
    assert "## Pre-flight" in report
