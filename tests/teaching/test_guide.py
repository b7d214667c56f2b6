"""The instructor guide is up to date, its plans add up, and what it points to exists."""

import json
import re

import pytest

from rmt_mini.arms import ARMS
from rmt_mini.errors import UserError
from rmt_mini.teaching.begin import recorded
from rmt_mini.teaching.lessons import by_number, lessons
from rmt_mini.teaching.quiz import QUESTIONS
from tests.guide import GUIDE, guide, words_of

TEXT = GUIDE.read_text(encoding="utf-8")
OURS = re.sub(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", "", TEXT, flags=re.DOTALL)


def headings_of(number: str) -> set[str]:
    lines = words_of(by_number()[number]).splitlines()
    return {line.lstrip("#").strip() for line in lines if line.startswith("#")}


def test_generated_parts_are_up_to_date_and_a_stale_one_is_noticed() -> None:
    assert guide(TEXT) == TEXT, "run python -m tests.guide"
    for part in (QUESTIONS[3].options[1].why, "| together |"):
        assert part in TEXT
        assert guide(TEXT.replace(part, "stale")) == TEXT
    with pytest.raises(UserError, match="lessons: begin"):
        guide("")


def test_every_part_of_a_lesson_every_question_and_every_arm_that_is_named_exists() -> None:
    named = re.findall(r"lesson (\w+), ((?:\*[^*]+\*(?: and )?)+)", OURS)
    parts = [(number, part) for number, listed in named for part in re.findall(r"\*([^*]+)\*", listed)]
    assert len(parts) > 50
    assert {number for number, _ in parts} == set(by_number())
    for number, part in parts:
        assert part in headings_of(number), (number, part)
    (row,) = re.findall(r"^\| 46-50 .*$", OURS, re.MULTILINE)
    questions = re.findall(r'"([^"]+)"', row)
    assert len(questions) == 3
    assert set(questions) <= {question.name for question in QUESTIONS}
    assert set(re.findall(r"`((?:rmt|rl|ntp)-(?!mini)[a-z-]+)`", OURS)) <= set(ARMS)


def test_links_resolve() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert (GUIDE.parent / target).exists(), target


def test_every_lesson_was_measured_within_reason() -> None:
    costs = json.loads(recorded("lessons.json").read_text(encoding="utf-8"))["lessons"]
    assert set(costs) == {path.stem for path in lessons()}
    assert all(1 < one["seconds"] < 600 and 50 < one["peak_memory_mb"] < 2000 for one in costs.values())
