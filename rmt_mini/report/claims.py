"""What results say: the findings of a run, and the verdict of a comparison on each claim of the paper.

A difference is called one only where its 95 % interval excludes zero, else it is inconclusive. The sentences are in
templates/findings.md.j2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from rmt_mini.arms import BASELINE, METHOD
from rmt_mini.config import RMTConfig
from rmt_mini.files import Cell, Change, Comparison, Evaluation, ExamOutcome, Ratio, Row
from rmt_mini.records import StepMetrics
from rmt_mini.report.markdown import points, render

VERDICTS = {1: "holds", -1: "does not hold", 0: "inconclusive"}
FOLLOWED = 0.25  # a mean length within this share of the budget counts as following it
# Tian et al., arXiv 2509.24375: next-token accuracy of R1-Distill-Qwen-14B, %: easy, medium, hard, average
PAPER = {
    "base-ntp": (42.04, 31.71, 19.64, 31.13),
    "base-ntr": (4.76, 2.43, 2.09, 3.09),
    "rpt": (48.67, 35.84, 23.03, 35.85),
    "rmt": (62.50, 43.96, 34.14, 46.87),
    "rmt-no-budget": (60.35, 32.79, 27.59, 40.24),
    "rmt-no-curriculum": (59.32, 42.66, 27.68, 43.22),
    "rmt-no-ntp": (40.00, 34.26, 27.27, 33.84),
}
PAPER_GAIN = 100 * (PAPER["rmt"][3] / PAPER["rpt"][3] - 1)  # over RPT, %
PAPER_LENGTHS = {"rpt": 872.0, "rmt": 188.0}  # mean thought, tokens
# after GRPO on Skywork maths, before and after, %: R1-14B and what its mid-training made of it; Qwen3-14B likewise
PAPER_EXAMS = {
    "base": ((23.00, 51.00), (12.84, 54.17)),
    "rpt": ((23.17, 48.50), None),
    "rmt": ((24.08, 54.67), (25.17, 64.33)),
}
SHOWN = {
    "base": "untrained",
    "base-ntp": "untrained, plain (NTP)",
    "base-ntr": "untrained, thinking (NTR)",
    "ntp": "NTP only, plain",
    "ntp-equal-compute": "NTP only, as much compute, plain",
    "sft": "own right thoughts + NTP",
    "rpt": "RPT",
    "rmt": "RMT",
    "rmt-no-budget": "RMT without budget",
    "rmt-no-curriculum": "RMT without curriculum",
    "rmt-no-ntp": "RMT without NTP",
    "rmt-random-tokens": "RMT on random tokens",
    "rl-no-think": "RL without thinking",
    "rmt-shuffled-reward": "RMT, rewards shuffled",
}
BETTER_THAN = {  # arm -> the claim that RMT minus that arm decides
    "base-ntp": "RMT thinks better than the untrained model predicts plainly",
    "rmt-no-budget": "The budget adds to accuracy",
    "rmt-no-curriculum": "The curriculum adds to accuracy",
    "rmt-no-ntp": "The NTP loss adds to accuracy",
    "ntp": "RMT is more than training on the text (NTP only, equal steps)",
    "ntp-equal-compute": "RMT is more than training on the text (NTP only, equal compute)",
    "sft": "Comparing within a group beats learning right thoughts by heart",
    "rmt-random-tokens": "Choosing tokens by difficulty beats random tokens",
    "rl-no-think": "Thinking helps, and not reward alone",
    "rmt-shuffled-reward": "The rewards matter, and not RL's noise",
}
QUESTIONS = {"micro": "kinds of questions that no text has", "micro-text": "the calculations of the mid-training text"}


@dataclass(frozen=True)
class Claim:
    """One claim, the numbers that decide it, and whether it holds (1), does not (-1), or is inconclusive (0)."""

    text: str
    sign: int
    words: str

    def line(self) -> str:
        """Return it as a line of Markdown."""
        return f"**{self.text}: {VERDICTS[self.sign]}.** {self.words}"


def claims(found: Comparison) -> list[Claim]:
    """Judge every claim whose arms are there; those that do not hold come first, then the inconclusive ones."""
    return ordered(list(_claims(found)))


def ordered(found: Sequence[Claim]) -> list[Claim]:
    """Put claims that do not hold first, then inconclusive ones."""
    return sorted(found, key=lambda claim: (-1, 0, 1).index(claim.sign))


def _claims(found: Comparison) -> Iterator[Claim]:
    against = found.relative.get(BASELINE)
    if against and against.accuracy:
        over = f"By {100 * against.accuracy.ratio:+.1f} % of RPT's accuracy {_ends(against.accuracy, '+.1f')}"
        sign = int(against.accuracy.low > 0) - int(against.accuracy.high < 0)
        yield Claim("RMT is more accurate than RPT", sign, f"{over}; the paper: {PAPER_GAIN:+.1f} %.")
    if against and against.thought_length:
        part = f"{100 * against.thought_length.ratio:.0f} % of their length {_ends(against.thought_length, '.0f')}"
        sign = int(against.thought_length.high < 1) - int(against.thought_length.low > 1)
        paper = f"the paper: {100 * PAPER_LENGTHS['rmt'] / PAPER_LENGTHS['rpt']:.0f} %."
        yield Claim("RMT's thoughts are shorter than RPT's", sign, f"{part}; {paper}")
    pairs = {pair.b: pair for pair in found.paired if pair.tier == "average"}
    for arm, text in BETTER_THAN.items():
        if arm in pairs:
            yield Claim(text, pairs[arm].sign, f"RMT minus {SHOWN[arm]}: {points(pairs[arm])} points.")


def _ends(ratio: Ratio, form: str) -> str:
    return f"[{100 * ratio.low:{form}}, {100 * ratio.high:{form}}]"


def questions_of(source: str) -> str:
    """Say what an exam is about."""
    return QUESTIONS.get(source, f"questions of {source}")


def trained_as(name: str) -> str:
    """Return an arm's name where it means its model, and not how that answers."""
    return SHOWN[name].removesuffix(", plain")


