"""Figures of results: a run's metrics, accuracies, comparisons, post-training, entropies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, cycle
from statistics import fmean
from typing import Any

import numpy as np
import torch

from rmt_mini.files import ArmRow, Cell, Change, Evaluation, ExamStep, Preflight, Variant
from rmt_mini.method.budget import length_reward, thought_cap
from rmt_mini.method.entropy import TIERS, assign_tiers
from rmt_mini.report.claims import rows_of
from rmt_mini.report.markdown import words
from rmt_mini.report.plots import canvas
from rmt_mini.report.plots.canvas import BLUE, GREY, LOOKS, ORANGE, RED, TIER_LOOKS, Figured, Metrics, Numbers, Spread

__all__ = [
    "accuracy", "arms", "budget_and_length", "cost", "entropy_and_loss", "entropy_drift", "entropy_histogram",
    "entropy_of_sorts", "exam_curves", "exams_at", "forest", "interval_width", "losses", "pass_curves",
    "pass_estimates", "preflight_bars", "rewards", "side_by_side", "signal", "text_fit", "tiers_drawn", "tornado",
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
    """Draw RL loss, next-token loss and gradient norm (before clipping), a panel each."""
    if not metrics:
        return canvas.empty("the losses")
    figure, axes = canvas.panels(3, 2.7)
    fields = {"RL loss": "rl_loss", "next-token loss": "ntp_loss", "gradient norm": "grad_norm"}
    series = {name: [getattr(m, field) for m in metrics] for name, field in fields.items()}
    units = ("loss", "nats per token", "norm before clipping")
    for ax, (colour, *_), (name, values), unit in zip(axes, LOOKS, series.items(), units, strict=True):
        canvas.step_axis(ax, metrics, ticks=5)
        ax.plot([m.step for m in metrics], values, ".-", color=colour, linewidth=1, markersize=5)
        canvas.label(ax, "step", unit, title=name)
    return canvas.done(figure, words("losses", series))


def side_by_side(runs: Mapping[str, Metrics], steps: int = 0) -> Figured:
    """Draw thought length, budget and match reward of several runs, which may still run; ``steps`` widens the axis."""
    drawn = {name: metrics for name, metrics in runs.items() if metrics}
    if not drawn:
        return canvas.empty("the runs")
    figure, (left, right) = canvas.panels(2, 3.6)
    rows = []
    for look, (name, metrics) in zip(cycle(LOOKS), drawn.items(), strict=False):
        at, budgets = [m.step for m in metrics], [m.budget for m in metrics]
        lengths, match = [m.thought_length for m in metrics], [m.match_reward for m in metrics]
        match = canvas.smoothed(match, max(2, len(metrics) // 20))
        left.step(at, budgets, where="mid", color=look[0], linestyle=":", linewidth=1.5)
        canvas.lines(left, at, {name: lengths}, looks=(look,))
        canvas.lines(right, at, {name: match}, legend=False, looks=(look,))
        rows.append((name, len(metrics), lengths, budgets, match))
    ends = (-0.5, max([steps - 1, *(metrics[-1].step for metrics in drawn.values())]) + 0.5)
    canvas.label(left, "step (dotted: budget)", "thought length, tokens", xlim=ends)
    canvas.label(right, "step", "match reward, smoothed", xlim=ends, ylim=(-0.03, 1.03))
    left.set_ylim(bottom=0)
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


def interval_width(
    curves: Mapping[str, Sequence[tuple[int, float]]], positions: int, points: float, gap: float, enough: int
) -> Figured:
    """Draw half an interval over the number of positions, a curve for each number of seeds, and a gap to detect.

    Half the interval is ``points`` at the chosen ``positions``, and as narrow as the gap at ``enough`` positions.
    """
    figure, (ax,) = canvas.panels(1, 3.8)
    places = [x for x, _ in next(iter(curves.values()))]
    canvas.lines(ax, places, {name: [y for _, y in curve] for name, curve in curves.items()})
    canvas.rule(ax, y=gap, name=f"gap to detect: {gap:.2f} points")
    ax.plot(positions, points, "*", color="black", markersize=14, label=f"chosen: {points:.1f} points")
    top = 1.1 * max(gap, points, *(curve[0][1] for curve in curves.values()))
    canvas.label(ax, "held-out positions of a run", "half the 95 % interval (points)", xscale="log", ylim=(0, top))
    ax.set_xticks(places, [f"{x:,}" for x in places])
    ax.minorticks_off()
    return canvas.done(figure, words("interval_width", positions, points, gap, enough), 5)


def cost(sweeps: Mapping[str, Any], peak: float) -> Figured:
    """Draw how a step's time grows with each size, beside the time of its arithmetic alone.

    Args:
        sweeps: name of the size -> {"points": [{"value", "seconds", "rollout_operations", "update_operations"}]}.
        peak: the machine's rate, operations a second.
    """
    drawn = {name.replace("_", " "): one["points"] for name, one in sweeps.items() if one.get("points")}
    if not drawn:
        return canvas.empty("the cost of a step", "sizes")
    figure, axes = canvas.panels(len(drawn), 3.2, sharey=True)
    rows = []
    for number, (ax, (name, points)) in enumerate(zip(axes, drawn.items(), strict=True)):
        x, seconds = [point["value"] for point in points], [fmean(point["seconds"]) for point in points]
        floor = [(point["rollout_operations"] + point["update_operations"]) / peak for point in points]
        canvas.lines(ax, x, {"measured": seconds, "its arithmetic alone": floor}, legend=number == 0)
        canvas.whole_numbers(ax, 4)
        canvas.label(ax, name, "" if number else "seconds a step")
        rows.append((name, x, seconds))
    axes[0].set_ylim(bottom=0)
    return canvas.done(figure, words("cost", rows), 2)


# Post-training


def exam_curves(curves: Mapping[str, Sequence[ExamStep]]) -> Figured:
    """Draw pass@1 of several models over the steps of post-training, each with its 95 % interval."""
    figure, (ax,) = canvas.panels(1, 4.0)
    known = canvas.levels(ax, {name: {one.step: one.pass_at[1] for one in steps} for name, steps in curves.items()})
    canvas.whole_numbers(ax)
    canvas.label(ax, "step of post-training", "held-out questions, pass@1 (%)")
    ax.set_ylim(bottom=0)
    return canvas.done(figure, words("exam_curves", {name: list(one.values()) for name, one in known.items()}), 4)


def exams_at(
    curves: Mapping[str, Sequence[ExamStep]], differences: Mapping[str, Change], k: int, step: int, method: str = "RMT"
) -> Figured:
    """Draw pass@k over the steps of post-training with one marked, and beside it the method minus the others there."""
    figure, (left, right) = canvas.panels(2, 3.8)
    known = canvas.levels(left, {name: {one.step: one.pass_at[k] for one in steps} for name, steps in curves.items()})
    canvas.rule(left, x=step)
    canvas.whole_numbers(left)
    changes = canvas.changes(right, differences, 100)
    canvas.label(left, "step of post-training", f"held-out questions, pass@{k} (%)", ylim=(0, 103))
    canvas.label(right, f"step {step}: {method} minus ..., points")
    now = {name: spreads[step] for name, spreads in known.items() if step in spreads}
    return canvas.done(figure, words("exams_at", k, step, now, method, changes), 4)


def pass_curves(rows: Mapping[str, Mapping[int, Cell]]) -> Figured:
    """Draw pass@k over k with 95 % intervals, a line for each model; what is above pass@1 is left to be explored."""
    figure, (ax,) = canvas.panels(1, 3.8)
    known = canvas.levels(ax, rows)
    canvas.label(ax, "k, answers of which one need be right", "pass@k (%)", ylim=(0, 103))
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:.0f}")
    ends = {name: [(k, spreads[k]) for k in (min(spreads), max(spreads))] for name, spreads in known.items()}
    return canvas.done(figure, words("pass_curves", ends), 2)


def pass_estimates(estimates: Mapping[str, Numbers], k: int) -> Figured:
    """Draw what several estimators say of pass@k for k = 1, 2, ..., and mark one k."""
    figure, (ax,) = canvas.panels(1, 3.4)
    percents = {name: [100 * value for value in values] for name, values in estimates.items()}
    canvas.lines(ax, range(1, len(next(iter(percents.values()))) + 1), percents)
    canvas.rule(ax, x=k, name=f"k = {k}")
    canvas.whole_numbers(ax)
    canvas.label(ax, "k", "estimated pass@k (%)", ylim=(-3, 103))
    return canvas.done(figure, words("pass_estimates", k, percents), 3)


def preflight_bars(found: Preflight) -> Figured:
    """Draw, by tier, the share of right answers, of groups with a right one, and of groups with a signal, in %."""
    tiers = {name: tier for name, tier in found.tiers.items() if tier.positions}
    fields = {"answers right": "accuracy", "groups with a right one": "pass_at_g", "with a signal": "signal_groups"}
    rows = {name: [100 * getattr(tier, field) for field in fields.values()] for name, tier in tiers.items()}
    series = {name: (*TIER_LOOKS[n], [row[n] for row in rows.values()]) for n, name in enumerate(fields)}
    figure, (ax,) = canvas.panels(1, 3.4)
    canvas.bars(ax, [f"{name} ({tier.positions})" for name, tier in tiers.items()], series, "{:.0f}")
    canvas.label(ax, "tier (positions asked)", "%", ylim=(0, 108))
    return canvas.done(figure, words("preflight_bars", rows), 3)


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


def entropy_of_sorts(entropies: Numbers, sorts: Sequence[str]) -> Figured:
    """Draw the entropy of every token (nats), a row for each sort of token, with its median and middle half."""
    names = sorted(set(sorts), key=lambda name: -list(sorts).count(name))
    figure, (ax,) = canvas.panels(1, 0.9 + 0.8 * len(names))
    rows = []
    for row, (name, (colour, _, marker)) in enumerate(zip(names, cycle(canvas.FOUR_LOOKS), strict=False)):
        mine = np.array([entropy for entropy, sort in zip(entropies, sorts, strict=True) if sort == name])
        low, middle, high = np.quantile(mine, (0.25, 0.5, 0.75)).tolist()
        spread = (np.arange(len(mine)) * 0.618) % 1 - 0.5  # even and the same every time, as no random scatter is
        ax.plot(mine, row + 0.5 * spread, marker, color=colour, markersize=3, alpha=0.4, markeredgewidth=0)
        ax.plot([low, high], [row, row], color="black", linewidth=5, solid_capstyle="butt")
        canvas.mark(ax, middle, row, ("white", "o"))
        rows.append((name, len(mine), low, middle, high))
    ax.set_yticks(range(len(names)), names)
    canvas.label(ax, "entropy (nats); black: the middle half, white: the median", ylim=(len(names) - 0.5, -0.5))
    return canvas.done(figure, words("entropy_of_sorts", rows))


def entropy_drift(before: Numbers, after: Numbers, thresholds: Sequence[float]) -> Figured:
    """Draw the entropy of the same positions before and after learning (nats), with the borders of the tiers."""
    old, new = (np.array(tiers_of(one, thresholds)) for one in (before, after))
    figure, (ax,) = canvas.panels(1, 4.4)
    for tier, (colour, _, marker) in enumerate(LOOKS):
        x, y = (np.array(values)[old == tier] for values in (before, after))
        look: dict[str, Any] = {"color": colour, "markersize": 4, "alpha": 0.55, "markeredgewidth": 0}
        ax.plot(x, y, marker, label=f"{TIERS[tier]} before: {len(x)}", **look)
    top = 1.03 * max(*before, *after, *thresholds)
    ax.plot([0, top], [0, top], color=GREY, linewidth=1, label="no change")
    for cut in thresholds:
        canvas.rule(ax, x=cut, y=cut)
    canvas.label(ax, "entropy before (nats)", "entropy after (nats)", xlim=(-0.03, top), ylim=(-0.03, top))
    moved = (int((new < old).sum()), int((new > old).sum()))
    return canvas.done(figure, words("entropy_drift", len(old), fmean(before), fmean(after), *moved), 4)


def entropy_and_loss(steps: Numbers, entropy: Mapping[str, Numbers], loss: Mapping[str, Numbers]) -> Figured:
    """Draw mean entropy and mean -log p(true token), in nats, on each sort of token, at steps of learning."""
    figure, axes = canvas.panels(2, 3.6)
    for ax, name, curves in zip(axes, ("entropy", "loss"), (entropy, loss), strict=True):
        canvas.lines(ax, steps, curves, legend=ax is axes[0])
        top = 1.05 * max(chain(*curves.values()))
        canvas.label(ax, "step of next-token prediction", f"mean {name} (nats)", ylim=(0, top))
    return canvas.done(figure, words("entropy_and_loss", steps[-1], entropy, loss), 4)
