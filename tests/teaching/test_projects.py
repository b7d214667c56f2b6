"""What both open projects keep to: they say what is asked and what is handed in, and start in seconds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from rmt_mini.teaching.lessons import FOLDER, MARK, digest, lessons

PROJECTS = lessons(FOLDER / "projects")


@pytest.fixture(params=PROJECTS, ids=lambda path: path.stem)
def project(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def cells_of(path: Path, kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_there_are_two() -> None:
    assert [path.stem for path in PROJECTS] == ["a_better_budget", "b_is_it_luck"]


def test_a_project_says_what_is_asked_and_what_is_handed_in(project: Path) -> None:
    words = "\n".join(cell.source for cell in cells_of(project, "markdown"))
    for part in ("**The question.**", "**What counts as an answer.**", "## What to hand in", "docs/instructor.md"):
        assert part in words
    assert re.search(r"expect \*\*\d+ to \d+ minutes\*\*", words)


def test_a_project_starts_small_and_grades_nothing(project: Path) -> None:
    code = "\n".join(cell.source for cell in cells_of(project, "code"))
    assert "REAL = False" in code
    assert "check(" not in code


def test_outputs_are_those_of_the_cells(project: Path) -> None:
    stale = [cell.source for cell in cells_of(project, "code") if cell.metadata.get(MARK) != digest(cell.source)]
    assert stale == [], f"run python -m rmt_mini.teaching.lessons {project}"
    assert re.search(r"/(home|root|tmp|work)/", project.read_text(encoding="utf-8")) is None
