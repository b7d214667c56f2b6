"""What a comparison says about each claim of the paper, in a sentence.

A claim holds where the 95 % interval lies on its side, does not where it lies on the other, and cannot be told where
the interval covers the border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmt_mini.arms import BASELINE, METHOD

Json = Mapping[str, Any]
VERDICTS = {1: "holds", -1: "does not hold", 0: "cannot be told"}
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


QUESTIONS = {
    "micro": "kinds of questions that no text has",
    "micro-text": "the calculations of the mid-training text",
}


@dataclass(frozen=True)
class Claim:
    """One claim, and what the comparison says about it.

    Attributes:
        text: the claim.
        sign: 1 holds, -1 does not, 0 cannot be told.
        words: the numbers behind it.
    """

    text: str
    sign: int
    words: str

    def line(self) -> str:
        """Return it as a line of Markdown."""
        return f"**{self.text}: {VERDICTS[self.sign]}.** {self.words}"


def claims(found: Json) -> list[Claim]:
    """Judge every claim whose arms are there; those that do not hold come first, then those that cannot be told.

    Args:
        found: as ``compare_runs`` returns it.
    """
    return ordered(list(_claims(found)))


def ordered(found: Sequence[Claim]) -> list[Claim]:
    """Put claims that do not hold first, then those that cannot be told."""
    return sorted(found, key=lambda claim: (-1, 0, 1).index(claim.sign))


def _claims(found: Json) -> Iterator[Claim]:
    pairs = {(one["b"], one["tier"]): one for one in found["paired"]}

    def over(arm: str, text: str, tier: str = "average") -> Iterator[Claim]:
        pair = pairs.get((arm, tier))
        if pair is not None:
            change, low, high = (100 * pair[key] for key in ("difference", "low", "high"))
            sign = int(pair["low"] > 0) - int(pair["high"] < 0)
            yield Claim(text, sign, f"RMT minus {SHOWN[arm]}: {change:+.1f} points [{low:+.1f}, {high:+.1f}].")

    yield from over("base-ntp", "RMT thinks better than the untrained model predicts plainly")
    against = found["relative"].get(BASELINE, {})
    if against.get("accuracy"):
        gain = against["accuracy"]
        yield Claim(
            "RMT is more accurate than RPT",
            int(gain["low"] > 0) - int(gain["high"] < 0),
            f"By {100 * gain['ratio']:+.1f} % of RPT's accuracy [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]; "
            f"the paper: {PAPER_GAIN:+.1f} %.",
        )
    if against.get("thought_length"):
        length = against["thought_length"]
        told = PAPER_LENGTHS["rmt"] / PAPER_LENGTHS["rpt"]
        yield Claim(
            "RMT's thoughts are shorter than RPT's",
            int(length["high"] < 1) - int(length["low"] > 1),
            f"{100 * length['ratio']:.0f} % of their length [{100 * length['low']:.0f}, {100 * length['high']:.0f}]; "
            f"the paper: {100 * told:.0f} %.",
        )
    for arm, part in (("rmt-no-budget", "budget"), ("rmt-no-curriculum", "curriculum"), ("rmt-no-ntp", "NTP loss")):
        yield from over(arm, f"The {part} adds to accuracy")
    yield from over("ntp", "RMT is more than training on the text (NTP only, equal steps)")
    yield from over("ntp-equal-compute", "RMT is more than training on the text (NTP only, equal compute)")
    yield from over("sft", "Comparing within a group beats learning right thoughts by heart")
    yield from over("rmt-random-tokens", "Choosing tokens by difficulty beats random tokens")
    yield from over("rl-no-think", "Thinking helps, and not reward alone")
    yield from over("rmt-shuffled-reward", "The rewards matter, and not RL's noise")


def questions_of(source: str) -> str:
    """Say what an exam is about."""
    return QUESTIONS.get(source, f"questions of {source}")


def exam_claims(found: Json, source: str) -> list[Claim]:
    """Judge what mid-training did for post-training, on the way and at the end.

    Args:
        found: as ``read_exams`` returns it.
        source: of the questions.
    """
    last = found["arms"][METHOD][-1]["step"]
    told = []
    for when, pairs in (
        ("Along the way of", found["along"]),
        (f"After {last} steps of", [pair for pair in found["paired"] if pair["step"] == last]),
    ):
        for pair in (pair for pair in pairs if pair["k"] == 1):
            sign = int(pair["low"] > 0) - int(pair["high"] < 0)
            other = "the untrained model" if pair["b"] == "base" else trained_as(pair["b"])
            text = f"{when} post-training on {questions_of(source)}, RMT's model answers better than "
            text += f"that of {other}"
            told.append(Claim(text, sign, f"pass@1: {points(pair)} points."))
    return told


def trained_as(name: str) -> str:
    """Return an arm's name where it stands for its model, and not for how that answers."""
    return SHOWN[name].removesuffix(", plain")


def points(cell: Json) -> str:
    """Show a difference of accuracies in points, with its interval."""
    if cell["difference"] is None:
        return "-"
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * cell[key] for key in ("difference", "low", "high")))
