"""Figures of a run and of the method: data in, figure and alt text out. The only room that imports matplotlib.

Colours are petroff10's, chosen to differ for colour-blind eyes too; markers, line styles and hatches tell the same
without colour. pyplot's global state is never touched, so a figure is as pure as a number and needs no display.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter

from rmt_mini.engine.attention import tree_mask
from rmt_mini.method.budget import budget_at_step, length_reward, thought_cap
from rmt_mini.method.curriculum import tier_probabilities
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import StepMetrics

Metrics = Sequence[StepMetrics]
Numbers = Sequence[float]
WIDTH, DPI = 8.0, 110  # inches, dots an inch
BLUE, ORANGE, RED, GREY, PURPLE = "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"  # of petroff10
_LOOKS = ((BLUE, "-", "o"), (RED, "--", "s"), (PURPLE, "-.", "^"))
_TIER_LOOKS = ((BLUE, ""), (ORANGE, "//"), (RED, "xx"))
_BARS = (
    ("plain, before", "before", "ntp", GREY, ""),
    ("thinking, before", "before", "think", ORANGE, "//"),
    ("thinking, cold start", "cold_start", "think", RED, "\\\\"),
    ("thinking, after", "after", "think", BLUE, "xx"),
    ("plain, after", "after", "ntp", GREY, ".."),
)


@dataclass(frozen=True)
class Figured:
    """A figure with its alt text; a notebook shows the one and reads out the other.

    Example:
        >>> length_triangle(4).alt
        'The length reward rises from 0 at no tokens to 1 at the budget of 4, and is 0 again from 8 on.'
    """

    figure: Figure
    alt: str

    def png(self) -> bytes:
        """Return the figure as a PNG whose Description is the alt text."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Description": self.alt})
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png()).decode()
        return f'<img alt="{html.escape(self.alt)}" style="max-width: 100%" src="data:image/png;base64,{data}">'


def save(figured: Figured, path: Path) -> None:
    """Write a PNG, whole or not at all, its Description the alt text; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(figured.png())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def smoothed(values: Numbers, reach: int = 2) -> list[float]:
    """Average each value with its neighbours up to ``reach`` steps away; at the ends, with those there are.

    Example:
        >>> smoothed([0, 0, 3, 0, 0], reach=1)
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    return [fmean(values[max(0, place - reach) : place + reach + 1]) for place in range(len(values))]


def budget_and_length(metrics: Metrics, stated: bool = True) -> Figured:
    """Draw B_t, its cap 2 B_t, and the mean thought length of each step; ``stated`` False: B_0 only sets the cap."""
    if not metrics:
        return _empty("the thought budget")
    budgets, lengths = [m.budget for m in metrics], [m.thought_length for m in metrics]
    figure, (ax,) = _panels(1, 3.6)
    edges, caps = _step_axis(ax, metrics), [thought_cap(budget) for budget in budgets]
    ax.stairs(caps, edges, fill=True, color=BLUE, alpha=0.15, label="up to the cap, 2 B_t")
    ax.stairs(budgets, edges, baseline=None, color=BLUE, linewidth=2, label="budget B_t" if stated else "half the cap")
    _line(ax, [m.step for m in metrics], lengths, _LOOKS[1], "mean thought length")
    ax.set_ylim(0, 1.05 * max(*caps, *lengths))
    _finish(figure, ax, "step", "tokens")
    what = "The stated budget" if stated else "No budget was stated; half the cap"
    told = f"{what}, in tokens, is {_span(budgets, '.0f')}. The mean thought length is {_span(lengths, '.1f')}."
    return Figured(figure, told)


def tiers_drawn(metrics: Metrics, curriculum: bool = True) -> Figured:
    """Draw the tiers' shares among the positions drawn; with a curriculum also where p_t puts their borders."""
    metrics = [m for m in metrics if sum(m.tier_counts)]
    if not metrics:
        return _empty("the tiers drawn")
    shares = [[count / sum(m.tier_counts) for count in m.tier_counts] for m in metrics]
    borders = [[0.0, *accumulate(share)] for share in shares]
    figure, (ax,) = _panels(1, 3.6)
    edges, steps = _step_axis(ax, metrics), [m.step for m in metrics]
    for tier, (colour, hatch) in enumerate(_TIER_LOOKS):
        low, high = ([border[place] for border in borders] for place in (tier, tier + 1))
        look: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "hatch": hatch, "alpha": 0.75}
        ax.stairs(high, edges, baseline=low, fill=True, label=TIERS[tier], **look)
    if curriculum:
        easy, two = ([sum(m.tier_probabilities[:n]) for m in metrics] for n in (1, 2))
        _line(ax, steps, easy, ("black", "-", "o"), "p_t: easy")
        _line(ax, steps, two, ("black", "--", "s"), "p_t: easy + medium")
    ax.set_ylim(0, 1)
    _finish(figure, ax, "step", "share of positions drawn", percent=True)
    asked = [f"; the curriculum asked for {_shares(m.tier_probabilities)}" if curriculum else "" for m in metrics]
    told = [f"step {m.step} were {_shares(s)}{a}." for m, s, a in zip(metrics, shares, asked, strict=True)]
    return Figured(figure, " ".join(f"Draws in {told[end]}" for end in (0, -1)[: len(told)]))


