"""A figure with controls that move it: labelled, usable from the keyboard, and never a traceback.

``explore`` takes any function that returns a figure, and a control for each of its settings. What it shows stands in
one HTML widget: no output area collects old figures, and a screen reader is told when the numbers change. The
function's name and the settings are written beside the figure, so that a test in a real browser can call the same
function and hold the page against it.
"""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ipywidgets

from rmt_mini.errors import UserError

WAIT = 0.15  # seconds of rest before a moved control draws: a dragged slider draws once, where it is let go
_WIDE: dict[str, Any] = {"style": {"description_width": "15em"}, "layout": {"width": "34em", "max_width": "100%"}}
_ALERT = "border-left: 4px solid #bd1f01; padding: 0.4em 0.8em; background: #fff; color: #000"


class Shown(Protocol):
    """What can be shown: a figure, or marked text, and its words."""

    @property
    def alt(self) -> str:
        """What is to be seen, in words."""

    def _repr_html_(self) -> str: ...


def whole(label: str, value: int, low: int, high: int, step: int = 1) -> ipywidgets.IntSlider:
    """Make a slider over whole numbers; its number can be typed too."""
    return ipywidgets.IntSlider(value, low, high, step, description=label, **_WIDE)


def number(label: str, value: float, low: float, high: float, step: float = 0.05) -> ipywidgets.FloatSlider:
    """Make a slider over numbers; its number can be typed too."""
    return ipywidgets.FloatSlider(value, min=low, max=high, step=step, description=label, **_WIDE)


def typed(label: str, value: float) -> ipywidgets.FloatText:
    """Make a field for any number, the impossible ones too: what is shown then says why it cannot be."""
    return ipywidgets.FloatText(value, description=label, **_WIDE)


def choice(label: str, options: Sequence[Any], value: Any = None) -> ipywidgets.ToggleButtons:
    """Make a row of buttons to choose from: values, or (words, value); the first is chosen where none is given.

    No list that drops down: in JupyterLab arrow keys leave it for the next cell.
    """
    chosen = {} if value is None else {"value": value}
    style = {"description_width": "15em", "button_width": "auto"}
    return ipywidgets.ToggleButtons(
        options=options, description=label, style=style, layout={"width": "100%", "max_width": "60em"}, **chosen
    )


def switch(label: str, value: bool = False) -> ipywidgets.Checkbox:
    """Make a box to tick."""
    return ipywidgets.Checkbox(value, description=label, indent=False, layout={"width": "34em", "max_width": "100%"})


def line(label: str, value: str) -> ipywidgets.Text:
    """Make a field for a line of text."""
    return ipywidgets.Text(value, description=label, continuous_update=True, **_WIDE)


def alert(text: str) -> str:
    """Return HTML that says what is wrong, and that a screen reader reads at once."""
    return f'<p role="alert" style="{_ALERT}">{html.escape(text)}</p>'


def said(text: str) -> str:
    """Return HTML that says what is to be seen, and that a screen reader reads when it is idle."""
    return f'<p role="status">{html.escape(text)}</p>'


def explore(draw: Callable[..., Shown], /, **controls: ipywidgets.Widget) -> Explorer:
    """Show what a function draws, and draw it anew when a control moves.

    Args:
        draw: called with the value of each control under the control's name.
        controls: as the functions above make them, in the order they are to be shown.

    Example:
        >>> from rmt_mini.report.plots import length_triangle
        >>> explorer = explore(length_triangle, budget=whole("budget B_t", 4, 1, 32))
        >>> explorer.controls["budget"].value = 8
        >>> explorer.alt
        'The length reward rises from 0 at no tokens to 1 at the budget of 8, and is 0 again from 16 on.'
    """
    return Explorer(draw, controls)


class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no annotations
    """Controls above what they move; ``explore`` makes it.

    Attributes:
        controls: name -> control.
        alt: the words of what is shown now, or of why nothing can be.
    """

    def __init__(self, draw: Callable[..., Shown], controls: Mapping[str, ipywidgets.Widget]) -> None:
        self.draw, self.controls, self.alt = draw, dict(controls), ""
        self._seen = ipywidgets.HTML()
        self._due: asyncio.TimerHandle | None = None
        for control in self.controls.values():
            control.observe(self._moved, names="value")
        super().__init__([*self.controls.values(), self._seen])
        self.add_class("rmt-explorer")
        self.redraw()

    @property
    def settings(self) -> dict[str, Any]:
        """The value of each control."""
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self) -> None:
        """Draw with the controls as they stand; say what is wrong with them where they are impossible."""
        try:
            shown = self.draw(**self.settings)
            self.alt, body = shown.alt, shown._repr_html_()
        except (UserError, ValueError) as error:
            self.alt = str(error)
            body = alert(self.alt)
        else:
            body += said(self.alt)
        name = f"{getattr(self.draw, '__module__', '')}:{getattr(self.draw, '__qualname__', '')}"
        settings = html.escape(json.dumps(self.settings, default=str))
        self._seen.value = f'<div data-draw="{html.escape(name)}" data-settings="{settings}">{body}</div>'

    def _moved(self, _: Any) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel that would come back to it
            self.redraw()
            return
        if self._due is not None:
            self._due.cancel()
        self._due = loop.call_later(WAIT, self.redraw)
