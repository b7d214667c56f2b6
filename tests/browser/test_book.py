"""The book: every page is there, its links lead somewhere, it needs no network, and it reads well in a browser."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = importlib.util.find_spec("myst_nb") is None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("book"),  # one build for all; the largest groups begin first
    pytest.mark.timeout(1800),
    pytest.mark.skipif(WITHOUT, reason="the extra 'book' is not installed here"),
]
LOADS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """The addresses that a page loads and links to, and the names of its places."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads, self.links, self.ids = set[str](), set[str](), set[str]()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag == "a":
            self.links.add(given.get("href", ""))
        elif tag in LOADS and given.get("rel") not in ("next", "prev", "search", "index", "canonical"):
            self.loads.add(given.get(LOADS[tag], ""))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book as ``make book`` builds it; of two processes the second finds what the first has built."""
    out = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        out = out.parent
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    command += ["-d", str(out / "doctrees"), ".", str(out / "book")]
    with FileLock(out / "book.lock"):
        built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return out / "book"


@pytest.fixture(scope="module")
def pages(book: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in book.rglob("*.html")}


def test_every_lesson_and_doc_is_a_page_and_can_be_searched(book: Path) -> None:
    sources = [*ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb"), ROOT / "README.md", ROOT / "data/PROTOCOL.md"]
    rooms = [path.parent.name for path in ROOT.glob("rmt_mini/*/__init__.py")]
    wanted = {path.relative_to(ROOT).with_suffix(".html") for path in sources}
    wanted |= {Path(f"docs/api/rmt_mini.{room}.html") for room in rooms}
    assert {path for path in wanted if not (book / path).is_file()} == set()
    assert (book / "index.html").read_bytes() == (book / "README.html").read_bytes()
    index = json.loads((book / "searchindex.js").read_text("utf-8").removeprefix("Search.setIndex(").removesuffix(")"))
    found = {index["docnames"][number] for number in index["terms"]["curriculum"] + index["titleterms"]["curriculum"]}
    assert {"README", "notebooks/04_curriculum", "docs/api/rmt_mini.method"} <= found


def test_pages_load_nothing_from_a_network(book: Path, pages: dict[Path, Page]) -> None:
    loads = {address for page in pages.values() for address in page.loads}
    assert len(loads) > 10
    assert {address for address in loads if urlsplit(address).scheme not in ("", "data")} == set()
    for path in book.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text("utf-8")), path


def test_links_within_the_book_lead_to_a_place(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in page.links:
            to = urlsplit(link)
            target = (path.parent / unquote(to.path)).resolve() if to.path else path
            if to.scheme or target.suffix not in (".html", ""):
                continue
            if target not in pages or (to.fragment and unquote(to.fragment) not in pages[target].ids):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_widgets_have_a_figure_and_say_what_moves_it(book: Path) -> None:
    page = (book / "notebooks/03_budget.html").read_text("utf-8")
    assert page.count("A running kernel shows controls here") == 2
    assert page.count("data:image/png;base64,") >= 2
    assert "<math" in page
    assert "NBVAL" not in page


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("index.html", "img[src$='.svg']"),
        ("notebooks/03_budget.html", ".cell_output img"),
        ("docs/api/rmt_mini.html", "#rmt_mini\\.budget_at_step"),
        ("search.html?q=curriculum", "#search-results a[href*='04_curriculum']"),
    ],
)
def test_pages_in_a_browser_without_a_network(
    book: Path, browser: Any, screenshots: Path, name: str, wanted: str
) -> None:
    context = browser.new_context(viewport={"width": 1366, "height": 900}, offline=True, color_scheme="light")
    page = context.new_page()
    asked, wrong = list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{book.as_uri()}/{name}")
    page.wait_for_selector(wanted)
    box = page.locator(wanted).first.bounding_box()
    assert box["width"] > 100
    assert box["height"] > 10
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0  # nothing beyond the right edge
    page.screenshot(path=screenshots / f"book-{re.sub(r'[^a-z]+', '-', name)}.png")
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data"}
    assert wrong == []
    context.close()
