"""Exercises agree with the package, let other right answers pass, and see it where an input is changed."""

from __future__ import annotations

import random

import torch

from rmt_mini.teaching.checks import EXERCISES, judge
from rmt_mini.teaching.checks.checking import IN_PLACE
from rmt_mini.teaching.checks.of_tree import count_tokens
from rmt_mini.teaching.widgets.explorers_formulas import count_step


def test_tokens_of_a_tree_are_counted_as_in_the_lesson() -> None:
    source = random.Random(0)
    for _ in range(20):
        document = source.randint(2, 50)
        step = document, [source.randint(1, document - 1) for _ in range(3)], source.randint(1, 5), source.randint(1, 9)
        counted = count_step(*step)
        assert count_tokens(*step) == (counted.tree_tokens, counted.rows_tokens)


def test_a_change_to_what_a_gradient_is_taken_by_is_seen() -> None:
    reference = EXERCISES["rl_loss"].reference

    def rl_loss(logprobs: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        logprobs[~rest[1]] = 0
        return reference(logprobs, *rest)

    assert judge(rl_loss).slip == IN_PLACE


def test_an_interval_may_be_drawn_otherwise() -> None:
    import numpy as np

    def paired_interval(ours: object, theirs: object, resamples: int, seed: int) -> dict[str, float]:
        source, table = np.random.default_rng(seed + 7), np.array(ours) - np.array(theirs)
        runs, documents = (source.multinomial(n, np.full(n, 1 / n), resamples) / n for n in table.shape)
        low, high = np.quantile(np.einsum("br,bd,rd->b", runs, documents, table), [0.025, 0.975])
        return {"difference": float(table.mean()), "low": float(low), "high": float(high)}

    verdict = judge(paired_interval)
    assert verdict.passed, verdict.told


def test_a_control_may_be_dealt_otherwise() -> None:
    from rmt_mini.method.grpo import group_advantages

    def shuffled_control(rewards: list[float], group_size: int, seed: int) -> dict[str, list[float]]:
        order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
        dealt = torch.tensor(rewards, dtype=torch.float64)[order]
        return {"rewards": dealt.tolist(), "advantages": group_advantages(dealt, group_size).tolist()}

    verdict = judge(shuffled_control)
    assert verdict.passed, verdict.told
