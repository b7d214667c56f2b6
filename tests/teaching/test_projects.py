"""Both open projects say what is asked and what is handed in, and start in seconds."""

from __future__ import annotations

import re

import nbformat
import pytest

from rmt_mini.teaching.lessons import FOLDER, MARK, digest, lessons


@pytest.mark.parametrize("name", ["a_better_budget", "b_is_it_luck"])
def test_a_project_is_complete_starts_small_and_grades_nothing(name: str) -> None:
    path = FOLDER / "projects" / f"{name}.ipynb"
    assert path in lessons(FOLDER / "projects")
    cells = nbformat.read(path, as_version=4).cells
    words = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for part in ("**The question.**", "**What counts as an answer.**", "## What to hand in", "docs/instructor.md"):
        assert part in words
    assert re.search(r"expect \*\*\d+ to \d+ minutes\*\*", words)
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert any("REAL = False" in cell.source for cell in code)
    assert not any("check(" in cell.source for cell in code)
    stale = [cell.source for cell in code if cell.metadata.get(MARK) != digest(cell.source)]
    assert stale == [], f"run python -m rmt_mini.teaching.lessons {path}"
    assert re.search(r"/(home|root|tmp|work)/", path.read_text(encoding="utf-8")) is None
