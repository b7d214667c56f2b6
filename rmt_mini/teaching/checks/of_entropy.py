"""Exercises on lesson 2, token entropy."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import torch
from torch import Tensor

from rmt_mini.method import entropy
from rmt_mini.method.entropy import TIERS, assign_tiers
from rmt_mini.teaching.checks.cases import Case, Exercise, Raises, chance, edge, hand, shape
from rmt_mini.teaching.mutants import of_entropy as wrong

NAN, NEVER = math.nan, -math.inf


def _logits(source: random.Random) -> Tensor:
    size = [source.randint(1, 3) for _ in range(source.randint(0, 2))]
    flat = [source.uniform(-4, 4) for _ in range(math.prod(size) * 6)]
    return torch.tensor(flat).reshape(*size, 6)


def token_entropy(logits: Tensor) -> Tensor:
    """Measure how undecided a next-token distribution is: see rmt_mini.method.entropy."""
    return entropy.token_entropy(logits)


def _token_entropy(source: random.Random) -> Iterator[Case]:
    yield shape(torch.zeros(2, 3, 5), hint="one entropy for each distribution: the last dimension goes")
    even = "four tokens that are equally likely have the entropy log 4 = 1.386 nats"
    yield hand(torch.zeros(4), gives=torch.tensor(1.386294), hint=even)
    yield hand(torch.tensor([0.9, 0.1]).log(), gives=torch.tensor(0.325083), hint="-0.9 log 0.9 - 0.1 log 0.1 = 0.3251")
    rows = "each row is a distribution of its own: log 2, and nearly 0"
    yield hand(torch.tensor([[3.0, 3.0], [20.0, 0.0]]), gives=torch.tensor([0.693147, 0.0]), hint=rows)
    for _ in range(60):
        yield chance(_logits(source))
    never = "a token that cannot come adds 0: 0 * log 0 counts as 0, but computed as written it is nan"
    yield edge(torch.tensor([0.0, 0.0, NEVER]), gives=torch.tensor(0.693147), hint=never)
    large = "exp(1000) is inf: softmax and log_softmax take the largest logit away first, which changes nothing else"
    yield edge(torch.tensor([1000.0, 1000.0, 0.0]), gives=torch.tensor(0.693147), hint=large)
    yield edge(torch.tensor([5.0]), gives=torch.tensor(0.0), hint="a vocabulary of one token leaves nothing undecided")


def top_k_entropy(logits: Tensor, top_k: int) -> Tensor:
    """Measure entropy over the likeliest tokens: see rmt_mini.method.entropy."""
    return entropy.token_entropy(logits, top_k)


def _top_k_entropy(source: random.Random) -> Iterator[Case]:
    yield shape(torch.zeros(2, 3, 5), 2)
    two = "only the two likeliest are left, and they are equally likely: log 2"
    yield hand(torch.tensor([1.0, 3.0, 3.0, 2.0]), 2, gives=torch.tensor(0.693147), hint=two)
    scaled = "0.6 and 0.2 are left, which make 0.75 and 0.25 once they sum to 1"
    yield hand(torch.tensor([0.2, 0.6, 0.15, 0.05]).log(), 2, gives=torch.tensor(0.562335), hint=scaled)
    for _ in range(60):
        yield chance(_logits(source), source.randint(1, 6))
    yield edge(torch.tensor([1.0, 2.0]), 1, gives=torch.tensor(0.0), hint="one candidate leaves nothing undecided")
    ties = "k tokens, and no more: of equally likely ones at the border as many as there is room for"
    yield edge(torch.tensor([2.0, 2.0, 2.0]), 2, gives=torch.tensor(0.693147), hint=ties)
    everything = "with k as large as the vocabulary nothing is left out"
    yield edge(torch.zeros(2, 4), 4, gives=torch.tensor([1.386294, 1.386294]), hint=everything)


def _assign_tiers(source: random.Random) -> Iterator[Case]:
    yield shape(torch.tensor([0.2, 0.7]), (0.5, 1.5), hint="a tier is a whole number, one for each position")
    each = "0.2 is easy, 0.7 medium and 1.6 hard at thresholds 0.5 and 1.5"
    yield hand(torch.tensor([0.2, 0.7, 1.6]), (0.5, 1.5), gives=torch.tensor([0, 1, 2]), hint=each)
    at = "an entropy that equals a threshold falls on the easier side"
    yield hand(torch.tensor([0.5, 1.5]), (0.5, 1.5), gives=torch.tensor([0, 1]), hint=at)
    for _ in range(60):
        low, high = sorted(source.randint(0, 8) / 4 for _ in range(2))
        values = [source.randint(0, 9) / 4 for _ in range(source.randint(1, 4) * 2)]
        yield chance(torch.tensor(values).reshape(2, -1), (low, high))
    same = "with equal thresholds no position is medium"
    yield edge(torch.tensor([1.0, 1.25]), (1.0, 1.0), gives=torch.tensor([0, 2]), hint=same)
    order = "thresholds that descend are a mistake: raise ValueError"
    yield edge(torch.tensor([1.0]), (1.5, 0.5), gives=Raises(ValueError), hint=order)
    broken = "an entropy that is nan exceeds nothing and would pass as easy: raise ValueError"
    yield edge(torch.tensor([1.0, NAN]), (0.5, 1.5), gives=Raises(ValueError), hint=broken)


def loss_by_tier(loss: Tensor, tiers: Tensor) -> Tensor:
    """Take the mean loss of each tier: see notebooks/solutions/02_entropy.ipynb."""
    return torch.stack([loss[tiers == tier].mean() for tier in range(len(TIERS))])


def _loss_by_tier(source: random.Random) -> Iterator[Case]:
    yield shape(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 2]))
    means = "easy (1 + 2) / 2, medium 4, hard (2 + 3 + 7) / 3"
    loss, tiers = torch.tensor([1.0, 4.0, 2.0, 2.0, 3.0, 7.0]), torch.tensor([0, 1, 2, 0, 2, 2])
    yield hand(loss, tiers, gives=torch.tensor([1.5, 4.0, 4.0]), hint=means)
    for _ in range(60):
        count = source.randint(3, 12)
        mixed = torch.tensor([0, 1, 2] + [source.randint(0, 2) for _ in range(count - 3)])
        mixed = mixed[source.sample(range(count), count)]
        yield chance(torch.tensor([source.uniform(0, 5) for _ in range(count)]), mixed)
    none = "a tier without positions has no mean loss: nan, where 0 would read as perfect"
    yield edge(torch.tensor([1.0, 3.0]), torch.tensor([2, 2]), gives=torch.tensor([NAN, NAN, 2.0]), hint=none)


def auc(positive: Tensor, negative: Tensor) -> float:
    """Take the share of pairs that are in the right order: see notebooks/solutions/02_entropy.ipynb."""
    above = positive[:, None] > negative
    level = positive[:, None] == negative
    return float((above.double() + level.double() / 2).mean())


def _auc(source: random.Random) -> Iterator[Case]:
    yield shape(torch.tensor([1.0, 2.0]), torch.tensor([1.5]))
    four = "2 lies above 1 and below 3, 4 lies above both: 3 of 4 pairs"
    yield hand(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 3.0]), gives=0.75, hint=four)
    alike = "equal ones count one half, so that a score that is the same for all gives chance, 0.5"
    yield hand(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]), gives=0.5, hint=alike)
    for _ in range(80):
        one, other = ([source.randint(0, 8) / 4 for _ in range(source.randint(1, 8))] for _ in range(2))
        yield chance(torch.tensor(one), torch.tensor(other))
    worse = "where every positive lies below every negative no pair is in order"
    yield edge(torch.tensor([0.0]), torch.tensor([1.0, 2.0, 3.0]), gives=0.0, hint=worse)
    far = "one position that is far above the others is one position"
    yield edge(torch.tensor([0.0, 0.0, 99.0]), torch.tensor([1.0]), gives=1 / 3, hint=far)


EXERCISES = (
    Exercise(2, 2, token_entropy, _token_entropy, wrong.TOKEN_ENTROPY),
    Exercise(2, 2, top_k_entropy, _top_k_entropy, wrong.TOP_K_ENTROPY),
    Exercise(2, 2, assign_tiers, _assign_tiers, wrong.ASSIGN_TIERS),
    Exercise(2, 1, loss_by_tier, _loss_by_tier, wrong.LOSS_BY_TIER),
    Exercise(2, 2, auc, _auc, wrong.AUC),
)