def rewards(metrics: Metrics) -> Figured:
    """Draw match, length and total reward: every step as a point, lightly smoothed as a line."""
    series = {"match reward": "match_reward", "length reward": "length_reward", "total reward": "reward"}
    return _smooth_lines(metrics, series, "mean reward (0 to 1)", percent=False)


def signal(metrics: Metrics) -> Figured:
    """Draw the share of groups that carry a signal and of thoughts that closed themselves."""
    series = {"groups with a signal": "signal_groups", "thoughts that closed themselves": "closed_share"}
    return _smooth_lines(metrics, series, "share", percent=True)


def losses(metrics: Metrics) -> Figured:
    """Draw RL loss, next-token loss and gradient norm (before clipping), a panel each."""
    if not metrics:
        return _empty("the losses")
    figure, panels = _panels(3, 2.7)
    names = {"RL loss": "rl_loss", "next-token loss": "ntp_loss", "gradient norm": "grad_norm"}
    units, told = ("loss", "nats per token", "norm before clipping"), []
    for ax, (colour, *_), (name, field), unit in zip(panels, _LOOKS, names.items(), units, strict=True):
        values = [getattr(m, field) for m in metrics]
        _step_axis(ax, metrics, ticks=5)
        ax.plot([m.step for m in metrics], values, ".-", color=colour, linewidth=1, markersize=5)
        ax.set_title(name, fontsize=10)
        _finish(figure, ax, "step", unit, columns=0)
        told.append(f"{name} {_span(values, 'z.3f')}")
    return Figured(figure, f"{'; '.join(told)}.")


def accuracy(evaluation: Mapping[str, Any]) -> Figured:
    """Draw accuracy by tier with 95 % intervals, a bar for each row of evaluation.json that is there."""
    rows = [(name, evaluation[when][how], c, hatch) for name, when, how, c, hatch in _BARS if evaluation.get(when)]
    columns = [column for column in (*TIERS, "average") if any(_percents(row, column) for _, row, _, _ in rows)]
    if not columns:
        return _empty("accuracy", "positions")
    figure, (ax,) = _panels(1, 4.2)
    width, averages = 0.84 / len(rows), []
    for number, (name, row, colour, hatch) in enumerate(rows):
        look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        ax.bar(0, 0, 0, label=name, **look)  # for the legend, also where a tier is missing
        for place, column in enumerate(columns):
            for value, low, high in _percents(row, column):
                x = place + (number - (len(rows) - 1) / 2) * width
                whiskers = [[max(0.0, value - low)], [max(0.0, high - value)]]
                ax.bar(x, value, width, **look)
                ax.errorbar(x, value, yerr=whiskers, fmt="none", ecolor="black", capsize=2, linewidth=1)
                ax.text(x, max(value, high), f"{value:.0f}", ha="center", va="bottom", size=8)
        averages += [f"{name} {v:.1f} % ({low:.1f} to {high:.1f})" for v, low, high in _percents(row, "average")]
    ax.set(xticks=range(len(columns)), xticklabels=columns, ylim=(0, 1.08 * ax.get_ylim()[1]))
    _finish(figure, ax, "", "next tokens right (%)", columns=3)
    return Figured(figure, f"Average accuracy with 95 % intervals: {'; '.join(averages)}.")


