"""The paper's formulas under a run's settings: a step's budget, each position's budget, the sampler, and the NTP mask.

Written once for both trainers: the tree's (``stages/midtrain.py``) and TRL's (``scale``).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.method.budget import budget_at_step, budgets_by_entropy
from rmt_mini.method.curriculum import TierSampler
from rmt_mini.method.objective import ntp_mask
from rmt_mini.records import Position, Text


def budget_of(config: RMTConfig, step: int) -> int:
    """Return B_t; without a budget B_0 throughout, which then only sets the cap.

    Args:
        config: budget_start, budget_min, budget_decay, steps, use_budget.
        step: t, from 0 to steps.

    Returns:
        B_t, tokens.

    Raises:
        ValueError: if the step lies outside the run.

    Source:
        arXiv 2509.24375, dynamic token budget.

    Example:
        >>> [budget_of(RMTConfig(steps=4, budget_start=20), step) for step in range(5)]
        [20, 13, 8, 5, 4]
    """
    if not config.use_budget:
        return config.budget_start
    return budget_at_step(step, config.steps, config.budget_start, config.budget_min, config.budget_decay)


def budgets_for(config: RMTConfig, budget: int, positions: Sequence[Position]) -> list[int]:
    """Return the budget of each position: B_t, or with ``budget_rule`` "entropy" a share of it.

    Args:
        config: budget_rule, budget_min, use_budget.
        budget: B_t, tokens.
        positions: all that are asked in the step; their entropies count.

    Returns:
        A budget for each, tokens.

    Source:
        arXiv 2509.24375, dynamic token budget; the rule "entropy" is ours.

    Example:
        >>> asked = [Position(0, 3, 0, entropy=0.5), Position(0, 7, 1, entropy=1.5)]
        >>> [budgets_for(RMTConfig(budget_rule=rule), 8, asked) for rule in ("step", "entropy")]
        [[8, 8], [4, 12]]
    """
    if config.use_budget and config.budget_rule == "entropy":
        minimum = min(config.budget_min, budget)  # an evaluation may state a smaller budget than any step does
        return budgets_by_entropy([position.entropy for position in positions], budget, minimum)
    return [budget] * len(positions)


def sampler_for(config: RMTConfig) -> TierSampler:
    """Return the sampler of positions that the settings describe, at its beginning.

    Args:
        config: steps, seed, use_curriculum and the fields of the curriculum.

    Returns:
        The sampler.

    Source:
        arXiv 2509.24375, curriculum-based adaptive sampling.

    Example:
        >>> sampler_for(RMTConfig(steps=3, use_curriculum=False)).enabled
        False
    """
    return TierSampler(
        config.steps,
        config.tier_probs_early,
        config.tier_probs_late,
        config.curriculum_start,
        config.curriculum_end,
        seed=config.seed,
        enabled=config.use_curriculum,
    )


def outside(texts: Sequence[Text], positions: Sequence[Position]) -> list[Tensor]:
    """Mark the tokens of a step's texts that the next-token loss trains on: the known ones outside C.

    A text may come twice in a step, where an epoch ends within it, say. A position of one copy is in C for both.

    Args:
        texts: of the step.
        positions: C.

    Returns:
        For each text bool (T,), on the CPU.

    Source:
        arXiv 2509.24375, dual training, the mask m_pos.

    Example:
        >>> twice = [Text("a", (5, 6, 7), first=1)] * 2
        >>> [mask.int().tolist() for mask in outside(twice, [Position(1, 2, tier=0, entropy=0.5)])]
        [[0, 1, 0], [0, 1, 0]]
    """
    chosen: dict[tuple[int, ...], list[int]] = {}
    for position in positions:
        chosen.setdefault(texts[position.trunk].ids, []).append(position.index)
    return [ntp_mask(len(text.ids), [*chosen.get(text.ids, []), *text.unknown], text.first) for text in texts]
