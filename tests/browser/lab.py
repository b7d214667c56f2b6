"""A lesson open in JupyterLab, as a learner works it: run, look, move a control by mouse and by keyboard."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

RUN_ALL = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.sessionContext.ready;
    const sources = panel.content.widgets.map(cell => cell.model.type === 'code' ? cell.model.sharedModel.source : '');
    const last = sources.findLastIndex(source => /\\b(Explorer|Panel)\\(/.test(source));
    if (last === -1 || last === sources.length - 1)
        return await window.jupyterapp.commands.execute('notebook:run-all-cells');
    panel.content.activeCellIndex = last + 1;
    return await window.jupyterapp.commands.execute('notebook:run-all-above');
}"""
PATIENCE = 300_000  # milliseconds: patience costs nothing, and a busy machine is slow


class Lab:
    """One lesson's page.

    Args:
        page: of Playwright.
        url: of the lesson in JupyterLab.
    """

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 3")
        page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
        )

    def run_all(self) -> bool:
        """Run all cells up to the last explorer or panel; return whether none failed."""
        return bool(self.page.evaluate(RUN_ALL))

    def errors(self) -> list[str]:
        """Return what cells put out as errors."""
        found: list[str] = self.page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
        return found

    def theme(self, name: str) -> None:
        """Choose "Light" or "Dark"."""
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: `JupyterLab ${name}`})", name
        )
        dark = "false" if name == "Dark" else "true"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{dark}"]', state="attached")

    def explorers(self) -> list[Explorer]:
        """Return the explorers of the page, top to bottom."""
        found = self.page.locator(".rmt-explorer")
        return [Explorer(self.page, found.nth(number)) for number in range(found.count())]

    def shut_down(self) -> None:
        """End the kernel, so that the next lesson has the memory."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()


class Explorer:
    """An explorer in the page: its settings, what it draws, and its controls."""

    def __init__(self, page: Any, root: Any) -> None:
        self.page, self.root = page, root
        root.scroll_into_view_if_needed()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are drawn now, as the page says."""
        plain: dict[str, Any] = json.loads(self.root.locator("[data-settings]").get_attribute("data-settings"))
        return plain

    def described(self) -> bool:
        """Wait until everything that is drawn has a description; a busy machine may take long to draw."""
        drawn = self.root.locator("[data-settings]").locator('img, [role="img"], [role="group"], [role="alert"]')
        return self._comes(
            lambda: (
                drawn.count() > 0
                and all(
                    one.get_attribute("alt") or one.get_attribute("aria-label") or one.inner_text()
                    for one in drawn.all()
                )
            )
        )

    def fits(self) -> bool:
        """Wait until the page has been laid out anew, and nothing of the explorer is cut off."""
        return self._comes(lambda: self.root.evaluate("node => node.scrollWidth - node.clientWidth") <= 1)

    def controls(self) -> list[Any]:
        """Return the controls, top to bottom."""
        found = self.root.locator(".widget-slider, .widget-toggle-buttons, .widget-checkbox, .widget-text")
        return [found.nth(number) for number in range(found.count())]

    def moved(self, act: Any) -> bool:
        """Do something, and return whether other settings were drawn for it."""
        before = json.dumps(self.settings)
        act()
        return self._comes(lambda: json.dumps(self.settings) != before)

    def _comes(self, true: Callable[[], bool]) -> bool:
        for _ in range(PATIENCE // 5 // 50):
            if true():
                return True
            self.page.wait_for_timeout(50)
        return False


def by_keyboard(page: Any, control: Any) -> None:
    """Move a control with keys alone."""
    handle = control.locator(".noUi-handle, button.mod-active, input").first
    handle.focus()
    if "widget-slider" in _classes(control):
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
    elif "widget-toggle-buttons" in _classes(control):
        page.keyboard.press("Tab" if _beside(control) > 0 else "Shift+Tab")
        page.keyboard.press("Space")
    elif "widget-checkbox" in _classes(control):
        page.keyboard.press("Space")
    else:
        page.keyboard.press("End")
        page.keyboard.type("1")
        page.keyboard.press("Tab")


def by_mouse(page: Any, control: Any) -> None:
    """Move a control with the mouse."""
    if "widget-slider" in _classes(control):
        track = control.locator(".noUi-target").bounding_box()
        handle = control.locator(".noUi-handle").bounding_box()
        share = (handle["x"] + handle["width"] / 2 - track["x"]) / track["width"]
        page.mouse.click(track["x"] + (0.3 if share > 0.5 else 0.7) * track["width"], track["y"] + track["height"] / 2)
    elif "widget-toggle-buttons" in _classes(control):
        pressed = control.locator("button").evaluate_all("all => all.findIndex(one => one.matches('.mod-active'))")
        control.locator("button").nth(pressed + _beside(control)).click()
    elif "widget-checkbox" in _classes(control):
        control.locator("input").click()
    else:
        field = control.locator("input")
        field.click(click_count=3)
        field.fill(f"{field.input_value()}2")
        field.press("Tab")


def kind_of(control: Any) -> str:
    """Return which kind of control it is."""
    kinds = ("widget-slider", "widget-toggle-buttons", "widget-checkbox", "widget-text")
    return next(kind for kind in kinds if kind in _classes(control))


def _classes(control: Any) -> str:
    return str(control.get_attribute("class"))


def _beside(control: Any) -> int:
    """Return 1 where a button follows the pressed one, else -1."""
    return 1 if control.locator("button.mod-active + button").count() else -1
