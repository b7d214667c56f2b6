"""Figures of results: a run's metrics, accuracies, comparisons, entropies; and of the document tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, cycle
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MultipleLocator

from rmt_mini.engine.attention import tree_mask
from rmt_mini.files import ArmRow, Change, Evaluation, ExamStep, Variant
from rmt_mini.method.budget import length_reward, thought_cap
from rmt_mini.method.entropy import TIERS, assign_tiers
from rmt_mini.report.claims import rows_of
from rmt_mini.report.markdown import words
from rmt_mini.report.plots import canvas
from rmt_mini.report.plots.canvas import BLUE, GREY, LOOKS, ORANGE, RED, TIER_LOOKS, Figured, Metrics, Numbers, Spread

__all__ = [
    "accuracy", "arms", "budget_and_length", "cost", "document_tree", "entropy_histogram", "exam_curves", "forest",
    "losses", "rewards", "shared_against_copied", "side_by_side", "signal", "text_fit", "tiers_drawn", "tornado",
]  # fmt: skip
BARS = {  # way to answer -> colour, hatch
    "plain, before": (GREY, ""),
    "thinking, before": (ORANGE, "//"),
    "thinking, cold start": (RED, "\\\\"),
    "thinking, after": (BLUE, "xx"),
    "plain, after": (GREY, ".."),
}

# A run


def budget_and_length(metrics: Metrics, stated: bool = True) -> Figured:
    """Draw B_t, its cap 2 B_t, and the mean thought length; if B_t is not stated, it only sets the cap."""
    if not metrics:
        return canvas.empty("the thought budget")
    budgets, lengths = [m.budget for m in metrics], [m.thought_length for m in metrics]
    figure, (ax,) = canvas.panels(1, 3.6)
    edges, caps = canvas.step_axis(ax, metrics), [thought_cap(budget) for budget in budgets]
    ax.stairs(caps, edges, fill=True, color=BLUE, alpha=0.15, label="up to the cap, 2 B_t")
    ax.stairs(budgets, edges, baseline=None, color=BLUE, linewidth=2, label="budget B_t" if stated else "half the cap")
    canvas.lines(ax, [m.step for m in metrics], {"mean thought length": lengths}, looks=LOOKS[1:])
    canvas.label(ax, "step", "tokens", ylim=(0, 1.05 * max(*caps, *lengths)))
    return canvas.done(figure, words("budget_and_length", stated, budgets, lengths), 3)


def tiers_drawn(metrics: Metrics, curriculum: bool = True) -> Figured:
    """Draw the tiers' shares among the positions drawn; with a curriculum also where p_t puts their borders."""
    metrics = [m for m in metrics if sum(m.tier_counts)]
    if not metrics:
        return canvas.empty("the tiers drawn")
    drawn = [[count / sum(m.tier_counts) for count in m.tier_counts] for m in metrics]
    borders = [[0.0, *accumulate(share)] for share in drawn]
    figure, (ax,) = canvas.panels(1, 3.6)
    edges = canvas.step_axis(ax, metrics)
    for tier, (colour, hatch) in enumerate(TIER_LOOKS):
        low, high = ([border[place] for border in borders] for place in (tier, tier + 1))
        look: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "hatch": hatch, "alpha": 0.75}
        ax.stairs(high, edges, baseline=low, fill=True, label=TIERS[tier], **look)
    if curriculum:
        easy, two = ([sum(m.tier_probabilities[:n]) for m in metrics] for n in (1, 2))
        asked = {"p_t: easy": easy, "p_t: easy + medium": two}
        canvas.lines(ax, [m.step for m in metrics], asked, looks=(("black", "-", "o"), ("black", "--", "s")))
    canvas.label(ax, "step", "share of positions drawn", percent=True, ylim=(0, 1))
    ends = [(metrics[n], drawn[n], curriculum) for n in (0, -1)[: len(metrics)]]
    return canvas.done(figure, words("tiers_drawn", ends), 5)


def rewards(metrics: Metrics) -> Figured:
    """Draw match, length and total reward: every step as a point, lightly smoothed as a line."""
    fields = {"match reward": "match_reward", "length reward": "length_reward", "total reward": "reward"}
    return _smooth(metrics, fields, "mean reward (0 to 1)", percent=False)


def signal(metrics: Metrics) -> Figured:
    """Draw the share of groups that carry a signal and of thoughts that closed themselves."""
    fields = {"groups with a signal": "signal_groups", "thoughts that closed themselves": "closed_share"}
    return _smooth(metrics, fields, "share", percent=True)


