"""What lessons define in their cells, for tests of what it computes and draws."""

from typing import Any

from rmt_mini.teaching.lessons import FOLDER, read_notebook


def defined_by(lesson: str, *parts: str, **given: Any) -> dict[str, Any]:
    """Run the code cells of a lesson that define functions, or contain a call; return all names that they define."""
    sources = [cell.source for cell in read_notebook(FOLDER / f"{lesson}.ipynb").cells if cell.cell_type == "code"]
    for part in parts:
        exec(next(source for source in sources if (part if "(" in part else f"def {part}(") in source), given)
    return given
