"""Exercises on lesson 4, the curriculum."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from rmt_mini.method import curriculum
from rmt_mini.method.curriculum import tier_probabilities
from rmt_mini.method.entropy import TIERS
from rmt_mini.teaching.checks.cases import Case, Exercise, Raises, chance, edge, hand, shape
from rmt_mini.teaching.mutants import of_curriculum as wrong


def _mix(source: random.Random) -> tuple[float, ...]:
    parts = [source.randint(1, 9) for _ in TIERS]
    return tuple(part / sum(parts) for part in parts)


def _tier_probabilities(source: random.Random) -> Iterator[Case]:
    yield shape(1, 4, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), 0.25, 0.75)
    early, late = (0.4, 0.3, 0.3), (0.1, 0.4, 0.5)
    before = "up to t1 the early mix holds"
    for step in (0, 33):
        yield hand(step, 110, early, late, 0.3, 0.7, gives=early, hint=before)
    half = "step 55 lies half way from t1 = 33 to t2 = 77: the mean of both mixes"
    yield hand(55, 110, early, late, 0.3, 0.7, gives=(0.25, 0.35, 0.4), hint=half)
    quarter = "step 44 lies a quarter of the way from t1 = 33 to t2 = 77"
    yield hand(44, 110, early, late, 0.3, 0.7, gives=(0.325, 0.325, 0.35), hint=quarter)
    for step in (77, 110):
        yield hand(step, 110, early, late, 0.3, 0.7, gives=late, hint="from t2 on the late mix holds")
    for _ in range(100):
        total, start, end = source.randint(1, 200), source.randint(0, 4) / 10, source.randint(5, 10) / 10
        yield chance(source.randint(0, total), total, _mix(source), _mix(source), start, end)
    whole = "t1 may be 0 and t2 may be T: the mix then changes all the way"
    yield edge(1, 2, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), 0.0, 1.0, gives=(0.5, 0.0, 0.5), hint=whole)
    order = "t2 must lie behind t1: raise ValueError"
    yield edge(1, 2, early, late, 0.7, 0.3, gives=Raises(ValueError), hint=order)
    yield edge(1, 2, early, late, 0.5, 0.5, gives=Raises(ValueError), hint=order)


def redistribute(probabilities: Sequence[float], left: Sequence[int]) -> list[float]:
    """Give away the probability of tiers that hold nothing: see notebooks/solutions/04_curriculum.ipynb."""
    weights = [p if count else 0.0 for p, count in zip(probabilities, left, strict=True)]
    if sum(weights) == 0:
        weights = [1.0 if count else 0.0 for count in left]
    if sum(weights) == 0:
        raise ValueError("no tier has a position left")
    return [weight / sum(weights) for weight in weights]


def _redistribute(source: random.Random) -> Iterator[Case]:
    yield shape([0.2, 0.3, 0.5], [5, 5, 5])
    yield hand([0.2, 0.3, 0.5], [5, 1, 9], gives=[0.2, 0.3, 0.5], hint="where no tier is empty nothing changes")
    share = "0.2 and 0.5 are left, and keep their proportion: 2/7 and 5/7"
    yield hand([0.2, 0.3, 0.5], [5, 0, 5], gives=[2 / 7, 0.0, 5 / 7], hint=share)
    yield hand([0.2, 0.3, 0.5], [0, 0, 3], gives=[0.0, 0.0, 1.0], hint="the only tier that is left gets everything")
    for _ in range(100):
        left = [source.choice([0, 1, 3, 8]) for _ in TIERS]
        left[source.randrange(3)] = 2
        yield chance(list(_mix(source)), left)
    nothing = "where all tiers that are left have probability 0, they share evenly"
    yield edge([1.0, 0.0, 0.0], [0, 4, 2], gives=[0.0, 0.5, 0.5], hint=nothing)
    yield edge([0.0, 1.0, 0.0], [4, 0, 0], gives=[1.0, 0.0, 0.0], hint=nothing)
    yield edge([0.2, 0.3, 0.5], [0, 0, 0], gives=Raises(ValueError), hint="nothing can be drawn: raise ValueError")


class TierSampler:
    """Draw positions tier by tier: see rmt_mini.method.curriculum."""

    def __init__(self, probabilities: Sequence[float], seed: int) -> None:
        self._sampler = curriculum.TierSampler(1, probabilities, probabilities, seed=seed)

    def sample(self, tiers: Sequence[int], n: int) -> list[int]:
        """Draw n distinct positions."""
        drawn: list[int] = self._sampler.sample(torch.tensor(tiers), n, 0).tolist()
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Return what the next draws depend on."""
        return self._sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another sampler stood."""
        self._sampler.load_state_dict(state)


DRAW, RESUME, OFTEN = "draw", "resume", "often"
CALLS = 400  # of sample, two positions each, for OFTEN
FAR = 5.0  # standard deviations that no right sampler strays


def _sampled(
    made: Callable[..., Any], deed: str, probabilities: Sequence[float], tiers: list[int], n: int, seed: int
) -> dict[str, Any] | None:
    """Make a learner's sampler, work it, and return what holds for every right one, whatever it draws."""
    if deed == RESUME:
        return _resumed(made, probabilities, tiers, n, seed)
    sampler = made(probabilities, seed)
    if deed == OFTEN:
        return _fits([sampler.sample(list(tiers), n) for _ in range(CALLS)], probabilities, tiers)
    drawn = sampler.sample(tiers, n)
    if drawn is None:
        return None
    places = [int(place) for place in drawn]
    inside = [place for place in places if 0 <= place < len(tiers)]
    return {
        "positions": len(places),
        "all of them exist": len(inside) == len(places),
        "none comes twice": len(set(places)) == len(places),
        "easy, medium, hard": [sum(tiers[place] == tier for place in inside) for tier in range(len(TIERS))],
    }