def _smooth(metrics: Metrics, fields: Mapping[str, str], unit: str, percent: bool) -> Figured:
    if not metrics:
        return canvas.empty(", ".join(fields))
    figure, (ax,) = canvas.panels(1, 3.4)
    canvas.step_axis(ax, metrics)
    steps, reach = [m.step for m in metrics], max(2, len(metrics) // 40)
    series = {name: [getattr(m, field) for m in metrics] for name, field in fields.items()}
    for (colour, _, marker), values in zip(LOOKS, series.values(), strict=False):
        ax.plot(steps, values, marker, color=colour, alpha=0.3, markersize=4, markeredgewidth=0)
    smooth = {name: canvas.smoothed(values, reach) for name, values in series.items()}
    canvas.lines(ax, steps, smooth)
    canvas.label(ax, "step", unit, percent, ylim=(-0.03, 1.03))
    return canvas.done(figure, words("smooth", reach, smooth, ".0%" if percent else ".2f"), 3)


def losses(metrics: Metrics) -> Figured:
    """Draw RL loss, next-token loss (nats per token) and gradient norm before clipping, a panel each."""
    if not metrics:
        return canvas.empty("the losses")
    fields = {"RL loss": "rl_loss", "next-token loss": "ntp_loss", "gradient norm": "grad_norm"}
    series = {name: [getattr(m, field) for m in metrics] for name, field in fields.items()}
    steps = [m.step for m in metrics]
    charts = {name: {name: dict(zip(steps, values, strict=True))} for name, values in series.items()}
    return canvas.curves(charts, "step", alt=words("losses", series))


def side_by_side(runs: Mapping[str, Metrics], steps: int = 0) -> Figured:
    """Draw thought length, budget and match reward of several runs, which may still run; ``steps`` widens the axis."""
    drawn = {name: metrics for name, metrics in runs.items() if metrics}
    if not drawn:
        return canvas.empty("the runs")
    figure, (left, right) = canvas.panels(2, 3.6)
    rows = []
    for look, (name, metrics) in zip(cycle(LOOKS), drawn.items(), strict=False):
        at, budgets, lengths = ([getattr(m, one) for m in metrics] for one in ("step", "budget", "thought_length"))
        match = canvas.smoothed([m.match_reward for m in metrics], max(2, len(metrics) // 20))
        left.step(at, budgets, where="mid", color=look[0], linestyle=":", linewidth=1.5)
        canvas.lines(left, at, {name: lengths}, looks=(look,))
        canvas.lines(right, at, {name: match}, looks=(look,))
        rows.append((name, len(metrics), lengths, budgets, match))
    ends = (-0.5, max([steps - 1, *(metrics[-1].step for metrics in drawn.values())]) + 0.5)
    canvas.label(left, "step (dotted: budget)", "thought length, tokens", xlim=ends)
    canvas.label(right, "step", "match reward, smoothed", xlim=ends, ylim=(-0.03, 1.03))
    return canvas.done(figure, words("side_by_side", rows), 5)


def accuracy(evaluation: Evaluation) -> Figured:
    """Draw accuracy by tier with 95 % intervals, a bar for each way to answer that was measured."""
    rows = rows_of(evaluation)
    spreads = {name: [Spread.of(cell) for cell in rows[name].columns()] for name in BARS if name in rows}
    columns = [n for n in range(len(TIERS) + 1) if any(row[n] for row in spreads.values())]
    if not columns:
        return canvas.empty("accuracy", "positions")
    figure, (ax,) = canvas.panels(1, 4.2)
    series = {name: (*BARS[name], [row[n] for n in columns]) for name, row in spreads.items()}
    canvas.bars(ax, [(*TIERS, "average")[n] for n in columns], series, "{:.0f}")
    canvas.label(ax, "", "next tokens right (%)", ylim=(0, 1.08 * ax.get_ylim()[1]))
    return canvas.done(figure, words("accuracy", {name: row[-1] for name, row in spreads.items() if row[-1]}), 3)


# Comparisons


def arms(found: Mapping[str, ArmRow]) -> Figured:
    """Draw the average accuracy of each arm with its 95 % interval; arms that answer without a thought as squares."""
    known = {name: spread for name, arm in found.items() if (spread := Spread.of(arm.average))}
    figure, (ax,) = canvas.panels(1, 0.8 + 0.36 * len(known))
    looks = [(GREY, "s", True) if found[name].row == "ntp" else (BLUE, "o", True) for name in known]
    canvas.rows(ax, known, "{:.1f}", looks)
    canvas.label(ax, "next tokens right, average of the tiers (%); squares: plain, without a thought")
    return canvas.done(figure, words("accuracy", known))


def tornado(variants: Sequence[Variant]) -> Figured:
    """Draw what each variant of a setting changes, in average accuracy and in thought length, with 95 % intervals."""
    figure, (left, right) = canvas.panels(2, 1.2 + 0.34 * len(variants))
    rows = {f"{one.setting} {one.value}": one for one in variants}
    changes = canvas.changes(left, {name: one.accuracy for name, one in rows.items()}, 100)
    canvas.changes(right, {name: one.thought_length for name, one in rows.items()}, 1)
    canvas.label(left, "change of average accuracy (points)")
    canvas.label(right, "change of thought length (tokens)", yticklabels=[])
    left.set_yticklabels([f"{name} ({one.default})" for name, one in rows.items()], size=8)
    figure.suptitle("Filled: the interval excludes zero. In brackets the preset's value.", size=9)
    return canvas.done(figure, f"Change of average accuracy in points, with 95 % intervals: {changes}.")


def forest(rows: Mapping[str, Change], what: str, by: float = 100) -> Figured:
    """Draw differences from zero with their 95 % intervals, a row each; filled where the interval excludes zero.

    ``what`` is measured in a unit that is ``by`` times smaller than the rows'.
    """
    if not rows:
        return canvas.empty(what, "differences")
    figure, (ax,) = canvas.panels(1, 1.0 + 0.36 * len(rows))
    changes = canvas.changes(ax, rows, by)
    canvas.label(ax, what)
    return canvas.done(figure, f"{what[:1].upper()}{what[1:]}, with 95 % intervals: {changes}.")


def cost(sweeps: Mapping[str, Any], peak: float) -> Figured:
    """Draw how a step's time grows with each size, beside the time of its arithmetic alone.

    Args:
        sweeps: name of the size -> {"points": [{"value", "seconds", "rollout_operations", "update_operations"}]}.
        peak: the machine's rate, operations a second.
    """
    drawn = {name.replace("_", " "): one["points"] for name, one in sweeps.items() if one.get("points")}
    if not drawn:
        return canvas.empty("the cost of a step", "sizes")
    charts, rows = {}, []
    for name, points in drawn.items():
        measured = {point["value"]: fmean(point["seconds"]) for point in points}
        alone = {one["value"]: (one["rollout_operations"] + one["update_operations"]) / peak for one in points}
        charts[f"seconds, by {name}"] = {"measured": measured, "its arithmetic alone": alone}
        rows.append((name, list(measured), list(measured.values())))
    return canvas.curves(charts, list(drawn), alt=words("cost", rows))


def exam_curves(found: Mapping[str, Sequence[ExamStep]], k: int = 1, step: int | None = None) -> Figured:
    """Draw pass@k of several models over the steps of post-training, with 95 % intervals, and mark one step."""
    cells = {name: {one.step: one.pass_at[k] for one in steps} for name, steps in found.items()}
    return canvas.levels(cells, "step", f"pass@{k}", step)


# Entropies


def tiers_of(entropies: Numbers, thresholds: Sequence[float]) -> list[int]:
    """Return the tier of each entropy; raises as ``assign_tiers``."""
    tiers: list[int] = assign_tiers(torch.tensor(entropies), thresholds).tolist()
    return tiers


def text_fit(entropies: Numbers, thresholds: tuple[float, float], lengths: Sequence[int], budget: int) -> Figured:
    """Draw the entropies of a text's tokens cut into tiers, and the lengths of thoughts against a budget's triangle."""
    figure, (left, right) = canvas.panels(2, 3.4)
    tiers, cap = np.array(tiers_of(entropies, thresholds)), thought_cap(budget)
    edges = [place / 10 for place in range(int(10 * max(entropies)) + 2)]  # of which thresholds are usually some
    for tier, (colour, hatch) in enumerate(TIER_LOOKS):
        part = np.array(entropies)[tiers == tier]
        left.stairs(*np.histogram(part, edges), fill=True, fc=colour, hatch=hatch, ec="white", label=TIERS[tier])
    right.stairs(*np.histogram(lengths, range(0, max(*lengths, cap) + 3, 2)), fill=True, color=GREY)
    top = right.get_ylim()[1]
    right.plot([0, budget, cap], [0, top, 0], color=BLUE, linewidth=2, label="length reward, 0 to 1 to 0")
    canvas.rule(right, x=cap, name=f"cap, 2 x {budget} = {cap}")
    canvas.label(left, "entropy (nats)", "tokens of the text", yscale="log")
    canvas.label(right, "thought length (tokens)", "thoughts", ylim=(0, 1.4 * top))
    left.yaxis.set_major_formatter("{x:,.0f}")
    left.minorticks_off()
    sizes = [float((tiers == tier).mean()) for tier in range(len(TIERS))]
    beyond, reward = fmean(x >= cap for x in lengths), fmean(length_reward(x, budget) for x in lengths)
    alt = words("text_fit", len(entropies), thresholds, sizes, budget, beyond, len(lengths), cap, reward)
    return canvas.done(figure, alt, inside=(left, right))


def entropy_histogram(entropies: Numbers, thresholds: Sequence[float]) -> Figured:
    """Draw how entropies (nats, at least one) are spread, cut into tiers at two thresholds."""
    tiers, values, top = np.array(tiers_of(entropies, thresholds)), np.array(entropies), max(3.0, *entropies)
    edges = np.unique(np.round([*np.arange(0, top + 0.05, 0.05), *(t for t in thresholds if t < top)], 6))
    figure, (ax,) = canvas.panels(1, 3.2)
    for tier, (colour, hatch) in enumerate(TIER_LOOKS):
        counts, _ = np.histogram(values[tiers == tier], edges)
        look: dict[str, Any] = {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
        ax.stairs(counts, edges, baseline=0.5, fill=True, label=f"{TIERS[tier]}: {counts.sum()}", **look)
    for place, (cut, line) in enumerate(zip(thresholds, ("--", ":"), strict=True)):
        canvas.rule(ax, x=cut, name=f"threshold {place + 1}: {cut:.2f}", line=line)
    canvas.label(ax, "entropy (nats)", "positions (log scale)", yscale="log", xlim=(0, top + 0.05))
    ax.set_ylim(0.7, 2 * len(values))
    counted = np.bincount(tiers, minlength=len(TIERS)).tolist()
    return canvas.done(figure, words("entropy_histogram", counted, thresholds, max(entropies)), 5)


# The tree


def shared_against_copied(
    tokens: tuple[int, int], pairs: tuple[int, int], lengths: Sequence[int], savings: Mapping[str, Numbers], length: int
) -> Figured:
    """Draw what a step reads as a tree and as padded rows, and how many times less over the document's length.

    ``tokens`` and ``pairs`` (of query and key) are those of the tree and of rows, ``savings`` rows over tree at each of
    the document ``lengths``, and ``length`` is the document's.
    """
    figure, (left, middle, right) = canvas.panels(3, 3.2)
    for ax, (tree, rows), unit in ((left, tokens, "tokens"), (middle, pairs, "attention pairs")):
        canvas.bars(ax, [""], {"tree": (BLUE, "", [tree]), "padded rows": (ORANGE, "//", [rows])}, "{:,}")
        canvas.label(ax, "", unit, ylim=(0, 1.15 * max(tree, rows)))
        ax.yaxis.set_major_formatter(EngFormatter())
    canvas.lines(right, lengths, savings)
    canvas.rule(right, x=length)
    canvas.label(right, "document (tokens)", "rows / tree", xscale="log")
    right.set_ylim(bottom=0)
    return canvas.done(figure, words("shared_against_copied", length, tokens, pairs), inside=(left, right))


def document_tree(trunk: Sequence[str], branches: Sequence[tuple[int, Sequence[str]]]) -> Figured:
    """Draw a document tree over position ids, and below it who attends to whom; tokens are given as text."""
    rows = [(0, trunk), *branches]
    figure = Figure(figsize=(canvas.WIDTH, 4.4 + 0.42 * len(rows)), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=[0.6 + 0.42 * len(rows), 3.4])
    for row, (start, tokens) in enumerate(rows):
        colour = BLUE if row else GREY
        for x, token in enumerate(tokens, start):
            upper.add_patch(Rectangle((x - 0.45, -row - 0.3), 0.9, 0.6, fc=colour, alpha=0.35, ec=colour))
            upper.text(x, -row, token, ha="center", va="center", size=6.5)
        if row:
            upper.plot([start - 0.5] * 2, [-row - 0.3, -0.35], ":", color=colour, linewidth=1.5)
    ends = (-0.8, max(start + len(tokens) for start, tokens in rows) - 0.2)
    canvas.label(upper, "position id", xlim=ends, ylim=(0.6 - len(rows), 0.6), yticks=range(0, -len(rows), -1))
    upper.set_yticklabels(["trunk", *(f"branch at {start}" for start, _ in branches)])
    upper.xaxis.set_major_locator(MultipleLocator(1))
    mask = tree_mask(len(trunk), [(start, len(tokens)) for start, tokens in branches])
    lower.imshow(mask, cmap="Blues", vmin=0, vmax=1.6, interpolation="nearest")
    for row in range(len(rows)):
        border = sum(len(tokens) for _, tokens in rows[: row + 1]) - 0.5
        for line in (lower.axhline, lower.axvline):
            line(border, color="white", linewidth=2)
    canvas.label(lower, "keys: trunk, then branches", "queries")
    for ax in (upper, lower):
        ax.grid(False)
    return canvas.done(figure, words("document_tree", trunk, branches, mask.numel(), int(mask.sum())))
