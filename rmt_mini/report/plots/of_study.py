"""Figures that hold runs, arms and settings against one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from rmt_mini.method.budget import length_reward, thought_cap
from rmt_mini.method.entropy import TIERS
from rmt_mini.report.plots.canvas import (
    BLUE,
    FOUR_LOOKS,
    GREY,
    LOOKS,
    RED,
    TIER_LOOKS,
    Figured,
    Numbers,
    draw_line,
    empty,
    finish,
    panels_of,
    percents,
    shares,
    span,
    whiskers,
)

Json = Mapping[str, Any]


def cost(sweeps: Mapping[str, Any], peak: float) -> Figured:
    """Draw how a step's time grows with each size, beside the time of its arithmetic alone.

    Args:
        sweeps: name of the size -> {"points": [{"value", "seconds", "rollout_operations", "update_operations"}]}.
        peak: the machine's rate, operations a second.
    """
    drawn = {name: one["points"] for name, one in sweeps.items() if one.get("points")}
    if not drawn:
        return empty("the cost of a step", "sizes")
    figure, panels = panels_of(len(drawn), 3.2)
    told, top = [], 0.0
    for number, (ax, (name, points)) in enumerate(zip(panels, drawn.items(), strict=True)):
        x = [point["value"] for point in points]
        seconds = [fmean(point["seconds"]) for point in points]
        floor = [(point["rollout_operations"] + point["update_operations"]) / peak for point in points]
        for look, values, label in ((LOOKS[0], seconds, "measured"), (LOOKS[1], floor, "its arithmetic alone")):
            draw_line(ax, x, values, look, label if number == 0 else "_" + label)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        finish(figure, ax, name.replace("_", " "), "seconds a step" if number == 0 else "", columns=0)
        top = max([top, *seconds])
        told.append(f"{seconds[0]:.1f} to {seconds[-1]:.1f} s for {name.replace('_', ' ')} {x[0]} to {x[-1]}")
    for ax in panels:
        ax.set_ylim(0, 1.08 * top)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return Figured(figure, f"Seconds a step, one size changed at a time: {'; '.join(told)}.")


def arms(rows: Mapping[str, Any]) -> Figured:
    """Draw the average accuracy of each arm with its 95 % interval, best seen against the untrained model's line.

    Args:
        rows: name -> {"average": {"accuracy", "low", "high"}}, top to bottom.
    """
    figure, (ax,) = panels_of(1, 0.8 + 0.36 * len(rows))
    places, told = range(len(rows)), []
    for place, (name, row) in zip(places, rows.items(), strict=True):
        for value, low, high in percents(row, "average"):
            plain = row.get("row") == "ntp"
            ax.errorbar(
                value,
                place,
                xerr=whiskers(value, low, high),
                fmt="s" if plain else "o",
                color=GREY if plain else BLUE,
                capsize=3,
            )
            ax.annotate(f"{value:.1f}", (value, place), (0, 5), textcoords="offset points", ha="center", size=8)
            told.append(f"{name} {value:.1f} % ({low:.1f} to {high:.1f})")
    ax.set(yticks=places, yticklabels=list(rows), ylim=(len(rows) - 0.4, -0.7))
    finish(figure, ax, "next tokens right, average of the tiers (%); squares: plain, without a thought", "", columns=0)
    return Figured(figure, f"Average accuracy with 95 % intervals: {'; '.join(told)}.")


def tornado(rows: Sequence[Mapping[str, Any]]) -> Figured:
    """Draw what each variant of a setting changes, in average accuracy and in thought length, with 95 % intervals.

    Args:
        rows: [{"setting", "value", "default", "accuracy": {"difference", "low", "high"}, "thought_length": the same}],
            top to bottom.
    """
    figure, panels = panels_of(2, 1.2 + 0.27 * len(rows))
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
            ax.errorbar(
                middle, place, xerr=whiskers(middle, low, high), fmt="none", ecolor="black", capsize=2, linewidth=1
            )
            if key == "accuracy":
                told.append(f"{row['setting']} {row['value']} {middle:+z.1f} ({low:+z.1f} to {high:+z.1f})")
        ax.axvline(0, color="black", linewidth=1)
        ax.set(yticks=range(len(rows)), yticklabels=[], ylim=(len(rows) - 0.4, -0.6))
        finish(figure, ax, f"change of {unit}", "", columns=0)
    panels[0].set_yticklabels([f"{row['setting']} {row['value']} ({row['default']})" for row in rows], size=8)
    figure.suptitle("Solid: the interval excludes zero. In brackets the preset's value.", size=9)
    return Figured(figure, f"Change of average accuracy in points, with 95 % intervals: {'; '.join(told)}.")


def exam_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figured:
    """Draw pass@1 of several models over the steps of post-training, each with its 95 % interval.

    Args:
        curves: name -> [{"step", "accuracy", "low", "high"}, ...].
    """
    figure, (ax,) = panels_of(1, 4.0)
    _curves(ax, {name: [(point["step"], point) for point in points] for name, points in curves.items()})
    told = []
    for name, points in curves.items():
        middle, low, high = ([100 * point[key] for point in points] for key in ("accuracy", "low", "high"))
        told.append(f"{name} {span(middle, '.1f')} ({low[-1]:.1f} to {high[-1]:.1f})")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(figure, ax, "step of post-training", "held-out questions, pass@1 (%)", columns=4)
    return Figured(figure, f"pass@1 in %, with the 95 % interval at last: {'; '.join(told)}.")


def forest(rows: Mapping[str, Json], what: str, by: float = 100) -> Figured:
    """Draw differences from zero with their 95 % intervals, a row each; filled where the interval excludes zero.

    Args:
        rows: name -> {"difference", "low", "high"}, top to bottom.
        what: a difference is of, with its unit.
        by: factor from the rows' numbers to that unit.
    """
    if not rows:
        return empty(what, "differences")
    figure, (ax,) = panels_of(1, 1.0 + 0.36 * len(rows))
    told = _forest(ax, rows, by)
    finish(figure, ax, what, "", columns=0)
    return Figured(figure, f"{what[:1].upper()}{what[1:]}, with 95 % intervals: {told}.")


def interval_width(
    curves: Mapping[str, Sequence[tuple[int, float]]], positions: int, points: float, gap: float, enough: int
) -> Figured:
    """Draw half an interval over the number of positions, a line for each number of seeds, and a gap to be told.

    Args:
        curves: name -> [(positions, points), ...].
        positions: chosen, marked.
        points: half the interval there.
        gap: points that are to be told from nothing.
        enough: positions that make half the interval as narrow as the gap.
    """
    figure, (ax,) = panels_of(1, 3.8)
    for look, (name, line) in zip(cycle(FOUR_LOOKS), curves.items(), strict=False):
        draw_line(ax, [x for x, _ in line], [y for _, y in line], look, name)
    ax.axhline(gap, color="black", linestyle=":", linewidth=1.5, label=f"gap to be told: {gap:.2f} points")
    ax.plot(positions, points, "*", color="black", markersize=14, label=f"chosen: {points:.1f} points")
    places = [x for x, _ in next(iter(curves.values()))]
    ax.set_xscale("log")
    ax.set_xticks(places, [f"{x:,}" for x in places])
    ax.minorticks_off()
    ax.set_ylim(0, 1.1 * max(gap, points, *(line[0][1] for line in curves.values())))
    finish(figure, ax, "held-out positions of a run", "half the 95 % interval (points)")
    verdict = "is told from nothing" if points <= gap else f"is not told from nothing; {enough:,} positions would do"
    return Figured(
        figure,
        f"With {positions:,} positions a difference is known to within {points:.1f} points either way: a gap of "
        f"{gap:.2f} points {verdict}.",
    )


def exams_at(
    curves: Mapping[str, Sequence[Json]], differences: Mapping[str, Json], k: int, step: int, method: str = "RMT"
) -> Figured:
    """Draw pass@k over the steps of post-training with one step marked, and differences at that step beside it.

    Args:
        curves: name -> [{"step", "accuracy", "low", "high"}, ...] of pass@k.
        differences: name -> {"difference", "low", "high"}: the method minus that model at the step.
        k: answers of which one need be right.
        step: which is marked.
        method: its name.
    """
    figure, (left, right) = panels_of(2, 3.8)
    _curves(left, {name: [(point["step"], point) for point in points] for name, points in curves.items()})
    left.axvline(step, color="black", linestyle=":", linewidth=1.5)
    left.set_ylim(0, 103)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    told = _forest(right, differences, 100)
    finish(figure, left, "step of post-training", f"held-out questions, pass@{k} (%)", columns=0)
    finish(figure, right, f"step {step}: {method} minus ..., points", "", columns=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    now = [
        f"{name} {100 * point['accuracy']:.1f}" for name, c in curves.items() for point in c if point["step"] == step
    ]
    return Figured(
        figure,
        f"pass@{k} in % at step {step} of post-training: {', '.join(now)}. {method} minus each, points, with 95 % "
        f"intervals: {told}.",
    )


def pass_curves(rows: Mapping[str, Mapping[str, Json]]) -> Figured:
    """Draw pass@k over k with 95 % intervals, a line for each model; what lies above pass@1 is left to be explored.

    Args:
        rows: name -> {k: {"accuracy", "low", "high"}}, as evaluation.json holds it under "pass_at".
    """
    figure, (ax,) = panels_of(1, 3.8)
    _curves(ax, {name: [(int(k), cell) for k, cell in cells.items()] for name, cells in rows.items()})
    told = []
    for name, cells in rows.items():
        (first, one), (last, other) = (list(cells.items())[end] for end in (0, -1))
        told.append(f"{name} {100 * one['accuracy']:.1f} at k = {first}, {100 * other['accuracy']:.1f} at k = {last}")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set_ylim(0, 103)
    finish(figure, ax, "k, answers of which one need be right", "pass@k (%)", columns=2)
    return Figured(figure, f"pass@k in %: {'; '.join(told)}.")


def pass_estimates(estimates: Mapping[str, Sequence[float]], k: int) -> Figured:
    """Draw what several estimators say of pass@k, k = 1, 2, ..., and mark one k.

    Args:
        estimates: name -> value for each k from 1 on.
        k: which is marked.
    """
    figure, (ax,) = panels_of(1, 3.4)
    for look, (name, values) in zip(LOOKS, estimates.items(), strict=False):
        ks = range(1, len(values) + 1)
        draw_line(ax, ks, [100 * value for value in values], look, name)
    ax.axvline(k, color="black", linestyle=":", linewidth=1.5, label=f"k = {k}")
    ax.set_ylim(-3, 103)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(figure, ax, "k", "estimated pass@k (%)", columns=3)
    told = ", ".join(f"{name} {100 * values[k - 1]:.1f}" for name, values in estimates.items())
    return Figured(figure, f"Estimates of pass@{k} in %: {told}.")


def preflight_bars(found: Json) -> Figured:
    """Draw, by tier, how many answers are right, how many groups hold a right one, and how many carry a signal.

    Args:
        found: as ``preflight`` returns it.
    """
    tiers = {name: tier for name, tier in found["tiers"].items() if tier["positions"]}
    bars = (("accuracy", "answers right"), ("pass_at_g", "groups with a right one"), ("signal_groups", "with a signal"))
    figure, (ax,) = panels_of(1, 3.4)
    for number, ((key, label), (colour, hatch)) in enumerate(zip(bars, TIER_LOOKS, strict=True)):
        for place, tier in enumerate(tiers.values()):
            x, value = place + (number - 1) * 0.27, 100 * tier[key]
            ax.bar(x, value, 0.27, color=colour, hatch=hatch, edgecolor="white", label="_" * bool(place) + label)
            ax.text(x, value, f"{value:.0f}", ha="center", va="bottom", size=8)
    ax.set(xticks=range(len(tiers)), xticklabels=[f"{name} ({one['positions']})" for name, one in tiers.items()])
    ax.set_ylim(0, 108)
    finish(figure, ax, "tier (positions asked)", "%", columns=3)
    told = [f"{name} {' / '.join(f'{100 * one[key]:.0f}' for key, _ in bars)}" for name, one in tiers.items()]
    return Figured(figure, f"Answers right, groups with a right one, groups with a signal, in %: {'; '.join(told)}.")


def text_fit(entropies: Numbers, thresholds: tuple[float, float], lengths: Sequence[int], budget: int) -> Figured:
    """Draw the entropies of a text's tokens cut into tiers, and the lengths of thoughts against a budget's triangle.

    Args:
        entropies: of each token, nats.
        thresholds: easy up to the first, hard above the second.
        lengths: of thoughts that no budget was stated to, tokens.
        budget: B_t, tokens.
    """
    figure, (left, right) = panels_of(2, 3.4)
    easy, hard = thresholds
    parts = (
        [x for x in entropies if x <= easy],
        [x for x in entropies if easy < x <= hard],
        [x for x in entropies if x > hard],
    )
    sizes = [len(part) / len(entropies) for part in parts]
    edges = [place / 10 for place in range(int(10 * max(entropies)) + 2)]  # of which thresholds are usually some
    for tier, part, (colour, hatch) in zip(TIERS, parts, TIER_LOOKS, strict=True):
        left.stairs(*np.histogram(part, edges), fill=True, fc=colour, hatch=hatch, ec="white", label=tier)
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:,.0f}")
    left.minorticks_off()
    cap = thought_cap(budget)
    right.stairs(*np.histogram(lengths, range(0, max(*lengths, cap) + 3, 2)), fill=True, color=GREY)
    top = right.get_ylim()[1]
    right.plot([0, budget, cap], [0, top, 0], color=BLUE, linewidth=2, label="length reward, 0 to 1 to 0")
    right.axvline(cap, color="black", linestyle=":", linewidth=1.5, label=f"cap, 2 x {budget} = {cap}")
    right.set_ylim(0, 1.4 * top)
    for ax in (left, right):
        ax.legend(fontsize=9, loc="upper right", framealpha=1, edgecolor="white")
    finish(figure, left, "entropy (nats)", "tokens of the text", columns=0)
    finish(figure, right, "thought length (tokens)", "thoughts", columns=0)
    beyond = fmean(length >= cap for length in lengths)
    reward = fmean(length_reward(length, budget) for length in lengths)
    return Figured(
        figure,
        f"Of {len(entropies)} tokens, cut at {easy:.1f} and {hard:.1f} nats, {shares(sizes)}. A budget of {budget} "
        f"cuts off {100 * beyond:.0f} % of {len(lengths)} thoughts, as they are now, at the cap of {cap}; their mean "
        f"length reward is {reward:.2f}.",
    )


def _forest(ax: Axes, rows: Mapping[str, Json], by: float) -> str:
    """Draw differences with intervals as rows around a line at zero; returns them in words."""
    told = []
    for place, (name, row) in enumerate(rows.items()):
        middle, low, high = (by * row[key] for key in ("difference", "low", "high"))
        side = int(low > 0) - int(high < 0)
        look: dict[str, Any] = {"color": (GREY, BLUE, RED)[side], "marker": "osD"[side]}
        look["markerfacecolor"] = look["color"] if side else "white"
        ax.errorbar(middle, place, xerr=whiskers(middle, low, high), capsize=3, markersize=7, **look)
        ax.annotate(
            f"{middle:+z.1f}", (middle, place), (0, 6), textcoords="offset points", ha="center", size=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
        words = ("around zero", "above zero", "below zero")[side]
        told.append(f"{name} {middle:+z.1f} ({low:+z.1f} to {high:+z.1f}), {words}")
    ax.axvline(0, color="black", linewidth=1)
    ax.set(yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.4, -0.8))
    return "; ".join(told)


def _curves(ax: Axes, curves: Mapping[str, Sequence[tuple[int, Json]]]) -> None:
    """Draw accuracies in % with their intervals over whole numbers."""
    for look, (name, points) in zip(cycle(FOUR_LOOKS), curves.items(), strict=False):
        x = [place for place, _ in points]
        middle, low, high = ([100 * cell[key] for _, cell in points] for key in ("accuracy", "low", "high"))
        ax.fill_between(x, low, high, color=look[0], alpha=0.15, linewidth=0)
        draw_line(ax, x, middle, look, name)
