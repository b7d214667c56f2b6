"""The yardstick: what a policy answers at held-out positions, plainly and after thinking.

Positions are drawn once, evenly over the tiers, by the entropy of the policy as it was before training; every later
measurement asks the same questions. Plain prediction (the paper's NTP row) takes the likeliest token. Thinking (its
NTR row, and RMT after training) samples a thought and then takes the likeliest answer, several times.
``stages/statistics.py`` turns answers into accuracies with intervals.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import AnswerFormat, encode_text
from rmt_mini.engine.rollout import chunks, lay_out, read_branches, roll_out
from rmt_mini.engine.text import format_for, generator_for
from rmt_mini.engine.tree import Trunks
from rmt_mini.errors import UserError
from rmt_mini.files import CurvePoint
from rmt_mini.method import TIERS, budgets_for
from rmt_mini.records import Answer, Position, Rollout, Text, whole_of
from rmt_mini.stages.difficulty import Difficulty
from rmt_mini.stages.midtrain import asking_for
from rmt_mini.stages.optimizer import require_finite
from rmt_mini.stages.statistics import influence, of_sort, sorts_in, summarize

ROWS = 96  # rollouts decoded side by side
LN2 = math.log(2)
GENERIC = " Let me see, step by step."  # a thought about nothing in particular

T = TypeVar("T")


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
    """Answer every position plainly and after each of evaluation_thoughts sampled thoughts under ``budget``."""
    form, answers = format_for(policy, config, budget), []
    budgets = dict(zip(positions, budgets_for(config, budget, positions), strict=True))
    count, in_one_token = config.evaluation_thoughts if config.use_thinking else 1, form.name == "continuation"
    for trunks, batch, generator in in_batches(policy, texts, positions, config, "evaluate", count):
        asking = asking_for(config, [budgets[position] for position in batch], answer_temperature=0.0)
        rollouts = roll_out(policy, form, trunks, batch, count, asking, generator)
        right = matches(form, texts, rollouts)
        for number, (position, hidden) in enumerate(zip(batch, trunks.before(batch), strict=True)):
            own = slice(number * count, (number + 1) * count)
            text, thoughts = texts[position.trunk], rollouts[own]
            truth, logprobs = text.ids[position.index], policy.head(hidden).double().log_softmax(-1)
            guess = int(logprobs.argmax())
            bits_after = [-one.truth / LN2 for one in thoughts if one.truth is not None]
            answers.append(
                Answer(
                    position,
                    plain=form.judge([guess], text.ids, position.index) if in_one_token else float(guess == truth),
                    match=fmean(right[own]),
                    length=fmean(one.length for one in thoughts),
                    closed=fmean(one.closed for one in thoughts),
                    sort=text.sorts[position.index] if text.sorts else "",
                    whole=whole_of(text.id),
                    confidence=float(logprobs.max().exp()),
                    bits=-float(logprobs[truth]) / LN2,
                    bits_after=fmean(bits_after) if bits_after else None,
                    rollout=thoughts[0],
                )
            )
    return answers


@torch.no_grad()
def probed(
    policy: Policy, texts: Sequence[Text], answers: Sequence[Answer], config: RMTConfig, budget: int
) -> list[Answer]:
    """Ask whether answers depend on thoughts: let a policy answer after thoughts that it did not have there.

    Each answer's ``probe`` gets 1 or 0 after its *own* first thought, after that of *another* position, a *generic* one
    and a *blank* one; the last two are as long as its own. Nothing where a model answers in text, or does not think.
    """
    form, rollouts = format_for(policy, config, budget), [one.rollout for one in answers]
    if form.name != "continuation" or not config.use_thinking or len(answers) < 2:
        return list(answers)
    own = {one.position: one for one in rollouts if one is not None}
    others = [*list(own)[len(own) // 2 :], *list(own)[: len(own) // 2]]
    generic, blank = (encode_text(policy.tokenizer, text) for text in (GENERIC, " "))

    def filled(rollout: Rollout, tokens: Sequence[int]) -> Rollout:
        return replace(rollout, thought=tuple(islice(cycle(tokens), rollout.length)))

    asked = {
        "other": {at: replace(own[at], thought=own[other].thought) for at, other in zip(own, others, strict=True)},
        "generic": {at: filled(one, generic) for at, one in own.items()},
        "blank": {at: filled(one, blank) for at, one in own.items()},
    }
    found = {at: {"own": form.judge(one.answer, texts[at.trunk].ids, at.index)} for at, one in own.items()}
    for trunks, batch, _ in in_batches(policy, texts, list(own), config, "probe"):
        for name, thoughts in asked.items():
            for chunk in chunks([thoughts[at] for at in batch], lambda one: one, form, config.branch_tokens):
                branches = [lay_out(form, texts[one.position.trunk].ids, one) for one in chunk]
                hidden, starts = read_branches(policy, trunks, branches)
                ends = [start + branch.answering[0] for start, branch in zip(starts, branches, strict=True)]
                likeliest = policy.head(hidden[torch.tensor(ends, device=policy.device)]).argmax(-1).tolist()
                for at, token in zip((branch.position for branch in branches), likeliest, strict=True):
                    found[at][name] = form.judge([token], texts[at.trunk].ids, at.index)
    return [replace(one, probe=found[one.position]) for one in answers]


def best_threshold(answers: Sequence[Answer]) -> float:
    """Return the confidence from which on a policy should not think but answer plainly, by answers to training text.

    Of several that serve alike it is the lowest, which thinks least.
    """
    candidates = [0.0, *sorted({one.confidence for one in answers}), 2.0]
    return max(candidates, key=lambda threshold: sum(_gated(one, threshold) for one in answers))


def _gated(answer: Answer, threshold: float) -> float:
    return answer.plain if answer.confidence >= threshold else answer.match


def gated(answers: Sequence[Answer], threshold: float) -> list[Answer]:
    """Let each answer be the plain one where its confidence reaches the threshold, else the one after thinking."""
    return [replace(one, gated=_gated(one, threshold)) for one in answers]


def measure_all(
    policy: Policy,
    train: Sequence[Text],
    held_out: Sequence[Text],
    positions: Sequence[Position],
    config: RMTConfig,
    budget: int,
) -> list[Answer]:
    """Answer held-out positions as ``answer_positions``, a few of them as ``probed``, and all of them as ``gated``.

    The gate's threshold is chosen on as few positions of as few training texts, by the policy's entropy as it is now.
    """
    answers = answer_positions(policy, held_out, positions, config, budget)
    few = {*some_of(positions, config.checked_positions)}
    if not few:
        return answers
    some = [one for one in answers if one.position in few]
    checked = {one.position: one for one in probed(policy, held_out, some, config, budget)}
    texts = evenly(train, len({at.trunk for at in few}))
    chosen = plan_positions(policy, texts, yardstick(config), len(few), train)
    once = config.replace(evaluation_thoughts=1)
    threshold = best_threshold(answer_positions(policy, texts, chosen, once, budget))
    return gated([checked.get(one.position, one) for one in answers], threshold)


def some_of(positions: Sequence[Position], count: int) -> list[Position]:
    """Return about ``count`` of the positions: all of some texts, since to read a text costs more than to ask."""
    texts = sorted({at.trunk for at in positions})
    kept = evenly(texts, math.ceil(len(texts) * count / max(1, len(positions))))
    return [at for at in positions if at.trunk in kept]


def curve_point(step: int, answers: Sequence[Answer]) -> CurvePoint:
    """Average answers after ``step`` steps: the mean of the tiers, as everywhere, and of each sort."""

    def mean(name: str, some: Sequence[Answer]) -> float:
        return influence(some, np.array([getattr(one, name) for one in some]), range(len(TIERS)))[0]

    by_sort = {sort: of_sort(answers, sort) for sort in sorts_in(answers)}
    sorts = {sort: (mean("plain", own), mean("match", own)) for sort, own in by_sort.items()}
    plain, think, length = mean("plain", answers), mean("match", answers), fmean(one.length for one in answers)
    return CurvePoint(step=step, plain=plain, think=think, thought_length=length, sorts=sorts)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return ``count`` items, or all, spread evenly over their order."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


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