def budget_curve(total_steps: int, start: int, minimum: int, decay: float, step: int = 0) -> Figured:
    """Draw B_t over a run with one step marked, and beside it the length reward at that step."""
    figure, (left, right) = _panels(2, 3.4)
    budgets = [budget_at_step(t, total_steps, start, minimum, decay) for t in range(total_steps + 1)]
    left.step(range(total_steps + 1), budgets, where="post", color=BLUE, linewidth=2, label="budget B_t")
    left.axhline(minimum, color="black", linestyle=":", linewidth=1, label=f"B_min = {minimum}")
    left.plot([step], [budgets[step]], "s", color=RED, markersize=9, label=f"B_t at step {step}: {budgets[step]}")
    alt = _draw_triangle(right, budgets[step], 2.1 * start)  # one range for all steps: a slider shows it narrow
    _finish(figure, left, "step t", "tokens", columns=0)
    _finish(figure, right, "thought length (tokens)", "length reward", columns=0)
    for ax, top in ((left, start), (right, 1)):
        ax.set_ylim(0, 1.4 * top)
        ax.legend(fontsize=9, loc="upper right", framealpha=1, edgecolor="white")
    told = f"The budget falls from {budgets[0]} to {budgets[-1]} tokens over {total_steps} steps; at step {step} it is"
    return Figured(figure, f"{told} {budgets[step]}. {alt}")


def length_triangle(budget: int) -> Figured:
    """Draw the length reward over thought length, from the formula."""
    figure, (ax,) = _panels(1, 3.4)
    alt = _draw_triangle(ax, budget, 2.5 * budget)
    _finish(figure, ax, "thought length (tokens)", "length reward")
    return Figured(figure, alt)


def curriculum_curve(total_steps: int, early: Numbers, late: Numbers, start: float = 0.3, end: float = 0.7) -> Figured:
    """Draw the curriculum's probabilities p_t over a whole run, with t1 and t2 marked."""
    chances = [tier_probabilities(step, total_steps, early, late, start, end) for step in range(total_steps + 1)]
    figure, (ax,) = _panels(1, 3.4)
    for tier, look in enumerate(_LOOKS):
        _line(ax, range(total_steps + 1), [p[tier] for p in chances], look, TIERS[tier])
    for x, name in ((start * total_steps, "t1"), (end * total_steps, "t2")):
        ax.axvline(x, color="black", linestyle=":", linewidth=1)
        ax.annotate(name, (x, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points")
    ax.set_ylim(0, 1.05 * max(max(p) for p in chances))
    _finish(figure, ax, "step t", "probability of the tier")
    told = f"Up to step {start * total_steps:g} the curriculum draws {_shares(chances[0])}"
    return Figured(figure, f"{told}; from step {end * total_steps:g} on {_shares(chances[-1])}.")


def cost(sweeps: Mapping[str, Any], peak: float) -> Figured:
    """Draw how a step's time grows with each size, beside the time of its arithmetic alone.

    Args:
        sweeps: name of the size -> {"points": [{"value", "seconds", "rollout_operations", "update_operations"}]}.
        peak: the machine's rate, operations a second.
    """
    drawn = {name: one["points"] for name, one in sweeps.items() if one.get("points")}
    if not drawn:
        return _empty("the cost of a step", "sizes")
    figure, panels = _panels(len(drawn), 3.2)
    told, top = [], 0.0
    for number, (ax, (name, points)) in enumerate(zip(panels, drawn.items(), strict=True)):
        x = [point["value"] for point in points]
        seconds = [fmean(point["seconds"]) for point in points]
        floor = [(point["rollout_operations"] + point["update_operations"]) / peak for point in points]
        for look, values, label in ((_LOOKS[0], seconds, "measured"), (_LOOKS[1], floor, "its arithmetic alone")):
            _line(ax, x, values, look, label if number == 0 else "_" + label)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        _finish(figure, ax, name.replace("_", " "), "seconds a step" if number == 0 else "", columns=0)
        top = max([top, *seconds])
        told.append(f"{seconds[0]:.1f} to {seconds[-1]:.1f} s for {name.replace('_', ' ')} {x[0]} to {x[-1]}")
    for ax in panels:
        ax.set_ylim(0, 1.08 * top)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return Figured(figure, f"Seconds a step, one size changed at a time: {'; '.join(told)}.")


def document_tree(trunk: Sequence[str], branches: Sequence[tuple[int, Sequence[str]]]) -> Figured:
    """Draw a document tree over position ids, and below it who sees whom.

    Args:
        trunk: the document's tokens as text.
        branches: the index at which each leaves the trunk, and its tokens as text.
    """
    rows = [(0, trunk), *branches]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.42 * len(rows) + 3.4), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=[0.6 + 0.42 * len(rows), 3.4])
    for row, (start, tokens) in enumerate(rows):
        colour = BLUE if row else GREY
        for place, token in enumerate(tokens):
            look: dict[str, Any] = {"facecolor": colour, "alpha": 0.35, "edgecolor": colour}
            upper.add_patch(Rectangle((start + place - 0.45, -row - 0.3), 0.9, 0.6, **look))
            upper.text(start + place, -row, token, ha="center", va="center", size=6.5)
        if row:
            upper.plot([start - 0.5] * 2, [-row - 0.3, -0.35], ":", color=colour, linewidth=1.5)
    upper.set(xlim=(-0.8, max(start + len(tokens) for start, tokens in rows) - 0.2), ylim=(0.6 - len(rows), 0.6))
    upper.set(yticks=range(0, -len(rows), -1), yticklabels=["trunk", *(f"branch at {start}" for start, _ in branches)])
    upper.xaxis.set_major_locator(MultipleLocator(1))
    mask = tree_mask(len(trunk), [(start, len(tokens)) for start, tokens in branches])
    lower.imshow(mask, cmap="Blues", vmin=0, vmax=1.6, interpolation="nearest")
    border = -0.5
    for _, tokens in rows:
        border += len(tokens)
        for line in (lower.axhline, lower.axvline):
            line(border, color="white", linewidth=2)
    _finish(figure, upper, "position id", "", columns=0)
    _finish(figure, lower, "keys: trunk, then branches", "queries", columns=0)
    for ax in (upper, lower):
        ax.grid(False)
    return Figured(
        figure,
        f"A trunk of {len(trunk)} tokens with {len(branches)} branches, at {', '.join(str(at) for at, _ in branches)}; "
        f"position ids go on from there. Of {mask.numel()} pairs of query and key {int(mask.sum())} are seen: each "
        f"branch sees the trunk up to its position and itself so far, and no other branch.",
    )


