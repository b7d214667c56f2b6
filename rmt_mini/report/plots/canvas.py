"""What every figure is drawn on and with: panels, axes, colours, and words for what is seen."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rmt_mini.files import Cell, Change
from rmt_mini.records import StepMetrics

Metrics = Sequence[StepMetrics]
Numbers = Sequence[float]
WIDTH, DPI = 8.0, 110  # inches, dots an inch
BLUE, ORANGE, RED, GREY, PURPLE = "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"  # of petroff10
LOOKS = ((BLUE, "-", "o"), (RED, "--", "s"), (PURPLE, "-.", "^"))  # colour, line, marker
FOUR_LOOKS = (*LOOKS, (ORANGE, ":", "D"))
TIER_LOOKS = ((BLUE, ""), (ORANGE, "//"), (RED, "xx"))  # colour, hatch
__all__ = ["Figured", "save", "smoothed"]


@dataclass(frozen=True)
class Figured:
    """A figure with its alt text."""

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
    """Write a PNG, whole or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(figured.png())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def panels(count: int, height: float, **more: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels side by side; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False, **more)[0])


def label(ax: Axes, x: str, y: str = "", percent: bool = False, **more: Any) -> None:
    """Label the axes, clear the frame, and set whatever else ``Axes.set`` takes."""
    ax.set(xlabel=x, ylabel=y, **more)
    ax.title.set_fontsize(10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    if percent:
        ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def done(figure: Figure, alt: str, columns: int = 0, inside: Sequence[Axes] = ()) -> Figured:
    """Finish a figure; a legend with columns is above, where it hides no data, one for a panel is inside."""
    for ax in inside:
        ax.legend(fontsize=8, framealpha=1, edgecolor="white")
    if columns:
        figure.legend(loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
    return Figured(figure, alt)


def empty(what: str, unit: str = "steps") -> Figured:
    """Say that there is nothing to draw."""
    figure, (ax,) = panels(1, 1.2)
    ax.set_axis_off()
    ax.text(0.5, 0.5, f"No {unit} recorded: nothing to draw of {what}", ha="center", va="center")
    return Figured(figure, f"No {unit} were recorded, so there is nothing to draw of {what}.")


class Spread(NamedTuple):
    """A value with its interval."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, cell: Cell | Change, by: float = 100) -> Spread | None:
        """Return accuracy or difference times ``by``; None where it was not measured."""
        middle = cell.accuracy if isinstance(cell, Cell) else cell.difference
        if middle is None or cell.low is None or cell.high is None:
            return None
        return cls(by * middle, by * cell.low, by * cell.high)

    @property
    def whiskers(self) -> list[list[float]]:
        """As an error bar takes them; never negative, where the middle lies outside by a hair."""
        return [[max(0.0, self.middle - self.low)], [max(0.0, self.high - self.middle)]]


def rule(ax: Axes, x: float | None = None, y: float | None = None, name: str = "_", line: str = ":") -> None:
    """Draw a vertical or a horizontal black line; a name that begins with _ is in no legend."""
    look: dict[str, Any] = {"color": "black", "linestyle": line, "linewidth": 1.2, "label": name}
    if x is not None:
        ax.axvline(x, **look)
    if y is not None:
        ax.axhline(y, **look)


def mark(ax: Axes, x: float, y: float, look: tuple[str, str], name: str = "_") -> None:
    """Draw one large point; look: colour and marker."""
    ax.plot([x], [y], look[1], color=look[0], markersize=9, markeredgecolor="black", label=name)


def whole_numbers(ax: Axes, ticks: int = 9) -> None:
    """Put ticks at whole numbers only."""
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))


def step_axis(ax: Axes, metrics: Metrics, ticks: int = 10) -> list[float]:
    """Set the range and ticks of an axis of steps; returns the borders between them."""
    edges = [metrics[0].step - 0.5, *(m.step + 0.5 for m in metrics)]
    ax.set_xlim(edges[0], edges[-1])
    whole_numbers(ax, ticks)
    return edges


def lines(ax: Axes, x: Numbers, curves: Mapping[str, Numbers], legend: bool = True, looks: Iterable[Any] = ()) -> None:
    """Draw lines that differ in colour, style and marker; a marker here and there."""
    every = max(1, len(x) // 12)
    for (colour, line, marker), (name, y) in zip(cycle(looks or FOUR_LOOKS), curves.items(), strict=False):
        hidden = "" if legend else "_"
        ax.plot(x, y, line, color=colour, marker=marker, markersize=5, markevery=every, label=hidden + name)


def levels(ax: Axes, curves: Mapping[str, Mapping[int, Cell]]) -> dict[str, dict[int, Spread]]:
    """Draw accuracies in % over whole numbers, with their intervals as bands; returns what was drawn."""
    drawn = {}
    for look, (name, cells) in zip(cycle(FOUR_LOOKS), curves.items(), strict=False):
        known = {x: spread for x, cell in cells.items() if (spread := Spread.of(cell))}
        middle, low, high = zip(*known.values(), strict=True)
        ax.fill_between(list(known), low, high, color=look[0], alpha=0.15, linewidth=0)
        lines(ax, list(known), {name: middle}, looks=(look,))
        drawn[name] = known
    return drawn


def bars(
    ax: Axes, groups: Sequence[str], series: Mapping[str, tuple[str, str, Sequence[Spread | float | None]]], form: str
) -> None:
    """Draw groups of bars with their values; series: name -> colour, hatch and a value, or none, for each group."""
    width = 0.84 / len(series)
    for number, (name, (colour, hatch, values)) in enumerate(series.items()):
        look: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        ax.bar(0, 0, 0, label=name, **look)  # for the legend, even if the first value is missing
        for place, value in enumerate(values):
            x = place + (number - (len(series) - 1) / 2) * width
            if value is None:
                continue
            spread = value if isinstance(value, Spread) else Spread(value, value, value)
            ax.bar(x, spread.middle, width, **look)
            if isinstance(value, Spread):
                ax.errorbar(x, value.middle, yerr=value.whiskers, fmt="none", ecolor="black", capsize=2, linewidth=1)
            ax.text(x, max(spread.middle, spread.high), form.format(spread.middle), ha="center", va="bottom", size=8)
    ax.set(xticks=range(len(groups)), xticklabels=groups)


def rows(ax: Axes, spreads: Mapping[str, Spread], form: str, looks: Sequence[tuple[str, str, bool]]) -> None:
    """Draw values with their intervals, a row each, top to bottom; looks: colour, marker, and whether it is filled."""
    for place, (spread, (colour, marker, filled)) in enumerate(zip(spreads.values(), looks, strict=True)):
        face = colour if filled else "white"
        ax.errorbar(
            spread.middle, place, xerr=spread.whiskers, capsize=3, color=colour, marker=marker, markerfacecolor=face
        )
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        at, text = (spread.middle, place), form.format(spread.middle)
        ax.annotate(text, at, (0, 6), textcoords="offset points", ha="center", size=8, bbox=box)
    ax.set(yticks=range(len(spreads)), yticklabels=list(spreads), ylim=(len(spreads) - 0.4, -0.8))


def changes(ax: Axes, given: Mapping[str, Change], by: float) -> str:
    """Draw differences from zero as rows, filled where the interval excludes zero; returns them in words."""
    known = {name: spread for name, change in given.items() if (spread := Spread.of(change, by))}
    signs = [given[name].sign for name in known]
    rows(ax, known, "{:+z.1f}", [((GREY, BLUE, RED)[sign], "osD"[sign], bool(sign)) for sign in signs])
    rule(ax, x=0, line="-")
    sides = [("around zero", "above zero", "below zero")[sign] for sign in signs]
    return "; ".join(
        f"{name} {spread.middle:+z.1f} ({spread.low:+z.1f} to {spread.high:+z.1f}), {side}"
        for (name, spread), side in zip(known.items(), sides, strict=True)
    )


def smoothed(values: Numbers, reach: int = 2) -> list[float]:
    """Average each value with its neighbours up to ``reach`` steps away; at the ends, with those there are.

    Example:
        >>> smoothed([0, 0, 3, 0, 0], reach=1)
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    return [fmean(values[max(0, place - reach) : place + reach + 1]) for place in range(len(values))]
