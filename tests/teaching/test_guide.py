"""The instructor guide is up to date, its plans add up, and what it points to exists."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from rmt_mini.arms import ARMS
from rmt_mini.errors import UserError
from rmt_mini.teaching import guide
from rmt_mini.teaching.cost import Cost, costs_read, costs_written
from rmt_mini.teaching.guide import GUIDE, cost_table, generated, replaced, title_and_minutes
from rmt_mini.teaching.lessons import lessons
from rmt_mini.teaching.quiz import QUESTIONS

TEXT = GUIDE.read_text(encoding="utf-8")
BY_HAND = re.sub(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", "", TEXT, flags=re.DOTALL)


def section(heading: str) -> str:
    found = re.search(rf"^##+ {re.escape(heading)}.*?(?=^## |\Z)", BY_HAND, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[0]


def headings_of(number: int) -> set[str]:
    (path,) = (one for one in lessons() if int(one.name[:2]) == number)
    cells = nbformat.read(path, as_version=4).cells
    lines = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown").splitlines()
    return {line.lstrip("#").strip() for line in lines if line.startswith("#")}


def test_generated_parts_are_up_to_date() -> None:
    assert generated(TEXT) == TEXT, "run python -m rmt_mini.teaching.guide"


def test_a_stale_guide_is_noticed() -> None:
    for old, new in ((QUESTIONS[3].options[1].why, "another word"), ("| together |", "| in all |")):
        assert old in TEXT
        assert generated(TEXT.replace(old, new)) == TEXT != TEXT.replace(old, new)


@pytest.mark.parametrize("minutes", [50, 90, 180])
def test_a_plan_fills_its_minutes(minutes: int) -> None:
    rows = re.findall(r"^\| (\d+)-(\d+) \|", section(f"{minutes} minutes"), re.MULTILINE)
    times = [(int(begin), int(end)) for begin, end in rows]
    assert times[0][0] == 0
    assert times[-1][1] == minutes
    assert all(here[1] == following[0] for here, following in pairwise(times))
    assert all(begin < end for begin, end in times)


def test_every_part_of_a_lesson_that_is_named_exists() -> None:
    named = re.findall(r"lesson (\d+), ((?:\*[^*]+\*(?: and )?)+)", BY_HAND)
    parts = [(int(number), part) for number, listed in named for part in re.findall(r"\*([^*]+)\*", listed)]
    assert len(parts) > 50
    assert {number for number, _ in parts} == set(range(13))
    for number, part in parts:
        assert part in headings_of(number), (number, part)


def test_questions_and_arms_that_are_named_exist() -> None:
    names = {question.name for question in QUESTIONS}
    (row,) = re.findall(r"^\| 46-50 .*$", BY_HAND, re.MULTILINE)
    named = re.findall(r'"([^"]+)"', row)
    assert len(named) == 3
    assert set(named) <= names
    for arm in re.findall(r"`((?:rmt|rl|ntp)-(?!mini)[a-z-]+)`", BY_HAND):
        assert arm in ARMS, arm


@pytest.mark.parametrize("project", ["Project A: a better budget", "Project B: is it luck?"])
def test_a_rubric_has_a_hundred_points(project: str) -> None:
    found = re.search(rf"^### {re.escape(project)}.*?(?=^###? |\Z)", BY_HAND, re.MULTILINE | re.DOTALL)
    assert found
    points = [int(number) for number in re.findall(r"\| (\d+) \|$", found[0], re.MULTILINE)]
    assert len(points) == 6
    assert sum(points) == 100


def test_links_resolve() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert (GUIDE.parent / target).exists(), target


# What makes the parts


def test_every_lesson_was_measured_within_reason() -> None:
    measured = Path(guide.recorded("lessons.json"))
    costs = costs_read(measured)
    assert set(costs) == {path.stem for path in lessons()}
    assert all(1 < one.seconds < 600 and 50 < one.peak_memory_mb < 2000 for one in costs.values())
    told = json.loads(measured.read_text(encoding="utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", told["date"])
    assert "cores" in told["machine"]


def test_what_takes_too_much_is_named(tmp_path: Path) -> None:
    measured = tmp_path / "lessons.json"
    costs = {path.stem: Cost(10.0, 500.0) for path in lessons()}
    measured.write_text(costs_written(costs, "a machine"))
    assert cost_table(measured).endswith("here none took more.")
    costs["05_grpo"], costs["06_dual_objective"] = Cost(61.0, 500.0), Cost(10.0, 2001.0)
    measured.write_text(costs_written(costs, "a machine"))
    assert cost_table(measured).endswith("here 05_grpo (61 s), 06_dual_objective (2001 MB) took more.")
    del costs["05_grpo"]
    measured.write_text(costs_written(costs, "a machine"))
    with pytest.raises(UserError, match="05_grpo is not in"):
        cost_table(measured)


def test_minutes_are_those_that_a_lesson_says() -> None:
    assert title_and_minutes(lessons()[3]) == ("3. The dynamic token budget", 35)


@pytest.mark.parametrize("text", ["", "<!-- x: begin -->", "<!-- x: end --><!-- x: begin -->"])
def test_missing_markers_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="x: begin"):
        replaced(text, "x", "new")