def arms(rows: Mapping[str, Any]) -> Figured:
    """Draw the average accuracy of each arm with its 95 % interval, best seen against the untrained model's line.

    Args:
        rows: name -> {"average": {"accuracy", "low", "high"}}, top to bottom.
    """
    figure, (ax,) = _panels(1, 0.8 + 0.36 * len(rows))
    places, told = range(len(rows)), []
    for place, (name, row) in zip(places, rows.items(), strict=True):
        for value, low, high in _percents(row, "average"):
            whiskers = [[max(0.0, value - low)], [max(0.0, high - value)]]
            plain = row.get("row") == "ntp"
            ax.errorbar(
                value, place, xerr=whiskers, fmt="s" if plain else "o", color=GREY if plain else BLUE, capsize=3
            )
            ax.annotate(f"{value:.1f}", (value, place), (0, 5), textcoords="offset points", ha="center", size=8)
            told.append(f"{name} {value:.1f} % ({low:.1f} to {high:.1f})")
    ax.set(yticks=places, yticklabels=list(rows), ylim=(len(rows) - 0.4, -0.7))
    _finish(figure, ax, "next tokens right, average of the tiers (%); squares: plain, without a thought", "", columns=0)
    return Figured(figure, f"Average accuracy with 95 % intervals: {'; '.join(told)}.")


def tornado(rows: Sequence[Mapping[str, Any]]) -> Figured:
    """Draw what each variant of a setting changes, in average accuracy and in thought length, with 95 % intervals.

    Args:
        rows: [{"setting", "value", "default", "accuracy": {"difference", "low", "high"}, "thought_length": the same}],
            top to bottom.
    """
    figure, panels = _panels(2, 1.2 + 0.27 * len(rows))
    told = []
    for ax, key, by, unit in zip(
        panels, ("accuracy", "thought_length"), (100, 1), ("average accuracy (points)", "thought length (tokens)"),
        strict=True,
    ):  # fmt: skip
        for place, row in enumerate(rows):
            middle, low, high = (by * row[key][end] for end in ("difference", "low", "high"))
            known = low > 0 or high < 0
            look: dict[str, Any] = {"color": BLUE if known else GREY, "hatch": "" if known else "//"}
            ax.barh(place, middle, 0.7, edgecolor="white", **look)
            whiskers = [[max(0.0, middle - low)], [max(0.0, high - middle)]]
            ax.errorbar(middle, place, xerr=whiskers, fmt="none", ecolor="black", capsize=2, linewidth=1)
            if key == "accuracy":
                told.append(f"{row['setting']} {row['value']} {middle:+z.1f} ({low:+z.1f} to {high:+z.1f})")
        ax.axvline(0, color="black", linewidth=1)
        ax.set(yticks=range(len(rows)), yticklabels=[], ylim=(len(rows) - 0.4, -0.6))
        _finish(figure, ax, f"change of {unit}", "", columns=0)
    panels[0].set_yticklabels([f"{row['setting']} {row['value']} ({row['default']})" for row in rows], size=8)
    figure.suptitle("Solid: the interval excludes zero. In brackets the preset's value.", size=9)
    return Figured(figure, f"Change of average accuracy in points, with 95 % intervals: {'; '.join(told)}.")


