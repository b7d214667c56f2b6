"""What a comparison says about each claim of the paper, in a sentence, and its tables beside the paper's.

A claim holds where the 95 % interval lies on its side, does not where it lies on the other, and cannot be told where
the interval covers the border.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmt_mini.stages.store import write_whole
from rmt_mini.study import plots
from rmt_mini.study.comparison import BASE, BASELINE, METHOD
from rmt_mini.study.findings import COLUMNS, share
from rmt_mini.study.markdown import escape, table

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
    "base-ntp": "untrained, plain (NTP)",
    "base-ntr": "untrained, thinking (NTR)",
    "ntp": "NTP only, plain",
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
    """Judge every claim whose arms are there; those that do not hold come first.

    Args:
        found: as ``compare_runs`` returns it.
    """
    return sorted(_claims(found), key=lambda claim: claim.sign != -1)


def _claims(found: Json) -> Iterator[Claim]:
    pairs = {(one["b"], one["tier"]): one for one in found["paired"]}

    def over(arm: str, text: str, tier: str = "average") -> Iterator[Claim]:
        pair = pairs.get((arm, tier))
        if pair is not None:
            change, low, high = (100 * pair[key] for key in ("difference", "low", "high"))
            sign = int(pair["low"] > 0) - int(pair["high"] < 0)
            yield Claim(text, sign, f"RMT minus {SHOWN[arm]}: {change:+.1f} points [{low:+.1f}, {high:+.1f}].")

    yield from over("base-ntp", "RMT thinks better than the untrained model predicts plainly")
    if BASELINE in found["relative"]:
        gain, length = (found["relative"][BASELINE][key] for key in ("accuracy", "thought_length"))
        yield Claim(
            "RMT is more accurate than RPT",
            int(gain["low"] > 0) - int(gain["high"] < 0),
            f"By {100 * gain['ratio']:+.1f} % of RPT's accuracy [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]; "
            f"the paper: {PAPER_GAIN:+.1f} %.",
        )
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
    yield from over("sft", "Comparing within a group beats learning right thoughts by heart")
    yield from over("rmt-random-tokens", "Choosing tokens by difficulty beats random tokens")
    yield from over("rl-no-think", "Thinking helps, and not reward alone")
    yield from over("rmt-shuffled-reward", "The rewards matter, and not RL's noise")


def accuracy_tables(found: Json) -> list[str]:
    """Lay out accuracies in the paper's layout, ours and below it the paper's."""
    head = ["next tokens right, %", *COLUMNS, "thought length"]
    ours = [
        [SHOWN[name], *(share(arm[column], "{0:.1f} [{1:.1f}, {2:.1f}]") for column in COLUMNS), _length(arm)]
        for name, arm in _ordered(found["arms"])
    ]
    theirs = [
        [
            SHOWN[name],
            *(f"{value:.2f}" for value in values),
            f"{PAPER_LENGTHS[name]:.0f}" if name in PAPER_LENGTHS else "",
        ]
        for name, values in PAPER.items()
    ]
    parts = ["Ours:", table(head, ours)]
    sorts = {name: arm["sorts"] for name, arm in _ordered(found["arms"]) if arm.get("sorts")}
    if sorts:
        names = list(next(iter(sorts.values())))
        rows = [
            [SHOWN[name], *(share(row[sort], "{0:.1f} [{1:.1f}, {2:.1f}]") for sort in names)]
            for name, row in sorts.items()
        ]
        parts += ["By sort of token, which the generated text knows:", table(["%", *names], rows)]
    return [*parts, "The paper's (R1-Distill-Qwen-14B on OmniMATH; no intervals are given):", table(head, theirs)]


def _length(arm: Json) -> str:
    low, high = arm["thought_length_interval"]
    return "-" if arm["row"] == "ntp" else f"{arm['thought_length']:.1f} [{low:.1f}, {high:.1f}]"


def _ordered(arms: Json) -> list[tuple[str, Json]]:
    return [(name, arms[name]) for name in SHOWN if name in arms]


def difference_table(found: Json) -> str:
    """Lay out RMT minus every other row, by tier."""
    cells = {(one["b"], one["tier"]): one for one in found["paired"]}
    rows = []
    for name, _ in _ordered(found["arms"]):
        if name != METHOD:
            columns = (cells[name, column] for column in COLUMNS)
            rows.append([SHOWN[name], *(_points(cell) for cell in columns)])
    return table(["RMT minus ..., points", *COLUMNS], rows)


def _points(cell: Json) -> str:
    if cell["difference"] is None:
        return "-"
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * cell[key] for key in ("difference", "low", "high")))


def compute_table(found: Json) -> str:
    """Lay out what the arms took, and what each predicts without a thought."""
    rows = []
    for name, arm in _ordered(found["arms"]):
        if name in BASE:
            continue
        took = arm["compute"]
        rows.append(
            [
                SHOWN[name],
                f"{took['steps']:.0f}",
                f"{took['rl_tokens']:,.0f}",
                f"{took['ntp_tokens']:,.0f}",
                f"{took['operations'] / 1e12:.2f}",
                f"{took['seconds']:.0f}",
                share(arm["plain"]["average"], "{0:.1f} [{1:.1f}, {2:.1f}]"),
            ]
        )
    head = ["a run, mean over seeds", "steps", "RL tokens", "NTP tokens", "10^12 operations", "seconds", "plain, %"]
    return table(head, rows)


def write_comparison_report(folder: Path, found: Json) -> str:
    """Write report.md of a comparison, and its figure.

    Args:
        folder: of the comparison.
        found: as ``compare_runs`` returns it, with "config" and "seeds".

    Returns:
        The table of accuracies for the terminal.
    """
    figured = plots.arms({SHOWN[name]: arm for name, arm in _ordered(found["arms"])})
    plots.save(figured, folder / "figures" / "arms.png")
    config, seeds = found["config"], found["seeds"]
    tables = accuracy_tables(found)
    parts = [
        f"# RMT, its baseline, ablations and controls: preset {escape(config['preset'])}, {len(seeds)} seeds",
        "\n".join(f"- {claim.line()}" for claim in claims(found)),
        f"Every arm took {config['steps']} steps on the same documents. Intervals are 95 % bootstrap intervals over "
        f"{len(seeds)} seeds ({', '.join(map(str, seeds))}) and the held-out documents, both drawn anew; with few "
        "seeds their part is known roughly, and one base model serves them all.",
        "## Accuracy",
        *tables,
        f"![{figured.alt}](figures/arms.png)",
        "## Differences, position by position",
        difference_table(found),
        "## What it took",
        compute_table(found),
        "Operations: 2 per parameter and token forward, 4 more backward. Seconds are those of the steps, on the "
        "machine that comparison.json names, with other runs beside them.",
    ]
    write_whole(folder / "report.md", "\n\n".join(parts) + "\n")
    return tables[1]
