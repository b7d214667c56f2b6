"""The curriculum's controls move what the formula says, and impossible mixes say why."""

from __future__ import annotations

import re

import pytest

from rmt_mini.teaching.widgets.controls import Explorer
from rmt_mini.teaching.widgets.curriculum import draws, draws_explorer, mix_explorer, mixes


def at_step(explorer: Explorer) -> tuple[int, ...]:
    told = re.findall(r"At step \d+ it draws (\d+) % easy, (\d+) % medium, (\d+) % hard", explorer.alt)
    return tuple(map(int, told[0]))


def test_every_control_moves_p_t_as_the_formula_says() -> None:
    explorer = mix_explorer()
    assert at_step(explorer) == (25, 35, 40)  # half way between t1 and t2: the mean of both mixes
    for name, value, expected in (
        ("curriculum_start", 0.4, (30, 33, 37)),  # a third of the way: .3, .3333, .3667
        ("curriculum_end", 0.6, (25, 35, 40)),
        ("early_easy", 0.6, (35, 35, 30)),
        ("early_medium", 0.2, (35, 30, 35)),
        ("late_easy", 0.3, (45, 30, 25)),
        ("late_medium", 0.1, (45, 15, 40)),
        ("step", 100, (30, 10, 60)),
    ):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == mixes(**explorer.settings).alt != before, name
        assert at_step(explorer) == pytest.approx(expected, abs=0.51), name


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("early_easy", 0.8, "the early mix: 0.8 easy and 0.3 medium leave -0.1 for hard"),
        ("late_medium", 0.95, "the late mix: 0.1 easy and 0.95 medium leave -0.05 for hard"),
        ("curriculum_start", 0.7, "start=0.7 and end=0.7 must satisfy"),
    ],
)
def test_an_impossible_curriculum_says_why(name: str, value: float, told: str) -> None:
    explorer = mix_explorer()
    explorer.controls[name].value = value
    assert explorer.alt.startswith(told)
    assert 'role="alert"' in explorer.children[-1].value


def test_every_control_moves_the_draws() -> None:
    explorer = draws_explorer()
    for name, value in (("seed", 1), ("per_step", 40), ("easy", 0), ("medium", 3), ("hard", 5)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == draws(**explorer.settings).alt != before, name
        if name == "easy":
            assert "0 easy where p_t asks for" in explorer.alt
    # 8 positions are offered and 40 asked for: all are drawn, in each of 60 steps
    assert "180 medium where" in explorer.alt
    assert "300 hard where" in explorer.alt
    for name in ("medium", "hard"):
        explorer.controls[name].value = 0
    assert "nothing to draw" in explorer.alt
