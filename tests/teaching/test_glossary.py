"""Every word of the glossary stands for something that is there: a setting, a lesson, a name in the code."""

from __future__ import annotations

import re
from importlib import import_module

import nbformat
import pytest

from rmt_mini.config import RMTConfig
from rmt_mini.teaching.lessons import FOLDER

DOCS = FOLDER.parent / "docs"
TEXT = (DOCS / "glossary.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| \*\*(.+?)\*\* \| (.*?) \| (.+?) \| (.*?) \| \[(\d+)\]\((.+?)\) \| `([\w.]+)` \|$", TEXT, re.MULTILINE
)
FIELDS = set(RMTConfig.model_fields)
FIXED = ["position", "tier", "budget", "thought", "answer", "rollout", "group", "advantage", "trunk", "branch"]
SYMBOLS = {
    "B_0": "budget_start", "B_min": "budget_min", "gamma": "budget_decay", "t1, t2": "curriculum_start",
    "p_early, p_late": "tier_probs_early", "w": "length_weight", "lambda": "ntp_weight", "G": "group_size",
    "beta, pi_ref": "kl_weight",
}  # fmt: skip


def test_rows_are_whole_and_words_unique() -> None:
    assert len(ROWS) == len(re.findall(r"^\| \*\*", TEXT, re.MULTILINE)) > 40
    words = [word for word, *_ in ROWS]
    assert len(set(words)) == len(words)
    assert set(FIXED) <= set(words)


@pytest.mark.parametrize(("word", "settings", "code"), [(row[0], row[3], row[6]) for row in ROWS])
def test_settings_and_names_exist(word: str, settings: str, code: str) -> None:
    assert set(re.findall(r"`(\w+)`", settings)) <= FIELDS, word
    module, _, name = code.rpartition(".")
    assert hasattr(import_module(f"rmt_mini.{module}"), name), code


@pytest.mark.parametrize(("symbol", "setting"), SYMBOLS.items())
def test_the_papers_symbols_have_their_settings(symbol: str, setting: str) -> None:
    (settings,) = (row[3] for row in ROWS if row[1] == symbol)
    assert f"`{setting}`" in settings


@pytest.mark.parametrize(("word", "number", "target"), [(row[0], row[4], row[5]) for row in ROWS])
def test_the_lesson_says_the_word(word: str, number: str, target: str) -> None:
    path = DOCS / target
    assert path.name.startswith(f"{int(number):02d}_")
    cells = nbformat.read(path, as_version=4).cells
    said = re.sub(r"[-\s]+", " ", " ".join(cell.source for cell in cells)).casefold()
    for part in re.split(r", | and ", word):
        stem = re.sub(r"[-\s]+", " ", part).casefold().removesuffix("s")
        assert all(one.removesuffix("s") in said for one in stem.split()), part


def test_settings_of_the_method_are_all_there() -> None:
    told = set(re.findall(r"`(\w+)`", " ".join(row[3] for row in ROWS)))
    prefixes = ("use_", "budget_", "tier_", "curriculum_", "length_", "ntp_", "kl_", "clip_", "group_", "entropy_")
    assert {field for field in FIELDS if field.startswith(prefixes)} <= told


def test_the_readme_leads_here_and_holds_no_second_glossary() -> None:
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert "](docs/glossary.md)" in readme
    assert "| symbol | name here |" not in readme
