"""Every lesson in a real JupyterLab in a real browser: it runs, and its controls work by mouse and by keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rmt_mini.teaching.lessons import lessons
from tests.browser.conftest import Server
from tests.browser.lab import PATIENCE, Lab, by_keyboard, by_mouse, kind_of

pytestmark = pytest.mark.browser
LAPTOP, PROJECTOR = (1366, 768), (1024, 768)
WITHOUT_EXPLORER = ("07b_rmt_in_150_lines", "08_the_loop")  # the panel has a test of its own
NAMES = [path.stem for path in lessons() if path.stem not in WITHOUT_EXPLORER]


@pytest.fixture
def lab(request: pytest.FixtureRequest, server: Server, browser: Any) -> Iterator[Lab]:
    page = browser.new_page(viewport=dict(zip(("width", "height"), LAPTOP, strict=True)))
    opened = Lab(page, server.lab(f"notebooks/{request.param}.ipynb"))
    yield opened
    opened.shut_down()


@pytest.mark.parametrize(("lab", "name"), [(name, name) for name in NAMES], indirect=["lab"], ids=NAMES)
def test_a_lesson_runs_and_each_control_draws(lab: Lab, name: str, screenshots: Path) -> None:
    """Cells after the last explorer are left to nbval; a kind of control is moved by mouse once in an explorer."""
    assert lab.run_all()
    assert lab.errors() == []
    explorers = lab.explorers()
    assert explorers
    for explorer in explorers:
        assert explorer.described()
        kinds = set[str]()
        for control in explorer.controls():
            label = control.locator("label").first.inner_text()
            assert label.strip(), "a control without a label"
            kind = kind_of(control)
            for move in (by_keyboard,) if kind in kinds else (by_keyboard, by_mouse):
                assert explorer.moved(lambda move=move, control=control: move(lab.page, control)), (label, move)
                assert explorer.described(), (label, move)
            kinds.add(kind)
    for theme in ("Dark", "Light") if name == NAMES[0] else ("Light",):
        lab.theme(theme)
        for width, height in (LAPTOP, PROJECTOR):
            lab.page.set_viewport_size({"width": width, "height": height})
            for number, explorer in enumerate(explorers):
                explorer.root.scroll_into_view_if_needed()
                assert explorer.fits(), f"explorer {number} is cut off at {width} pixels"
                assert contrast_of(explorer) >= 4.5, theme
            if explorers:
                lab.page.screenshot(path=screenshots / f"{name}-{theme.lower()}-{width}.png")


def contrast_of(explorer: Any) -> float:
    """Return the contrast of the words under a figure with what is behind them (WCAG asks for 4.5)."""
    words = explorer.root.locator('[role="status"], [role="alert"]').first
    return float(
        words.evaluate(
            """node => {
                const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
                let back = node, colour = [0, 0, 0, 0];
                while (back && (colour.length === 4 && colour[3] === 0)) {
                    colour = rgb(getComputedStyle(back).backgroundColor);
                    back = back.parentElement;
                }
                const light = c => c.slice(0, 3).map(v => v / 255)
                    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
                const [a, b] = [light(rgb(getComputedStyle(node).color)), light(colour)];
                return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            }"""
        )
    )


@pytest.mark.parametrize("lab", ["panel"], indirect=True)
def test_the_panel_starts_pauses_resumes_and_ends_a_real_run(lab: Lab, screenshots: Path) -> None:
    assert lab.run_all()
    panel = lab.page.locator(".rmt-panel")
    panel.scroll_into_view_if_needed()
    readout = panel.locator(".widget-slider", has_text="T, steps").locator(".widget-readout")
    readout.fill("4")
    readout.press("Enter")
    panel.get_by_role("button", name="Start").click()
    panel.get_by_text("Step 1 of 4").or_(panel.get_by_text("Step 2 of 4")).first.wait_for()
    panel.get_by_role("button", name="Pause").click()
    panel.get_by_text("Paused after step").wait_for()
    lab.page.screenshot(path=screenshots / "panel-paused.png")
    panel.get_by_role("button", name="Resume").click()
    panel.get_by_text("Done: 4 steps").wait_for()
    panel.locator("img[alt*='4 steps']").first.wait_for()  # drawn a moment after the words
    assert panel.locator("table td").count() > 0
    lab.page.screenshot(path=screenshots / "panel-done.png")


@pytest.mark.parametrize("name", NAMES[:1])
def test_notebook_7_opens_a_lesson(server: Server, browser: Any, name: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.page(f"notebooks/notebooks/{name}.ipynb"))
    page.locator(".jp-RenderedHTMLCommon h1").first.wait_for()
    assert page.locator(".jp-RenderedHTMLCommon h1").first.inner_text().startswith(f"{int(name[:2])}.")
    page.close()
