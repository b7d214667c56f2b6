"""What lessons define in their cells, for tests of what it computes and draws."""

from __future__ import annotations

from typing import Any

from rmt_mini.teaching.lessons import FOLDER, read_notebook


def defined_by(lesson: str, *texts: str, **given: Any) -> dict[str, Any]:
    """Run the first code cell of a lesson that contains each text; return all names that they define."""
    sources = [cell.source for cell in read_notebook(FOLDER / f"{lesson}.ipynb").cells if cell.cell_type == "code"]
    for text in texts:
        exec(next(source for source in sources if text in source), given)
    return given
