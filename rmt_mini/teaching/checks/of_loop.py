"""Exercises on lesson 8, the whole loop: a step's plan, its rewards, and how to tell a result from luck."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.method.budget import budget_at_step, length_reward, thought_cap
from rmt_mini.method.curriculum import TierSampler
from rmt_mini.method.entropy import TIERS
from rmt_mini.method.grpo import group_advantages
from rmt_mini.method.rewards import match_reward, total_reward
from rmt_mini.teaching.checks.cases import Case, Exercise, Such, chance, edge, hand, shape
from rmt_mini.teaching.checks.compare import difference, short
from rmt_mini.teaching.mutants import of_loop as wrong

NAN = float("nan")


def accuracy_by_tier(answers: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Measure accuracy by tier, and its mean: see notebooks/solutions/08_the_loop.ipynb."""
    found = {}
    for number, name in enumerate(TIERS):
        own = [right for tier, right in answers if tier == number]
        found[name] = sum(own) / len(own) if own else NAN
    present = [value for value in found.values() if value == value]
    return found | {"average": sum(present) / len(present) if present else NAN}


def _by_tier(easy: float, medium: float, hard: float, average: float) -> dict[str, float]:
    return {"easy": easy, "medium": medium, "hard": hard, "average": average}


def _accuracy_by_tier(source: random.Random) -> Iterator[Case]:
    yield shape([(0, 1.0), (1, 0.0), (2, 1.0)], hint="give a dict of four numbers")
    worked = "easy has 3 of 4, medium 1 of 2, hard 0 of 1; the mean of the three is 5/12"
    answers = [(0, 1.0), (0, 1.0), (0, 1.0), (0, 0.0), (1, 1.0), (1, 0.0), (2, 0.0)]
    yield hand(answers, gives=_by_tier(0.75, 0.5, 0.0, 5 / 12), hint=worked)
    for _ in range(40):
        drawn = [(source.randrange(3), float(source.random() < 0.5)) for _ in range(source.randint(1, 12))]
        yield chance(drawn, hint="a tier's accuracy is over its own answers; the average is the mean of the tiers")
    without = "no answer is of the medium tier: it has no accuracy, and the average is that of the other two"
    yield edge([(0, 1.0), (2, 0.0), (2, 1.0)], gives=_by_tier(1.0, NAN, 0.5, 0.75), hint=without)
    yield edge([], gives=_by_tier(NAN, NAN, NAN, NAN), hint="without any answer there is no accuracy at all: nan")


Record = dict[str, Any]


def judge_step(rollouts: Sequence[Record], group_size: int, budget: int, length_weight: float) -> list[Record]:
    """Reward rollouts and compare each with its group: see notebooks/solutions/08_the_loop.ipynb."""
    judged = []
    for one in rollouts:
        match, length = match_reward(one["answer"], one["truth"]), length_reward(one["length"], budget)
        reward = total_reward(match, length, length_weight)
        judged.append({**one, "match": match, "length_reward": length, "reward": reward})
    rewards = torch.tensor([one["reward"] for one in judged], dtype=torch.float64)
    advantages = group_advantages(rewards, group_size).tolist()
    return [{**one, "advantage": advantage} for one, advantage in zip(judged, advantages, strict=True)]


def _rollout(answer: int, truth: int, length: int) -> Record:
    return {"answer": answer, "truth": truth, "length": length}


def _judged(rollout: Record, match: float, length: float, reward: float, advantage: float) -> Record:
    return {**rollout, "match": match, "length_reward": length, "reward": reward, "advantage": advantage}


