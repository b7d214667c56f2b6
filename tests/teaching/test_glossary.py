"""Every word of the glossary stands for something that is there: a setting, a lesson, a name in the code."""

import re
from importlib import import_module

import pytest

from rmt_mini.config import RMTConfig
from rmt_mini.teaching.lessons import FOLDER

DOCS = FOLDER.parent / "docs"
TEXT = (DOCS / "glossary.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| \*\*(.+?)\*\* \| (.*?) \| (.+?) \| (.*?) \| \[(\d+)\]\((.+?)\) \| `([\w.]+)` \|$", TEXT, re.MULTILINE
)
FIELDS = set(RMTConfig.model_fields)


def test_rows_are_whole_and_words_unique() -> None:
    assert len(ROWS) == len(re.findall(r"^\| \*\*", TEXT, re.MULTILINE)) > 40
    words = [word for word, *_ in ROWS]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(("settings", "number", "target", "code"), [row[3:] for row in ROWS])
def test_settings_and_names_exist(settings: str, number: str, target: str, code: str) -> None:
    assert set(re.findall(r"`(\w+)`", settings)) <= FIELDS
    module, _, name = code.rpartition(".")
    assert hasattr(import_module(f"rmt_mini.{module}"), name)
    assert target.rpartition("/")[2].startswith(f"{int(number):02d}_")


def test_settings_of_the_method_are_all_there() -> None:
    named = set(re.findall(r"`(\w+)`", " ".join(row[3] for row in ROWS)))
    prefixes = ("use_", "budget_", "tier_", "curriculum_", "length_", "ntp_", "kl_", "clip_", "group_", "entropy_")
    assert {field for field in FIELDS if field.startswith(prefixes)} <= named
