"""Controls over functions that draw: labelled, usable from the keyboard, and never a traceback.

``explorers.yaml`` lists a control for each setting of the functions that lessons draw with. The picture is one HTML
widget, so a screen reader announces new numbers. Settings are written beside it for tests in a browser.
"""

import html
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets

from rmt_mini.config import data
from rmt_mini.errors import UserError
from rmt_mini.report.plots import Figured, Marked, Stack

Drawn = Figured | Marked | Stack
_WIDE: dict[str, Any] = {"style": {"description_width": "15em"}, "layout": {"width": "auto", "max_width": "52em"}}
_BUTTONS: dict[str, Any] = {
    "style": {"description_width": "15em", "button_width": "auto"},
    "layout": {"width": "100%", "max_width": "60em"},
}
_ENTRIES = data("teaching/widgets/explorers.yaml")
_ALERT = "border-left: 4px solid #bd1f01; padding: 0.4em 0.8em; background: #fff; color: #000"


def control(
    label: str,
    value: bool | str | float | None = None,
    low: float = 0,
    high: float = 1,
    step: float | None = None,
    options: Sequence[Any] = (),
) -> ipywidgets.Widget:
    """Make a control: buttons for options, else a box to tick, a line of text or a slider, after the value's type.

    No drop-down list: in JupyterLab arrow keys leave it for the next cell. A dragged slider draws once, on release.
    """
    if options:
        chosen = {} if value is None else {"value": value}
        return ipywidgets.ToggleButtons(options=options, description=label, **_BUTTONS, **chosen)
    if isinstance(value, bool):
        return ipywidgets.Checkbox(value, description=label, indent=False, layout=_WIDE["layout"])
    if isinstance(value, str):
        return ipywidgets.Text(value, description=label, continuous_update=False, **_WIDE)
    kind, by = (ipywidgets.IntSlider, 1) if isinstance(value, int) else (ipywidgets.FloatSlider, 0.05)
    bounds = {"min": low, "max": high, "step": step or by}
    return kind(value, description=label, continuous_update=False, **bounds, **_WIDE)


def controls_of(name: str) -> dict[str, ipywidgets.Widget]:
    """Make the controls of an entry of ``explorers.yaml``, by the names of the arguments that they set."""
    return {argument: control(**given) for argument, given in _ENTRIES[name].items()}


def alert(text: str) -> str:
    """Return HTML for an error, which a screen reader reads at once."""
    return f'<p role="alert" style="{_ALERT}">{html.escape(text)}</p>'


def status(text: str) -> str:
    """Return HTML for a message that a screen reader reads when it is idle."""
    return f'<p role="status">{html.escape(text)}</p>'


class Explorer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no annotations
    """Controls for the arguments of ``draw`` above what it draws: its HTML is ``page``, its words are ``alt``."""

    def __init__(self, draw: Callable[..., Drawn], controls: Mapping[str, ipywidgets.Widget]) -> None:
        self.draw, self.controls, self.alt, self.page = draw, dict(controls), "", ipywidgets.HTML()
        self._drawn = ""
        for one in self.controls.values():
            one.observe(self._redraw, names="value")
        super().__init__([*self.controls.values(), self.page])
        self.add_class("rmt-explorer")
        self._redraw()

    @property
    def settings(self) -> dict[str, Any]:
        """The value of each control."""
        return {name: one.value for name, one in self.controls.items()}

    def _redraw(self, _: object = None) -> None:
        try:
            shown = self.draw(**self.settings)
            self.alt, self._drawn = shown.alt, shown._repr_html_()
            body = self._drawn + status(shown.alt)
        except (UserError, ValueError) as error:  # what was drawn last stays, but pale
            self.alt, body = (
                str(error),
                f'{alert(str(error))}<div style="opacity: 0.35" aria-hidden="true">{self._drawn}</div>',
            )
        settings = html.escape(json.dumps(self.settings, default=str))
        self.page.value = f'<div data-settings="{settings}">{body}</div>'
