"""The token budget: curve and triangle together, and what a run made of its budget."""

from __future__ import annotations

from rmt_mini.study.plots import budget_curve
from rmt_mini.teaching.widgets.controls import Explorer, explore, number, whole


def budget_explorer() -> Explorer:
    """Move B_0, B_min, gamma, T and the step over the budget's curve and the length reward at that step."""
    return explore(
        budget_curve,
        total_steps=whole("T, steps of the run", 110, 1, 400),
        start=whole("B_0, first budget", 20, 1, 64),
        minimum=whole("B_min, least budget", 4, 1, 64),
        decay=number("gamma, B_T / B_0", 0.4, 0.05, 1.0),
        step=whole("t, step", 55, 0, 400),
    )
