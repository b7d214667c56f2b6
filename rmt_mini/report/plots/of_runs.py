"""Figures of a run, from its metrics and its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, cycle
from typing import Any

from rmt_mini.method.budget import thought_cap
from rmt_mini.method.entropy import TIERS
from rmt_mini.report.plots.canvas import (
    BLUE,
    GREY,
    LOOKS,
    ORANGE,
    RED,
    TIER_LOOKS,
    Figured,
    Metrics,
    draw_line,
    empty,
    finish,
    panels_of,
    percents,
    shares,
    smoothed,
    span,
    step_axis,
    whiskers,
)

BARS = (
    ("plain, before", "before", "ntp", GREY, ""),
    ("thinking, before", "before", "think", ORANGE, "//"),
    ("thinking, cold start", "cold_start", "think", RED, "\\\\"),
    ("thinking, after", "after", "think", BLUE, "xx"),
    ("plain, after", "after", "ntp", GREY, ".."),
)


def budget_and_length(metrics: Metrics, stated: bool = True) -> Figured:
    """Draw B_t, its cap 2 B_t, and the mean thought length of each step; ``stated`` False: B_0 only sets the cap."""
    if not metrics:
        return empty("the thought budget")
    budgets, lengths = [m.budget for m in metrics], [m.thought_length for m in metrics]
    figure, (ax,) = panels_of(1, 3.6)
    edges, caps = step_axis(ax, metrics), [thought_cap(budget) for budget in budgets]
    ax.stairs(caps, edges, fill=True, color=BLUE, alpha=0.15, label="up to the cap, 2 B_t")
    ax.stairs(budgets, edges, baseline=None, color=BLUE, linewidth=2, label="budget B_t" if stated else "half the cap")
    draw_line(ax, [m.step for m in metrics], lengths, LOOKS[1], "mean thought length")
    ax.set_ylim(0, 1.05 * max(*caps, *lengths))
    finish(figure, ax, "step", "tokens")
    what = "The stated budget" if stated else "No budget was stated; half the cap"
    told = f"{what}, in tokens, is {span(budgets, '.0f')}. The mean thought length is {span(lengths, '.1f')}."
    return Figured(figure, told)


def tiers_drawn(metrics: Metrics, curriculum: bool = True) -> Figured:
    """Draw the tiers' shares among the positions drawn; with a curriculum also where p_t puts their borders."""
    metrics = [m for m in metrics if sum(m.tier_counts)]
    if not metrics:
        return empty("the tiers drawn")
    drawn = [[count / sum(m.tier_counts) for count in m.tier_counts] for m in metrics]
    borders = [[0.0, *accumulate(share)] for share in drawn]
    figure, (ax,) = panels_of(1, 3.6)
    edges, steps = step_axis(ax, metrics), [m.step for m in metrics]
    for tier, (colour, hatch) in enumerate(TIER_LOOKS):
        low, high = ([border[place] for border in borders] for place in (tier, tier + 1))
        look: dict[str, Any] = {"facecolor": colour, "edgecolor": "white", "hatch": hatch, "alpha": 0.75}
        ax.stairs(high, edges, baseline=low, fill=True, label=TIERS[tier], **look)
    if curriculum:
        easy, two = ([sum(m.tier_probabilities[:n]) for m in metrics] for n in (1, 2))
        draw_line(ax, steps, easy, ("black", "-", "o"), "p_t: easy")
        draw_line(ax, steps, two, ("black", "--", "s"), "p_t: easy + medium")
    ax.set_ylim(0, 1)
    finish(figure, ax, "step", "share of positions drawn", percent=True)
    asked = [f"; the curriculum asked for {shares(m.tier_probabilities)}" if curriculum else "" for m in metrics]
    told = [f"step {m.step} were {shares(s)}{a}." for m, s, a in zip(metrics, drawn, asked, strict=True)]
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
        return empty("the losses")
    figure, panels = panels_of(3, 2.7)
    names = {"RL loss": "rl_loss", "next-token loss": "ntp_loss", "gradient norm": "grad_norm"}
    units, told = ("loss", "nats per token", "norm before clipping"), []
    for ax, (colour, *_), (name, field), unit in zip(panels, LOOKS, names.items(), units, strict=True):
        values = [getattr(m, field) for m in metrics]
        step_axis(ax, metrics, ticks=5)
        ax.plot([m.step for m in metrics], values, ".-", color=colour, linewidth=1, markersize=5)
        ax.set_title(name, fontsize=10)
        finish(figure, ax, "step", unit, columns=0)
        told.append(f"{name} {span(values, 'z.3f')}")
    return Figured(figure, f"{'; '.join(told)}.")


