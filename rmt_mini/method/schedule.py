"""The formulas of ``budget`` and ``curriculum`` with a run's settings put in, once for every trainer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.method.budget import budget_at_step, budgets_by_entropy
from rmt_mini.method.curriculum import TierSampler, tier_probabilities
from rmt_mini.method.objective import ntp_mask
from rmt_mini.records import Position, Text


def budget_of(config: RMTConfig, step: int) -> int:
    """Return B_t, tokens; without a budget B_0 throughout, which then only sets the cap.

    Example:
        >>> [budget_of(RMTConfig(steps=4, budget_start=20), step) for step in range(5)]
        [20, 13, 8, 5, 4]
    """
    if not config.use_budget:
        return config.budget_start
    return budget_at_step(step, config.steps, config.budget_start, config.budget_min, config.budget_decay)


def budgets_for(config: RMTConfig, budget: int, positions: Sequence[Position]) -> list[int]:
    """Return the budget of each position of a step: B_t, or with ``budget_rule`` "entropy" a share of it."""
    if config.use_budget and config.budget_rule == "entropy":
        minimum = min(config.budget_min, budget)  # an evaluation may state a smaller budget than any step does
        return budgets_by_entropy([position.entropy for position in positions], budget, minimum)
    return [budget] * len(positions)


def probabilities_of(config: RMTConfig, step: int) -> tuple[float, float, float]:
    """Return p_t over easy, medium, hard."""
    early, late = config.tier_probs_early, config.tier_probs_late
    return tier_probabilities(step, config.steps, early, late, config.curriculum_start, config.curriculum_end)


def sampler_for(config: RMTConfig) -> TierSampler:
    """Return the sampler of positions that the settings describe, in its initial state."""
    return TierSampler(
        config.steps,
        config.tier_probs_early,
        config.tier_probs_late,
        config.curriculum_start,
        config.curriculum_end,
        seed=config.seed,
        enabled=config.use_curriculum,
    )


def draw(sampler: TierSampler, pool: Sequence[Position], wanted: int, step: int) -> list[Position]:
    """Draw the set C of step ``step`` by the curriculum; it keeps the order of the pool."""
    drawn = sampler.sample(torch.tensor([position.tier for position in pool]), wanted, step)
    return [pool[place] for place in sorted(drawn.tolist())]


def outside(texts: Sequence[Text], positions: Sequence[Position]) -> list[Tensor]:
    """Mark the tokens of a step's texts that the next-token loss trains on, bool (T,) each: the known ones outside C.

    A text may come twice in a step, where an epoch ends within it, say. A position of one copy is in C for both.

    Example:
        >>> twice = [Text("a", (5, 6, 7), first=1)] * 2
        >>> [mask.int().tolist() for mask in outside(twice, [Position(1, 2, tier=0, entropy=0.5)])]
        [[0, 1, 0], [0, 1, 0]]
    """
    chosen: dict[tuple[int, ...], list[int]] = {}
    for position in positions:
        chosen.setdefault(texts[position.trunk].ids, []).append(position.index)
    return [ntp_mask(len(text.ids), [*chosen.get(text.ids, []), *text.unknown], text.first) for text in texts]
