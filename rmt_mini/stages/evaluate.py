"""The yardstick: what a policy answers at held-out positions, plainly and after thinking.

Positions are drawn once, evenly over the tiers, by the entropy of the policy as it was before training; every later
measurement asks the same questions. Plain prediction (the paper's NTP row) takes the likeliest token. Thinking (its
NTR row, and RMT after training) samples a thought and then takes the likeliest answer. ``stages/statistics.py`` turns
answers into accuracies with intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import roll_out
from rmt_mini.engine.text import format_for, generator_for
from rmt_mini.engine.tree import Trunks
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import TIERS
from rmt_mini.method.schedule import budgets_for
from rmt_mini.records import Answer, Position, Rollout, Text
from rmt_mini.stages.difficulty import Difficulty
from rmt_mini.stages.midtrain import asking_for
from rmt_mini.stages.optimizer import require_finite
from rmt_mini.stages.statistics import summarize

ROWS = 96  # rollouts decoded side by side


def plan_positions(
    policy: Policy,
    texts: Sequence[Text],
    config: RMTConfig,
    count: int | None = None,
    train: Sequence[Text] | None = None,
) -> list[Position]:
    """Draw ``count`` (or evaluation_positions) positions evenly over the tiers, by the policy's entropy as it is now.

    They are sorted by text and index, and fewer where a tier is small. The rule ``quantile`` takes its thresholds from
    ``train``, or else from the texts themselves.
    """
    difficulty = Difficulty(policy, config, texts if train is None else train)
    with torch.no_grad():
        pools = [difficulty.pool([text], policy.tree.read({n: text.ids})) for n, text in enumerate(texts)]
    drawn: list[Position] = []
    each = max(1, (count or config.evaluation_positions) // len(TIERS))
    for tier in range(len(TIERS)):
        own = [position for pool in pools for position in pool.positions if position.tier == tier]
        order = torch.randperm(len(own), generator=generator_for(config.seed, "evaluation", tier))
        drawn += [own[place] for place in order[:each].tolist()]
    return sorted(drawn, key=lambda position: (position.trunk, position.index))


def yardstick(config: RMTConfig) -> RMTConfig:
    """Return the settings that held-out positions are drawn by: runs that differ in their tiers share them."""
    return config.replace(tier_thresholds=config.evaluation_thresholds) if any(config.evaluation_thresholds) else config


def read_for(policy: Policy, texts: Sequence[Text], positions: Sequence[Position]) -> Trunks:
    """Read only the texts that some positions are in; NonFiniteError if the policy has run away."""
    trunks = policy.tree.read({n: texts[n].ids for n in sorted({position.trunk for position in positions})})
    remedy = "the weights have run away; lower learning_rate"
    require_finite("the hidden state of a document", torch.cat(list(trunks.hidden)), remedy)
    return trunks


def _batches(positions: Sequence[Position], rows: int) -> list[list[Position]]:
    """Cut positions, sorted by text, into batches of about ``rows`` that divide no text."""
    batches: list[list[Position]] = []
    for position in positions:
        if not batches or (len(batches[-1]) >= rows and batches[-1][-1].trunk != position.trunk):
            batches.append([])
        batches[-1].append(position)
    return batches


def in_batches(
    policy: Policy, texts: Sequence[Text], positions: Sequence[Position], config: RMTConfig, purpose: str, size: int = 1
) -> Iterator[tuple[Trunks, list[Position], torch.Generator]]:
    """Read texts for positions, sorted by text, to ask ``size`` times each: about ROWS rollouts a batch.

    The generator depends on the batch's number and on ``purpose``.
    """
    for number, batch in enumerate(_batches(positions, max(1, ROWS // size))):
        yield read_for(policy, texts, batch), batch, generator_for(config.seed, purpose, number)


def matches(form: AnswerFormat, texts: Sequence[Text], rollouts: Sequence[Rollout]) -> list[float]:
    """Judge answers, 1 right or 0."""
    return [form.judge(one.answer, texts[one.position.trunk].ids, one.position.index) for one in rollouts]


@torch.no_grad()
def answer_positions(
    policy: Policy, texts: Sequence[Text], positions: Sequence[Position], config: RMTConfig, budget: int
) -> list[Answer]:
    """Answer every position plainly and after one sampled thought under ``budget``."""
    form, answers = format_for(policy, config, budget), []
    budgets = dict(zip(positions, budgets_for(config, budget, positions), strict=True))
    for trunks, batch, generator in in_batches(policy, texts, positions, config, "evaluate"):
        asking = asking_for(config, [budgets[position] for position in batch], answer_temperature=0.0)
        rollouts = roll_out(policy, form, trunks, batch, 1, asking, generator)
        likeliest = [int(policy.head(hidden).argmax()) for hidden in trunks.before(batch)]
        for rollout, match, token in zip(rollouts, matches(form, texts, rollouts), likeliest, strict=True):
            text, index = texts[rollout.position.trunk], rollout.position.index
            plain, sort = float(token == text.ids[index]), text.sorts[index] if text.sorts else ""
            length, closed = rollout.length, rollout.closed
            answers.append(Answer(rollout.position, plain, match, length, closed, sort, rollout=rollout))
    return answers


def evaluate(
    policy: Policy,
    texts: Sequence[Text],
    config: RMTConfig,
    positions: Sequence[Position] | None = None,
    budget: int | None = None,
) -> dict[str, Any]:
    """Measure next-token accuracy by tier on held-out texts, plain and after thinking: the rows of ``summarize``.

    ``positions`` come from ``plan_positions``, or are drawn by this policy's own entropy. ``budget`` is stated and used
    for the cap, tokens; evaluation_budget or budget_start where None.
    """
    if not texts:
        raise UserError("there is no held-out text to evaluate on; give more documents")
    budget = budget or config.evaluation_budget or config.budget_start
    chosen = plan_positions(policy, texts, yardstick(config)) if positions is None else positions
    return summarize(answer_positions(policy, texts, chosen, config, budget), budget)
