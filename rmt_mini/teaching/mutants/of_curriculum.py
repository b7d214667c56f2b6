"""Wrong answers to the exercises on lesson 4, the curriculum."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

Three: TypeAlias = tuple[float, float, float]


def _between(share: float, early: Sequence[float], late: Sequence[float]) -> Three:
    easy, medium, hard = ((1 - share) * before + share * after for before, after in zip(early, late, strict=True))
    return easy, medium, hard


def _ordered(start: float, end: float) -> None:
    if start >= end:
        raise ValueError("end does not lie behind start")


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))


def runs_on(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float, end: float
) -> Three:
    """The line runs on before t1 and behind t2: keep the share of the way within 0 and 1."""
    _ordered(start, end)
    return _between((step / total_steps - start) / (end - start), early, late)


def from_the_beginning(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float, end: float
) -> Three:
    """The change begins at step 0 with you; until t1 the early mix holds, so subtract t1 before you divide."""
    _ordered(start, end)
    return _between(_within(step / total_steps / end), early, late)


def divides_by_end(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float, end: float
) -> Three:
    """You divide by t2; the way from t1 to t2 is t2 - t1 long, and the late mix must hold at t2."""
    _ordered(start, end)
    return _between(_within((step / total_steps - start) / end), early, late)


def floor_too_early(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float, end: float
) -> Three:
    """The share of steps is rounded down to a whole number (//), so that it stays 0 until the last step."""
    _ordered(start, end)
    return _between(_within((step // total_steps - start) / (end - start)), early, late)


def mixes_swapped(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float, end: float
) -> Three:
    """The mixes are swapped: the curriculum runs from hard to easy."""
    _ordered(start, end)
    return _between(_within((step / total_steps - start) / (end - start)), late, early)


def a_switch(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float, end: float
) -> Three:
    """You switch from the early mix to the late one at once; between t1 and t2 the change is a straight line."""
    _ordered(start, end)
    return _between(float(step / total_steps > (start + end) / 2), early, late)


def off_by_one(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float, end: float
) -> Three:
    """Off by one: steps count from 0, and step t is the share t / T of the run, not (t + 1) / T."""
    _ordered(start, end)
    return _between(_within(((step + 1) / total_steps - start) / (end - start)), early, late)


def any_order(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float, end: float
) -> Three:
    """Points t1 and t2 that are equal, or the wrong way round, pass without a word; raise ValueError."""
    return _between(_within((step / total_steps - start) / ((end - start) or 1.0)), early, late)


TIER_PROBABILITIES = (
    runs_on, from_the_beginning, divides_by_end, floor_too_early, mixes_swapped, a_switch, off_by_one, any_order,
)  # fmt: skip


def _some(left: Sequence[int]) -> None:
    if not any(left):
        raise ValueError("no tier has a position left")


def _kept(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    return [p if count else 0.0 for p, count in zip(probabilities, left, strict=True)]


def _even(left: Sequence[int]) -> list[float]:
    return [float(count > 0) / sum(one > 0 for one in left) for count in left]


def _scaled(weights: Sequence[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def lost(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    """The empty tier's probability is lost, so that the rest sums to less than 1; divide by the sum of what is left."""
    _some(left)
    kept = _kept(probabilities, left)
    return kept if sum(kept) else _even(left)


def given_evenly(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    """You give every tier that is left an equal part of what is free; they share it in proportion to their own."""
    _some(left)
    free = 1 - sum(_kept(probabilities, left))
    return [p + part * free if count else 0.0 for p, count, part in zip(probabilities, left, _even(left), strict=True)]


def by_size(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    """You weigh a tier by how many positions it has left; the curriculum says how often a tier comes, not its size."""
    _some(left)
    weights = [p * count for p, count in zip(probabilities, left, strict=True)]
    return _scaled(weights) if sum(weights) else _even(left)


def all_to_the_hardest(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    """The whole of what is free goes to one tier, the hardest that is left; all that are left share in it."""
    _some(left)
    kept = _kept(probabilities, left)
    hardest = max(tier for tier, count in enumerate(left) if count)
    given = [p + (tier == hardest) * (1 - sum(kept)) for tier, p in enumerate(kept)]
    return given if sum(kept) else _even(left)


def nothing_to_share(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    """Where the tiers that are left all have probability 0 you return zeros, and nothing can be drawn; share evenly."""
    _some(left)
    kept = _kept(probabilities, left)
    return _scaled(kept) if sum(kept) else kept


def even_over_three(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    """Where the tiers that are left have probability 0 you give each of all three a third, the empty ones as well."""
    _some(left)
    kept = _kept(probabilities, left)
    return _scaled(kept) if sum(kept) else [1 / 3] * 3


def even_over_nothing(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    """Where no position is left at all you still return probabilities; raise ValueError, there is nothing to draw."""
    kept = _kept(probabilities, left)
    return _scaled(kept) if sum(kept) else _even(left) if any(left) else [0.0] * 3


REDISTRIBUTE = (
    lost, given_evenly, by_size, all_to_the_hardest, nothing_to_share, even_over_three, even_over_nothing,
)  # fmt: skip


class _Sampler:
    def __init__(self, probabilities: Sequence[float], seed: int) -> None:
        self.probabilities, self.seed, self.source = tuple(probabilities), seed, random.Random(seed)

    def sample(self, tiers: Sequence[int], n: int) -> list[int]:
        pools = [[place for place, tier in enumerate(tiers) if tier == wanted] for wanted in range(3)]
        drawn: list[int] = []
        while len(drawn) < min(n, len(tiers)):
            drawn.append(self.take(pools[self.tier(pools)]))
        return drawn

    def tier(self, pools: Sequence[Sequence[int]]) -> int:
        return self.source.choices(range(3), self.weights(pools))[0]

    def weights(self, pools: Sequence[Sequence[int]]) -> list[float]:
        left = [len(pool) for pool in pools]
        kept = _kept(self.probabilities, left)
        return kept if sum(kept) else _even(left)

    def take(self, pool: list[int]) -> int:
        return pool.pop(self.source.randrange(len(pool)))

    def state_dict(self) -> dict[str, Any]:
        return {"source": self.source.getstate()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.source.setstate(state["source"])


class with_replacement(_Sampler):
    """A position can come twice: C is a set, so take what was drawn out of its tier."""

    def take(self, pool: list[int]) -> int:
        return self.source.choice(pool)


class first_of_the_tier(_Sampler):
    """You take the first position of a tier; draw uniformly, or the ends of documents are never trained on."""

    def take(self, pool: list[int]) -> int:
        return pool.pop(0)


class large_tiers_more(_Sampler):
    """A tier with many positions comes more often than its probability says: draw the tier first, then a position."""

    def weights(self, pools: Sequence[Sequence[int]]) -> list[float]:
        return [p * len(pool) for p, pool in zip(super().weights(pools), pools, strict=True)]


class one_tier_a_call(_Sampler):
    """You draw one tier for the whole call; each of the n positions has a tier drawn for itself."""

    def sample(self, tiers: Sequence[int], n: int) -> list[int]:
        self.drawn: int | None = None
        return super().sample(tiers, n)

    def tier(self, pools: Sequence[Sequence[int]]) -> int:
        if self.drawn is None or not pools[self.drawn]:
            self.drawn = super().tier(pools)
        return self.drawn


class stops_when_used_up(_Sampler):
    """Where the tiers with any probability are used up you stop; they give it to the others, until n are drawn."""

    def sample(self, tiers: Sequence[int], n: int) -> list[int]:
        return super().sample(tiers, min(n, sum(self.probabilities[tier] > 0 for tier in tiers)))


class the_seed_is_the_state(_Sampler):
    """Your state begins the random numbers anew (the seed alone is in it): the first draws of the run come twice."""

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.source = random.Random(state["seed"])


class state_moves_on(_Sampler):
    """Your state is the generator itself, which moves on with every later draw; return a copy of its state."""

    def state_dict(self) -> dict[str, Any]:
        return {"source": self.source}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.source = state["source"]


class loads_nothing(_Sampler):
    """What load_state_dict is given never reaches the generator: after a resume it goes on from its own seed."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class draws_from_everyones(_Sampler):
    """You draw from the global generator, which every other part of a run moves on; use a generator of your own."""

    def __init__(self, probabilities: Sequence[float], seed: int) -> None:
        super().__init__(probabilities, seed)
        self.source = _Global()


class _Global(random.Random):
    """Random numbers of torch's global generator."""

    def random(self) -> float:
        return float(torch.rand(1, dtype=torch.float64))

    def getrandbits(self, k: int) -> int:
        return int(torch.randint(2**k, (1,)))


class anew_each_call(_Sampler):
    """You make the generator anew in each call of sample: every step of the run draws the same positions."""

    def sample(self, tiers: Sequence[int], n: int) -> list[int]:
        self.source = random.Random(self.seed)
        return super().sample(tiers, n)


class seed_unused(_Sampler):
    """The seed plays no part: every run draws the same positions, and several seeds tell no more than one."""

    def __init__(self, probabilities: Sequence[float], seed: int) -> None:
        super().__init__(probabilities, 0)


TIER_SAMPLER = (
    with_replacement, first_of_the_tier, large_tiers_more, one_tier_a_call, stops_when_used_up, the_seed_is_the_state,
    state_moves_on, loads_nothing, draws_from_everyones, anew_each_call, seed_unused,
)  # fmt: skip


Counts: TypeAlias = Sequence[Sequence[int]]
Plan: TypeAlias = Sequence[Sequence[float]]


def _moments(drawn: Counts, planned: Plan) -> list[tuple[float, float]]:
    """For each tier, how many more were drawn than planned, and the variance of that."""
    return [
        (
            sum(counts[tier] - sum(counts) * p[tier] for counts, p in zip(drawn, planned, strict=True)),
            sum(sum(counts) * p[tier] * (1 - p[tier]) for counts, p in zip(drawn, planned, strict=True)),
        )
        for tier in range(3)
    ]


def _deviation(more: float, spread: float) -> float:
    return more / spread if spread else math.copysign(math.inf, more) if more else 0.0


def not_a_root(drawn: Counts, planned: Plan) -> list[float]:
    """You divide by the variance; a standard deviation is its square root."""
    return [_deviation(more, variance) for more, variance in _moments(drawn, planned)]


def sign_lost(drawn: Counts, planned: Plan) -> list[float]:
    """The sign is lost: whether a tier came too often or too seldom is what one wants to know."""
    return [abs(_deviation(more, math.sqrt(variance))) for more, variance in _moments(drawn, planned)]


def factor_forgotten(drawn: Counts, planned: Plan) -> list[float]:
    """The variance of n draws is n p (1 - p); you leave out 1 - p, so that common tiers look too regular."""
    spreads = [sum(sum(counts) * p[tier] for counts, p in zip(drawn, planned, strict=True)) for tier in range(3)]
    return [
        _deviation(more, math.sqrt(spread)) for (more, _), spread in zip(_moments(drawn, planned), spreads, strict=True)
    ]


def shifted_by_one(drawn: Counts, planned: Plan) -> list[float]:
    """The plan is shifted by one: each step's draws are held against the plan of the next step."""
    return [_deviation(more, math.sqrt(variance)) for more, variance in _moments(drawn, [*planned[1:], planned[0]])]


def one_plan_for_all(drawn: Counts, planned: Plan) -> list[float]:
    """You hold all draws against the plan of the first step; each step has a plan of its own."""
    return [_deviation(more, math.sqrt(variance)) for more, variance in _moments(drawn, [planned[0]] * len(planned))]


def spreads_added(drawn: Counts, planned: Plan) -> list[float]:
    """You add up the steps' standard deviations; of independent steps the variances add up, and the root comes last."""
    steps = [_moments([counts], [p]) for counts, p in zip(drawn, planned, strict=True)]
    spreads = [sum(math.sqrt(step[tier][1]) for step in steps) for tier in range(3)]
    return [_deviation(more, spread) for (more, _), spread in zip(_moments(drawn, planned), spreads, strict=True)]


def zero_without_room(drawn: Counts, planned: Plan) -> list[float]:
    """Where the plan leaves no room you return 0, even if it was broken; what has probability 0 must not be drawn."""
    return [more / math.sqrt(variance) if variance else 0.0 for more, variance in _moments(drawn, planned)]


DEVIATIONS = (
    not_a_root, sign_lost, factor_forgotten, shifted_by_one, one_plan_for_all, spreads_added, zero_without_room,
)  # fmt: skip
