"""From answers to numbers: next-token accuracy by tier, and thought length, each with an interval.

"average" is the mean of the tiers, as in the paper's tables. The paper gives no intervals. Ours are 95 % confidence
intervals for the mean over all documents, seeds and bases (pre-trained models) of the kind. Positions of one document
are not independent, nor are runs that begin with one base, and every run answers the same documents: documents and runs
are crossed, and runs nested in bases. Each source has its variance and its Student's t, since there are few of each;
bases count instead of runs where they differ by more than their seeds explain. A test simulates the coverage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t as student

from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Answer

IN_BITS = ("bits", "bits_after", "gain")  # the other measures are shares of right answers
LEVEL = 0.05  # chance that an interval misses the truth
Limits = tuple[float, float]  # of values
SHARE: Limits = (0.0, 1.0)  # of an accuracy
GAP: Limits = (-1.0, 1.0)  # of a difference of two accuracies

Measured = Mapping[str, tuple[int, Sequence[Answer]]]  # "before", "after" -> budget and answers, in the same order


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of a mean, one a source, and the degrees of freedom that each was estimated on."""

    variances: tuple[float, ...]
    freedom: tuple[int, ...]

    def half_width(self, level: float = LEVEL) -> float:
        """Half of the interval that misses the truth with a chance of ``level``."""
        return float(np.sqrt(np.sum(student.ppf(1 - level / 2, self.freedom) ** 2 * np.array(self.variances))))

    def p_value(self, mean: float, lowest: float = 1e-12) -> float:
        """The level whose interval just reaches zero."""
        if self.half_width(lowest) <= abs(mean):
            return lowest if mean else 1.0
        return float(brentq(lambda level: self.half_width(level) - abs(mean), lowest, 1.0))


def influence(answers: Sequence[Answer], values: np.ndarray, tiers: Sequence[int]) -> tuple[float, np.ndarray]:
    """Mean over the tiers that have answers, and what each answer adds to it beyond the tier's mean, (answers,)."""
    tier = np.array([answer.position.tier for answer in answers])
    parts = [tier == one for one in tiers if (tier == one).any()]
    added = np.zeros(len(answers))
    for part in parts:
        added[part] = (values[part] - values[part].mean()) / (part.sum() * len(parts))
    return float(np.mean([values[part].mean() for part in parts])), added


def by_base(answers: Sequence[Answer]) -> list[float]:
    """Share of right answers, a mean of tiers, of the runs that began with each base."""
    parts = [[one for one in answers if one.base == base] for base in sorted({one.base for one in answers})]
    return [influence(part, np.array([one.match for one in part]), (0, 1, 2))[0] for part in parts]


def spread_of(answers: Sequence[Answer], added: np.ndarray, tiers: Sequence[int]) -> Spread | None:
    """Return the spread of a mean with this ``influence``; None where all answers are of one document."""
    asked = [place for place, answer in enumerate(answers) if answer.position.tier in tiers]
    # a part's whole has a text as its name, which may be a number
    keys = [(answers[n].whole or f"\0{answers[n].position.trunk}", answers[n].run, answers[n].base) for n in asked]
    document, run, base = (np.unique(key, return_inverse=True)[1] for key in zip(*keys, strict=True))
    documents, runs, bases = (np.bincount(key, added[asked]) for key in (document, run, base))
    if len(documents) < 2:
        return None
    found = [_between(documents)]
    if len(runs) > 1:
        found.append(_between(runs))
    if len(bases) > 1:
        of_run = base[np.unique(run, return_index=True)[1]]
        seeds = runs - (bases / np.bincount(of_run))[of_run]
        by_seeds = len(runs) * np.sum(seeds**2) / max(1, len(runs) - len(bases))
        if _between(bases)[0] > by_seeds:
            found[-1] = _between(bases)
    variances, freedom = zip(*found, strict=True)
    return Spread(variances, freedom)


def _between(sums: np.ndarray) -> tuple[float, int]:
    """Variance of a mean, from the sums of its influence over each of a source, and its degrees of freedom."""
    return float(len(sums) / (len(sums) - 1) * np.sum(sums**2)), len(sums) - 1


