"""What lessons say of recorded results is what the data say."""

from __future__ import annotations

from pathlib import Path

from rmt_mini.files import Evaluation
from rmt_mini.teaching.lessons import lessons, read_notebook

DATA = Path(__file__).resolve().parents[2] / "data"


def said(lesson: int) -> str:
    cells = read_notebook(lessons()[lesson]).cells
    return " ".join(" ".join(cell.source for cell in cells if cell.cell_type == "markdown").split())


def percent(value: float | None) -> str:
    assert value is not None
    return f"{100 * value:.0f} %"


def test_lesson_0_says_which_sort_gained_and_by_what() -> None:
    found, words = Evaluation.read(DATA / "micro/seeds"), said(0)
    assert found.before is not None
    assert found.after is not None
    before, after = found.before, found.after
    thinking = [percent(one.think.sorts["calculable"].accuracy) for one in (before, after)]
    assert f"it was so before RMT: {thinking[0]} right before, {thinking[1]} after" in words
    assert f"from {before.think.thought_length:.0f} tokens to {after.think.thought_length:.0f}" in words
    ends = percent(before.ntp.sorts["saying"].accuracy), percent(after.think.sorts["saying"].accuracy)
    assert f"at sayings, from {ends[0]} to {ends[1]}" in words
    assert (
        f"the average rises by {100 * (found.gain['think_after_minus_ntp_before'].difference or 0):.0f} points" in words
    )
    plain = found.after.ntp.sorts["saying"].accuracy or 0.0
    assert plain > (after.think.sorts["saying"].accuracy or 0.0)  # "it comes from reading them"


def test_lesson_4_says_what_rmt_did_to_calculable_tokens_and_noise() -> None:
    found = Evaluation.read(DATA / "micro/seed0")
    assert found.before is not None
    assert found.after is not None
    ends = [percent(one.think.sorts["calculable"].accuracy) for one in (found.before, found.after)]
    assert f"RMT did not raise it: {ends[0]} before and {ends[1]} after" in said(4)
    noise = found.after.think.sorts["noise"]
    assert noise.low is not None
    assert noise.high is not None
    assert noise.low < (found.before.ntp.sorts["noise"].accuracy or 0.0) < noise.high