def _resumed(
    made: Callable[..., Any], probabilities: Sequence[float], tiers: list[int], n: int, seed: int
) -> dict[str, Any]:
    def draws(sampler: Any) -> list[list[int]]:
        return [[int(place) for place in sampler.sample(list(tiers), n)] for _ in range(3)]

    before = random.getstate(), torch.get_rng_state()
    one, twin, other = made(probabilities, seed), made(probabilities, seed), made(probabilities, seed + 1)
    first, elsewhere, again = draws(one), draws(other), draws(twin)
    state = one.state_dict()
    following, _, later = draws(one), draws(twin), draws(twin)
    other.load_state_dict(state)
    resumed = draws(other)
    told = {str(later): "later ones", str(first): "the first ones again", str(following): "the next ones"}
    return {
        "same draws from the same seed": first == again,
        "other draws from another seed": first != elsewhere,
        "draws after load_state_dict": told.get(str(resumed), "others"),
        "global generators left alone": before[0] == random.getstate() and before[1].equal(torch.get_rng_state()),
    }


def _fits(calls: Sequence[Sequence[int]], probabilities: Sequence[float], tiers: Sequence[int]) -> dict[str, bool]:
    """Hold many draws of two positions against what was asked for."""

    def near(count: float, trials: int, p: float) -> bool:
        return abs(count - trials * p) <= FAR * math.sqrt(trials * p * (1 - p)) + 1e-9

    places = Counter(int(place) for call in calls for place in call)
    by_tier = [sum(places[place] for place, one in enumerate(tiers) if one == tier) for tier in range(len(TIERS))]
    mixed = sum(tiers[call[0]] != tiers[call[1]] for call in calls)
    return {
        "tiers come as often as asked": all(map(near, by_tier, [2 * len(calls)] * len(TIERS), probabilities)),
        "positions of a tier come alike": all(
            near(places[place], by_tier[tier], 1 / tiers.count(tier)) for place, tier in enumerate(tiers)
        ),
        "each draw of a call has a tier of its own": near(mixed, len(calls), 1 - sum(p * p for p in probabilities)),
    }


def _told(deed: str, probabilities: Sequence[float], tiers: Sequence[int], n: int, seed: int) -> str:
    called = f"TierSampler({tuple(round(p, 4) for p in probabilities)}, {seed}).sample({tiers}, {n})"
    return called + {DRAW: "", RESUME: ", three times and resumed,", OFTEN: f", {CALLS} times,"}[deed]