def exam_claims(found: ExamOutcome, source: str) -> list[Claim]:
    """Judge what mid-training did for post-training on questions of a source, on the way and at the end."""
    last = found.arms[METHOD][-1].step
    judged = [(f"Along the way of post-training on {questions_of(source)}", pair) for pair in found.along]
    judged += [
        (f"After {last} steps of post-training on {questions_of(source)}", p) for p in found.paired if p.step == last
    ]
    return [
        Claim(
            f"{when}, RMT's model answers better than that of "
            f"{'the untrained model' if pair.b == 'base' else trained_as(pair.b)}",
            pair.sign,
            f"pass@1: {points(pair)} points.",
        )
        for when, pair in judged
        if pair.k == 1
    ]


class Versus(NamedTuple):
    """One way to answer against another: paired position by position where that is known, else by two intervals."""

    one: Cell
    other: Cell
    change: Change | None

    @property
    def apart(self) -> bool:
        """Whether the two intervals have no point in common; touching is not apart."""
        low, high = sorted((self.one, self.other), key=lambda cell: cell.low or 0.0)
        return (high.low or 0.0) > (low.high or 0.0)

    @property
    def difference(self) -> float:
        """Other minus one."""
        return (self.other.accuracy or 0.0) - (self.one.accuracy or 0.0)

    @property
    def sign(self) -> int:
        """1 where the other is better, -1 where it is worse, else 0."""
        if self.change is not None:
            return self.change.sign
        return int(self.apart) * (1 if self.difference > 0 else -1)


def rows_of(evaluation: Evaluation) -> dict[str, Row]:
    """Return the ways to answer that were measured, by their names."""
    before, cold, after = evaluation.before, evaluation.cold_start, evaluation.after
    rows = {
        "plain, before": before and before.ntp,
        "thinking, before": before and before.think,
        "thinking, cold start": cold and cold.think,
        "plain, after": after and after.ntp,
        "thinking, after": after and after.think,
    }
    return {name: row for name, row in rows.items() if row}


def findings(config: RMTConfig, evaluation: Evaluation, metrics: Sequence[StepMetrics] | None) -> str:
    """Say what was found, a paragraph each; without metrics nothing is said that only these show."""
    rows = rows_of(evaluation)
    cells: Mapping[str, Cell] = {name: row.average for name, row in rows.items() if row.average.accuracy is not None}

    def versus(one: str, other: str, paired: str) -> Versus:
        change = evaluation.gain.get(paired)
        return Versus(cells[one], cells[other], change if change and change.difference is not None else None)

    few = max(1, min(5, len(metrics or []) // 4))
    parts = (metrics[:few], metrics[-few:]) if metrics else ()
    ends = [(fmean(m.thought_length for m in part), fmean(m.budget for m in part)) for part in parts]
    followed = [abs(length - budget) <= max(1.0, FOLLOWED * budget) for length, budget in ends]
    totals = {name: sum(getattr(m, name) for m in metrics or []) for name in ("rl_tokens", "ntp_tokens")}
    signal = fmean(m.signal_groups for m in metrics) if metrics else 0.0
    given = {"config": config, "evaluation": evaluation, "rows": rows, "cells": cells, "versus": versus}
    return render(
        "findings.md.j2", **given, metrics=metrics, few=few, ends=ends, followed=followed, totals=totals, signal=signal
    )
