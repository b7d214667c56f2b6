"""The lessons as files: where they are, and how one is read."""

import re
from pathlib import Path
from typing import Any

import nbformat

from rmt_mini.errors import UserError, refusing

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},  # the rest changes with every minor version
}


def lessons(folder: Path = FOLDER) -> list[Path]:
    """Return the notebooks of a folder in the order of their numbers."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def number_of(path: Path) -> str:
    """Return a lesson's number as its title has it.

    Example:
        >>> number_of(Path("07b_rmt_in_150_lines.ipynb"))
        '7b'
    """
    return re.sub(r"^0(?=\d)", "", path.stem.partition("_")[0])


def by_number() -> dict[str, Path]:
    """Return the lessons by their numbers, in order."""
    return {number_of(path): path for path in lessons()}


def read_notebook(path: Path) -> Any:
    """Read a notebook; a UserError if there is none, or it is not a notebook."""
    if not path.is_file():
        raise UserError(f"there is no notebook {str(path)!r}")
    with refusing(f"{path} is not a notebook", "save it again in JupyterLab"):
        return nbformat.read(path, as_version=4)


def number_cells(notebook: Any) -> None:
    """Name the cells of a notebook by their order."""
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