def _judge_step(source: random.Random) -> Iterator[Case]:
    pair = [_rollout(7, 7, 4), _rollout(3, 7, 2)]
    yield shape(pair, 2, 4, 0.3, hint="give a list of one dict for each rollout, with four new keys")
    # rewards 0.7 + 0.3 and 0.3 * 0.5: mean 0.575, deviation 0.425; eps takes a little off
    by = 0.425 / (0.425 + 1e-4)
    worked = [_judged(pair[0], 1.0, 1.0, 1.0, by), _judged(pair[1], 0.0, 0.5, 0.15, -by)]
    hint = "right and at the budget: 0.7 + 0.3; wrong and half as long: 0.3 * 0.5; two rollouts have advantages +1, -1"
    yield hand(pair, 2, 4, 0.3, gives=worked, hint=hint)
    for _ in range(30):
        size, count = source.randint(2, 4), source.randint(2, 3)
        truths = [source.randrange(3) for _ in range(count)]
        drawn = [_rollout(source.randrange(3), truth, source.randint(0, 12)) for truth in truths for _ in range(size)]
        yield chance(drawn, size, source.randint(2, 6), source.choice([0.1, 0.3]))
    alike = [_rollout(7, 7, 4)] * 2
    silent = [_judged(one, 1.0, 1.0, 1.0, 0.0) for one in alike]
    yield edge(alike, 2, 4, 0.3, gives=silent, hint="a group that all earned the same has advantage 0, exactly")
    pair = [_rollout(7, 7, 9), _rollout(3, 7, 4)]
    by = 0.5 / (0.5 + 1e-4)  # rewards 1 and 0: mean and deviation 0.5
    far = [_judged(pair[0], 1.0, 0.0, 1.0, by), _judged(pair[1], 0.0, 1.0, 0.0, -by)]
    yield edge(pair, 2, 4, 0.0, gives=far, hint="with a length weight of 0 the reward is the match alone")


def plan_step(step: int, tiers: Sequence[Sequence[int]], sampler: TierSampler, config: RMTConfig) -> dict[str, Any]:
    """Say what a step asks, and under which budget: see notebooks/solutions/08_the_loop.ipynb."""
    budget = budget_at_step(step, config.steps, config.budget_start, config.budget_min, config.budget_decay)
    pool = [(number, index) for number, document in enumerate(tiers) for index in range(1, len(document))]
    wanted = config.positions_per_document * len(tiers)
    drawn = sampler.sample(torch.tensor([tiers[number][index] for number, index in pool]), wanted, step)
    return {"budget": budget, "cap": thought_cap(budget), "positions": sorted(pool[n] for n in drawn.tolist())}


def _with_sampler(
    function: Callable[..., Any], step: int, tiers: Sequence[Sequence[int]], settings: Mapping[str, Any]
) -> Any:
    """Call with a new sampler and a configuration, made of settings."""
    config = RMTConfig(**settings)
    sampler = TierSampler(config.steps, config.tier_probs_early, config.tier_probs_late, seed=config.seed)
    return function(step, tiers, sampler, config)


def _plan_step(source: random.Random) -> Iterator[Case]:
    plain = {
        "steps": 4, "budget_start": 8, "budget_min": 1, "budget_decay": 0.25, "positions_per_document": 1,
        "tier_probs_early": (1.0, 0.0, 0.0), "tier_probs_late": (0.0, 0.0, 1.0),
    }  # fmt: skip
    yield shape(0, [[0, 0, 1]], plain, hint="give a dict of two whole numbers and a list of pairs")
    first = {"budget": 8, "cap": 16, "positions": [(0, 1), (0, 2)]}
    early = "step 0 of this curriculum draws easy positions alone, here both from the first document; token 0 is none"
    yield hand(0, [[0, 0, 0], [0, 2, 2]], plain, gives=first, hint=early)
    late = "step 3 of 4 lies behind the curriculum: hard positions alone; the budget is floor(8 * 0.25 ** 0.75) = 2"
    last = {"budget": 2, "cap": 4, "positions": [(0, 2), (1, 1)]}
    yield hand(3, [[2, 0, 2], [1, 2, 1]], plain, gives=last, hint=late)
    for seed in range(30):
        steps, documents = source.randint(2, 20), source.randint(1, 3)
        tiers = [[source.randrange(3) for _ in range(source.randint(4, 9))] for _ in range(documents)]
        settings = plain | {"steps": steps, "seed": seed, "positions_per_document": source.randint(1, 3)}
        mixed = {"budget_start": source.randint(4, 30), "tier_probs_early": (0.5, 0.3, 0.2)}
        yield chance(source.randint(0, steps), tiers, settings | mixed)
    few = "where fewer positions are there than are asked for, all of them are drawn"
    all_ = {"budget": 8, "cap": 16, "positions": [(0, 1), (1, 1)]}
    yield edge(0, [[0, 2], [1, 1]], plain | {"positions_per_document": 3}, gives=all_, hint=few)
    least = {"budget": 5, "cap": 10, "positions": [(0, 1)]}
    yield edge(4, [[1, 2]], plain | {"budget_min": 5}, gives=least, hint="the budget never falls below its minimum")