def interval(
    answers: Sequence[Answer],
    values: np.ndarray,
    tiers: Sequence[int] = (0, 1, 2),
    tested: bool = False,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Mean over tiers of a value per answer, {"mean", "low", "high", "n"}; all None but n where there is no answer.

    ``limits`` are those of the values. One document has no spread: then the ends are the limits, or None.
    If ``tested`` also "p": how unlikely a mean as far from zero would be if it were zero; None for one document.
    """
    asked = sum(answer.position.tier in tiers for answer in answers)
    if not asked:
        return {"mean": None, "low": None, "high": None, "n": 0}
    mean, added = influence(answers, values, tiers)
    found = spread_of(answers, added, tiers)
    known = {"mean": mean, "low": None, "high": None, "n": asked} | ({"p": None} if tested else {})
    if found is not None:
        half = found.half_width()
        known |= {"low": mean - half, "high": mean + half} | ({"p": found.p_value(mean)} if tested else {})
    return known if limits is None else _within(known, limits, found.freedom[0] + 1 if found else 1)


def interval_of_mean(values: np.ndarray, limits: Limits | None = None) -> dict[str, Any]:
    """Interval of the mean of a value per document or question, and their number, {"mean", "low", "high", "n"}.

    ``limits`` are as for ``interval``.
    """
    count, mean = len(values), float(values.mean())
    found = {"mean": mean, "low": None, "high": None, "n": count}
    if count > 1:  # a single value says nothing of its spread
        variance, freedom = _between((values - mean) / count)
        half = Spread((variance,), (freedom,)).half_width()
        found |= {"low": mean - half, "high": mean + half}
    return found if limits is None else _within(found, limits, count)


def _within(found: dict[str, Any], limits: Limits, documents: int) -> dict[str, Any]:
    """Keep an interval within limits.

    Where ``documents`` are all alike they have no spread, and yet others are possible: of n right answers the interval
    is that of n tosses then (Clopper and Pearson). "p" is that of a difference.

    Example:
        >>> _within({"mean": 1.0, "low": 1.0, "high": 1.0}, SHARE, 3)["low"]
        0.292...
    """
    low, high = limits
    if found["low"] is None:  # all that is known of it
        return {**found, "low": low, "high": high}
    mean = found["mean"]
    if found["high"] - found["low"] < 1e-9:
        reach = 1 - (LEVEL / 2) ** (1 / documents)
        found = {**found, "low": mean - reach * (mean - low), "high": mean + reach * (high - mean)}
        found |= {"p": min(1.0, 2 / (1 + abs(mean)) ** documents)} if "p" in found else {}  # whose end is zero
    return {**found, "low": max(low, found["low"]), "high": min(high, found["high"])}


def _cell(answers: Sequence[Answer], name: str, tiers: Sequence[int]) -> dict[str, Any]:
    found = interval(answers, np.array([getattr(answer, name) for answer in answers]), tiers, limits=SHARE)
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
    """Return the rows "ntp" and "think" of evaluation.json, and the other measures."""
    more = {"more": found} if (found := _more(answers)) else {}
    return {"ntp": _row(answers, "plain", False, 0), "think": _row(answers, "match", True, budget), **more}


def measures(answer: Answer) -> dict[str, float]:
    """Return what was measured beside accuracy: "gain" is the information gain of a thought, bits."""
    known = {name: value for name in ("gated", "bits_after") if (value := getattr(answer, name)) is not None}
    if "bits_after" in known:
        known |= {"bits": answer.bits, "gain": answer.bits - known["bits_after"]}
    return {**known, **answer.probe}


def _more(answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    measured, found = [measures(answer) for answer in answers], dict[str, dict[str, Any]]()
    for name in dict.fromkeys(name for one in measured for name in one):
        some = [answer for answer, one in zip(answers, measured, strict=True) if name in one]
        values = np.array([one[name] for one in measured if name in one])
        limits = None if name in IN_BITS else SHARE
        found[name] = {"average": interval(some, values, limits=limits)}
        for sort in sorts_in(some):
            own = values[[one.sort == sort for one in some]]
            found[name][sort] = interval(of_sort(some, sort), own, limits=limits)
    return found


def sorts_in(answers: Sequence[Answer]) -> list[str]:
    """Names of the sorts of tokens that were asked for; none where the text is not a generated one."""
    return sorted({answer.sort for answer in answers} - {""})


def of_sort(answers: Sequence[Answer], sort: str) -> list[Answer]:
    """Answers at tokens of one sort, counted as of one tier: a sort has its own mean, whatever its tiers."""
    return as_one_tier([answer for answer in answers if answer.sort == sort])


def as_one_tier(answers: Sequence[Answer]) -> list[Answer]:
    """Answers as if of one tier, where a mean over all of them is wanted and not a mean of tiers."""
    return [replace(answer, position=replace(answer.position, tier=0)) for answer in answers]


def change(
    answers: Sequence[Answer],
    values: np.ndarray,
    tiers: Sequence[int] = (0, 1, 2),
    tested: bool = False,
    limits: Limits | None = GAP,
) -> dict[str, Any]:
    """Interval of a difference per answer, of accuracies if not said, {"difference", "low", "high"} and "p"."""
    found = interval(answers, values, tiers, tested, limits)
    del found["n"]
    return {"difference": found.pop("mean"), **found}


def difference(answers: Sequence[Answer], first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Accuracy, second minus first on the same positions: mean of tiers and paired interval, [-1, 1] if not known."""
    return change(answers, np.array(second) - np.array(first))


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
    longer = {"all": _longer(before, after)}
    for sort in sorts_in(after):
        old, new = of_sort(before, sort), of_sort(after, sort)
        gain[f"{sort}_think_after_minus_ntp_before"] = difference(new, [a.plain for a in old], [a.match for a in new])
        longer[sort] = _longer(old, new)
    summaries = {when: summarize(answers, budget) for when, (budget, answers) in measured.items()}
    return summaries | {"gain": gain, "length_change": longer}


def _longer(before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, Any]:
    longer = np.array([a.length for a in after]) - [a.length for a in before]
    return change(as_one_tier(after), longer, limits=None)