def _tier_sampler(source: random.Random) -> Iterator[Case]:
    yield shape(DRAW, (0.0, 0.0, 1.0), [0, 1, 2, 2], 2, 0)
    two = {"positions": 2, "all of them exist": True, "none comes twice": True, "easy, medium, hard": [2, 0, 0]}
    only = "with probability 1 on easy, both positions are easy ones, and different ones"
    yield hand(DRAW, (1.0, 0.0, 0.0), [2, 0, 2, 1, 0], 2, 0, gives=two, hint=only)
    four = two | {"positions": 4, "easy, medium, hard": [0, 4, 0]}
    distinct = "draw without replacement: with 4 of 4 medium positions each comes once"
    yield hand(DRAW, (0.0, 1.0, 0.0), [1, 1, 2, 1, 0, 1], 4, 1, gives=four, hint=distinct)
    texts = [0] * 6 + [1] * 5 + [2] * 5
    same = "what the next draws depend on must be in the state, as it was when it was taken, and come back out of it"
    for seed in range(3):
        yield chance(RESUME, (0.5, 0.3, 0.2), texts, 4, seed, hint=same)
    for _ in range(40):
        tiers = [source.randrange(3) for _ in range(source.randint(3, 10))]
        tier = source.choice(tiers)
        n = source.choice([source.randint(1, tiers.count(tier)), len(tiers)])
        yield chance(DRAW, tuple(float(one == tier) for one in range(3)), tiers, n, source.randint(0, 99))
    fits = "draw a tier by the probabilities, then one of its positions uniformly, and begin anew for the next draw"
    yield chance(OFTEN, (0.5, 0.3, 0.2), [0] * 3 + [1] * 4 + [2] * 8, 2, source.randint(0, 99), hint=fits)
    used = two | {"positions": 3, "easy, medium, hard": [1, 0, 2]}
    gone = "a tier that is used up gives its probability to the others, here to easy"
    yield edge(DRAW, (0.0, 0.0, 1.0), [2, 0, 2], 3, 0, gives=used, hint=gone)
    fewer = "where fewer than n positions are there, all of them are drawn"
    yield edge(DRAW, (0.0, 0.0, 1.0), [2, 0, 2], 9, 0, gives=used, hint=fewer)
    none = two | {"positions": 0, "easy, medium, hard": [0, 0, 0]}
    yield edge(DRAW, (0.0, 0.0, 1.0), [2, 0, 2], 0, 0, gives=none, hint="n may be 0: an empty list")


def deviations(drawn: Sequence[Sequence[int]], planned: Sequence[Sequence[float]]) -> list[float]:
    """Hold what a run drew against its plan: see notebooks/solutions/04_curriculum.ipynb."""
    found = []
    for tier in range(len(TIERS)):
        steps = [(sum(counts), counts[tier], p[tier]) for counts, p in zip(drawn, planned, strict=True)]
        more = sum(count - n * p for n, count, p in steps)
        variance = sum(n * p * (1 - p) for n, _, p in steps)
        found.append(more / math.sqrt(variance) if variance else math.copysign(math.inf, more) if more else 0.0)
    return found


def _deviations(source: random.Random) -> Iterator[Case]:
    yield shape([[5, 5, 10]], [(0.25, 0.25, 0.5)])
    once = "100 draws, half of them planned as easy: 60 are 10 more than 50, and one deviation is sqrt(25) = 5"
    yield hand([[60, 40, 0]], [(0.5, 0.5, 0.0)], gives=[2.0, -2.0, 0.0], hint=once)
    summed = "easy: 12 and 18 drawn, 10 + 16 planned, variance 100 * 0.1 * 0.9 + 20 * 0.8 * 0.2 = 12.2"
    worked = [1.145197, 0.958706, -1.8]  # 4 / sqrt(12.2), 5 / sqrt(27.2), -9 / sqrt(25)
    two = [(0.1, 0.4, 0.5), (0.8, 0.2, 0.0)]
    yield hand([[12, 47, 41], [18, 2, 0]], two, gives=worked, hint=summed)
    for _ in range(60):
        steps = source.randint(2, 6)
        yield chance(
            [[source.randint(0, 9) for _ in TIERS] for _ in range(steps)], [_mix(source) for _ in range(steps)]
        )
    kept = "where the plan leaves no room (p is 0 or 1) and was kept, there is no deviation: 0"
    yield edge([[4, 0, 0]], [(1.0, 0.0, 0.0)], gives=[0.0, 0.0, 0.0], hint=kept)
    broken = "what has probability 0 and was drawn all the same is infinitely many deviations off"
    yield edge([[3, 1, 0]], [(1.0, 0.0, 0.0)], gives=[-math.inf, math.inf, 0.0], hint=broken)


EXERCISES = (
    Exercise(4, 2, tier_probabilities, _tier_probabilities, wrong.TIER_PROBABILITIES),
    Exercise(4, 2, redistribute, _redistribute, wrong.REDISTRIBUTE),
    Exercise(4, 4, TierSampler, _tier_sampler, wrong.TIER_SAMPLER, call=_sampled, told=_told),
    Exercise(4, 3, deviations, _deviations, wrong.DEVIATIONS),
)
