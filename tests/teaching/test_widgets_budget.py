"""The reward's controls move what the formula says."""

from __future__ import annotations

from rmt_mini.report.plots import reward_by_length
from rmt_mini.teaching.widgets.budget import reward_explorer


def test_every_control_moves_the_reward_as_its_formula_does() -> None:
    explorer = reward_explorer()
    assert "earns 0.85." in explorer.alt  # .7 + .3 * (1 - 4 / 8)
    for name, value, earned in (
        ("length_weight", 0.5, 0.75),  # .5 + .5 / 2
        ("budget", 12, 1.0),  # on the budget
        ("length", 3, 0.625),  # .5 + .5 * 3 / 12
        ("right", False, 0.125),
        ("only_if_correct", True, 0.0),
    ):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == reward_by_length(**explorer.settings).alt != before, name
        assert f"earns {earned:.2f}." in explorer.alt, name
