"""A deck has the whole lesson and needs no other file; how it is cut is tested in a browser."""

import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from docs.make import slides
from docs.make.slides import GUIDE, TALKS, deck, formulas, main, talk
from rmt_mini.errors import UserError
from rmt_mini.teaching.lessons import lessons, read_notebook

LESSONS = lessons()


def written(path: Path, *sources: str) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source) for source in sources]), path)
    return path


@pytest.mark.parametrize("path", [LESSONS[3], LESSONS[12]], ids=lambda path: path.stem)
def test_a_deck_has_the_whole_lesson_and_fetches_nothing(path: Path) -> None:
    notebook = read_notebook(path)
    text, cells = deck(notebook, path.stem, [one.stem for one in LESSONS]), read_notebook(path).cells
    page = BeautifulSoup(text, "html.parser")
    fetched = [one.get("src") or one.get("href") for one in page(["script", "img", "iframe", "link", "source"])]
    assert all(one is None or one.startswith("data:") for one in fetched)
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)https?:|import\(\s*['\"]http|from ['\"]http", text)
    shown = "".join(str(cell.get("outputs", "")) for cell in cells)
    assert len(page("img")) == shown.count("<img alt=") > 0
    words = re.sub(r"\s", "", page.get_text())
    for cell in cells:
        if cell.cell_type == "markdown":
            for word in re.findall(
                r"[A-Za-z]{4,}", re.sub(r"\]\([^)]*\)|<[^>]*>|```\w*|\$\$?[^$]+\$\$?", "", cell.source)
            ):
                assert word in words
        elif cell.metadata.get("slideshow", {}).get("slide_type") != "skip":
            assert re.sub(r"\s", "", cell.source.replace(f"{slides.CHECKED}\n", "")) in words
    assert "find_spec" not in words


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_formulas_need_no_network_and_the_set_up_is_skipped(path: Path) -> None:
    cells = read_notebook(path).cells
    for source in (cell.source for cell in cells if cell.cell_type == "markdown"):
        shown = formulas(source)
        assert "$" not in re.sub(r"```.*?```|`[^`\n]*`", "", shown, flags=re.DOTALL)
        assert shown.count("<math") == len(re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", plain(source), re.DOTALL))
        assert "\\" not in "".join(
            re.findall(r"<math.*?</math>", shown, re.DOTALL)
        )  # a command that MathML does not know
    skipped = [cell.source for cell in cells if cell.metadata.get("slideshow", {}).get("slide_type") == "skip"]
    assert len(skipped) == (1 if re.search(r'begin\((\*parts|")', cells[2].source) else 2)  # a picture is worth a slide
    assert "find_spec" in skipped[0]


def plain(markdown: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL)


def test_code_and_prices_are_no_formulas() -> None:
    assert formulas("`$x$` costs 3$") == "`$x$` costs 3$"
    assert formulas("$x$").startswith('<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">')


@pytest.mark.parametrize("minutes", TALKS)
def test_a_talk_has_the_sections_that_the_guide_plans(minutes: int) -> None:
    made = talk(minutes).cells
    plan = GUIDE.read_text(encoding="utf-8").partition(f"## {minutes} minutes")[2].partition("\n## ")[0]
    planned = re.findall(r"lesson \w+, \*(.+?)\*", plan)
    headings = [heading for cell in made for heading in re.findall(r"^##+ (.+)", cell.source, re.MULTILINE)]
    assert [heading for heading in headings if heading in planned] == planned
    assert sum(cell.cell_type == "code" for cell in made) >= 4
    assert "<img" in str([cell.get("outputs", "") for cell in made])


def test_the_command_writes_decks_whose_links_lead_to_decks_or_become_words(tmp_path: Path) -> None:
    links = "[a](b.ipynb) [c](../data/c.md) [d](https://arxiv.org/abs/2509.24375) [e](02_f.ipynb)"
    paths = [str(written(tmp_path / f"{name}.ipynb", f"# {name}\n\n{links}")) for name in ("a", "b")]
    main([*paths, "--out", str(tmp_path / "decks")])
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "decks").iterdir()}
    assert set(pages) == {"a.slides.html", "b.slides.html", "index.html"}
    shown = '<a href="b.slides.html">a</a> c <a href="https://arxiv.org/abs/2509.24375">d</a> e'
    assert shown in pages["a.slides.html"]
    assert '<a href="a.slides.html">' in pages["index.html"]


@pytest.mark.parametrize(
    ("name", "out", "message"),
    [
        ("none.ipynb", "decks", "there is no notebook"),
        ("broken.ipynb", "decks", "is not a notebook"),
        ("a.ipynb", "broken.ipynb/decks", "cannot be written"),
    ],
)
def test_wrong_input_is_one_line(
    name: str, out: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "a.ipynb", "a")
    (tmp_path / "broken.ipynb").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / name), "--out", str(tmp_path / out)])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "decks").exists()


def test_without_reveal_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install"):
        deck(read_notebook(LESSONS[0]), "a")
