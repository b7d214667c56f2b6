"""Recorded results behind controls: what each moves, and that what cannot be is said; nothing need be recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rmt_mini.errors import UserError
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.teaching.widgets import results
from rmt_mini.teaching.widgets.controls import Explorer

TIERS = ("average", "easy", "medium", "hard", "calculable", "noise")
ARMS = {"base-ntp": 0.0, "base-ntr": 27.0, "ntp": 0.0, "rpt": 33.0, "rmt": 8.0, "rmt-no-budget": 30.0}


def difference(middle: float, half: float) -> dict[str, float]:
    return {"difference": middle, "low": middle - half, "high": middle + half}


def a_comparison() -> dict[str, Any]:
    """RMT minus the n-th other arm is n points in the first tier, n + 10 in the second, and so on."""
    others = [name for name in ARMS if name != "rmt"]
    paired = [
        {"a": "rmt", "b": name, "tier": tier, **difference((n + 10 * place) / 100, 0.005)}
        for n, name in enumerate(others, 1)
        for place, tier in enumerate(TIERS)
    ]
    lengths = {name: difference(8 - ARMS[name], 0.5) for name in others}
    return {"arms": {name: {"thought_length": x} for name, x in ARMS.items()}, "paired": paired, "lengths": lengths}


def exams_of_two() -> dict[str, Any]:
    def cell(value: float) -> dict[str, float]:
        return {"accuracy": value, "low": value - 0.05, "high": value + 0.05}

    def curve(first: float) -> list[dict[str, Any]]:
        return [
            {
                "step": step,
                "pass_at": {str(k): cell(first + step / 100 + k / 50) for k in (1, 8)},
                "thought_length": 9.0,
            }
            for step in (0, 20)
        ]

    paired = [
        {"a": "rmt", "b": "base", "step": step, "k": k, **difference((step + k) / 100, 0.01)}
        for step in (0, 20)
        for k in (1, 8)
    ]
    one = {"arms": {"base": curve(0.2), "rmt": curve(0.3)}, "paired": paired, "along": [], "samples": 8}
    return {"micro": one, "micro-text": one | {"arms": {"base": curve(0.4), "rmt": curve(0.1)}}}


@pytest.fixture(autouse=True)
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "comparison.json").write_text(json.dumps(a_comparison()))
    (tmp_path / "posttraining.json").write_text(json.dumps(exams_of_two()))
    monkeypatch.setattr(results, "recorded", lambda name: tmp_path)
    results.comparison.cache_clear()
    yield tmp_path
    results.comparison.cache_clear()


def moves(explorer: Explorer, **values: Any) -> None:
    """Move each control in turn, and see that what is shown is what the function says of these settings, and new."""
    assert explorer.alt == explorer.draw(**explorer.settings).alt
    for name, value in values.items():
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == explorer.draw(**explorer.settings).alt != before, name
    assert set(values) == set(explorer.controls)


def test_ablations_by_measure_and_rows() -> None:
    moves(results.ablation_explorer(), measure="hard", rows="ablations")
    alt = results.ablations("medium", "ablations").alt
    assert alt == (
        "Medium: RMT minus ..., points, with 95 % intervals: RMT without budget +25.0 (+24.5 to +25.5), above zero."
    )
    assert "untrained, plain (NTP) +1.0" in results.ablations().alt
    assert results.ablations(rows="untrained").alt.count("above zero") == 2
    both = results.ablations(rows="baseline and controls").alt
    assert "RPT +4.0" in both
    assert "NTP only, plain +3.0" in both
    assert "budget" not in both


def test_lengths_are_of_arms_that_think() -> None:
    alt = results.ablations("thought length").alt
    assert alt == (
        "Thought length, RMT minus ..., tokens, with 95 % intervals: untrained, thinking (NTR) -19.0 (-19.5 to -18.5), "
        "below zero; RPT -25.0 (-25.5 to -24.5), below zero; RMT without budget -22.0 (-22.5 to -21.5), below zero."
    )


def test_what_was_not_recorded_is_said(recording: Path) -> None:
    with pytest.raises(UserError, match="has no grammar of all"):
        results.ablations("grammar")
    (recording / "posttraining.json").unlink()
    with pytest.raises(UserError, match=r"posttraining\.json is not here; rmt-mini compare and rmt-mini exams make it"):
        results.exams("new kinds", 1, 0)


def test_the_interval_follows_positions_seeds_and_gap() -> None:
    moves(results.interval_explorer(), positions=1000, seeds=5, gap=1.0)
    # 1.96 x 0.54 / 200^0.5 = 7.48 points; (1.96 x 0.54 / 0.0365)^2 = 840.8
    assert results.interval_width(200, 1).alt == (
        "With 200 positions a difference is known to within 7.5 points either way: a gap of 3.65 points is not told "
        "from nothing; 841 positions would do."
    )
    labels = [text.get_text() for text in results.interval_width(200, 3).figure.legends[0].get_texts()]
    assert labels[:3] == ["1 seed", "3 seeds", "5 seeds"]
    with pytest.raises(UserError, match="gap is 0; give a number of points above 0"):
        results.interval_width(200, 1, 0)


def test_the_gap_at_first_is_the_papers() -> None:
    assert results.PAPER_GAP == 3.65  # 46.87 - 43.22


def test_exams_by_k_and_step() -> None:
    explorer = results.exam_explorer()
    assert explorer.settings == {"questions": "new kinds", "k": 1, "step": 20}
    moves(explorer, questions="the text's own", k=8, step=0)
    assert results.exams("new kinds", 8, 20).alt == (
        "pass@8 in % at step 20 of post-training: untrained 56.0, RMT 66.0. RMT minus each, points, with 95 % "
        "intervals: untrained +28.0 (+27.0 to +29.0), above zero."
    )


def test_estimates_of_pass_at_k() -> None:
    moves(results.pass_explorer(), right=3, samples=9, k=5)
    # 1 - C(6,4) / C(8,4) = 1 - 15/70; 1 - (3/4)^4
    assert results.pass_estimates(2, 8, 4).alt == "Estimates of pass@4 in %: unbiased 78.6, share to a power 68.4."
    explorer = results.pass_explorer()
    explorer.controls["k"].value = 9
    with pytest.raises(ValueError) as error:
        pass_at_k(2, 8, 9)
    assert explorer.alt == str(error.value)


def test_a_text_is_measured_once_and_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(corpus: str) -> results.Measured:
        return results.Measured((0.1, 0.2, 1.0, 3.0 if corpus == "micro" else 0.3), (3, 8, 20, 41))

    monkeypatch.setattr(results, "measure_text", measured)
    explorer = results.text_explorer()
    assert (
        "cut at 0.5 and 1.9 nats, 50 % easy, 25 % medium, 25 % hard. A budget of 20 cuts off 25 % of 4" in explorer.alt
    )
    moves(explorer, corpus="mine.txt", easy=1.2, hard=1.5, budget=4)
    assert "cut at 1.2 and 1.5 nats, 100 % easy" in explorer.alt
    assert "cuts off 75 %" in explorer.alt
    explorer.controls["hard"].value = 0.5
    assert explorer.alt == "thresholds are 1.2 and 0.5; give two numbers of at least 0, the smaller first"


def test_the_micro_model_measures_its_own_text() -> None:
    found = results.measure_text("micro")
    assert found is results.measure_text("micro")
    assert len(found.lengths) == results.ASKED * results.EACH
    assert 0 < max(found.lengths) <= results.LONGEST
    assert min(found.entropies) >= 0
    with pytest.raises(UserError, match="does not exist"):
        results.measure_text("nowhere.txt")
