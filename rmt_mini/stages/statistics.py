"""From answers to numbers: next-token accuracy by tier, and thought length, each with an interval.

"average" is the mean of the tiers, as in the paper's tables. Intervals are 95 % bootstrap intervals over documents,
since positions of one document are not independent; the paper gives none. With answers of several runs the runs are
resampled too: every run asks about one held-out set, so runs and documents are crossed, which scipy does not offer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Answer

RESAMPLES = 2000

Measured = Mapping[str, tuple[int, Sequence[Answer]]]  # "before", "after" -> budget and answers, in the same order


def _mean_of_tiers(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the tiers that have answers, (...) from (..., tiers); NaN where none has."""
    with np.errstate(invalid="ignore"):  # 0 / 0
        rates = np.nan_to_num(sums / counts).sum(-1)
        mean: np.ndarray = rates / (counts > 0).sum(-1)
    return mean


def resample(answers: Sequence[Answer], values: np.ndarray, tiers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over ``tiers`` of values (k, answers): (k,), and (k, RESAMPLES) under paired draws of runs and documents."""
    asked = [place for place, answer in enumerate(answers) if answer.position.tier in tiers]
    runs, run = np.unique([answers[n].run for n in asked], return_inverse=True)
    documents, document = np.unique([answers[n].position.trunk for n in asked], return_inverse=True)
    tier = np.array([answers[n].position.tier for n in asked], dtype=int)
    table = np.zeros((len(values) + 1, len(runs), len(documents), len(TIERS)))  # sums of each value, then counts
    for sums, value in zip(table, [*values[:, asked], np.ones(len(asked))], strict=True):
        np.add.at(sums, (run, document, tier), value)
    source = np.random.default_rng(0)
    times = [source.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in (len(runs), len(documents))]
    drawn = np.einsum("br,bd,krdt->kbt", *times, table, optimize=True)
    whole = table.sum((1, 2))
    return _mean_of_tiers(whole[:-1], whole[-1]), _mean_of_tiers(drawn[:-1], drawn[-1])


def interval(answers: Sequence[Answer], values: np.ndarray, tiers: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Mean over tiers of a value per answer, {"mean", "low", "high", "n"}; all None but n where there is no answer."""
    asked = [answer for answer in answers if answer.position.tier in tiers]
    if not asked:
        return {"mean": None, "low": None, "high": None, "n": 0}
    (mean,), (drawn,) = resample(answers, values[None], tiers)
    if len({answer.position.trunk for answer in asked}) < 2:  # one document has no spread
        return {"mean": float(mean), "low": 0.0 if values.min() >= 0 else -1.0, "high": 1.0, "n": len(asked)}
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return {"mean": float(mean), "low": float(low), "high": float(high), "n": len(asked)}


def _cell(answers: Sequence[Answer], name: str, tiers: Sequence[int]) -> dict[str, Any]:
    found = interval(answers, np.array([getattr(answer, name) for answer in answers]), tiers)
    return {"accuracy": found.pop("mean"), **found}


def _row(answers: Sequence[Answer], name: str, thinks: bool, budget: int) -> dict[str, Any]:
    def mean(measure: str, some: Sequence[Answer]) -> float:
        return float(np.mean([getattr(answer, measure) for answer in some])) if thinks else 0.0

    chosen = {sort: of_sort(answers, sort) for sort in sorts_in(answers)}
    sorts = {sort: _cell(own, name, [0]) | {"thought_length": mean("length", own)} for sort, own in chosen.items()}
    return {
        **{tier: _cell(answers, name, [number]) for number, tier in enumerate(TIERS)},
        "average": _cell(answers, name, [0, 1, 2]),
        "thought_length": mean("length", answers),
        "closed_share": mean("closed", answers),
        "budget": budget,
        **({"sorts": sorts} if sorts else {}),
    }


def summarize(answers: Sequence[Answer], budget: int) -> dict[str, Any]:
    """Return the rows "ntp" and "think" of evaluation.json."""
    return {"ntp": _row(answers, "plain", False, 0), "think": _row(answers, "match", True, budget)}


def sorts_in(answers: Sequence[Answer]) -> list[str]:
    """Names of the sorts of tokens that were asked for; none where the text is not a generated one."""
    return sorted({answer.sort for answer in answers} - {""})


def of_sort(answers: Sequence[Answer], sort: str) -> list[Answer]:
    """Answers at tokens of one sort, counted as of one tier: a sort has its own mean, whatever its tiers."""
    return as_one_tier([answer for answer in answers if answer.sort == sort])


def as_one_tier(answers: Sequence[Answer]) -> list[Answer]:
    """Answers as if of one tier, where a mean over all of them is wanted and not a mean of tiers."""
    return [replace(answer, position=replace(answer.position, tier=0)) for answer in answers]


def difference(answers: Sequence[Answer], first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Second minus first on the same positions: mean of tiers and paired bootstrap interval."""
    found = interval(answers, np.array(second) - np.array(first))
    return {"difference": found["mean"], "low": found["low"], "high": found["high"]}


def summarize_all(measured: Measured) -> dict[str, Any]:
    """Return evaluation.json: summaries by name, "gain" in accuracy, and "length_change" by sort and of all."""
    before, after = (measured[when][1] for when in ("before", "after"))
    plain, think = (
        {when: [getattr(answer, key) for answer in all_] for when, (_, all_) in measured.items()}
        for key in ("plain", "match")
    )
    times = [when for when in measured if when != "after"]
    gain = {f"think_after_minus_{when}": difference(after, think[when], think["after"]) for when in times}
    gain["think_minus_ntp_after"] = difference(after, plain["after"], think["after"])
    gain["think_after_minus_ntp_before"] = difference(after, plain["before"], think["after"])
    change = {"all": _longer(before, after)}
    for sort in sorts_in(after):
        old, new = of_sort(before, sort), of_sort(after, sort)
        gain[f"{sort}_think_after_minus_ntp_before"] = difference(new, [a.plain for a in old], [a.match for a in new])
        change[sort] = _longer(old, new)
    summaries = {when: summarize(answers, budget) for when, (budget, answers) in measured.items()}
    return summaries | {"gain": gain, "length_change": change}


def _longer(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, Any]:
    found = difference(as_one_tier(after), [a.length for a in before], [a.length for a in after])
    if len({answer.position.trunk for answer in after}) < 2:  # a length has no bounds that would serve instead
        found |= {"low": None, "high": None}
    return found
