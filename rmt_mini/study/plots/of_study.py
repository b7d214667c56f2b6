"""Figures that hold runs, arms and settings against one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean
from typing import Any

from matplotlib.ticker import MaxNLocator

from rmt_mini.study.plots.canvas import (
    BLUE,
    GREY,
    LOOKS,
    ORANGE,
    Figured,
    draw_line,
    empty,
    finish,
    panels_of,
    percents,
    span,
)


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
            whiskers = [[max(0.0, value - low)], [max(0.0, high - value)]]
            plain = row.get("row") == "ntp"
            ax.errorbar(
                value, place, xerr=whiskers, fmt="s" if plain else "o", color=GREY if plain else BLUE, capsize=3
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
            whiskers = [[max(0.0, middle - low)], [max(0.0, high - middle)]]
            ax.errorbar(middle, place, xerr=whiskers, fmt="none", ecolor="black", capsize=2, linewidth=1)
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
    told = []
    for look, (name, points) in zip(cycle((*LOOKS, (ORANGE, ":", "D"))), curves.items(), strict=False):
        steps = [point["step"] for point in points]
        middle, low, high = ([100 * point[key] for point in points] for key in ("accuracy", "low", "high"))
        ax.fill_between(steps, low, high, color=look[0], alpha=0.15, linewidth=0)
        draw_line(ax, steps, middle, look, name)
        told.append(f"{name} {span(middle, '.1f')} ({low[-1]:.1f} to {high[-1]:.1f})")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(figure, ax, "step of post-training", "held-out questions, pass@1 (%)", columns=4)
    return Figured(figure, f"pass@1 in %, with the 95 % interval at last: {'; '.join(told)}.")
