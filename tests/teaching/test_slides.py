"""A deck holds the whole lesson, needs no other file, and never shows a question beside its explanation."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rmt_mini.errors import UserError
from rmt_mini.teaching import slides
from rmt_mini.teaching.lessons import lessons
from rmt_mini.teaching.slide_parts import (
    MOST,
    MOST_PRINTED,
    NO_OUTPUT,
    NO_SOURCE,
    blocks,
    cut,
    lines_of,
    plain_links,
)
from rmt_mini.teaching.slides import deck, main, write_decks

LESSONS = lessons()
HAS_REVEAL = pytest.mark.skipif(
    slides.importlib.util.find_spec("pyreveal") is None, reason="reveal.js is not installed here"
)


def notebook_of(*cells: Any) -> Any:
    return nbformat.v4.new_notebook(cells=list(cells))


def words(source: str) -> Any:
    return nbformat.v4.new_markdown_cell(source)


def code(source: str, *outputs: Any) -> Any:
    return nbformat.v4.new_code_cell(source, outputs=list(outputs))


def printed(text: str) -> Any:
    return nbformat.v4.new_output("stream", text=text)


def figure(alt: str) -> Any:
    return nbformat.v4.new_output("execute_result", {"text/html": f'<img alt="{alt}" src="data:,">'})


def slides_of(notebook: Any) -> list[list[Any]]:
    """Return the cells of each slide, and hold that the first begins one."""
    found: list[list[Any]] = []
    for cell in notebook.cells:
        if cell.metadata.slideshow.slide_type != "-":
            found.append([])
        found[-1].append(cell)
    return found


def text_of(slide: list[Any]) -> str:
    return "\n\n".join(cell.source for cell in slide)


# What a slide is


def test_blocks_are_parted_at_blank_lines_alone() -> None:
    source = "# A\nfirst\n\n```\na\n\nb\n```\n\nYou will\n\n- be able\n- to\n\nWhole sentence.\n\n- x\n\n    f(x) = 1"
    assert blocks(source) == [
        "# A", "first", "```\na\n\nb\n```", "You will\n\n- be able\n- to", "Whole sentence.", "- x", "    f(x) = 1",
    ]  # fmt: skip


def test_a_hash_within_code_is_no_heading() -> None:
    assert blocks("```\n# a comment\n```") == ["```\n# a comment\n```"]


@pytest.mark.parametrize(
    ("block", "lines"),
    [
        ("a word", 1.5),
        ("x" * 200, 3.5),
        ("- a\n- b", 2.5),
        ("    a\n    b", 2.1),
        ("<details>\n\nlong\n\n</details>", 1.5),
    ],
)
def test_lines_are_estimated(block: str, lines: float) -> None:
    assert lines_of(block) == pytest.approx(lines)


def test_headings_begin_slides_and_questions_stand_apart_from_explanations() -> None:
    made = cut(notebook_of(words("# 1. A\n\nHello.\n\n## B\n\nb\n\n**Predict.** p\n\n**Explain.** e\n\n### C\n\nc")))
    kinds = [cell.metadata.slideshow.slide_type for cell in made.cells]
    assert [text_of(slide) for slide in slides_of(made)] == [
        "# 1. A\n\nHello.",
        "## B\n\nb\n\n**Predict.** p",
        "**Explain.** e",
        "c",
    ]
    assert [kind for kind in kinds if kind != "-"] == ["slide", "slide", "subslide", "subslide"]
    assert made.cells[-1].metadata.slideshow.data.section == "C"


def test_what_does_not_fit_goes_on_under_the_same_heading() -> None:
    paragraphs = ["x" * 400] * 8
    parts = slides_of(cut(notebook_of(words("## A\n\n" + "\n\n".join(paragraphs)))))
    assert len(parts) > 1
    assert all(sum(lines_of(cell.source) for cell in part if cell.source[0] == "x") <= MOST for part in parts)
    assert {part[0].metadata.slideshow.data.section for part in parts[1:]} == {"A"}
    assert sum(cell.source == "x" * 400 for part in parts for cell in part) == 8


def test_short_code_stands_with_its_figure_and_long_code_before_it() -> None:
    short, long = "draw()", "\n".join(f"a{number} = {number}" for number in range(10))
    made = cut(notebook_of(words("## A"), code(short, figure("a")), code(long, figure("b"))))
    together, first, then = [cell for cell in made.cells if cell.cell_type == "code"]
    assert (together.metadata.tags, len(together.outputs)) == ([], 1)
    assert (first.metadata.tags, first.source) == ([NO_OUTPUT], long)
    assert (then.metadata.tags, then.outputs[0].data["text/html"]) == ([NO_SOURCE], figure("b").data["text/html"])


def test_pieces_of_what_was_printed_are_joined_and_endless_ones_shortened() -> None:
    made = cut(notebook_of(code("f()", printed("a\n"), printed("b\n")), code("g()", printed("c\n" * 100))))
    assert made.cells[0].outputs[0].text == "a\nb\n"
    lines = made.cells[-1].outputs[0].text.splitlines()
    assert len(lines) == MOST_PRINTED + 1
    assert lines[-1] == f"... {100 - MOST_PRINTED} further lines stand in the notebook"


def test_a_long_table_goes_on_on_a_further_slide_with_the_words_that_lead_to_it() -> None:
    first, second = (f"{name}:\n\n| {name} |\n| --- |\n" + "| 1 |\n" * 12 for name in ("ours", "theirs"))
    shown = nbformat.v4.new_output(
        "execute_result", {"text/markdown": f"{first}\n{second}", "text/plain": "<Markdown>"}
    )
    code_alone, ours, theirs = slides_of(cut(notebook_of(words("## A"), code("table()", shown))))[1:]
    assert code_alone[0].metadata.tags == [NO_OUTPUT]
    parts = [part[0].outputs[0].data["text/markdown"] for part in (ours, theirs)]
    assert parts == [first.strip(), second.strip()]
    assert theirs[0].metadata.slideshow.data.section == "A"


def test_set_up_is_left_out_and_controls_are_named() -> None:
    made = cut(
        notebook_of(
            code("import importlib.util\n\nif importlib.util.find_spec('rmt_mini') is None:\n    pass"),
            code("from rmt_mini.teaching.begin import begin\n\nbegin(seed=0)", printed("Seed 0")),
            words("## A"),
            code("from x import an_explorer\n\nan_explorer()"),
            code("# NBVAL_CHECK_OUTPUT\nprint(1)", printed("1\n")),
        )
    )
    assert [cell.source for cell in made.cells] == ["## A", "*In the notebook, live:* `an_explorer()`", "print(1)"]


def test_links_lead_to_decks_or_become_words() -> None:
    source = "[a](01_b.ipynb) [c](../data/c.md) [d](https://arxiv.org/abs/2509.24375) [e](02_f.ipynb)"
    assert plain_links(source, ["01_b"]) == "[a](01_b.slides.html) c [d](https://arxiv.org/abs/2509.24375) e"


# Whole lessons


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_nothing_of_a_lesson_is_lost(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    made = cut(notebook, [one.stem for one in LESSONS])
    shown = "\n".join(cell.source for cell in made.cells)
    sections = {cell.metadata.slideshow.get("data", {}).get("section", "") for cell in made.cells}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for block in blocks(plain_links(cell.source, [one.stem for one in LESSONS])):
                assert block in shown or block.lstrip("# ") in sections, block
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                assert any(
                    output.data == other.get("data")
                    for made_cell in made.cells
                    for other in made_cell.get("outputs", [])
                )
    for slide in slides_of(made):
        starts = [cell.source[:10] for cell in slide]
        assert not ("**Predict." in starts and "**Explain." in starts)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lessons_write_formulas_as_text(path: Path) -> None:
    """Else a deck would need MathJax, which comes from the network."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\$[^$\n]+\$|\\\(|\\\[", cell.source)


