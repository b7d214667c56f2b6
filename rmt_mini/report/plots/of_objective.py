"""Figures of the dual objective and of the tree: two gradients weighed, closings trained or not, what sharing saves."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any

from matplotlib.ticker import EngFormatter

from rmt_mini.method.budget import length_reward, thought_cap
from rmt_mini.method.objective import ntp_mask
from rmt_mini.report.plots.canvas import (
    BLUE,
    GREY,
    LOOKS,
    ORANGE,
    RED,
    Figured,
    Numbers,
    draw_line,
    finish,
    panels_of,
    span,
)
from rmt_mini.report.plots.of_text import Marked

WEIGHTS = tuple(10 ** (exponent / 20) for exponent in range(-60, 21))  # lambda from 0.001 to 10
CHANCES = tuple(place / 100 for place in range(1, 100))
RL, NTP, BOTH, NONE = "RL", "NTP", "RL and NTP", "none"
MARKS = {  # raised sign, ground, underline: the first and the last tell the same as the second
    RL: ("RL", "#cfe4f6", "underline double"),
    NTP: ("", "#fff3d9", "underline"),
    BOTH: ("RL+NTP", "#f3c6bf", "underline wavy"),
    NONE: ("0", "#fff", "none"),
}


def by_loss(words: Sequence[str], marks: Sequence[str], told: str) -> Marked:
    """Write words, each with its mark: RL, NTP, BOTH or NONE.

    Args:
        words: tokens as text.
        marks: one a word.
        told: what stands there, in words; the marks are counted behind it.
    """
    ends = [*(one != other for one, other in pairwise(marks)), True]  # a run of one mark carries its sign once
    text = "".join(_marked(*one) for one in zip(words, marks, ends, strict=True))
    there = [mark for mark in MARKS if mark in marks]
    legend = " ".join(_marked(f"{mark} loss" if mark != NONE else "no loss", mark, True) for mark in there)
    counts = ", ".join(f"{mark} {list(marks).count(mark)}" for mark in there)
    return Marked(
        f'<div style="white-space: pre-wrap">{text}</div><div style="margin-top: 0.5em">{legend}</div>',
        f"{told} Tokens by the loss that trains them: {counts}.",
    )


def _marked(word: str, mark: str, signed: bool) -> str:
    sign, ground, line = MARKS[mark]
    look = f"background: {ground}; color: #000; text-decoration: {line}; text-underline-offset: 3px"
    raised = f'<sup style="{look}; font-size: 0.65em">{sign}</sup>' if sign and signed else ""
    return f'<span style="{look}">{html.escape(word.replace(chr(10), "↵"))}</span>{raised}'


def who_learns(words: Sequence[str], chosen: Sequence[int], leak: bool = False) -> Marked:
    """Mark the tokens of a document by the loss that each takes.

    Args:
        words: tokens as text.
        chosen: C.
        leak: count the positions of C in the next-token loss as well, which is wrong.

    Example:
        >>> who_learns(["A", " cat", " sat"], chosen=[2]).alt
        'A document of 3 tokens; chosen: 2 “sat”. Tokens by the loss that trains them: RL 1, NTP 1, none 1.'
    """
    mask = ntp_mask(len(words), [] if leak else chosen)
    marks = [
        (BOTH if mask[place] else RL) if place in chosen else NTP if mask[place] else NONE
        for place in range(len(words))
    ]
    named = ", ".join(f"{place} “{words[place].strip()}”" for place in sorted(chosen)) or "none"
    return by_loss(words, marks, f"A document of {len(words)} tokens; chosen: {named}.")


def ntp_share(rl: float, ntp: float, weight: float) -> float:
    """Return the next-token part's share of the two parts' gradient norms; 0 where both are zero.

    share = lambda |g_NTP| / (|g_RL| + lambda |g_NTP|)

    Example:
        >>> ntp_share(rl=1.0, ntp=5.0, weight=0.2), ntp_share(0.0, 0.0, 1.0)
        (0.5, 0.0)
    """
    part = weight * ntp
    return part / (rl + part) if rl + part > 0 else 0.0


def gradient_shares(rl: float, ntp: float, cosine: float, weight: float) -> Figured:
    """Draw the two parts of the dual objective's gradient, and the share of the next-token part over lambda.

    Args:
        rl: norm of the gradient of L_RL.
        ntp: norm of the gradient of L_NTP, before lambda.
        cosine: of the angle between the two.
        weight: lambda.
    """
    part, share = weight * ntp, ntp_share(rl, ntp, weight)
    both = math.sqrt(max(0.0, rl**2 + part**2 + 2 * cosine * rl * part))
    figure, (left, right) = panels_of(2, 3.2)
    bars = (("RL", rl, BLUE, ""), ("lambda x NTP", part, ORANGE, "//"), ("the step", both, GREY, ".."))
    for place, (_, value, colour, hatch) in enumerate(bars):
        left.bar(place, value, 0.7, color=colour, hatch=hatch, edgecolor="white")
        left.text(place, value, f"{value:.3g}", ha="center", va="bottom", size=9)
    left.set(xticks=range(3), xticklabels=[name for name, *_ in bars], ylim=(0, 1.15 * max(rl, part, both) or 1))
    right.plot(WEIGHTS, [ntp_share(rl, ntp, one) for one in WEIGHTS], color=ORANGE, linewidth=2)
    right.axhline(0.5, color="black", linestyle=":", linewidth=1)
    right.plot([max(weight, WEIGHTS[0])], [share], "s", color=RED, markersize=9)
    right.set(xscale="log", ylim=(-0.03, 1.03))
    finish(figure, left, "", "norm of the gradient", columns=0)
    finish(figure, right, "lambda (left end: 0 too)", "share of the next-token part", percent=True, columns=0)
    told = f"RL {rl:.3g}, lambda times next-token prediction {part:.3g}, the step {both:.3g}"
    equal = f"; both are equal at lambda {rl / ntp:.2g}" if ntp > 0 and rl > 0 else ""
    return Figured(
        figure,
        f"Gradient norms at lambda {weight:g}: {told}. The next-token part is {share:.0%} of the two{equal}; "
        f"the cosine between them is {cosine:+.2f}.".replace("%", " %"),
    )


def length_chances(chance: float, budget: int) -> list[float]:
    """Return the probability of each thought length, 0 to the cap, where every token closes with one chance.

    Example:
        >>> length_chances(0.5, budget=1)  # lengths 0 and 1 close themselves; 2 is the cap
        [0.5, 0.25, 0.25]
    """
    cap = thought_cap(budget)
    return [chance * (1 - chance) ** length for length in range(cap)] + [(1 - chance) ** cap]


def closing_slope(chance: float, budget: int, own: bool = True, environment: bool = False) -> float:
    """Return the exact mean of GRPO's gradient in the logit of the closing chance, under the length reward alone.

    d/dtheta of sum_l P(l) A_l log pi(l), with chance = sigmoid(theta), A_l = r_l - mean and A_l constant: a thought
    token, which did not close, gives -chance, a closing that takes a loss 1 - chance.

    Args:
        chance: of closing at a token, p.
        budget: B.
        own: train the closings that the model chose.
        environment: train the closings that the environment wrote at the cap, which is wrong.

    Example:
        >>> round(closing_slope(0.5, budget=1), 4)
        0.0
    """
    chances = length_chances(chance, budget)
    rewards = [length_reward(length, budget) for length in range(len(chances))]
    mean = sum(p * reward for p, reward in zip(chances, rewards, strict=True))
    slope = 0.0
    for length, (p, reward) in enumerate(zip(chances, rewards, strict=True)):
        capped = length == len(chances) - 1
        closing = (1 - chance) if (environment if capped else own) else 0.0
        slope += p * (reward - mean) * (closing - chance * length)
    return slope


RULES = {
    "own closings (right)": {"own": True, "environment": False},
    "every closing": {"own": True, "environment": True},
    "no closing": {"own": False, "environment": False},
}


def closing_slopes(budget: int, chance: float) -> Figured:
    """Draw how long thoughts are that close with one chance at every token, and where training would push the chance.

    Args:
        budget: B.
        chance: of closing at a token, p.

    Raises:
        ValueError: if the chance is not between 0 and 1, or as ``thought_cap``.
    """
    if not 0 < chance < 1:
        raise ValueError(f"chance={chance} must lie between 0 and 1, ends excluded; try 0.02")
    lengths = length_chances(chance, budget)
    figure, (left, right) = panels_of(2, 3.4)
    left.bar(range(len(lengths) - 1), lengths[:-1], 0.8, color=BLUE, label="closed itself")
    look: dict[str, Any] = {"color": ORANGE, "hatch": "//", "edgecolor": "white"}
    left.bar(len(lengths) - 1, lengths[-1], 0.8, label="closed at the cap", **look)
    left.axvline(budget, color="black", linestyle="--", linewidth=1, label=f"B = {budget}")
    told = []
    for line, (name, rule) in zip(LOOKS, RULES.items(), strict=True):
        slope = closing_slope(chance, budget, **rule)
        draw_line(right, CHANCES, [closing_slope(one, budget, **rule) for one in CHANCES], line, name)
        right.plot([chance], [slope], line[2], color=line[0], markersize=10, markeredgecolor="black")
        told.append(f"{name} {slope:+.4f}")
    right.axhline(0, color="black", linewidth=1)
    right.axvline(chance, color="black", linestyle=":", linewidth=1)
    finish(figure, left, "thought length (tokens)", "probability", columns=0)
    finish(figure, right, "chance of closing, p", "slope of the mean length reward", columns=0)
    for ax in (left, right):
        ax.legend(fontsize=8)
    mean = sum(place * value for place, value in enumerate(lengths))
    return Figured(
        figure,
        f"At a closing chance of {chance:g} thoughts are {mean:.1f} tokens long on average, the budget is {budget}, "
        f"and {lengths[-1]:.0%} run into the cap. Slopes there: {'; '.join(told)}.".replace("%", " %"),
    )


def shared_against_copied(
    tokens: tuple[int, int], pairs: tuple[int, int], lengths: Sequence[int], savings: Mapping[str, Numbers], length: int
) -> Figured:
    """Draw what a step reads as a tree and as padded rows, and how many times less over the document's length.

    Args:
        tokens: read by the tree, by rows.
        pairs: of query and key, of the tree, of rows.
        lengths: document lengths of the curves.
        savings: rows over tree at each of them, for "tokens" and "attention pairs".
        length: of the document.
    """
    figure, (left, middle, right) = panels_of(3, 3.2)
    for ax, (tree, rows), unit in ((left, tokens, "tokens"), (middle, pairs, "attention pairs")):
        for place, (value, colour, hatch) in enumerate(((tree, BLUE, ""), (rows, ORANGE, "//"))):
            ax.bar(place, value, 0.7, color=colour, hatch=hatch, edgecolor="white")
            ax.text(place, value, f"{value:,}", ha="center", va="bottom", size=8)
        ax.set(xticks=range(2), xticklabels=["tree", "padded rows"], ylim=(0, 1.15 * max(tree, rows)))
        finish(figure, ax, "", unit, columns=0)
        ax.yaxis.set_major_formatter(EngFormatter())
    for look, (name, values) in zip(LOOKS, savings.items(), strict=False):
        draw_line(right, lengths, values, look, name)
    right.axvline(length, color="black", linestyle=":", linewidth=1)
    right.set_xscale("log")
    right.set_ylim(bottom=0)
    right.legend(fontsize=8)
    finish(figure, right, "document (tokens)", "rows / tree", columns=0)
    return Figured(
        figure,
        f"With a document of {length} tokens the tree reads {tokens[0]:,} tokens where padded rows read {tokens[1]:,}, "
        f"{tokens[1] / tokens[0]:.1f} times as many; attention pairs are {pairs[0]:,} against {pairs[1]:,}, "
        f"{pairs[1] / pairs[0]:.1f} times as many.",
    )


def symptom_curves(curves: Mapping[str, Numbers], x: str, y: str, wanted: float | None = None) -> Figured:
    """Draw what someone sees of a bug over time: one line, or several to compare.

    Args:
        curves: name -> values, one a step from 0 on.
        x: what is counted.
        y: what is measured.
        wanted: where it should be, if that is known.

    Example:
        >>> symptom_curves({"loss": [2.0, 1.0]}, "step", "nats").alt
        'nats over step: loss 2.00 at first and 1.00 at last, between 1.00 and 2.00.'
    """
    figure, (ax,) = panels_of(1, 2.8)
    for look, (name, values) in zip(cycle(LOOKS), curves.items(), strict=False):
        draw_line(ax, range(len(values)), values, look, name)
    if wanted is not None:
        ax.axhline(wanted, color="black", linestyle=":", linewidth=1, label=f"wanted: {wanted:g}")
    if min(min(values) for values in curves.values()) >= 0:
        ax.set_ylim(bottom=0)
    finish(figure, ax, x, y)
    told = "; ".join(
        f"{name} {span(values, '.2f')}, between {min(values):.2f} and {max(values):.2f}"
        for name, values in curves.items()
    )
    aim = "" if wanted is None else f"; wanted is {wanted:g}"
    return Figured(figure, f"{y} over {x}: {told}{aim}.")
