"""Controls move what they are named for, and say what is impossible."""

from __future__ import annotations

import asyncio

import pytest

from rmt_mini.errors import UserError
from rmt_mini.report.plots import budget_curve, length_triangle
from rmt_mini.teaching.widgets import controls
from rmt_mini.teaching.widgets.budget import budget_explorer
from rmt_mini.teaching.widgets.controls import choice, explore, line, number, switch, typed, whole


def test_a_moved_control_draws_what_the_formula_says() -> None:
    explorer = budget_explorer()
    assert explorer.alt == budget_curve(**explorer.settings).alt
    for name, value in (("start", 40), ("decay", 0.9), ("step", 40), ("total_steps", 50), ("minimum", 38)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == budget_curve(**explorer.settings).alt != before, name


def test_an_impossible_setting_is_one_line_and_no_traceback() -> None:
    explorer = budget_explorer()
    explorer.controls["step"].value = 300  # of 110
    assert "step=300 lies outside" in explorer.alt
    shown = explorer.children[-1].value
    assert 'role="alert"' in shown
    assert "<img" not in shown
    explorer.controls["step"].value = 3
    assert 'role="alert"' not in explorer.children[-1].value


def test_what_a_setting_says_is_escaped() -> None:
    def draw(text: str) -> None:
        raise UserError(f"{text!r} will not do")

    explorer = explore(draw, text=line("text", '<script>"x"</script>'))
    assert "<script>" not in explorer.children[-1].value


def test_a_defect_is_not_swallowed() -> None:
    def draw(budget: int) -> None:
        raise KeyError(budget)

    with pytest.raises(KeyError):
        explore(draw, budget=whole("budget", 1, 1, 2))


def test_every_control_has_a_label_and_a_readable_one() -> None:
    made = [whole("a", 1, 0, 2), number("b", 1, 0, 2), typed("c", 1), choice("d", [1, 2]), switch("e"), line("f", "x")]
    assert [control.description for control in made] == list("abcdef")
    assert choice("d", [("one", 1), ("two", 2)], 2).value == 2


def test_many_moves_in_a_row_draw_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "WAIT", 0.02)
    drawn = []

    def draw(budget: int) -> object:
        drawn.append(budget)
        return length_triangle(budget)

    async def move() -> None:
        explorer = explore(draw, budget=whole("budget", 1, 1, 32))
        for budget in (5, 6, 7):
            explorer.controls["budget"].value = budget
        await asyncio.sleep(0.2)

    asyncio.run(move())
    assert drawn == [1, 7]
