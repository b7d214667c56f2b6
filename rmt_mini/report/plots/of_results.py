"""Figures of results: a run's metrics, accuracies, comparisons, entropies; and of the document tree."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import median
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MultipleLocator

from rmt_mini.arms import METHOD
from rmt_mini.engine.attention import tree_mask
from rmt_mini.files import ArmRow, Change, CurvePoint, Evaluation, ExamStep, Level, Variant
from rmt_mini.method import TIERS, assign_tiers, thought_cap
from rmt_mini.records import StepMetrics
from rmt_mini.report import claims
from rmt_mini.report.claims import rows_of, trained_as
from rmt_mini.report.markdown import words
from rmt_mini.report.plots import canvas
from rmt_mini.report.plots.canvas import BLUE, GREY, Charts, Curve, Figured, Numbers, Stack, spread

Metrics = Sequence[StepMetrics]

__all__ = [
    "accuracy", "arms", "budget_and_length", "by_tier", "cost", "document_tree", "entropy_histogram", "exam_curves",
    "forest", "losses", "over", "rewards", "side_by_side", "signal", "tiers_drawn", "tornado",
]  # fmt: skip


def over_steps(metrics: Metrics, field: str) -> dict[int, float]:
    """Return what a field had at each step."""
    return {m.step: getattr(m, field) for m in metrics}


def budget_and_length(metrics: Metrics, stated: bool = True) -> Figured:
    """Draw B_t, its cap 2 B_t, and the mean thought length; if B_t is not stated, it only sets the cap."""
    drawn: dict[str, Curve] = {
        "budget B_t" if stated else "half the cap": over_steps(metrics, "budget"),
        "mean thought length": over_steps(metrics, "thought_length"),
        "cap, 2 B_t": {m.step: thought_cap(m.budget) for m in metrics},
    }
    return canvas.curves({"tokens": drawn}, "step", alt=words("budget_and_length", stated, metrics))


def tiers_drawn(metrics: Metrics, curriculum: bool = True) -> Figured:
    """Draw the tiers' shares among the positions drawn; with a curriculum also the shares that p_t asks for."""
    metrics = [m for m in metrics if sum(m.tier_counts)]
    shares = {m.step: [count / sum(m.tier_counts) for count in m.tier_counts] for m in metrics}
    sides: dict[str, Mapping[int, Numbers]] = {"share of positions drawn": shares}
    if curriculum:
        sides["p_t"] = {m.step: m.tier_probabilities for m in metrics}
    charts = {
        unit: {tier: {step: values[n] for step, values in side.items()} for n, tier in enumerate(TIERS)}
        for unit, side in sides.items()
    }
    ends = [metrics[n] for n in (0, -1)[: len(metrics)]]
    return canvas.curves(charts, "step", alt=words("tiers_drawn", ends, curriculum), ylim=(-0.03, 1.03))


def rewards(metrics: Metrics) -> Figured:
    """Draw match, length and total reward, every step and lightly smoothed."""
    fields = {"match reward": "match_reward", "length reward": "length_reward", "total reward": "reward"}
    return _smooth(metrics, fields, "mean reward", ".2f")


def signal(metrics: Metrics) -> Figured:
    """Draw the share of groups that carry a signal and of thoughts that closed themselves."""
    fields = {"groups with a signal": "signal_groups", "thoughts that closed themselves": "closed_share"}
    return _smooth(metrics, fields, "share", ".0%")


