"""Exercises on lesson 3, the dynamic token budget."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from rmt_mini.method.budget import budget_at_step, length_reward
from rmt_mini.teaching.checks.cases import Case, Exercise, Raises, chance, edge, hand, shape
from rmt_mini.teaching.mutants import of_budget as wrong


def _length_reward(source: random.Random) -> Iterator[Case]:
    yield shape(3, 4)
    yield hand(4, 4, gives=1.0, hint="at the budget itself the reward has its peak, 1")
    yield hand(2, 4, gives=0.5, hint="half the budget away from the budget, the reward is one half")
    yield hand(6, 4, gives=0.5, hint="the triangle is symmetric: 2 tokens too many cost what 2 too few do")
    for _ in range(100):
        yield chance(source.randint(0, 60), source.randint(1, 30))
    yield edge(0, 4, gives=0.0, hint="a thought of no tokens is a whole budget away from the budget")
    yield edge(8, 4, gives=0.0, hint="at twice the budget the triangle has come down to 0")
    yield edge(9, 4, gives=0.0, hint="beyond twice the budget the reward stays at 0")


def _budget_at_step(source: random.Random) -> Iterator[Case]:
    yield shape(1, 4, 800, 1, 0.2)
    for step, budget in enumerate((800, 534, 357, 239, 160)):
        yield hand(step, 4, 800, 1, 0.2, gives=budget, hint="the paper's settings give 800, 534, 357, 239, 160")
    for _ in range(100):
        total, minimum = source.randint(1, 200), source.randint(1, 10)
        start = minimum + source.randint(0, 100)
        yield chance(source.randint(0, total), total, start, minimum, source.uniform(0.05, 1.0))
    yield edge(4, 4, 10, 4, 0.2, gives=4, hint="the budget never falls below the minimum")
    yield edge(3, 7, 10, 1, 1.0, gives=10, hint="a decay of 1 leaves the budget as it is")
    yield edge(5, 4, 10, 1, 0.5, gives=Raises(ValueError), hint="a step behind the last one is a mistake: say so")


def close_at_cap(thought: Sequence[int], closing: Sequence[int], cap: int) -> tuple[list[int], list[bool]]:
    """Close a sampled thought, and say which tokens take the RL loss: see notebooks/solutions/03_budget.ipynb."""
    stop = closing[0]
    own = list(thought[:cap])
    if stop in own:
        own = own[: own.index(stop)]
        return own + list(closing), [True] * (len(own) + 1) + [False] * (len(closing) - 1)
    return own + list(closing), [True] * len(own) + [False] * len(closing)


def _close_at_cap(source: random.Random) -> Iterator[Case]:
    yield shape([5, 6], [1, 2], 8)
    closed = "a thought that closed itself chose its first closing token: that one takes the loss"
    yield hand([5, 6, 1, 7], [1, 2], 8, gives=([5, 6, 1, 2], [True, True, True, False]), hint=closed)
    cut = "at the cap the environment closes the thought: no closing token takes the loss, or it learns to be cut off"
    yield hand([5, 6, 7, 8], [1, 2], 2, gives=([5, 6, 1, 2], [True, True, False, False]), hint=cut)
    for _ in range(100):
        thought = [source.choice([1, 5, 6, 7, 8, 9, 5, 6, 7, 8]) for _ in range(source.randint(0, 10))]
        yield chance(thought, [1, 2, 3][: source.randint(1, 3)], source.randint(1, 10))
    late = "a closing token behind the cap was never sampled by the time the environment closed the thought"
    yield edge([5, 6, 1], [1, 2], 2, gives=([5, 6, 1, 2], [True, True, False, False]), hint=late)
    yield edge([1], [1, 2], 4, gives=([1, 2], [True, False]), hint="a thought may close at once, of length 0")
    yield edge([], [1, 2], 4, gives=([1, 2], [False, False]), hint="nothing was sampled, so nothing takes the loss")


def budget_adherence(lengths: Sequence[int], closed: Sequence[bool], budget: int) -> dict[str, float]:
    """Measure how a step's thoughts keep to their budget: see notebooks/solutions/03_budget.ipynb."""
    own = [length for length, itself in zip(lengths, closed, strict=True) if itself]
    return {
        "closed_share": len(own) / len(lengths) if lengths else 0.0,
        "mean_distance": sum(abs(length - budget) for length in own) / len(own) if own else float("nan"),
        "over_share": sum(length > budget for length in lengths) / len(lengths) if lengths else 0.0,
    }


def _budget_adherence(source: random.Random) -> Iterator[Case]:
    yield shape([3, 4], [True, False], 3)
    worked: dict[str, Any] = {"closed_share": 0.75, "mean_distance": 2.0, "over_share": 0.5}
    hint = "distances are taken over thoughts that closed themselves; both shares over all thoughts"
    yield hand([2, 4, 7, 8], [True, True, True, False], 4, gives=worked | {"mean_distance": 5 / 3}, hint=hint)
    for _ in range(60):
        count = source.randint(1, 12)
        lengths = [source.randint(0, 16) for _ in range(count)]
        yield chance(lengths, [source.random() < 0.7 for _ in range(count)], source.randint(1, 12))
    none = {"closed_share": 0.0, "mean_distance": float("nan"), "over_share": 1.0}
    yield edge([8, 8], [False, False], 4, gives=none, hint="where no thought closed itself there is no distance: nan")
    at = {"closed_share": 1.0, "mean_distance": 0.0, "over_share": 0.0}
    yield edge([4], [True], 4, gives=at, hint="a thought as long as the budget is not over it")


EXERCISES = (
    Exercise(3, 1, length_reward, _length_reward, wrong.LENGTH_REWARD),
    Exercise(3, 2, budget_at_step, _budget_at_step, wrong.BUDGET_AT_STEP),
    Exercise(3, 3, close_at_cap, _close_at_cap, wrong.CLOSE_AT_CAP),
    Exercise(3, 2, budget_adherence, _budget_adherence, wrong.BUDGET_ADHERENCE),
)
