"""Wrong answers to the exercises on lesson 8, the whole loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.method.budget import budget_at_step, length_reward
from rmt_mini.method.curriculum import TierSampler
from rmt_mini.method.grpo import group_advantages

NAN = float("nan")
NAMES = ("easy", "medium", "hard")


def _accuracies(answers: Sequence[tuple[int, float]]) -> dict[str, float]:
    return {name: _mean([right for tier, right in answers if tier == number]) for number, name in enumerate(NAMES)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else NAN


def _of_present(found: dict[str, float]) -> float:
    return _mean([value for value in found.values() if value == value])


def average_of_answers(answers: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Your average runs over all answers, so that the tier with most of them decides; it is the mean of the tiers."""
    return _accuracies(answers) | {"average": _mean([right for _, right in answers])}


def none_is_zero(answers: Sequence[tuple[int, float]]) -> dict[str, float]:
    """A tier without answers is 0 with you, which reads as "all wrong"; there is no accuracy: nan."""
    found = _accuracies(answers)
    return {name: 0.0 if value != value else value for name, value in found.items()} | {"average": _of_present(found)}


def average_of_three(answers: Sequence[tuple[int, float]]) -> dict[str, float]:
    """You always divide the average by three; a tier without answers counts neither above nor below the line."""
    found = _accuracies(answers)
    return found | {"average": sum(value for value in found.values() if value == value) / 3 if answers else NAN}


def share_of_everything(answers: Sequence[tuple[int, float]]) -> dict[str, float]:
    """You divide each tier's right answers by the number of all answers; divide by those of the tier."""
    found = _accuracies(answers)
    counts = [sum(tier == number for tier, _ in answers) for number in range(3)]
    shares = {name: value * n / max(1, len(answers)) for (name, value), n in zip(found.items(), counts, strict=True)}
    return shares | {"average": _of_present(shares)}