def _smooth(metrics: Metrics, fields: Mapping[str, str], unit: str, form: str) -> Figured:
    reach = max(2, len(metrics) // 40)
    series = {name: over_steps(metrics, field) for name, field in fields.items()}
    smooth = {name: canvas.smoothed(list(values.values()), reach) for name, values in series.items()}
    over = {name: dict(zip(series[name], values, strict=True)) for name, values in smooth.items()}
    charts: Charts = {f"{unit}, every step": series, f"{unit}, smoothed": over}
    shares = all(0 <= value <= 1 for values in series.values() for value in values.values())  # a gain, in nats, is none
    ylim = (-0.03, 1.03) if shares else None
    return canvas.curves(charts, "step", alt=words("smooth", reach, smooth, form), ylim=ylim)


def losses(metrics: Metrics) -> Figured:
    """Draw RL loss, next-token loss (nats per token) and gradient norm before clipping, a panel each."""
    fields = {"RL loss": "rl_loss", "next-token loss": "ntp_loss", "gradient norm": "grad_norm"}
    charts = {name: {name: over_steps(metrics, field)} for name, field in fields.items()}
    return canvas.curves(charts, "step", alt=words("losses", metrics))


def side_by_side(
    runs: Mapping[str, Metrics], steps: int = 0, points: Mapping[str, Sequence[CurvePoint]] | None = None
) -> Stack:
    """Draw what several runs did so far, which may still run; ``steps`` widens the axis, ``points`` are their curves.

    Tiers are those of the first run; match reward, tiers and signal are smoothed.
    """
    drawn, points = {name: metrics for name, metrics in runs.items() if metrics}, points or {}
    if not drawn:
        return canvas.stacked(canvas.empty("the run"))

    def smooth(field: str) -> dict[str, Numbers]:
        values = {name: [getattr(m, field) for m in metrics] for name, metrics in drawn.items()}
        return {name: canvas.smoothed(one, max(2, len(one) // 20)) for name, one in values.items()}

    first, match = next(iter(drawn.values())), smooth("match_reward")
    shares = [[count / max(1, sum(m.tier_counts)) for count in m.tier_counts] for m in first]
    lengths = {name: over_steps(metrics, "thought_length") for name, metrics in drawn.items()}
    budgets = {f"B_t of {name}": over_steps(metrics, "budget") for name, metrics in drawn.items()}
    seen = {name: {p.step: p.think for p in points.get(name, ())} for name in drawn}
    seen |= {f"{name}, at once": {p.step: p.plain for p in points.get(name, ())} for name in drawn}
    last = max([steps - 1, *(metrics[-1].step for metrics in drawn.values())])
    rows: tuple[Charts, Charts] = (
        {
            "thought length, tokens": lengths | budgets,
            "match reward": match,
            "next-token loss": {name: over_steps(metrics, "ntp_loss") for name, metrics in drawn.items()},
        },
        {
            "share of positions drawn": {
                tier: canvas.smoothed([one[n] for one in shares], max(2, len(shares) // 20))
                for n, tier in enumerate(TIERS)
            },
            "groups with a signal": smooth("signal_groups"),
            "held-out, right": {name: curve for name, curve in seen.items() if curve} or {"not yet measured": {}},
        },
    )
    alts = words("side_by_side", drawn, match), words("held_out", points)
    return canvas.stacked(
        *(
            canvas.curves(row, "step", alt=alt, height=2.4, apart=True, xlim=(-0.5, last + 0.5))
            for row, alt in zip(rows, alts, strict=True)
        )
    )


def accuracy(evaluation: Evaluation) -> Figured:
    """Draw accuracy by tier with 95 % intervals, a bar for each way to answer that was measured."""
    rows = {
        name: dict(zip((*TIERS, "average"), map(spread, row.columns()), strict=True))
        for name, row in rows_of(evaluation).items()
    }
    averages = {name: row["average"] for name, row in rows.items() if row["average"]}
    if not averages:
        return canvas.empty("accuracy", "positions")
    return canvas.bar_chart({"next tokens right (%)": rows}, words("accuracy", averages), "{:.0f}")


def arms(found: Mapping[str, ArmRow]) -> Figured:
    """Draw the average accuracy of each arm with its 95 % interval; arms that answer without a thought as squares."""
    known = {name: one for name, arm in found.items() if (one := spread(arm.average))}
    looks = {"ntp": (GREY, "s", GREY), "think": (BLUE, "o", BLUE)}
    unit = "next tokens right, average of the tiers (%); squares: plain, without a thought"
    drawn = {unit: {name: (one, looks[found[name].row]) for name, one in known.items()}}
    return canvas.rows(drawn, "{:.1f}", words("accuracy", known))


def tornado(variants: Sequence[Variant]) -> Figured:
    """Draw what each variant of a setting changes, in average accuracy and in thought length, with 95 % intervals."""
    named = {f"{one.setting} {one.value} ({one.default})": one for one in variants}
    accuracies = {name: one.accuracy for name, one in named.items()}
    lengths = {name: one.thought_length for name, one in named.items()}
    charts = {"change of average accuracy (points)": (accuracies, 100), "of thought length (tokens)": (lengths, 1)}
    drawn = canvas.changes(charts)
    drawn.figure.suptitle("Filled: the interval excludes zero. In brackets the preset's value.", size=9)
    return drawn


def forest(rows: Mapping[str, Change], what: str, by: float = 100) -> Figured:
    """Draw differences times ``by`` with their 95 % intervals, a row each; filled where these exclude zero."""
    return canvas.changes({what: (rows, by)}) if rows else canvas.empty(what, "differences")


def over(level: Level, setting: str, what: str = "average") -> Figured:
    """Draw accuracy of each arm over the values of a setting, and RMT minus each other arm with 95 % intervals.

    Rings are where lines of accuracy cross.
    """
    units = {"gated": "right, a thought where unsure", "plain": "right, without a thought"}
    units |= {"average": "next tokens right", "calculable": "calculable tokens right"}
    name, order = claims.names_at(what), sorted(level.arms, key=lambda arm: arm == METHOD)  # in both panels alike
    right, gaps = (
        {name(arm): {at: one for at, cell in row[arm].items() if (one := spread(cell))} for arm in order if arm in row}
        for row in (level.arms, level.differences)
    )
    shown = {f"{units[what]} (%)": right} | ({"RMT minus another (points)": gaps} if gaps else {})
    charts = {
        unit: {arm: {at: one[0] for at, one in row.items()} for arm, row in rows.items()}
        for unit, rows in shown.items()
    }
    ends = {arm: list(row.values()) for arm, row in right.items()}
    alt = f"{words('levels', units[what], ends)} {words('crossings', setting, level, trained_as)}"
    drawn = canvas.curves(charts, setting, alt=alt, xticks=list(level.arms[METHOD]))
    for cross in level.crossings:
        line = charts[f"{units[what]} (%)"][name(cross.ahead)]
        height = np.interp(cross.at, list(line), list(line.values()))
        drawn.figure.axes[0].plot(cross.at, height, "o", color="black", fillstyle="none", markersize=11)
    if gaps:
        canvas.bands(drawn.figure.axes[1], gaps)
        drawn.figure.axes[1].axhline(0, color="black", linewidth=1.2)
    return drawn


def cost(sweeps: Mapping[str, Any], peak: float) -> Figured:
    """Draw a step's time over each size, beside the time of its arithmetic alone, and TRL's where it was measured.

    Both axes are logarithmic, seconds the same in all panels: equal distances are equal ratios.

    Args:
        sweeps: name of the size -> {"points": [{"value", "seconds", "rollout_operations", "update_operations"}]}, and
            where TRL was measured "trl": [{"value", "seconds"}].
        peak: the machine's rate, operations a second.
    """
    labels = {"prefix": "prefix (tokens)", "positions": "positions K", "group_size": "group size G"}
    charts = {labels.get(name, "thought (tokens)"): _costs(one, peak) for name, one in sweeps.items() if one["points"]}
    by = {f"seconds a step, by {name}": chart for name, chart in charts.items()}
    drawn = canvas.curves(by, list(charts), alt=words("cost", charts), xscale="log", yscale="log")
    for number, (ax, chart) in enumerate(zip(drawn.figure.axes, charts.values(), strict=False)):
        measured = chart["the tree"]
        ax.minorticks_off()
        ax.set_xticks([*measured], [*map(str, measured)], size=8)
        ax.set(ylabel="seconds a step")
        if number:
            ax.sharey(drawn.figure.axes[0])
            ax.label_outer()
        for value, seconds in chart.get("TRL", {}).items():
            if value in measured:
                times = f"{seconds / measured[value]:.1f} x"
                ax.annotate(times, (value, seconds), (5, 6), textcoords="offset points", ha="right", size=8)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.margins(x=0.12, y=0.12)
    return drawn


def _costs(sweep: Mapping[str, Any], peak: float) -> dict[str, dict[int, float]]:
    """Return curves of one size: measured, arithmetic and, if it was measured, TRL."""
    points = {one["value"]: one for one in sweep["points"]}
    found = {
        "the tree": {value: median(one["seconds"]) for value, one in points.items()},
        "its arithmetic alone": {
            value: (one["rollout_operations"] + one["update_operations"]) / peak for value, one in points.items()
        },
        "TRL": {one["value"]: median(one["seconds"]) for one in sweep.get("trl", ())},
    }
    return {name: curve for name, curve in found.items() if curve}


def exam_curves(found: Mapping[str, Sequence[ExamStep]], k: int = 1, step: int | None = None) -> Figured:
    """Draw pass@k of several models over the steps of post-training, with 95 % intervals, and mark one step."""
    cells = {name: {one.step: one.pass_at[k] for one in steps} for name, steps in found.items()}
    return canvas.levels(cells, "step", f"pass@{k}", step)


def tiers_of(entropies: Numbers, thresholds: Sequence[float]) -> list[int]:
    """Return the tier of each entropy; raises as ``assign_tiers``."""
    return list(assign_tiers(torch.tensor(entropies), thresholds).tolist())


def by_tier(entropies: Numbers, thresholds: Sequence[float], width: float) -> dict[str, dict[float, int]]:
    """Count entropies by tier, in steps of ``width`` nats."""
    tiers, edges = np.array(tiers_of(entropies, thresholds)), np.arange(0, max(entropies) + 2 * width, width)
    counted = {}
    for n, tier in enumerate(TIERS):
        counts, _ = np.histogram(np.array(entropies)[tiers == n], edges)
        counted[f"{tier}: {counts.sum()}"] = {float(x): int(y) for x, y in zip(edges, counts, strict=False) if y}
    return counted


def entropy_histogram(entropies: Numbers, thresholds: Sequence[float]) -> Figured:
    """Draw how entropies (nats, at least one) are spread, cut into tiers at two thresholds."""
    counted = by_tier(entropies, thresholds, 0.05)
    sizes, unit = [sum(counts.values()) for counts in counted.values()], "positions (log scale)"
    alt = words("entropy_histogram", sizes, thresholds, max(entropies))
    return canvas.curves({unit: counted}, "entropy (nats)", marked={unit: thresholds}, alt=alt, yscale="log")


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
    names = ["trunk", *(f"branch at {start}" for start, _ in branches)]
    upper.set(xlabel="position id", ylim=(0.6 - len(rows), 0.6), yticks=range(0, -len(rows), -1), yticklabels=names)
    upper.xaxis.set_major_locator(MultipleLocator(1))
    mask = tree_mask(len(trunk), [(start, len(tokens)) for start, tokens in branches])
    lower.imshow(mask, cmap="Blues", vmin=0, vmax=1.6, interpolation="nearest")
    for border in accumulate(len(tokens) for _, tokens in rows):
        lower.axhline(border - 0.5, color="white", linewidth=2)
        lower.axvline(border - 0.5, color="white", linewidth=2)
    lower.set(xlabel="keys: trunk, then branches", ylabel="queries")
    return canvas.done(figure, words("document_tree", trunk, branches, mask.numel(), int(mask.sum())))