class Loads(HTMLParser):
    """Collects whatever a page would fetch, and its headings and pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.alts: list[str | None] = []
        self.sections = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.sections += tag == "section"
        if tag == "img":
            self.alts.append(given.get("alt"))
        if tag in ("script", "img", "iframe", "link", "source"):
            self.fetched += [str(given[name]) for name in ("src", "href") if name in given]


@HAS_REVEAL
def test_a_deck_fetches_nothing_and_keeps_alt_texts() -> None:
    path = LESSONS[3]
    text = deck(path)
    page = Loads(text)
    assert [one for one in page.fetched if not one.startswith("data:")] == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)https?:|import\(\s*['\"]http|from ['\"]http", text)
    wanted = [
        alt
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        for alt in re.findall(r'<img alt="([^"]+)"', output.get("data", {}).get("text/html", ""))
    ]
    assert len(wanted) > 3
    assert len(page.alts) == len(wanted)
    assert page.sections > 20
    assert "Reveal.initialize" in text


@HAS_REVEAL
def test_the_command_writes_decks_and_a_page_of_links(tmp_path: Path) -> None:
    for name in ("a", "b"):
        nbformat.write(notebook_of(words(f"# 1. {name} & more\n\n[b](b.ipynb)")), tmp_path / f"{name}.ipynb")
    main([str(tmp_path / "a.ipynb"), str(tmp_path / "b.ipynb"), "--out", str(tmp_path / "decks")])
    assert {path.name for path in (tmp_path / "decks").iterdir()} == {"a.slides.html", "b.slides.html", "index.html"}
    assert 'href="b.slides.html"' in (tmp_path / "decks" / "a.slides.html").read_text(encoding="utf-8")
    links = (tmp_path / "decks" / "index.html").read_text(encoding="utf-8")
    assert '<a href="a.slides.html">1. a &amp; more</a>' in links


@HAS_REVEAL
def test_a_lesson_that_stayed_the_same_gives_the_same_deck(tmp_path: Path) -> None:
    for _ in range(2):
        write_decks(LESSONS[3:4], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("out", ["file", "file/decks"])
def test_slides_say_in_one_line_that_their_folder_cannot_be(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slides, "deck", lambda *_: "a deck")
    (tmp_path / "file").touch()
    nbformat.write(notebook_of(words("a")), tmp_path / "a.ipynb")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "a.ipynb"), "--out", str(tmp_path / out)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: output folder {str(tmp_path / out)!r} cannot be written (")
    assert said.count("\n") == 1


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    for name, told in (("none.ipynb", "there is no notebook"), ("a.ipynb", "is not a notebook")):
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path / name), "--out", str(tmp_path / "decks")])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert told in said
        assert said.count("\n") == 1
    with pytest.raises(UserError, match="two notebooks are called 'a'"):
        write_decks([tmp_path / "a.ipynb", tmp_path / "b" / "a.ipynb"], tmp_path)
    assert not (tmp_path / "decks").exists()


def test_without_the_carrier_of_reveal_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides, "CARRIER", "no_such_package_here")
    with pytest.raises(UserError, match="pip install"):
        slides.reveal("reveal.js")
