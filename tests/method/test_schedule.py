from typing import Any

import pytest
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.method.curriculum import TierSampler
from rmt_mini.method.schedule import budget_of, budgets_for, outside, sampler_for
from rmt_mini.records import Position, Text


@pytest.mark.parametrize(
    ("settings", "budgets"),
    [
        ({}, [80, 56, 40, 28, 25]),  # 80 * 0.25 ** (step / 4), floored, and at least 25
        ({"use_budget": False}, [80] * 5),
    ],
)
def test_the_budget_of_a_step(settings: dict[str, Any], budgets: list[int]) -> None:
    config = RMTConfig(steps=4, budget_start=80, budget_min=25, budget_decay=0.25, **settings)
    assert [budget_of(config, step) for step in range(5)] == budgets


@pytest.mark.parametrize(
    ("settings", "budget", "budgets"),
    [
        ({}, 8, [8, 8, 8]),
        ({"budget_rule": "entropy"}, 8, [3, 8, 16]),  # 8 * H / 1.5, and at least 3
        ({"budget_rule": "entropy"}, 2, [2, 2, 4]),  # an evaluation's budget below the minimum is the minimum
        ({"budget_rule": "entropy", "use_budget": False}, 8, [8, 8, 8]),
    ],
)
def test_the_budgets_of_positions(settings: dict[str, Any], budget: int, budgets: list[int]) -> None:
    asked = [Position(0, 3 + n, 0, entropy) for n, entropy in enumerate((0.0, 1.5, 3.0))]
    config = RMTConfig(budget_start=20, budget_min=3, **settings)
    assert budgets_for(config, budget, asked) == budgets


@pytest.mark.parametrize("enabled", [True, False])
def test_the_sampler_that_the_settings_describe(enabled: bool) -> None:
    early, late, tiers = (0.7, 0.2, 0.1), (0.1, 0.3, 0.6), torch.arange(60) % 3
    config = RMTConfig(
        steps=9, tier_probs_early=early, tier_probs_late=late, curriculum_start=0.1, curriculum_end=0.8, seed=5,
        use_curriculum=enabled,
    )  # fmt: skip
    ours, direct = sampler_for(config), TierSampler(9, early, late, 0.1, 0.8, seed=5, enabled=enabled)
    assert (ours.total_steps, ours.early, ours.late, ours.start, ours.end) == (9, early, late, 0.1, 0.8)
    assert [ours.sample(tiers, 7, step).tolist() for step in range(9)] == [
        direct.sample(tiers, 7, step).tolist() for step in range(9)
    ]


def test_the_next_token_loss_trains_on_known_tokens_outside_the_chosen_ones() -> None:
    copied = Text("a", (5, 6, 7, 8), first=1)
    texts = [Text("b", (9, 5, 6, 7, 8), first=2, unknown=(3,)), copied, copied, Text("c", (4, 4), first=1)]
    chosen = [Position(0, 4, 0, 0.5), Position(1, 1, 0, 0.5), Position(2, 3, 0, 0.5)]
    assert [mask.int().tolist() for mask in outside(texts, chosen)] == [
        [0, 0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 1],  # a position of one copy is chosen in both
    ]  # fmt: skip