def shuffled_control(rewards: Sequence[float], group_size: int, seed: int) -> dict[str, list[float]]:
    """Deal the rewards of a step out at random: see notebooks/solutions/08_the_loop.ipynb."""
    dealt = list(rewards)
    random.Random(seed).shuffle(dealt)
    advantages = group_advantages(torch.tensor(dealt, dtype=torch.float64), group_size).tolist()
    return {"rewards": dealt, "advantages": advantages}


SEEDS = [0, 1, 2, 3, 4, 5, 6, 7, 0]  # the last asks whether a seed means the same again


def _seed_by_seed(function: Callable[..., Any], rewards: list[float], group_size: int, seeds: Sequence[int]) -> Any:
    """Call once for each seed; gives the answers, or None where one of them is."""
    answers = [function(rewards, group_size, seed) for seed in seeds]
    return None if any(answer is None for answer in answers) else answers


def _is_control(rewards: Sequence[float], group_size: int) -> Such:
    """Expect, of distinct rewards, deals that depend on the seed, mix the groups, and have their own advantages."""
    home = {reward: place // group_size for place, reward in enumerate(rewards)}

    def complaint(answers: Any) -> str:
        for seed, answer in zip(SEEDS, answers, strict=True):
            if not isinstance(answer, Mapping) or set(answer) != {"rewards", "advantages"}:
                return f"is {short(answer)} and should be a dict with rewards and advantages"
            if not all(isinstance(answer[key], Sequence) for key in answer):
                return f"is {short(answer)} and should hold two lists"
            if sorted(answer["rewards"]) != sorted(rewards):
                return f"deals out {short(answer['rewards'])} for seed {seed}, which are not the rewards it was given"
            own = group_advantages(torch.tensor(answer["rewards"]).double(), group_size).tolist()
            told = difference(answer["advantages"], own)
            if told:
                return f"for seed {seed} has advantages that are not those of the rewards it deals: its list {told}"
        if answers[0] != answers[-1]:
            return "is another the second time that it gets the same seed"
        deals = [answer["rewards"] for answer in answers]
        if all(deal == deals[0] for deal in deals):
            return "deals out the same for every seed"
        homes = [[[home[reward] for reward in part] for part in _cut(deal, group_size)] for deal in deals]
        if all(group == [number] * group_size for groups in homes for number, group in enumerate(groups)):
            return "leaves the rewards of each group among themselves, for every seed"
        if all(len(set(group)) == 1 for groups in homes for group in groups):
            return "keeps the rewards of a group together, for every seed"
        return ""

    return Such(complaint)


def _cut(values: Sequence[float], size: int) -> list[Sequence[float]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _shuffled_control(source: random.Random) -> Iterator[Case]:
    yield shape([0.0, 1.0, 0.3, 0.3], 2, SEEDS, hint="give a dict of two lists, as long as that of the rewards")
    equal: Any = [{"rewards": [0.5] * 4, "advantages": [0.0] * 4}] * len(SEEDS)
    yield hand([0.5] * 4, 2, SEEDS, gives=equal, hint="where all earned the same, dealing changes nothing")
    hint = "deal all rewards of the step together, and compare in groups afterwards"
    eight = [0.0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0]
    yield hand(eight, 2, SEEDS, gives=_is_control(eight, 2), hint=hint)
    for _ in range(10):
        size, count = source.randint(2, 4), source.randint(3, 5)
        drawn = [source.random() for _ in range(size * count)]
        yield chance(drawn, size, SEEDS, gives=_is_control(drawn, size), hint=hint)
    once: Any = [{"rewards": [0.7], "advantages": [0.0]}] * len(SEEDS)
    yield edge([0.7], 1, SEEDS, gives=once, hint="a single reward can only be dealt to where it was")


Table = Sequence[Sequence[float]]


def paired_interval(ours: Table, theirs: Table, resamples: int, seed: int) -> dict[str, float]:
    """Take the difference of two methods, with an interval: see notebooks/solutions/08_the_loop.ipynb."""
    table, source = np.array(ours) - np.array(theirs), random.Random(seed)
    drawn = []
    for _ in range(resamples):
        runs, documents = (source.choices(range(count), k=count) for count in table.shape)
        drawn.append(table[np.ix_(runs, documents)].mean())
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return {"difference": float(table.mean()), "low": low, "high": high}


CLOSE = 0.06  # of an interval's width: how far an end may lie from ours, drawn otherwise
_RESAMPLES = 2000


def _is_interval(ours: Table, theirs: Table) -> Such:
    """Expect the interval of both tables, wherever its own draws put its ends."""
    table, source = np.array(ours) - np.array(theirs), np.random.default_rng(0)
    times = [source.multinomial(n, np.full(n, 1 / n), 20_000) / n for n in table.shape]
    low, high = np.percentile(np.einsum("br,bd,rd->b", *times, table, optimize=True), [2.5, 97.5])
    wanted = {"difference": float(table.mean()), "low": float(low), "high": float(high)}

    def complaint(answer: Any) -> str:
        told = difference(answer, wanted, shape_only=True)
        if told:
            return told
        for name, value in wanted.items():
            near = 1e-4 if name == "difference" else CLOSE * (high - low)
            if not abs(answer[name] - value) <= near:
                about = "" if name == "difference" else "about "
                return f"at [{name}] is {short(float(answer[name]))} and should be {about}{short(value)}"
        return ""

    return Such(complaint)


def _paired_interval(source: random.Random) -> Iterator[Case]:
    yield shape([[1.0, 0.0]], [[0.0, 0.0]], 20, 0, hint="give a dict of three numbers")
    half = {"difference": 0.5, "low": 0.0, "high": 1.0}
    documents = "of differences 1 and 0 a quarter of all draws takes 1 twice, and a quarter 0 twice: from 0 to 1"
    yield hand([[1.0, 0.0]], [[0.0, 0.0]], 400, 0, gives=half, hint=documents)
    runs = "two runs with differences 1 and 0 at one document: runs are drawn anew as well, so from 0 to 1"
    yield hand([[1.0], [0.0]], [[0.0], [0.0]], 400, 0, gives=half, hint=runs)
    hint = "draw runs and documents with replacement, both for each resample, and take all cells where they meet"
    for seed in range(3):
        shape_ = source.randint(3, 5), source.randint(8, 14)
        by_run, by_document = ([source.gauss(0.1, 0.1) for _ in range(n)] for n in shape_)
        theirs = [[source.gauss(0.5, 0.3) for _ in range(shape_[1])]] * shape_[0]
        ours = [
            [level + run + document + source.gauss(0, 0.02) for level, document in zip(row, by_document, strict=True)]
            for row, run in zip(theirs, by_run, strict=True)
        ]
        yield chance(ours, theirs, _RESAMPLES, seed, gives=_is_interval(ours, theirs), hint=hint)
    always = {"difference": 0.25, "low": 0.25, "high": 0.25}
    hard = "ours is better by 0.25 at both documents, the hard one too: paired, there is nothing left to doubt"
    yield edge([[0.5, 1.0]], [[0.25, 0.75]], 100, 0, gives=always, hint=hard)
    nothing = {"difference": 0.0, "low": 0.0, "high": 0.0}
    yield edge([[0.2, 0.8]], [[0.2, 0.8]], 100, 0, gives=nothing, hint="a method does not differ from itself")


EXERCISES = (
    Exercise(8, 1, accuracy_by_tier, _accuracy_by_tier, wrong.ACCURACY_BY_TIER),
    Exercise(8, 2, judge_step, _judge_step, wrong.JUDGE_STEP),
    Exercise(8, 3, plan_step, _plan_step, wrong.PLAN_STEP, _with_sampler),
    Exercise(8, 2, shuffled_control, _shuffled_control, wrong.SHUFFLED_CONTROL, _seed_by_seed),
    Exercise(8, 3, paired_interval, _paired_interval, wrong.PAIRED_INTERVAL),
)
