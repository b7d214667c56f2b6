"""Exercises on lesson 5, GRPO: from a group to a gradient."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rmt_mini.method import grpo
from rmt_mini.method.grpo import group_advantages, groups_with_signal, kl_estimate
from rmt_mini.teaching.checks.calls import differentiated
from rmt_mini.teaching.checks.cases import Case, Exercise, chance, edge, hand, shape
from rmt_mini.teaching.mutants import of_grpo as wrong


def _logs(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).log()


def _estimate(values: list[float], gradient: list[float]) -> dict[str, Tensor]:
    return {"estimate": torch.tensor(values), "gradient": torch.tensor(gradient)}


def _kl_estimate(source: random.Random) -> Iterator[Case]:
    yield shape(_logs(0.5, 0.25, 0.125), _logs(0.25, 0.25, 0.5), hint="give one value for each token")
    likelier = "a token of 1/2 under the policy and 1/4 under the reference has d = log(1/2): 1/2 + log 2 - 1 = 0.193"
    yield hand(_logs(0.5), _logs(0.25), gives=_estimate([math.log(2) - 0.5], [0.5]), hint=likelier)
    rarer = "the other way round d = log 2: 2 - log 2 - 1 = 0.307; the estimate is not symmetric"
    yield hand(_logs(0.25), _logs(0.5), gives=_estimate([1 - math.log(2)], [-1.0]), hint=rarer)
    for _ in range(30):
        count = source.randint(1, 6)
        yield chance(*(_logs(*(source.uniform(0.02, 1.0) for _ in range(count))) for _ in range(2)))
    equal = "where policy and reference agree there is nothing to hold back: the estimate is 0, and so is its gradient"
    yield edge(_logs(0.3, 0.9), _logs(0.3, 0.9), gives=_estimate([0.0, 0.0], [0.0, 0.0]), hint=equal)
    square = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]])
    yield edge(square, square.flip(1), hint="log-probabilities may have any shape, such as (rollouts, tokens)")


def _group_advantages(source: random.Random) -> Iterator[Case]:
    yield shape(torch.tensor([1.0, 0.0, 0.0, 0.0]), 2, 1e-4, hint="give one advantage for each reward, in its place")
    pair = "two rewards 1 and 0 have mean 1/2 and deviation 1/2, so advantages 1 and -1"
    yield hand(torch.tensor([1.0, 0.0]), 2, 0.0, gives=torch.tensor([1.0, -1.0]), hint=pair)
    groups = "each group has its own mean and deviation: 1, 0 and 0.6, 0.2 both give 1 and -1"
    rewards, expected = torch.tensor([1.0, 0.0, 0.6, 0.2]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    yield hand(rewards, 2, 0.0, gives=expected, hint=groups)
    one_of_four = "rewards 1, 0, 0, 0 have mean 1/4 and deviation sqrt(3)/4, which divides by 4"
    advantages = torch.tensor([3.0, -1.0, -1.0, -1.0]) / math.sqrt(3)
    yield hand(torch.tensor([1.0, 0.0, 0.0, 0.0]), 4, 0.0, gives=advantages, hint=one_of_four)
    for _ in range(40):
        size, count = source.randint(2, 8), source.randint(1, 5)
        drawn = [source.choice([0.0, 0.3, 1.0, source.random()]) for _ in range(size * count)]
        yield chance(torch.tensor(drawn), size, source.choice([1e-4, 1e-2]))
    silent = "a group whose rewards are all equal teaches nothing: exactly 0, and no nan"
    yield edge(torch.tensor([1.0, 1.0, 0.0, 1.0]), 2, 1e-4, hint=silent)
    yield edge(torch.ones(4), 4, 0.0, gives=torch.zeros(4), hint=silent)
    for value, size in ((0.3, 7), (0.1, 3), (0.7, 11), (0.1, 6), (0.9, 13), (0.3, 21)):
        yield edge(torch.full((size,), value), size, 1e-4, gives=torch.zeros(size), hint=silent)
    yield edge(torch.tensor([0.4, 0.9]), 1, 1e-4, gives=torch.zeros(2), hint="a group of one compares with nobody")


def rl_loss(logprobs: Tensor, advantages: Tensor, mask: Tensor, old_logprobs: Tensor, clip_epsilon: float) -> Tensor:
    """Compute the clipped policy loss: see notebooks/solutions/05_grpo.ipynb."""
    return grpo.rl_loss(logprobs, advantages, mask, old_logprobs=old_logprobs, clip_epsilon=clip_epsilon)


def _loss(value: float, gradient: list[list[float]]) -> dict[str, Tensor]:
    return {"loss": torch.tensor(value), "gradient": torch.tensor(gradient)}


def _token(ratio: float, advantage: float, loss: float, gradient: float, hint: str) -> Case:
    """Make the case of a single token, at a ratio to an old probability of one half."""
    now, old, own = torch.tensor([[math.log(ratio / 2)]]), torch.tensor([[math.log(0.5)]]), torch.tensor([[True]])
    return hand(now, torch.tensor([advantage]), own, old, 0.2, gives=_loss(loss, [[gradient]]), hint=hint)


def _rl_loss(source: random.Random) -> Iterator[Case]:
    one = torch.ones(1, 2)
    yield shape(-one, torch.ones(1), one.bool(), -one, 0.2, hint="give one number, a tensor without dimensions")
    yield _token(1.1, 2.0, -2.2, -2.2, "within the clip the loss is minus ratio times advantage")
    yield _token(1.5, 1.0, -1.2, 0.0, "a good token, likelier by half: clipped at 1.2, and without a gradient")
    yield _token(1.5, -1.0, 1.5, 1.5, "a bad token that became likelier is never clipped: it is pushed back in full")
    yield _token(0.5, 1.0, -0.5, -0.5, "a good token that became rarer is never clipped: it is pulled up in full")
    yield _token(0.5, -1.0, 0.8, 0.0, "a bad token, half as likely: clipped at 0.8, and without a gradient")
    for _ in range(40):
        rollouts, longest = source.randint(1, 4), source.randint(1, 5)
        old = torch.tensor([[-source.uniform(0.1, 2.0) for _ in range(longest)] for _ in range(rollouts)])
        moved = torch.tensor([[source.uniform(-0.6, 0.6) for _ in range(longest)] for _ in range(rollouts)])
        lengths = torch.tensor([source.randint(1, longest) for _ in range(rollouts)])
        by = torch.tensor([source.uniform(-2.0, 2.0) for _ in range(rollouts)])
        yield chance(old + moved, by, torch.arange(longest) < lengths[:, None], old, source.choice([0.1, 0.2]))
    by, mask = torch.tensor([3.0, -3.0]), torch.tensor([[True, True], [True, False]])
    now, pad = torch.full((2, 2), -0.5), torch.tensor([[-0.5, -0.5], [-0.5, math.nan]])
    worked = _loss(-1.0, [[-1.0, -1.0], [1.0, 0.0]])
    yield edge(now, by, mask, now, 0.2, gives=worked, hint="three tokens: (-3 - 3 + 3) / 3; the pad is none of them")
    yield edge(pad, by, mask, now, 0.2, gives=worked, hint="what stands in a pad, even nan, must not matter")
    nothing, zero = torch.zeros(2, 2, dtype=torch.bool), _loss(0.0, [[0.0, 0.0], [0.0, 0.0]])
    yield edge(now, by, nothing, now, 0.2, gives=zero, hint="without a token the loss is a zero that has a graph")


def signal_share(matches: Tensor, group_size: int) -> dict[str, float]:
    """Count groups with a signal, and foretell them: see notebooks/solutions/05_grpo.ipynb."""
    rate = matches.mean().item()
    return {
        "counted": groups_with_signal(matches, group_size).float().mean().item(),
        "foretold": float(1 - rate**group_size - (1 - rate) ** group_size),
    }


def _signal_share(source: random.Random) -> Iterator[Case]:
    yield shape(torch.tensor([1.0, 0.0, 0.0, 0.0]), 2, hint="give a dict of two numbers")
    hint = "of the groups 1 0, 1 1, 0 0 and 0 0 one has a signal; three of eight are right: 1 - (3/8)^2 - (5/8)^2"
    matches: Any = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    yield hand(matches, 2, gives={"counted": 0.25, "foretold": 30 / 64}, hint=hint)
    for _ in range(40):
        size, count = source.randint(2, 8), source.randint(1, 8)
        rates = [source.choice([0.0, 0.1, 0.5, 1.0]) for _ in range(count)]
        yield chance(torch.tensor([float(source.random() < rate) for rate in rates for _ in range(size)]), size)
    half = "all right at half of the positions, all wrong at the others: no signal, though the average is 1/2"
    matches = torch.tensor([1.0] * 4 + [0.0] * 4)
    yield edge(matches, 4, gives={"counted": 0.0, "foretold": 0.875}, hint=half)
    yield edge(torch.ones(4), 4, gives={"counted": 0.0, "foretold": 0.0}, hint="where all are right nothing is learned")
    yield edge(torch.tensor([1.0, 0.0]), 1, gives={"counted": 0.0, "foretold": 0.0}, hint="a group of one is silent")


EXERCISES = (
    Exercise(5, 1, kl_estimate, _kl_estimate, wrong.KL_ESTIMATE, differentiated("estimate")),
    Exercise(5, 2, group_advantages, _group_advantages, wrong.GROUP_ADVANTAGES),
    Exercise(5, 3, rl_loss, _rl_loss, wrong.RL_LOSS, differentiated("loss")),
    Exercise(5, 2, signal_share, _signal_share, wrong.SIGNAL_SHARE),
)