def accuracy(evaluation: Mapping[str, Any]) -> Figured:
    """Draw accuracy by tier with 95 % intervals, a bar for each row of evaluation.json that is there."""
    rows = [(name, evaluation[when][how], c, hatch) for name, when, how, c, hatch in BARS if evaluation.get(when)]
    columns = [column for column in (*TIERS, "average") if any(percents(row, column) for _, row, _, _ in rows)]
    if not columns:
        return empty("accuracy", "positions")
    figure, (ax,) = panels_of(1, 4.2)
    width, averages = 0.84 / len(rows), []
    for number, (name, row, colour, hatch) in enumerate(rows):
        look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        ax.bar(0, 0, 0, label=name, **look)  # for the legend, also where a tier is missing
        for place, column in enumerate(columns):
            for value, low, high in percents(row, column):
                x = place + (number - (len(rows) - 1) / 2) * width
                ax.bar(x, value, width, **look)
                ax.errorbar(
                    x, value, yerr=whiskers(value, low, high), fmt="none", ecolor="black", capsize=2, linewidth=1
                )
                ax.text(x, max(value, high), f"{value:.0f}", ha="center", va="bottom", size=8)
        averages += [f"{name} {v:.1f} % ({low:.1f} to {high:.1f})" for v, low, high in percents(row, "average")]
    ax.set(xticks=range(len(columns)), xticklabels=columns, ylim=(0, 1.08 * ax.get_ylim()[1]))
    finish(figure, ax, "", "next tokens right (%)", columns=3)
    return Figured(figure, f"Average accuracy with 95 % intervals: {'; '.join(averages)}.")


def _smooth_lines(metrics: Metrics, series: Mapping[str, str], unit: str, percent: bool) -> Figured:
    if not metrics:
        return empty(", ".join(series))
    figure, (ax,) = panels_of(1, 3.4)
    step_axis(ax, metrics)
    steps, reach, told = [m.step for m in metrics], max(2, len(metrics) // 40), []
    for look, (name, field) in zip(LOOKS, series.items(), strict=False):
        values = [getattr(m, field) for m in metrics]
        smooth = smoothed(values, reach)
        ax.plot(steps, values, look[2], color=look[0], alpha=0.3, markersize=4, markeredgewidth=0)
        draw_line(ax, steps, smooth, look, name)
        told.append(f"{name} {span(smooth, '.0%' if percent else '.2f')}".replace("%", " %"))
    ax.set_ylim(-0.03, 1.03)
    finish(figure, ax, "step", unit, percent)
    return Figured(figure, f"Averaged over up to {2 * reach + 1} neighbouring steps: {'; '.join(told)}.")


def side_by_side(runs: Mapping[str, Metrics], steps: int = 0) -> Figured:
    """Draw thought length and match reward of several runs over their steps, each run's budget beside its length.

    Args:
        runs: name -> metrics; a run may be under way.
        steps: the least width of the axis, so that a run under way does not move it.
    """
    drawn = {name: metrics for name, metrics in runs.items() if metrics}
    if not drawn:
        return empty("the runs")
    figure, (left, right) = panels_of(2, 3.6)
    told = []
    for look, (name, metrics) in zip(cycle(LOOKS), drawn.items(), strict=False):
        at, budgets = [m.step for m in metrics], [m.budget for m in metrics]
        match = smoothed([m.match_reward for m in metrics], max(2, len(metrics) // 20))
        left.step(at, budgets, where="mid", color=look[0], linestyle=":", linewidth=1.5)
        draw_line(left, at, [m.thought_length for m in metrics], look, name)
        draw_line(right, at, match, look, f"_{name}")
        told.append(
            f"{name}: {len(metrics)} steps, thought length {span([m.thought_length for m in metrics], '.1f')}, budget "
            f"{span(budgets, '.0f')}, match reward {span(match, '.2f')}"
        )
    last = max([steps - 1, *(metrics[-1].step for metrics in drawn.values())])
    for ax in (left, right):
        ax.set_xlim(-0.5, last + 0.5)
    left.set_ylim(bottom=0)
    right.set_ylim(-0.03, 1.03)
    finish(figure, left, "step (dotted: budget)", "thought length, tokens", columns=0)
    finish(figure, right, "step", "match reward, smoothed")
    return Figured(figure, f"{'; '.join(told)}.")