def tiers_turned(answers: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Easy and hard are swapped: tier 0 is easy, 2 is hard."""
    found = _accuracies([(2 - tier, right) for tier, right in answers])
    return found | {"average": _of_present(found)}


ACCURACY_BY_TIER = (average_of_answers, none_is_zero, average_of_three, share_of_everything, tiers_turned)

Record = dict[str, Any]


def _rewarded(rollouts: Sequence[Record], budget: int, by_match: float, by_length: float) -> list[Record]:
    found = []
    for one in rollouts:
        match, length = float(one["answer"] == one["truth"]), length_reward(float(one["length"]), float(budget))
        reward = by_match * match + by_length * length
        found.append({**one, "match": match, "length_reward": length, "reward": reward})
    return found


def _with_advantages(judged: Sequence[Record], group_size: int, of: str = "reward", **changes: str) -> list[Record]:
    advantages = group_advantages(torch.tensor([one[of] for one in judged]).double(), group_size).tolist()
    made = [{**one, "advantage": by} for one, by in zip(judged, advantages, strict=True)]
    return [{**one, **{key: one[other] for key, other in changes.items()}} for one in made]


def reward_overwritten(rollouts: Sequence[Record], group_size: int, budget: int, length_weight: float) -> list[Record]:
    """Your advantage stands where the reward stood; keep both, or nobody can tell later what was earned."""
    judged = _rewarded(rollouts, budget, 1 - length_weight, length_weight)
    return _with_advantages(judged, group_size, reward="advantage")


def advantage_of_the_match(
    rollouts: Sequence[Record], group_size: int, budget: int, length_weight: float
) -> list[Record]:
    """Your advantages compare the matches alone.

    The reward is match *and* length, and it is rewards that are compared.
    """
    return _with_advantages(_rewarded(rollouts, budget, 1 - length_weight, length_weight), group_size, "match")


def compared_with_all(rollouts: Sequence[Record], group_size: int, budget: int, length_weight: float) -> list[Record]:
    """You compare each rollout with all of the step; a rollout is compared with its own group alone."""
    return _with_advantages(_rewarded(rollouts, budget, 1 - length_weight, length_weight), len(rollouts))


def weights_turned(rollouts: Sequence[Record], group_size: int, budget: int, length_weight: float) -> list[Record]:
    """The weights are swapped: length_weight goes with the length reward, 1 - length_weight with the match."""
    return _with_advantages(_rewarded(rollouts, budget, length_weight, 1 - length_weight), group_size)


def match_in_full(rollouts: Sequence[Record], group_size: int, budget: int, length_weight: float) -> list[Record]:
    """You add the length reward on top of a whole match.

    The match weighs 1 - length_weight, so that rewards end at 1.
    """
    return _with_advantages(_rewarded(rollouts, budget, 1.0, length_weight), group_size)


def stray_group(rollouts: Sequence[Record], group_size: int, budget: int, length_weight: float) -> list[Record]:
    """The rollouts of your groups stand apart; a group's rollouts stand next to each other."""
    judged = _rewarded(rollouts, budget, 1 - length_weight, length_weight)
    order = [
        place
        for start in range(len(judged) // group_size)
        for place in range(start, len(judged), len(judged) // group_size)
    ]
    found = _with_advantages([judged[place] for place in order], group_size)
    return [one for _, one in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]


JUDGE_STEP = (
    reward_overwritten, advantage_of_the_match, compared_with_all, weights_turned, match_in_full, stray_group,
)  # fmt: skip

Plan = dict[str, Any]
Tiers = Sequence[Sequence[int]]


def _budget(step: int, config: RMTConfig) -> int:
    return budget_at_step(step, config.steps, config.budget_start, config.budget_min, config.budget_decay)


def _pool(tiers: Tiers, first: int = 1) -> list[tuple[int, int]]:
    return [(number, index) for number, document in enumerate(tiers) for index in range(first, len(document))]


def _plan(
    step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig, first: int = 1, count: int = 0, at: int = -1
) -> Plan:
    pool = _pool(tiers, first)
    wanted = count or config.positions_per_document * len(tiers)
    drawn = sampler.sample(torch.tensor([tiers[n][index] for n, index in pool]), wanted, step if at < 0 else at)
    budget = _budget(step, config)
    return {"budget": budget, "cap": 2 * budget, "positions": [pool[place] for place in drawn.tolist()]}


def _sorted(plan: Plan) -> Plan:
    return plan | {"positions": sorted(plan["positions"])}


def first_token_asked(step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig) -> Plan:
    """Off by one: token 0 can be drawn; nothing stands before it to think about, so a pool begins at index 1."""
    return _sorted(_plan(step, tiers, sampler, config, first=0))


def document_by_document(step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig) -> Plan:
    """You draw from each document by itself.

    All documents of a step make one pool, or an easy text must give hard positions that it does not have.
    """
    found = [_plan(step, [document], sampler, config)["positions"] for document in tiers]
    budget = _budget(step, config)
    positions = [(number, index) for number, part in enumerate(found) for _, index in part]
    return _sorted({"budget": budget, "cap": 2 * budget, "positions": positions})


def for_one_document(step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig) -> Plan:
    """You draw as many positions as one document has; positions_per_document times the number of documents."""
    return _sorted(_plan(step, tiers, sampler, config, count=config.positions_per_document))


def in_the_order_drawn(step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig) -> Plan:
    """Your positions stand in the order drawn; the document tree wants them sorted by document and index."""
    return _plan(step, tiers, sampler, config)


def places_of_the_pool(step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig) -> Plan:
    """Your positions are places in the pool, as the sampler counts; turn each back into document and index."""
    plan, pool = _plan(step, tiers, sampler, config), _pool(tiers)
    return _sorted(plan | {"positions": [pool.index(position) for position in plan["positions"]]})


def curriculum_stands_still(step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig) -> Plan:
    """You draw as if every step were the first; hand the step to the sampler, or the curriculum never moves on."""
    return _sorted(_plan(step, tiers, sampler, config, at=0))


def no_room(step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig) -> Plan:
    """Your cap is the budget itself; it is twice the budget, where the length reward has come down to 0."""
    plan = _sorted(_plan(step, tiers, sampler, config))
    return plan | {"cap": plan["budget"]}


def a_step_ahead(step: int, tiers: Tiers, sampler: TierSampler, config: RMTConfig) -> Plan:
    """Off by one: you take the next step's budget; steps are counted from 0, and step 0 has the whole budget."""
    budget = _budget(min(config.steps, step + 1), config)
    return _sorted(_plan(step, tiers, sampler, config)) | {"budget": budget, "cap": 2 * budget}


PLAN_STEP = (
    first_token_asked, document_by_document, for_one_document, in_the_order_drawn, places_of_the_pool,
    curriculum_stands_still, no_room, a_step_ahead,
)  # fmt: skip

Control = dict[str, list[float]]


def _advantages(rewards: Sequence[float], group_size: int) -> list[float]:
    found: list[float] = group_advantages(torch.tensor(list(rewards)).double(), group_size).tolist()
    return found


def _dealt(rewards: Sequence[float], seed: int) -> list[float]:
    dealt = list(rewards)
    random.Random(seed).shuffle(dealt)
    return dealt


def _control(rewards: list[float], group_size: int) -> Control:
    return {"rewards": rewards, "advantages": _advantages(rewards, group_size)}


def within_each_group(rewards: Sequence[float], group_size: int, seed: int) -> Control:
    """You deal within each group.

    How many of a group are right stays true, so that something is still learned of which positions are hard. Deal
    all rewards of the step together.
    """
    source, dealt = random.Random(seed), list[float]()
    for start in range(0, len(rewards), group_size):
        group = list(rewards[start : start + group_size])
        source.shuffle(group)
        dealt += group
    return _control(dealt, group_size)


def whole_groups(rewards: Sequence[float], group_size: int, seed: int) -> Control:
    """You deal out whole groups: the rewards of a group stay together, and so do the differences between them."""
    groups = [list(rewards[start : start + group_size]) for start in range(0, len(rewards), group_size)]
    random.Random(seed).shuffle(groups)
    return _control([reward for group in groups for reward in group], group_size)


def advantages_dealt(rewards: Sequence[float], group_size: int, seed: int) -> Control:
    """You deal out the advantages.

    Deal the rewards and compare afterwards, or the advantages of a group no longer add up to 0, and the control
    differs in more than luck.
    """
    return {"rewards": _dealt(rewards, seed), "advantages": _dealt(_advantages(rewards, group_size), seed)}


def true_advantages(rewards: Sequence[float], group_size: int, seed: int) -> Control:
    """Your advantages are those of the true rewards: this control learns just what the method learns."""
    return {"rewards": _dealt(rewards, seed), "advantages": _advantages(rewards, group_size)}


def with_replacement(rewards: Sequence[float], group_size: int, seed: int) -> Control:
    """You draw with replacement, so that some rewards are dealt twice and others never.

    The control must hand out exactly what was earned.
    """
    return _control(random.Random(seed).choices(list(rewards), k=len(rewards)), group_size)


def one_deal(rewards: Sequence[float], group_size: int, seed: int) -> Control:
    """Your deal is the same for every seed: one deal says nothing of how far luck reaches."""
    return _control(_dealt(rewards, 0), group_size)


SHUFFLED_CONTROL = (within_each_group, whole_groups, advantages_dealt, true_advantages, with_replacement, one_deal)

Table = Sequence[Sequence[float]]
Draw = Callable[[random.Random, np.ndarray, np.ndarray], float]


def _resampled(ours: Table, theirs: Table, resamples: int, seed: int, draw: Draw, percents: Sequence[float]) -> Any:
    source, one, other = random.Random(seed), np.array(ours), np.array(theirs)
    drawn = [draw(source, one, other) for _ in range(resamples)]
    low, high = np.percentile(drawn, percents).tolist()
    return {"difference": float((one - other).mean()), "low": low, "high": high}


def _again(source: random.Random, count: int) -> list[int]:
    return source.choices(range(count), k=count)


def _cells(table: np.ndarray, runs: Sequence[int], documents: Sequence[int]) -> float:
    return float(table[np.ix_(runs, documents)].mean())


def _crossed(source: random.Random, one: np.ndarray, other: np.ndarray) -> float:
    runs, documents = _again(source, one.shape[0]), _again(source, one.shape[1])
    return _cells(one - other, runs, documents)


BOTH_ENDS = (2.5, 97.5)


def documents_alone(ours: Table, theirs: Table, resamples: int, seed: int) -> dict[str, float]:
    """You draw the documents anew and keep the runs: what changes from seed to seed is left out of the interval."""

    def draw(source: random.Random, one: np.ndarray, other: np.ndarray) -> float:
        return _cells(one - other, range(len(one)), _again(source, one.shape[1]))

    found: dict[str, float] = _resampled(ours, theirs, resamples, seed, draw, BOTH_ENDS)
    return found


def runs_alone(ours: Table, theirs: Table, resamples: int, seed: int) -> dict[str, float]:
    """You draw the runs anew and keep the documents: that other held-out documents might say otherwise is left out."""

    def draw(source: random.Random, one: np.ndarray, other: np.ndarray) -> float:
        return _cells(one - other, _again(source, len(one)), range(one.shape[1]))

    found: dict[str, float] = _resampled(ours, theirs, resamples, seed, draw, BOTH_ENDS)
    return found


def not_paired(ours: Table, theirs: Table, resamples: int, seed: int) -> dict[str, float]:
    """You draw for either method by itself.

    Both answered the same documents, so draw once and take the differences there. Hard documents then count against
    neither.
    """

    def draw(source: random.Random, one: np.ndarray, other: np.ndarray) -> float:
        mine, theirs_ = (
            _cells(table, _again(source, table.shape[0]), _again(source, table.shape[1])) for table in (one, other)
        )
        return mine - theirs_

    found: dict[str, float] = _resampled(ours, theirs, resamples, seed, draw, BOTH_ENDS)
    return found


def every_cell_alone(ours: Table, theirs: Table, resamples: int, seed: int) -> dict[str, float]:
    """You draw single cells of the table.

    Cells of one document, or of one run, go together, and drawn one by one they look like far more evidence than
    there is.
    """

    def draw(source: random.Random, one: np.ndarray, other: np.ndarray) -> float:
        cells = (one - other).flatten()
        return float(cells[_again(source, len(cells))].mean())

    found: dict[str, float] = _resampled(ours, theirs, resamples, seed, draw, BOTH_ENDS)
    return found


def ninety_percent(ours: Table, theirs: Table, resamples: int, seed: int) -> dict[str, float]:
    """You cut off 5 % at each end, which leaves 90 %; an interval of 95 % leaves out 2.5 % at each."""
    found: dict[str, float] = _resampled(ours, theirs, resamples, seed, _crossed, (5, 95))
    return found


def theirs_minus_ours(ours: Table, theirs: Table, resamples: int, seed: int) -> dict[str, float]:
    """The sign is turned: the difference is ours minus theirs, so that above 0 means ours is better."""
    found: dict[str, float] = _resampled(theirs, ours, resamples, seed, _crossed, BOTH_ENDS)
    return found


def drawn_without_replacement(ours: Table, theirs: Table, resamples: int, seed: int) -> dict[str, float]:
    """You draw without replacement: every resample is then the whole table again, and the interval has no width."""

    def draw(source: random.Random, one: np.ndarray, other: np.ndarray) -> float:
        runs, documents = (source.sample(range(count), k=count) for count in one.shape)
        return _cells(one - other, runs, documents)

    found: dict[str, float] = _resampled(ours, theirs, resamples, seed, draw, BOTH_ENDS)
    return found


PAIRED_INTERVAL = (
    documents_alone, runs_alone, not_paired, every_cell_alone, ninety_percent, theirs_minus_ours,
    drawn_without_replacement,
)  # fmt: skip
