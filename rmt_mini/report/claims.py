"""What results say: the findings of a run, and the verdict of a comparison on each claim of the paper.

A difference is called one only where its 95 % interval excludes zero, else it is inconclusive; a report with many
claims corrects for their number. The sentences are in templates/findings.md.j2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from rmt_mini.arms import BASELINE, METHOD
from rmt_mini.config import RMTConfig, data
from rmt_mini.files import TIMES, Comparison, Evaluation, ExamOutcome, Row, Variant
from rmt_mini.records import StepMetrics
from rmt_mini.report.comparison import UNTRAINED
from rmt_mini.report.markdown import points, render
from rmt_mini.stages.statistics import LEVEL

VERDICTS = {1: "holds", -1: "does not hold", 0: "inconclusive"}
FOLLOWED = 0.25  # a mean length within this share of the budget counts as following it
_DATA: dict[str, Any] = data("report/paper.yaml")
PAPER: dict[str, list[float]] = _DATA["accuracies"]  # next tokens right, %: easy, medium, hard, average
PAPER_LENGTHS: dict[str, float] = _DATA["lengths"]
PAPER_EXAMS: dict[str, list[list[float] | None]] = _DATA["exams"]
SHOWN: dict[str, str] = _DATA["shown"]
SYMBOLS: dict[str, str] = _DATA["symbols"]


@dataclass(frozen=True)
class Claim:
    """One claim, the numbers that decide it, and whether it holds (1), does not (-1), or is inconclusive (0)."""

    text: str
    sign: int  # of the interval
    words: str
    p: float | None = None  # chance of a difference as large if there were none

    def line(self) -> str:
        """Return it as a line of Markdown."""
        return f"**{self.text}: {VERDICTS[self.sign]}.** {self.words}"


def claims(found: Comparison) -> list[Claim]:
    """Return every claim whose arms are there, each judged by its own interval."""
    made, against = [], found.relative.get(BASELINE, {})
    if one := against.get("accuracy"):
        sign = int(one.low > 0) - int(one.high < 0)
        paper = 100 * (PAPER[METHOD][3] / PAPER[BASELINE][3] - 1)
        text = f"By {100 * one.ratio:+.1f} % of RPT's accuracy [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
        made.append(Claim("RMT is more accurate than RPT", sign, f"{text}; the paper: {paper:+.1f} %.", one.p))
    if one := against.get("thought_length"):
        sign = int(one.high < 1) - int(one.low > 1)
        paper = 100 * PAPER_LENGTHS[METHOD] / PAPER_LENGTHS[BASELINE]
        text = f"{100 * one.ratio:.0f} % of their length [{100 * one.low:.0f}, {100 * one.high:.0f}]"
        made.append(Claim("RMT's thoughts are shorter than RPT's", sign, f"{text}; the paper: {paper:.0f} %.", one.p))
    pairs = {pair.b: pair for pair in found.paired if pair.tier == "average"}
    for arm, text in _DATA["claims"].items():
        if arm in pairs:
            words = f"RMT minus {shown(arm)}: {points(pairs[arm])} points."
            made.append(Claim(text, pairs[arm].sign, words, pairs[arm].p))
    return made


def corrected(found: Sequence[Claim]) -> list[Claim]:
    """Judge claims together by Holm's correction; those that do not hold come first, then the inconclusive ones.

    Of all claims that are not so, one or more is then said to hold, or not to, in 5 reports of 100 at most.

    Example:
        >>> several = [Claim("A", 1, "", p=0.03), Claim("B", 1, "", p=0.04), Claim("C", -1, "", p=0.001)]
        >>> [(claim.text, claim.sign) for claim in corrected(several)]
        [('C', -1), ('A', 0), ('B', 0)]
    """
    judged, stopped = [], False
    for rank, claim in enumerate(sorted(found, key=lambda one: 1.0 if one.p is None else one.p)):
        stopped = stopped or claim.p is None or claim.p * (len(found) - rank) > LEVEL
        judged.append(replace(claim, sign=0) if stopped else claim)
    order = [claim.text for claim in found]
    return sorted(judged, key=lambda one: ((-1, 0, 1).index(one.sign), order.index(one.text)))


def questions_of(source: str) -> str:
    """Say what an exam is about."""
    return str(_DATA["questions"].get(source, f"questions of {source}"))


def shown(name: str) -> str:
    """Return what an arm is called in reports; a new one goes by its name."""
    return SHOWN.get(name, name)


def trained_as(name: str) -> str:
    """Return an arm's name where it means its model, and not how that answers."""
    return shown(name).removesuffix(", plain")


def names_at(what: str) -> Callable[[str], str]:
    """Return how arms are named at a level of a map: with the way they answer, but where all answer in the same way."""
    return trained_as if what in {"gated", "plain"} else shown


def exam_claims(found: ExamOutcome, source: str) -> list[Claim]:
    """Judge what mid-training did for post-training on questions of a source, at its end."""
    last, asked = found.arms[METHOD][-1].step, questions_of(source)
    text = f"After {last} steps of post-training on {asked}, RMT's model answers better than that of"
    names = {name: trained_as(name) for name in found.arms} | {UNTRAINED: "the untrained model"}
    return [
        Claim(f"{text} {names[pair.b]}", pair.sign, f"pass@1: {points(pair)} points.", pair.p)
        for pair in found.paired
        if (pair.step, pair.k) == (last, 1)
    ]


def moved(variants: Sequence[Variant]) -> list[Variant]:
    """Return the variants whose accuracy is another than the method's, after the correction for their number."""
    named = {f"{one.setting}={one.value}": one for one in variants}
    judged = corrected([Claim(name, one.accuracy.sign, "", one.p) for name, one in named.items()])
    kept = {claim.text for claim in judged if claim.sign}
    return [one for name, one in named.items() if name in kept]


def rows_of(evaluation: Evaluation) -> dict[str, Row]:
    """Return the ways to answer that were measured, by their names."""
    rows = dict[str, Row]()
    for when in TIMES:
        if found := getattr(evaluation, when):
            name = when.replace("_", " ")
            rows |= {} if when == "cold_start" else {f"plain, {name}": found.ntp}
            rows[f"thinking, {name}"] = found.think
    return rows


def findings(config: RMTConfig, evaluation: Evaluation, metrics: Sequence[StepMetrics] | None) -> str:
    """Say what was found, a paragraph each; without metrics nothing is said that only these show."""
    few = max(1, min(5, len(metrics or []) // 4))
    parts = (metrics[:few], metrics[-few:]) if metrics else ()
    ends = [(fmean(m.thought_length for m in part), fmean(m.budget for m in part)) for part in parts]
    followed = tuple(abs(length - budget) <= max(1.0, FOLLOWED * budget) for length, budget in ends)
    given = {"config": config, "evaluation": evaluation, "rows": rows_of(evaluation), "metrics": metrics}
    return render("findings.md.j2", **given, few=few, ends=ends, followed=followed)
