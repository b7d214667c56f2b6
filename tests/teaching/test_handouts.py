"""Paper for a class: what the exam states is what the package computes, the key is apart, every prediction is there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from docs.make import handouts
from docs.make.handouts import ITEMS, Item, main, predictions, sheets
from rmt_mini import method
from rmt_mini.teaching.lessons import lessons, read_notebook


@pytest.mark.parametrize(
    ("item", "expression"), [(one, expression) for one in ITEMS for expression in one.holds], ids=lambda one: None
)
def test_what_an_item_states_is_what_the_package_computes(item: Item, expression: str) -> None:
    assert eval(expression, {**vars(method), "torch": torch})


def test_the_key_is_apart() -> None:
    assert len(ITEMS) == 15
    assert {item.lesson for item in ITEMS} == {0, 1, 2, 3, 4, 5, 6, 7, 9}
    made = sheets(lessons()[:1])
    for item in ITEMS:
        words = item.answer.split()[:3]
        assert not all(word in made["exam"] for word in words) or " ".join(words) not in made["exam"]
    assert made["exam"].count('class="item"') == made["exam_key"].count("Answer.") == 15
    assert "Answer." not in made["exam"]
    assert "Not for students" in made["exam_key"]


def test_every_prediction_of_a_lesson_is_asked_whole() -> None:
    for path in lessons():
        source = "\n\n".join(cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown")
        for asked in predictions([path]).values():
            assert len(asked) == len(re.findall(r"\*\*Predict", source))
            assert all(re.search(r"[.?!:)]$", question) for question in asked), asked


def test_pages_fetch_nothing_and_say_where_there_is_no_browser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handouts, "BROWSERS", ())
    main([str(lessons()[3]), "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.html" for name in sheets([])}
    assert caplog.text.count("There is no Chromium here") == 4
    for path in tmp_path.iterdir():
        page = path.read_text(encoding="utf-8")
        assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
        assert not re.search(r"<script|src=|@import|url\((?!#)", page)


@pytest.mark.browser
def test_sheets_are_printed_with_tags_and_the_handout_on_one_page(tmp_path: Path) -> None:
    if handouts.find_browser() is None:
        pytest.skip("there is no Chromium here")
    main([str(lessons()[3]), "--out", str(tmp_path)])
    printed: dict[str, Any] = {path.stem: path.read_bytes() for path in tmp_path.glob("*.pdf")}
    assert set(printed) == set(sheets([]))
    assert all(b"/StructTreeRoot" in pdf and b"/Lang" in pdf for pdf in printed.values())
    assert len(re.findall(rb"/Type\s*/Page\b", printed["handout"])) == 1
