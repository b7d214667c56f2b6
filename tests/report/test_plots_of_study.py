"""Figures that hold results against one another: what they say, by hand, and that marks do without colour."""

from __future__ import annotations

from typing import Any

import matplotlib.text
import pytest

from rmt_mini.report import plots
from rmt_mini.report.plots import Figured, of_study


def difference(middle: float, low: float, high: float) -> dict[str, float]:
    return {"difference": middle, "low": low, "high": high}


def level(value: float, step: int = 0) -> dict[str, Any]:
    return {"step": step, "accuracy": value, "low": value - 0.05, "high": value + 0.05}


def words(figured: Figured) -> set[str]:
    return {text.get_text() for text in figured.figure.findobj(matplotlib.text.Text)}


ROWS = {"a": difference(0.05, 0.01, 0.09), "b": difference(-0.02, -0.05, 0.01), "c": difference(-0.2, -0.3, -0.1)}


def test_a_forest_says_on_which_side_of_zero_each_interval_lies() -> None:
    figured = plots.forest(ROWS, "accuracy, points")
    assert figured.alt == (
        "Accuracy, points, with 95 % intervals: a +5.0 (+1.0 to +9.0), above zero; b -2.0 (-5.0 to +1.0), around zero; "
        "c -20.0 (-30.0 to -10.0), below zero."
    )
    marks = [line for line in figured.figure.axes[0].lines if line.get_marker() in "osD"]
    assert [mark.get_marker() for mark in marks] == ["s", "o", "D"]
    assert [mark.get_markerfacecolor() == "white" for mark in marks] == [False, True, False]
    assert {"a", "b", "c", "+5.0", "-2.0", "-20.0"} <= words(figured)


def test_a_forest_in_another_unit_and_of_nothing() -> None:
    assert "a +5.0 (+5.0 to +5.0), above zero" in plots.forest({"a": difference(5, 5, 5)}, "tokens", by=1).alt
    assert "around zero" in plots.forest({"a": difference(0, 0, 0)}, "tokens").alt  # touching is covering
    assert "nothing to draw" in plots.forest({}, "tokens").alt


@pytest.mark.parametrize(
    ("points", "said"), [(3.0, "is told from nothing"), (7.5, "is not told from nothing; 841 positions would do")]
)
def test_an_interval_is_held_against_the_gap(points: float, said: str) -> None:
    figured = plots.interval_width({"1 seed": [(50, 15.0), (1600, 2.6)]}, 200, points, 3.65, 841)
    assert figured.alt == (
        f"With 200 positions a difference is known to within {points:.1f} points either way: a gap of 3.65 points "
        f"{said}."
    )
    assert {"50", "1,600"} <= words(figured)
    top = figured.figure.axes[0].get_ylim()[1]
    assert top > 15.0  # all of the curve is seen


def test_exams_show_levels_and_what_lies_between_them() -> None:
    curves = {"base": [level(0.3), level(0.8, 40)], "RMT": [level(0.2), level(0.9, 40)]}
    figured = plots.exams_at(curves, {"base": difference(0.1, 0.02, 0.18)}, k=8, step=40)
    assert figured.alt == (
        "pass@8 in % at step 40 of post-training: base 80.0, RMT 90.0. RMT minus each, points, with 95 % intervals: "
        "base +10.0 (+2.0 to +18.0), above zero."
    )
    left, right = figured.figure.axes
    assert [line.get_linestyle() for line in left.lines[:2]] == ["-", "--"]
    assert 40 in left.lines[2].get_xdata()
    assert "step 40: RMT minus ..., points" in right.get_xlabel()


def test_pass_curves_tell_both_ends() -> None:
    cells = {"1": level(0.25), "2": level(0.4), "8": level(0.75)}
    figured = plots.pass_curves({"before": cells, "after": cells | {"8": level(0.25)}})
    assert figured.alt == ("pass@k in %: before 25.0 at k = 1, 75.0 at k = 8; after 25.0 at k = 1, 25.0 at k = 8.")
    assert list(figured.figure.axes[0].lines[0].get_xdata()) == [1, 2, 8]
    assert figured.png()[:4] == b"\x89PNG"
    assert "at k = 1, 25.0 at k = 1." in plots.pass_curves({"once": {"1": level(0.25)}}).alt


def test_estimates_are_told_at_the_marked_k() -> None:
    figured = plots.pass_estimates({"one": [0.25, 0.5], "other": [0.25, 0.4375]}, 2)
    assert figured.alt == "Estimates of pass@2 in %: one 50.0, other 43.8."


def test_preflight_bars_leave_out_an_empty_tier() -> None:
    tier = {"positions": 16, "accuracy": 0.5, "pass_at_g": 0.75, "signal_groups": 0.25}
    empty = {"positions": 0, "accuracy": None, "pass_at_g": None, "signal_groups": None}
    figured = plots.preflight_bars({"tiers": {"easy": empty, "medium": tier, "hard": tier | {"signal_groups": 0.0}}})
    assert figured.alt == (
        "Answers right, groups with a right one, groups with a signal, in %: medium 50 / 75 / 25; hard 50 / 75 / 0."
    )
    assert {"medium (16)", "hard (16)"} <= words(figured)
    assert "easy (0)" not in words(figured)


def test_a_text_is_cut_into_tiers_and_its_thoughts_at_the_cap() -> None:
    # up to 0.5: three of five; up to 2: one; above: one. Of lengths 2, 4, 8, 12 under a budget of 4 (cap 8) two are cut
    # off, and the triangle gives 0.5, 1, 0, 0
    figured = plots.text_fit([0.0, 0.4, 0.5, 1.9, 2.5], (0.5, 2.0), [2, 4, 8, 12], 4)
    assert figured.alt == (
        "Of 5 tokens, cut at 0.5 and 2.0 nats, 60 % easy, 20 % medium, 20 % hard. A budget of 4 cuts off 50 % of 4 "
        "thoughts, as they are now, at the cap of 8; their mean length reward is 0.38."
    )
    hatches = [patch.get_hatch() for patch in figured.figure.axes[0].patches]
    assert len(set(hatches)) == 3


def test_four_lines_differ_without_colour() -> None:
    assert len({(line, marker) for _, line, marker in of_study.FOUR_LOOKS}) == 4
