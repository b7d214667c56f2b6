"""The token budget: curve and triangle together, and what the length reward is worth beside the match."""

from __future__ import annotations

from rmt_mini.config import preset
from rmt_mini.report.plots import budget_curve, reward_by_length
from rmt_mini.teaching.widgets.controls import Explorer, explore, number, switch, whole


def budget_explorer() -> Explorer:
    """Move B_0, B_min, gamma, T and the step over the budget's curve and the length reward at that step."""
    base = preset("micro")
    return explore(
        budget_curve,
        total_steps=whole("T, steps of the run", base.steps, 1, 400),
        start=whole("B_0, first budget", base.budget_start, 1, 64),
        minimum=whole("B_min, least budget", base.budget_min, 1, 64),
        decay=number("gamma, B_T / B_0", base.budget_decay, 0.05, 1.0),
        step=whole("t, step", base.steps // 2, 0, 400),
    )


def reward_explorer() -> Explorer:
    """Move the length weight w and one rollout over the total reward of right and of wrong answers."""
    return explore(
        reward_by_length,
        length_weight=number("w, length weight", 0.3, 0.0, 1.0),
        budget=whole("B_t, budget", 8, 1, 32),
        length=whole("thought length", 12, 0, 64),
        right=switch("the answer is right", True),
        only_if_correct=switch("length reward for right answers only (ours)"),
    )
