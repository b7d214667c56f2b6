"""What every figure is drawn on and with: panels, axes, colours, and words for what is seen."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rmt_mini.method.entropy import TIERS
from rmt_mini.records import StepMetrics

Metrics = Sequence[StepMetrics]
Numbers = Sequence[float]
WIDTH, DPI = 8.0, 110  # inches, dots an inch
BLUE, ORANGE, RED, GREY, PURPLE = "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"  # of petroff10
LOOKS = ((BLUE, "-", "o"), (RED, "--", "s"), (PURPLE, "-.", "^"))
FOUR_LOOKS = (*LOOKS, (ORANGE, ":", "D"))
TIER_LOOKS = ((BLUE, ""), (ORANGE, "//"), (RED, "xx"))


@dataclass(frozen=True)
class Figured:
    """A figure with its alt text; a notebook shows the one and reads out the other.

    Example:
        >>> Figured(Figure(), "Nothing yet.").alt
        'Nothing yet.'
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


def panels_of(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels side by side; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def finish(figure: Figure, ax: Axes, x: str, y: str, percent: bool = False, columns: int = 5) -> None:
    """Label the axes, clear the frame, and put the legend above, where it hides no data; 0 columns: no legend."""
    ax.set(xlabel=x, ylabel=y)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    if percent:
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    if columns:
        figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def step_axis(ax: Axes, metrics: Metrics, ticks: int = 10) -> list[float]:
    """Set the range and ticks of an axis of steps; returns the borders between them."""
    edges = [metrics[0].step - 0.5, *(m.step + 0.5 for m in metrics)]
    ax.set_xlim(edges[0], edges[-1])
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
    return edges


def draw_line(ax: Axes, x: Numbers, y: Numbers, look: tuple[str, str, str], label: str) -> None:
    """Draw a line in one of LOOKS, with a marker here and there."""
    colour, line, marker = look
    every = max(1, len(x) // 12)
    ax.plot(x, y, line, color=colour, marker=marker, markersize=5, markevery=every, label=label)


def empty(what: str, unit: str = "steps") -> Figured:
    """Say that there is nothing to draw."""
    figure, (ax,) = panels_of(1, 1.2)
    ax.set_axis_off()
    ax.text(0.5, 0.5, f"No {unit} recorded: nothing to draw of {what}", ha="center", va="center")
    return Figured(figure, f"No {unit} were recorded, so there is nothing to draw of {what}.")


def percents(row: Mapping[str, Any], column: str) -> list[tuple[float, float, float]]:
    """Return accuracy and its interval in percent as a list of one, or of none where it was not measured."""
    cell = row.get(column) or {"accuracy": None}
    return [] if cell["accuracy"] is None else [(100 * cell["accuracy"], 100 * cell["low"], 100 * cell["high"])]


def whiskers(middle: float, low: float, high: float) -> list[list[float]]:
    """Return an interval as an error bar takes it; never negative, where the middle lies outside by a hair.

    Example:
        >>> whiskers(2.0, 1.5, 4.0)
        [[0.5], [2.0]]
    """
    return [[max(0.0, middle - low)], [max(0.0, high - middle)]]


def span(values: Numbers, form: str) -> str:
    """Say where values begin and where they end."""
    told = [format(value, form) for value in values]
    more = "" if len(told) == 1 else " throughout" if len(set(told)) == 1 else f" at first and {told[-1]} at last"
    return told[0] + more


def shares(values: Numbers) -> str:
    """Say the shares of the three tiers."""
    return ", ".join(f"{100 * value:.0f} % {tier}" for value, tier in zip(values, TIERS, strict=True))
