"""What figures are drawn on and with, and the three figures that lessons build theirs from: curves, bars, levels."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmt_mini.files import Cell, Change, write_whole
from rmt_mini.records import StepMetrics
from rmt_mini.report.markdown import words

Metrics = Sequence[StepMetrics]
Numbers = Sequence[float]
WIDTH, DPI = 8.0, 110  # inches, dots an inch
BLUE, ORANGE, RED, GREY, PURPLE = "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"  # of petroff10
FOUR_LOOKS = ((BLUE, "-", "o"), (RED, "--", "s"), (PURPLE, "-.", "^"), (ORANGE, ":", "D"))  # colour, line, marker
BAR_LOOKS = ((BLUE, ""), (ORANGE, "//"), (RED, "xx"), (GREY, ".."), (PURPLE, "\\\\"))  # colour, hatch
Curve = Numbers | Mapping[int, float] | Mapping[float, float]  # values of 0, 1, 2, ... or x -> y
Bar = float | tuple[float, float, float] | None  # a value, also with the ends of its interval
Charts = Mapping[str, Mapping[str, Curve]]  # unit of a panel -> name of a curve -> curve
__all__ = ["Figured", "bar_chart", "curves", "levels", "save", "smoothed"]


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
    write_whole(path, figured.png())


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels side by side; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def label(ax: Axes, x: str, y: str = "", **more: Any) -> None:
    """Label the axes, clear the frame, and set whatever else ``Axes.set`` takes."""
    ax.set(xlabel=x, ylabel=y, **more)
    ax.title.set_fontsize(10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)


def done(figure: Figure, alt: str, columns: int = 0) -> Figured:
    """Finish a figure; a legend with columns is above, where it hides no data."""
    if columns:
        named = {name: mark for ax in figure.axes for mark, name in zip(*ax.get_legend_handles_labels(), strict=True)}
        look: dict[str, Any] = {"loc": "outside upper center", "ncols": columns, "frameon": False, "fontsize": 9}
        figure.legend(named.values(), named.keys(), **look)
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


def lines(ax: Axes, x: Numbers, curves: Mapping[str, Numbers], looks: Iterable[Any] = FOUR_LOOKS) -> None:
    """Draw lines that differ in colour, style and marker; a marker here and there."""
    every = max(1, len(x) // 12)
    for (colour, line, marker), (name, y) in zip(cycle(looks), curves.items(), strict=False):
        ax.plot(x, y, line, color=colour, marker=marker, markersize=5, markevery=every, label=name)


def levels(found: Mapping[str, Mapping[int, Cell]], x: str, y: str, marked: int | None = None) -> Figured:
    """Draw accuracies in % over whole numbers, each with its 95 % interval as a band, and mark one number."""
    figure, (ax,) = panels(1, 4.0)
    known = {
        name: {at: spread for at, cell in cells.items() if (spread := Spread.of(cell))} for name, cells in found.items()
    }
    for look, (name, spreads) in zip(cycle(FOUR_LOOKS), known.items(), strict=False):
        middle, low, high = zip(*spreads.values(), strict=True)
        ax.fill_between(list(spreads), low, high, color=look[0], alpha=0.15, linewidth=0)
        lines(ax, list(spreads), {name: middle}, looks=(look,))
    rule(ax, x=marked)
    label(ax, x, f"{y} (%)", ylim=(0, 103))
    ends = {name: list(spreads.values()) for name, spreads in known.items()}
    at_mark = {name: spreads[marked] for name, spreads in known.items() if marked in spreads}
    return done(figure, words("levels", y, ends, x, marked, at_mark), 4)


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


def bar_chart(charts: Mapping[str, Mapping[str, Mapping[str, Bar]]], alt: str, form: str = "{:.2f}") -> Figured:
    """Draw groups of bars, a panel each, with their values and what intervals there are.

    Args:
        charts: unit of the panel -> name of the series -> group -> bar.
        alt: what is to be seen.
        form: of the numbers.
    """
    figure, axes = panels(len(charts), 3.4)
    looks = dict(zip(dict.fromkeys(name for series in charts.values() for name in series), cycle(BAR_LOOKS)))
    for ax, (unit, series) in zip(axes, charts.items(), strict=True):
        looked = {
            name: (*looks[name], [Spread(*one) if isinstance(one, tuple) else one for one in values.values()])
            for name, values in series.items()
        }
        bars(ax, list(next(iter(series.values()))), looked, form)
        label(ax, "", unit)
        ax.margins(y=0.15)
    return done(figure, alt, 4)


def curves(
    charts: Charts,
    x: str | Sequence[str],
    wanted: float | None = None,
    marked: Mapping[str, Numbers] | None = None,
    alt: str = "",
    **axes: Any,
) -> Figured:
    """Draw named curves, a panel each.

    Args:
        charts: unit of the panel -> name of the curve -> its values; a curve of one point is a mark.
        x: what the curves are over, in all panels or in each.
        wanted: where the curves should be.
        marked: unit -> places on x.
        alt: what is to be seen, if more than ends and range of each curve.
        axes: what ``Axes.set`` takes.

    Example:
        >>> curves({"nats": {"loss": [2.0, 1.0]}}, "step").alt
        'nats over step: loss 2.00 at first and 1.00 at last, between 1.00 and 2.00.'
    """
    if not any(len(curve) for series in charts.values() for curve in series.values()):
        return empty(", ".join(charts) or "the sizes")
    figure, drawn = panels(len(charts), 3.4)
    over = [x] * len(charts) if isinstance(x, str) else x
    said: dict[str, dict[str, list[float]]] = {}
    for ax, (unit, series), below in zip(drawn, charts.items(), over, strict=True):
        said[unit] = {}
        for look, (name, one) in zip(cycle(FOUR_LOOKS), series.items(), strict=False):
            points = one if isinstance(one, Mapping) else dict(enumerate(one))
            said[unit][name] = [float(value) for value in points.values()]
            lines(ax, list(points), {name: said[unit][name]}, [look])
        for place in (marked or {}).get(unit, ()):
            rule(ax, x=place)
        rule(ax, y=wanted, name=f"wanted: {wanted}")
        label(ax, below, unit, **axes)
    return done(figure, alt or words("curves", said, over, wanted), 5)


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
