"""Does reinforcement alone teach? A pattern is learned from match rewards, and from rewards dealt at random it is not.

Mean match reward of steps 31 to 40 in four seeds: 0.44, 0.53, 0.44, 0.97 with the true rewards; below 0.01 with them
shuffled among the rollouts of a step, and with coins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.method.grpo import group_advantages
from rmt_mini.records import Judged, Rollout
from rmt_mini.stages.midtrain import RMTTrainer, judge
from tests.fakes import make_tiny_policy
from tests.stages.tiny import small, texts_for

STEPS = 45


def shuffled(rollouts: Sequence[Rollout], form: Any, trunks: Any, config: RMTConfig) -> list[Judged]:
    """Deal the step's rewards out among all its rollouts; ``match`` stays true, for the measurement."""
    fair = judge(rollouts, form, trunks, config)
    seed = sum((place + 1) * token for place, one in enumerate(rollouts) for token in one.answer)
    order = torch.randperm(len(fair), generator=torch.Generator().manual_seed(seed)).tolist()
    return _paid(fair, [fair[place].match for place in order], config)


def coins(rollouts: Sequence[Rollout], form: Any, trunks: Any, config: RMTConfig) -> list[Judged]:
    """Pay every other rollout by chance: as much signal as learning could ever have, and no truth in it."""
    fair = judge(rollouts, form, trunks, config)
    seed = sum((place + 1) * token for place, one in enumerate(rollouts) for token in one.answer)
    flips = torch.rand(len(fair), generator=torch.Generator().manual_seed(seed)) < 0.5
    return _paid(fair, flips.double().tolist(), config)


def _paid(fair: list[Judged], rewards: list[float], config: RMTConfig) -> list[Judged]:
    advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), config.group_size).tolist()
    return [
        dataclasses.replace(one, reward=reward, advantage=advantage)
        for one, reward, advantage in zip(fair, rewards, advantages, strict=True)
    ]


def matches(seed: int, judging: Callable[..., list[Judged]]) -> list[float]:
    """Mean match reward of every step of RL on 'abab...': the right answer is the letter not said last."""
    policy = make_tiny_policy(seed=seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim == 2:
                parameter *= 0.3  # the next token is still wide open
    config = small(
        steps=STEPS,
        seed=seed,
        use_ntp=False,
        use_budget=False,
        use_curriculum=False,
        budget_start=2,
        budget_min=1,
        group_size=8,
        positions_per_document=8,
        document_tokens=40,
        learning_rate=1e-2,
    )
    texts = texts_for(policy, config, ["ab" * 20, "ba" * 20])
    return [metrics.match_reward for metrics in RMTTrainer(config, policy, texts, judging).fit()]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_match_rewards_alone_teach_a_pattern(seed: int) -> None:
    history = matches(seed, judge)
    assert mean(history[:5]) < 0.1
    assert mean(history[-10:]) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "judging"), [(0, shuffled), (1, shuffled), (0, coins)])
def test_rewards_dealt_at_random_teach_nothing(seed: int, judging: Callable[..., list[Judged]]) -> None:
    history = matches(seed, judging)
    assert mean(history[-10:]) < 0.05
