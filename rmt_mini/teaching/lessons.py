"""Run lessons from a clean kernel, and keep what they put out: ``python -m rmt_mini.teaching.lessons [NOTEBOOK ...]``.

A stored output is worth reading only while it is that of the cell above it. So each code cell is marked with a digest
of its source when it is run, and a test asks whether the marks still fit. What no reader without a kernel can use
(live widgets, progress bars) is not kept.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from rmt_mini.stages.store import write_whole

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
CHECKED = "# NBVAL_CHECK_OUTPUT"
MARK = "source_digest"
_LIVE = "application/vnd.jupyter.widget-view+json"
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def lessons(folder: Path = FOLDER) -> list[Path]:
    """Return the notebooks of a folder in the order of their numbers."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def digest(source: str) -> str:
    """Return the digest that marks a cell.

    Example:
        >>> digest("1 + 1")
        '72fce59447a0'
    """
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def execute(path: Path, timeout: float = 600) -> float:
    """Run a notebook from a clean kernel, in its own folder, and write it back with its outputs.

    Args:
        path: the notebook.
        timeout: seconds that a cell may take.

    Returns:
        Seconds it took, the kernel's start included.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises; the file stays as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = nbformat.from_dict({"kernelspec": _KERNEL, "language_info": {"name": "python"}})
    began = time.perf_counter()
    NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": str(path.parent)}}).execute()
    seconds = time.perf_counter() - began
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}  # the rest changes with every minor version
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        if cell.cell_type == "code":
            cell.metadata = nbformat.from_dict({MARK: digest(cell.source)})
            cell.outputs = [output for output in cell.outputs if _kept(output)]
    write_whole(path, nbformat.writes(notebook) + "\n")
    return seconds


def _kept(output: Any) -> bool:
    return output.get("name") != "stderr" and _LIVE not in output.get("data", {})


def main() -> None:
    """Run the notebooks named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m rmt_mini.teaching.lessons", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="all lessons where none is named")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for path in given.notebooks or lessons():
        if not path.is_file():
            raise SystemExit(f"error: there is no notebook {str(path)!r}")
        logger.info("%s: %.0f s", path.name, execute(path))


if __name__ == "__main__":
    main()
