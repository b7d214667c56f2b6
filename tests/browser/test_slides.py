"""Every deck in a real browser without a network: paged through by keyboard, nothing cut off, figures seen."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from docs.make.slides import main
from rmt_mini.teaching.lessons import lessons

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(importlib.util.find_spec("pyreveal") is None, reason="reveal.js is not installed here"),
]
LESSONS = lessons()
LOOK = """() => {
    const slide = Reveal.getCurrentSlide(), frame = slide.getBoundingClientRect();
    const inside = box => box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1
        && box.bottom <= frame.bottom + 1;
    return {
        index: Reveal.getSlidePastCount(), scrolls: slide.tabIndex === 0,
        starts: [...slide.querySelectorAll('p > strong:first-child')].map(one => one.textContent.split(/\\W/)[0]),
        size: parseFloat(slide.style.fontSize),
        beyond: Math.max(slide.scrollHeight - slide.clientHeight, slide.scrollWidth - slide.clientWidth),
        words: slide.innerText.trim().length,
        pictures: [...slide.querySelectorAll('img')].map(image => ({
            alt: image.alt, loaded: image.complete && image.naturalWidth > 0,
            width: image.getBoundingClientRect().width / frame.width, inside: inside(image.getBoundingClientRect()),
        })),
    };
}"""


@pytest.fixture(scope="module")
def decks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decks")
    main([*map(str, LESSONS), "--out", str(out)])
    return out


@pytest.fixture
def page(browser: Any) -> Any:
    context = browser.new_context(viewport={"width": 1366, "height": 768}, offline=True)
    opened = context.new_page()
    opened.asked, opened.failed = [], []
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.on("pageerror", lambda error: opened.failed.append(str(error)))
    yield opened
    context.close()


def turned(page: Any, key: str) -> dict[str, Any]:
    """Press a key and look at the slide that is shown then."""
    page.keyboard.press(key)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seen: dict[str, Any] = page.evaluate(LOOK)
    return seen


def opened_deck(page: Any, path: Path) -> int:
    page.goto(path.as_uri())
    page.wait_for_function("() => window.Reveal && Reveal.isReady()")
    return int(page.evaluate("Reveal.getTotalSlides()"))


@pytest.mark.parametrize("name", [path.stem for path in LESSONS])
def test_a_deck_is_paged_through_without_a_network(page: Any, decks: Path, name: str, screenshots: Path) -> None:
    total = opened_deck(page, decks / f"{name}.slides.html")
    assert total > 20
    seen = [page.evaluate(LOOK)] + [turned(page, "ArrowRight") for _ in range(total - 1)]
    assert [slide["index"] for slide in seen] == list(range(total))
    for slide in seen:
        assert slide["beyond"] <= 2 or slide["scrolls"], slide
        assert not {"Predict", "Explain"} <= set(slide["starts"]), slide  # the answer is not seen with the question
        assert slide["size"] >= 0.6, slide
        assert slide["words"] or slide["pictures"], slide
        for picture in slide["pictures"]:
            assert picture["loaded"], slide
            assert picture["alt"], slide
            assert picture["inside"], slide
            assert picture["width"] > 0.25, slide
    assert sum(slide["size"] < 0.8 for slide in seen) <= 0.1 * total  # the last row can read nearly all
    assert turned(page, "ArrowRight")["index"] == total - 1  # it ends there
    assert turned(page, "ArrowLeft")["index"] == total - 2
    assert turned(page, "Home")["index"] == 0
    assert turned(page, "Space")["index"] == 1
    assert {url.split(":")[0] for url in page.asked} <= {"file", "data"}
    assert page.failed == []
    pictured = [slide["index"] for slide in seen if slide["pictures"]]
    for number, index in enumerate((0, *pictured[:1])):
        page.evaluate("n => Reveal.slide(n)", index)
        page.screenshot(path=screenshots / f"slides-{name}-{number}.png")


def test_a_folded_solution_opens_by_keyboard_and_still_fits(page: Any, decks: Path) -> None:
    total = opened_deck(page, decks / "05_grpo.slides.html")
    for _ in range(total):
        if page.locator("section.present details").count():
            break
        turned(page, "ArrowRight")
    summary = page.locator("section.present details summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("section.present details").first.evaluate("node => node.open")
    page.wait_for_function(f"() => ({LOOK})().beyond <= 2")  # a browser says that a part was opened in a later task