def exam_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figured:
    """Draw pass@1 of several models over the steps of post-training, each with its 95 % interval.

    Args:
        curves: name -> [{"step", "accuracy", "low", "high"}, ...].
    """
    figure, (ax,) = _panels(1, 4.0)
    told = []
    for look, (name, points) in zip(cycle((*_LOOKS, (ORANGE, ":", "D"))), curves.items(), strict=False):
        steps = [point["step"] for point in points]
        middle, low, high = ([100 * point[key] for point in points] for key in ("accuracy", "low", "high"))
        ax.fill_between(steps, low, high, color=look[0], alpha=0.15, linewidth=0)
        _line(ax, steps, middle, look, name)
        told.append(f"{name} {_span(middle, '.1f')} ({low[-1]:.1f} to {high[-1]:.1f})")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, ax, "step of post-training", "held-out questions, pass@1 (%)", columns=4)
    return Figured(figure, f"pass@1 in %, with the 95 % interval at last: {'; '.join(told)}.")


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _finish(figure: Figure, ax: Axes, x: str, y: str, percent: bool = False, columns: int = 5) -> None:
    """Label the axes, clear the frame, and put the legend above, where it hides no data; 0 columns: no legend."""
    ax.set(xlabel=x, ylabel=y)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    if percent:
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    if columns:
        figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def _step_axis(ax: Axes, metrics: Metrics, ticks: int = 10) -> list[float]:
    """Set the range and ticks of an axis of steps; returns the borders between them."""
    edges = [metrics[0].step - 0.5, *(m.step + 0.5 for m in metrics)]
    ax.set_xlim(edges[0], edges[-1])
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
    return edges


def _line(ax: Axes, x: Numbers, y: Numbers, look: tuple[str, str, str], label: str) -> None:
    colour, line, marker = look
    every = max(1, len(x) // 12)
    ax.plot(x, y, line, color=colour, marker=marker, markersize=5, markevery=every, label=label)


def _smooth_lines(metrics: Metrics, series: Mapping[str, str], unit: str, percent: bool) -> Figured:
    if not metrics:
        return _empty(", ".join(series))
    figure, (ax,) = _panels(1, 3.4)
    _step_axis(ax, metrics)
    steps, reach, told = [m.step for m in metrics], max(2, len(metrics) // 40), []
    for look, (name, field) in zip(_LOOKS, series.items(), strict=False):
        values = [getattr(m, field) for m in metrics]
        smooth = smoothed(values, reach)
        ax.plot(steps, values, look[2], color=look[0], alpha=0.3, markersize=4, markeredgewidth=0)
        _line(ax, steps, smooth, look, name)
        told.append(f"{name} {_span(smooth, '.0%' if percent else '.2f')}".replace("%", " %"))
    ax.set_ylim(-0.03, 1.03)
    _finish(figure, ax, "step", unit, percent)
    return Figured(figure, f"Averaged over up to {2 * reach + 1} neighbouring steps: {'; '.join(told)}.")


def _draw_triangle(ax: Axes, budget: int, end: float) -> str:
    cap = thought_cap(budget)
    lengths = [0, budget, cap, end]
    ax.set_xlim(0, end)
    ax.plot(lengths, [length_reward(x, budget) for x in lengths], color=BLUE, linewidth=2, label="length reward")
    ax.axvline(budget, color="black", linestyle="--", linewidth=1, label=f"B_t = {budget}")
    ax.axvline(cap, color="black", linestyle=":", linewidth=1, label=f"cap = {cap}")
    return f"The length reward rises from 0 at no tokens to 1 at the budget of {budget}, and is 0 again from {cap} on."


def _empty(what: str, unit: str = "steps") -> Figured:
    figure, (ax,) = _panels(1, 1.2)
    ax.set_axis_off()
    ax.text(0.5, 0.5, f"No {unit} recorded: nothing to draw of {what}", ha="center", va="center")
    return Figured(figure, f"No {unit} were recorded, so there is nothing to draw of {what}.")


def _percents(row: Mapping[str, Any], column: str) -> list[tuple[float, float, float]]:
    cell = row.get(column) or {"accuracy": None}
    return [] if cell["accuracy"] is None else [(100 * cell["accuracy"], 100 * cell["low"], 100 * cell["high"])]


def _span(values: Numbers, form: str) -> str:
    told = [format(value, form) for value in values]
    more = "" if len(told) == 1 else " throughout" if len(set(told)) == 1 else f" at first and {told[-1]} at last"
    return told[0] + more


def _shares(values: Numbers) -> str:
    return ", ".join(f"{100 * value:.0f} % {tier}" for value, tier in zip(values, TIERS, strict=True))
