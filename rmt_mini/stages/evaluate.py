"""The yardstick: next-token accuracy on held-out positions by tier, plain and after thinking, with intervals.

Positions are drawn once, evenly over the tiers, by the entropy of the policy as it was before training; every later
measurement asks the same questions. Plain prediction (the paper's NTP row) takes the likeliest token. Thinking (its
NTR row, and RMT after training) samples a thought and then takes the likeliest answer. "average" is the mean of the
tiers, as in the paper's tables. Intervals are 95 % bootstrap intervals over documents, since positions of one
document are not independent; the paper gives none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.rollout import roll_out
from rmt_mini.engine.tree import Trunks
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Position, Rollout
from rmt_mini.stages.material import Difficulty, Text, format_for, generator_for, on_device
from rmt_mini.stages.midtrain import asking_for

RESAMPLES = 2000
ROWS = 96  # rollouts decoded side by side


@dataclass(frozen=True, slots=True)
class Answer:
    """What the policy answered at one position, plainly and after thinking; ``sort`` is of a generated text's token."""

    position: Position
    plain: float
    match: float
    rollout: Rollout
    sort: str = ""


def plan_positions(
    policy: Policy, texts: Sequence[Text], config: RMTConfig, count: int | None = None
) -> list[Position]:
    """Draw positions evenly over the tiers, by the policy's entropy as it is now.

    Args:
        policy: the model before training.
        texts: held-out texts; ``Position.trunk`` counts them.
        config: evaluation_positions, tiers, seed.
        count: how many, where not evaluation_positions.

    Returns:
        Positions sorted by text and index; fewer than asked for where a tier is small.
    """
    difficulty = Difficulty(policy, config, texts)
    pools: list[list[Position]] = [[] for _ in TIERS]
    for n, text in enumerate(texts):
        with torch.no_grad():
            (entropy,) = difficulty.entropy(policy.tree.read(on_device([text], policy)))
        (tiers,) = difficulty.tiers([entropy])
        for index in range(text.first, len(text.ids)):
            pools[int(tiers[index])].append(Position(n, index, int(tiers[index]), float(entropy[index])))
    drawn: list[Position] = []
    each = max(1, (count or config.evaluation_positions) // len(TIERS))
    for tier, pool in enumerate(pools):
        order = torch.randperm(len(pool), generator=generator_for(config.seed, "evaluation", tier))
        drawn += [pool[place] for place in order[:each].tolist()]
    return sorted(drawn, key=lambda position: (position.trunk, position.index))


def batches(positions: Sequence[Position], rows: int) -> list[list[Position]]:
    """Cut positions, sorted by text, into batches of about ``rows`` without parting a text."""
    batches: list[list[Position]] = []
    for position in positions:
        whole = batches and (len(batches[-1]) < rows or batches[-1][-1].trunk == position.trunk)
        if not whole:
            batches.append([])
        batches[-1].append(position)
    return batches


def read_for(policy: Policy, texts: Sequence[Text], batch: Sequence[Position]) -> tuple[Trunks, list[Position]]:
    """Read only the texts that a batch asks about, and return its positions as they count those."""
    used = sorted({position.trunk for position in batch})
    local = [replace(position, trunk=used.index(position.trunk)) for position in batch]
    return policy.tree.read(on_device([texts[n] for n in used], policy)), local


@torch.no_grad()
def answer_positions(
    policy: Policy, texts: Sequence[Text], positions: Sequence[Position], config: RMTConfig, budget: int
) -> list[Answer]:
    """Answer every position plainly and after one sampled thought under ``budget``."""
    form = format_for(policy, config)
    answers = []
    for number, batch in enumerate(batches(positions, ROWS)):
        trunks, local = read_for(policy, texts, batch)
        generator = generator_for(config.seed, "evaluate", number)
        asking = asking_for(config, budget, len(batch), answer_temperature=0.0)
        rollouts = roll_out(policy, form, trunks, local, 1, asking, generator)
        for position, place, rollout in zip(batch, local, rollouts, strict=True):
            trunk = texts[position.trunk].ids
            guess = int(policy.head(trunks.hidden[place.trunk][place.index - 1]).argmax())
            match = form.judge(rollout.answer, trunk, position.index)
            sort = (texts[position.trunk].sorts or [""] * len(trunk))[position.index]
            answers.append(Answer(position, float(guess == trunk[position.index]), match, rollout, sort))
    return answers


def _table(answers: Sequence[Answer], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values and counts by document and tier, (documents, 3) each."""
    documents = sorted({answer.position.trunk for answer in answers})
    row = {document: place for place, document in enumerate(documents)}
    sums, counts = np.zeros((len(row), len(TIERS))), np.zeros((len(row), len(TIERS)))
    for answer, value in zip(answers, values, strict=True):
        sums[row[answer.position.trunk], answer.position.tier] += value
        counts[row[answer.position.trunk], answer.position.tier] += 1
    return sums, counts


def _mean_of_tiers(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean over tiers of sum / count; half of the columns are sums, half counts; tiers without a position drop out."""
    half = len(columns) // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = [columns[i].sum(axis=axis) / columns[half + i].sum(axis=axis) for i in range(half)]
    mean: np.ndarray = np.nanmean(np.stack(rates), axis=0)
    return mean


def interval(answers: Sequence[Answer], values: np.ndarray, tiers: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Mean over tiers of a value per answer, with its 95 % bootstrap interval over documents.

    Returns:
        {"mean", "low", "high", "n"}; all None but n where there is no answer.
    """
    sums, counts = _table(answers, values)
    present = [tier for tier in tiers if counts[:, tier].sum() > 0]
    n = int(counts[:, list(tiers)].sum())
    if not present:
        return {"mean": None, "low": None, "high": None, "n": n}
    asked = counts[:, present].sum(axis=1) > 0  # a resample of other documents alone would have no mean
    columns = [table[asked, tier] for table in (sums, counts) for tier in present]
    mean = float(_mean_of_tiers(*columns))
    if asked.sum() < 2:
        return {
            "mean": mean,
            "low": 0.0 if values.min() >= 0 else -1.0,
            "high": 1.0,
            "n": n,
        }  # one document tells nothing
    result = bootstrap(
        columns,
        _mean_of_tiers,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return {"mean": mean, "low": float(low), "high": float(high), "n": n}


def _cell(answers: Sequence[Answer], values: Sequence[float], tiers: Sequence[int]) -> dict[str, Any]:
    found = interval(answers, np.array(values), tiers)
    return {"accuracy": found["mean"], **{key: found[key] for key in ("low", "high", "n")}}


def _row(answers: Sequence[Answer], values: Sequence[float]) -> dict[str, Any]:
    rows = [*((name, [tier]) for tier, name in enumerate(TIERS)), ("average", [0, 1, 2])]
    return {name: _cell(answers, values, tiers) for name, tiers in rows}


def summarize(answers: Sequence[Answer], budget: int) -> dict[str, Any]:
    """Return the rows "ntp" and "think" of evaluation.json."""
    lengths = [answer.rollout.length for answer in answers]
    closed = [answer.rollout.closed for answer in answers]
    plain = {**_row(answers, [a.plain for a in answers]), "thought_length": 0.0, "closed_share": 0.0, "budget": 0}
    think = {
        **_row(answers, [a.match for a in answers]),
        "thought_length": float(np.mean(lengths)),
        "closed_share": float(np.mean(closed)),
        "budget": budget,
    }
    for sort in sorts_in(answers):
        chosen = of_sort(answers, sort)
        length = {"thought_length": float(np.mean([answer.rollout.length for answer in chosen]))}
        plain.setdefault("sorts", {})[sort] = _cell(chosen, [a.plain for a in chosen], [0]) | {"thought_length": 0.0}
        think.setdefault("sorts", {})[sort] = _cell(chosen, [a.match for a in chosen], [0]) | length
    return {"ntp": plain, "think": think}


def sorts_in(answers: Sequence[Answer]) -> list[str]:
    """Names of the sorts of tokens that were asked for; none where the text is not a generated one."""
    return sorted({answer.sort for answer in answers} - {""})


def of_sort(answers: Sequence[Answer], sort: str) -> list[Answer]:
    """Answers at tokens of one sort, counted as of one tier: a sort has its own mean, whatever its tiers."""
    return [replace(a, position=replace(a.position, tier=0)) for a in answers if a.sort == sort]


def difference(answers: Sequence[Answer], first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Second minus first on the same positions: mean of tiers and paired bootstrap interval over documents."""
    found = interval(answers, np.array(second) - np.array(first))
    return {"difference": found["mean"], "low": found["low"], "high": found["high"]}


def evaluate(
    policy: Policy,
    texts: Sequence[Text],
    config: RMTConfig,
    positions: Sequence[Position] | None = None,
    budget: int | None = None,
) -> dict[str, Any]:
    """Measure next-token accuracy by tier, plain and after thinking.

    Args:
        policy: the model.
        texts: held-out texts.
        config: settings.
        positions: from ``plan_positions``; drawn by this policy's own entropy where None.
        budget: stated and used for the cap, tokens; evaluation_budget or budget_start where None.

    Returns:
        {"ntp": R, "think": R}, R as DESIGN names it: by tier and average {"accuracy", "low", "high", "n"}, and
        thought_length, closed_share, budget; for a generated text also "sorts", by name as by tier.

    Raises:
        UserError: if there is nothing to evaluate.
    """
    if not texts:
        raise UserError("there is no held-out text to evaluate on; give more documents")
    budget = budget or config.evaluation_budget or config.budget_start
    chosen = plan_positions(policy, texts, config) if positions is None else positions
    return summarize(answer_positions(policy, texts, chosen, config, budget), budget)
