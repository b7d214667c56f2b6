"""The controls of GRPO's four figures move what the formulas say."""

from __future__ import annotations

import math

import pytest

from rmt_mini.report.plots import clip_curve, signal_curve
from rmt_mini.teaching.widgets.grpo import (
    advantage_explorer,
    clip_explorer,
    kl_explorer,
    moved_policy,
    one_group,
    signal_explorer,
)


def test_every_control_of_a_group_moves_its_advantages() -> None:
    explorer = advantage_explorer()
    for name, value, told in (
        ("group_size", 4, "rewards 1.00, 1.00, 0.30, 0.27"),
        ("right", 1, "rewards 1.00, 0.30, 0.30, 0.27"),
        ("length_weight", 0.5, "rewards 1.00, 0.50, 0.50, 0.45"),
        ("last", 0.2, "rewards 1.00, 0.50, 0.50, 0.10"),
        ("only_if_correct", True, "rewards 1.00, 0.00, 0.00, 0.00, mean 0.25: advantages scaled 1.73, -0.58"),
    ):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == one_group(**explorer.settings).alt != before, name
        assert told in explorer.alt, name
    explorer.controls["right"].value = 5
    assert explorer.alt == "right=5, but the group has only group_size=4 rollouts"


def test_among_wrong_answers_scaling_makes_a_small_difference_large() -> None:
    # rewards .3, .3, .3, .27: deviations .0075 and -.0225, std .01299, and 1e-4 is added to it
    alt = one_group(4, right=0, length_weight=0.3, last=0.9, only_if_correct=False).alt
    assert "scaled 0.57, 0.57, 0.57, -1.72, not scaled 0.01, 0.01, 0.01, -0.02" in alt
    assert "all advantages are 0" in one_group(4, right=0, length_weight=0.3, last=0.9, only_if_correct=True).alt


def test_every_control_of_the_signal_moves_it() -> None:
    explorer = signal_explorer()
    for name, value in (("pass_rate", 0.2), ("group_size", 3), ("groups", 50), ("seed", 7)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == signal_curve(**explorer.settings).alt != before, name
    assert "48.0 % of groups carry a signal" in explorer.alt  # 1 - .008 - .512


def test_every_control_of_the_clip_moves_it() -> None:
    explorer = clip_explorer()
    for name, value, told in (
        ("ratio", 1.3, "+1 the objective is 1.20, clipped"),
        ("epsilon", 0.4, "+1 the objective is 1.30, and its gradient pushes the token up"),
        ("size", 2.0, "-2 the objective is -2.60, and its gradient pushes the token down"),
    ):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == clip_curve(**explorer.settings).alt != before, name
        assert told in explorer.alt, name


def test_every_control_of_the_kl_moves_it() -> None:
    explorer = kl_explorer()
    for name, value in (("move", 0.5), ("vocabulary", 2), ("samples", 256), ("seed", 1)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == moved_policy(**explorer.settings).alt != before, name
    # reference (2/3, 1/3); the logits move by -.5 and .5, so that the odds 2 become 2 / e
    odds = 2 / math.e
    p = (odds / (1 + odds), 1 / (1 + odds))
    exact = p[0] * math.log(p[0] * 3 / 2) + p[1] * math.log(p[1] * 3)
    assert f"Exact KL(p || q) is {exact:.3f} nats" in explorer.alt
    with pytest.raises(ValueError, match="must be at least 2"):
        moved_policy(1.0, 1, 8, 0)
