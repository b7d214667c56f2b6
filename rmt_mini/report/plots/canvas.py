"""What figures are drawn on and with, and what lessons build theirs from: curves, bars, levels, rows."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmt_mini.files import Cell, Change, write_whole
from rmt_mini.report.markdown import words

Numbers = Sequence[float]
WIDTH, DPI = 8.0, 110  # inches, dots an inch
BLUE, ORANGE, RED, GREY, PURPLE = "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"  # of petroff10
LOOKS = (
    (BLUE, "-", "o"), (RED, "--", "s"), (PURPLE, "-.", "^"), (ORANGE, ":", "D"),
    (GREY, "-", "v"), ("#a96b59", "--", "P"), ("#e76300", "-.", "X"), ("#717581", ":", "*"),
)  # fmt: skip # colour, line, marker
# a tier and a sort of token have one look in every figure; other names take theirs in order
_OWN = ("easy", "hard", "calculable", "medium", "grammar", "saying", "step", "noise")
OWN_LOOKS = dict(zip(_OWN, LOOKS, strict=True))
BAR_LOOKS = ((BLUE, ""), (ORANGE, "//"), (RED, "xx"), (GREY, ".."), (PURPLE, "\\\\"))  # colour, hatch
_PAGE = "background: #fff; color: #000; padding: 0.6em 0.8em; line-height: 1.9; overflow-wrap: anywhere"
RULE: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1.2}
Curve = Numbers | Mapping[int, float] | Mapping[float, float]  # values of 0, 1, 2, ... or x -> y
Cells = Mapping[int, Cell] | Mapping[float, Cell]
Spread = tuple[float, float, float]  # a value and the ends of its interval
Charts = Mapping[str, Mapping[str, Curve]]  # unit of a panel -> name of a curve -> curve
__all__ = ["Figured", "Marked", "Stack", "bar_chart", "curves", "levels", "save", "smoothed", "stacked"]


def _image(kind: str, content: bytes, alt: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(alt)}" style="max-width: 100%" src="data:image/{kind};base64,{data}">'


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
        return _image("png", self.png(), self.alt)


@dataclass(frozen=True)
class Marked:
    """Text with marks: escaped HTML and alt text; ``role`` is "group" where the text itself is to be read."""

    body: str
    alt: str
    role: str = "img"

    def _repr_html_(self) -> str:
        return f'<div role="{self.role}" aria-label="{html.escape(self.alt)}" style="{_PAGE}">{self.body}</div>'


@dataclass(frozen=True)
class Drawing:
    """A drawing with its alt text."""

    svg: str = field(repr=False)
    alt: str

    def _repr_html_(self) -> str:
        return _image("svg+xml", self.svg.encode(), self.alt)


@dataclass(frozen=True)
class Stack:
    """Several things one above the other."""

    parts: Sequence[Figured | Marked | Drawing]

    @property
    def alt(self) -> str:
        """The words of all of them."""
        return " ".join(part.alt for part in self.parts)

    def _repr_html_(self) -> str:
        return "".join(part._repr_html_() for part in self.parts)


def stacked(*parts: Figured | Marked | Drawing) -> Stack:
    """Put figures and marked text one above the other."""
    return Stack(parts)


def save(figured: Figured, path: Path) -> None:
    """Write a PNG, whole or not at all; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, figured.png())


def panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels side by side; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def done(figure: Figure, alt: str, apart: bool = False) -> Figured:
    """Finish a figure; a legend of all that has a name is above, where it hides no data, or ``apart`` in each panel."""
    if apart:
        for ax in figure.axes:
            ax.legend(fontsize=7, frameon=False)
        return Figured(figure, alt)
    named = {name: mark for ax in figure.axes for mark, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    if named:
        columns = min(5, 140 // (8 + max(map(len, named))))  # as many as fit
        look: dict[str, Any] = {"ncols": max(1, columns), "frameon": False, "fontsize": 9}
        figure.legend(named.values(), named.keys(), loc="outside upper center", **look)
    return Figured(figure, alt)


def empty(what: str, unit: str = "steps") -> Figured:
    """Say that there is nothing to draw."""
    figure, (ax,) = panels(1, 1.2)
    ax.set_axis_off()
    ax.text(0.5, 0.5, f"No {unit} recorded: nothing to draw of {what}", ha="center", va="center")
    return Figured(figure, f"No {unit} were recorded, so there is nothing to draw of {what}.")


def spread(found: Cell | Change, by: float = 100) -> Spread | None:
    """Return accuracy or difference times ``by`` with its interval; None where it was not measured."""
    middle = found.accuracy if isinstance(found, Cell) else found.difference
    if middle is None or found.low is None or found.high is None:
        return None
    return by * middle, by * found.low, by * found.high


def looks_of(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Return colour, line and marker of each name."""
    rest = cycle(LOOKS)
    return {name: OWN_LOOKS.get(name) or next(rest) for name in names}


def bar_chart(
    charts: Mapping[str, Mapping[str, Mapping[str, float | Spread | None]]], alt: str, form: str = "{:.2f}"
) -> Figured:
    """Draw groups of bars, a panel each, with their values and what intervals there are.

    Args:
        charts: unit of the panel -> name of the series -> group -> value, value with its interval, or None.
        alt: what is to be seen.
        form: of the numbers.
    """
    figure, axes = panels(len(charts), 3.4)
    looks = dict(zip(dict.fromkeys(name for series in charts.values() for name in series), cycle(BAR_LOOKS)))
    for ax, (unit, series) in zip(axes, charts.items(), strict=True):
        groups, width = list(next(iter(series.values()))), 0.84 / len(series)
        for number, (name, bars) in enumerate(series.items()):
            whole = [one if isinstance(one, tuple) else [np.nan if one is None else one] * 3 for one in bars.values()]
            middle, low, high = np.array(whole, dtype=float).T
            known = any(isinstance(one, tuple) for one in bars.values())
            whiskers = np.maximum(0, [middle - low, high - middle]) if known else None
            x, (colour, hatch) = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width, looks[name]
            own = [OWN_LOOKS.get(group, (colour,))[0] for group in groups] if len(series) == 1 else colour
            look: dict[str, Any] = {"color": own, "hatch": hatch, "edgecolor": "white", "capsize": 2}
            drawn = ax.bar(x, middle, width, yerr=whiskers, label=name, **look)
            ax.bar_label(drawn, fmt=form, fontsize=8)
        ax.set(xticks=range(len(groups)), xticklabels=groups, ylabel=unit)
        ax.margins(y=0.15)
    return done(figure, alt)


def curves(
    charts: Charts,
    x: str | Sequence[str],
    wanted: float | None = None,
    marked: Mapping[str, Numbers] | None = None,
    alt: str = "",
    height: float = 3.4,
    apart: bool = False,
    **axes: Any,
) -> Figured:
    """Draw named curves, a panel each, with a marker here and there.

    Args:
        charts: unit of the panel -> name of the curve -> its values; a curve of one point is a mark.
        x: what the curves are over, in all panels or in each.
        wanted: where the curves should be.
        marked: unit -> places on x.
        alt: what is to be seen, if more than ends and range of each curve.
        height: inches.
        apart: a legend in each panel, where a look means another thing in another panel.
        axes: what ``Axes.set`` takes.

    Example:
        >>> curves({"nats": {"loss": [2.0, 1.0]}}, "step").alt
        'nats over step: loss 2.00 at first and 1.00 at last, between 1.00 and 2.00.'
    """
    if not any(len(curve) for series in charts.values() for curve in series.values()):
        return empty(", ".join(charts) or "the sizes")
    figure, drawn = panels(len(charts), height)
    over = [x] * len(charts) if isinstance(x, str) else x
    said: dict[str, dict[str, list[float]]] = {}
    for ax, (unit, series), below in zip(drawn, charts.items(), over, strict=True):
        said[unit] = {}
        for (name, one), (colour, line, marker) in zip(series.items(), looks_of(series).values(), strict=True):
            points = one if isinstance(one, Mapping) else dict(enumerate(one))
            said[unit][name] = values = [float(value) for value in points.values()]
            every = max(1, len(values) // 12)
            ax.plot(list(points), values, line, color=colour, marker=marker, markersize=5, markevery=every, label=name)
        for place in (marked or {}).get(unit, ()):
            ax.axvline(place, **RULE)
        if wanted is not None:
            ax.axhline(wanted, label=f"wanted: {wanted}", **RULE)
        ax.set(xlabel=below, ylabel=unit, **axes)
    return done(figure, alt or words("curves", said, over, wanted), apart)


def levels(found: Mapping[str, Cells], x: str, y: str, marked: int | None = None) -> Figured:
    """Draw accuracies in % over numbers, each with its 95 % interval as a band, and mark one number."""
    known = {name: {at: one for at, cell in cells.items() if (one := spread(cell))} for name, cells in found.items()}
    ends = {name: list(spreads.values()) for name, spreads in known.items()}
    at_mark = {name: spreads[marked][0] for name, spreads in known.items() if marked in spreads}
    middles = {name: {at: one[0] for at, one in spreads.items()} for name, spreads in known.items()}
    marks = {f"{y} (%)": [] if marked is None else [marked]}
    alt = words("levels", y, ends, x, marked, at_mark)
    drawn = curves({f"{y} (%)": middles}, x, marked=marks, alt=alt, ylim=(0, 103))
    bands(drawn.figure.axes[0], known)
    return drawn


def bands(ax: Axes, found: Mapping[str, dict[int, Spread] | dict[float, Spread]]) -> None:
    """Draw the intervals of named curves."""
    for (colour, *_), spreads in zip(looks_of(found).values(), found.values(), strict=True):
        _, low, high = zip(*spreads.values(), strict=True) if spreads else ((), (), ())
        ax.fill_between(list(spreads), low, high, color=colour, alpha=0.15, linewidth=0)


def rows(charts: Mapping[str, Mapping[str, tuple[Spread, Sequence[str]]]], form: str, alt: str) -> Figured:
    """Draw values with their intervals, a row each from the top; charts: unit -> name -> value, and its look.

    A look is the colour, the marker and what this is filled with.
    """
    figure, axes = panels(len(charts), 1.0 + 0.36 * max(map(len, charts.values())))
    for ax, (unit, given) in zip(axes, charts.items(), strict=True):
        for place, ((middle, low, high), (colour, marker, face)) in enumerate(given.values()):
            ax.plot([low, high], [place, place], "-|", color=colour)
            ax.plot(middle, place, marker, color=colour, markerfacecolor=face)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            at, text = (middle, place), form.format(middle)
            ax.annotate(text, at, (0, 6), textcoords="offset points", ha="center", size=8, bbox=box)
        ax.set(xlabel=unit, yticks=range(len(given)), yticklabels=list(given), ylim=(len(given) - 0.4, -0.8))
        ax.label_outer()  # the rows of all panels are the same
    return done(figure, alt)


def changes(charts: Mapping[str, tuple[Mapping[str, Change], float]]) -> Figured:
    """Draw differences from zero, filled where the interval excludes zero; charts: unit -> differences, by what."""
    known = {
        unit: {name: (one, change.sign) for name, change in given.items() if (one := spread(change, by))}
        for unit, (given, by) in charts.items()
    }
    looks = ((GREY, "o", "white"), (BLUE, "s", BLUE), (RED, "D", RED))  # by sign
    looked = {unit: {name: (one, looks[sign]) for name, (one, sign) in row.items()} for unit, row in known.items()}
    drawn = rows(looked, "{:+z.1f}", words("changes", known))
    for ax in drawn.figure.axes:
        ax.axvline(0, color="black", linewidth=1.2)
    return drawn


def smoothed(values: Numbers, reach: int = 2) -> list[float]:
    """Average each value with its neighbours up to ``reach`` steps away; at the ends, with those there are.

    Example:
        >>> smoothed([0, 0, 3, 0, 0], reach=1)
        [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    return [fmean(values[max(0, place - reach) : place + reach + 1]) for place in range(len(values))]
