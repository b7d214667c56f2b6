"""Run lessons from a clean kernel and keep their outputs: ``python -m rmt_mini.teaching.lessons [NOTEBOOK ...]``.

A stored output is worth reading only while it belongs to the cell above it. So each code cell is marked with a digest
of its source when it is run, and a test compares them. What no reader without a kernel can use (live widgets, progress
bars) is not kept. ``--measure FILE`` writes what each notebook took (``teaching.cost``) and leaves notebooks alone.
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

from rmt_mini.errors import UserError
from rmt_mini.files import require_file_name, write_keeping, write_whole
from rmt_mini.teaching.cost import Cost, costs_written, watched

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
CHECKED = "# NBVAL_CHECK_OUTPUT"
MARK = "source_digest"
_LIVE = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},  # the rest changes with every minor version
}


def lessons(folder: Path = FOLDER) -> list[Path]:
    """Return the notebooks of a folder in the order of their numbers."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def read_notebook(path: Path) -> Any:
    """Read a notebook.

    Raises:
        UserError: if there is none, or it is not a notebook.
    """
    if not path.is_file():
        raise UserError(f"there is no notebook {str(path)!r}")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises whatever its reader meets
        reason = (str(error).splitlines() or [type(error).__name__])[0]  # some say nothing
        raise UserError(f"{path} is not a notebook: {reason}") from error


def digest(source: str) -> str:
    """Return the digest that marks a cell.

    Example:
        >>> digest("1 + 1")
        '72fce59447a0'
    """
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def run(path: Path, timeout: float = 600) -> tuple[Any, Cost]:
    """Run a notebook from a clean kernel, in its own folder, at most ``timeout`` seconds a cell.

    The file stays as it is. Returns the notebook with its outputs, and what it took, the kernel's start included.
    """
    notebook = read_notebook(path)
    notebook.metadata.update(nbformat.from_dict(METADATA))
    client = NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": str(path.parent)}})
    began = time.perf_counter()
    with watched(client) as peak:
        client.execute()
    return notebook, Cost(time.perf_counter() - began, peak.megabytes)


def execute(path: Path, timeout: float = 600) -> float:
    """Run a notebook, and write it back with its outputs; return the seconds it took.

    A notebook outside the project's own is kept as it was beside the new one (``write_keeping``); one whose cell raises
    stays as it was.

    Raises:
        UserError: as ``read_notebook``, or if the file was edited meanwhile.
    """
    before = path.read_bytes() if path.is_file() else b""
    notebook, cost = run(path, timeout)
    if path.read_bytes() != before:
        raise UserError(f"{path} was edited while it ran and is left as it is; run it again")
    notebook.metadata.pop("widgets", None)  # running it adds these, and versions
    notebook.metadata.update(nbformat.from_dict(METADATA))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)  # times, which differ in every run
            cell.metadata[MARK] = digest(cell.source)
            shown = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [output for output in shown if _LIVE not in output.get("data", {})]
    path = path.resolve()
    write = write_whole if path.is_relative_to(FOLDER) else write_keeping  # git keeps the project's own
    write(path, nbformat.writes(notebook) + "\n")
    return cost.seconds


def main() -> None:
    """Run the notebooks named, or all."""
    parser = argparse.ArgumentParser(prog="python -m rmt_mini.teaching.lessons", description="Run lessons.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all lessons where none is named")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="write seconds and peak memory here, no notebook")
    parser.add_argument("--machine", default="", help="with --measure: the machine in words, and what else ran on it")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    measured: dict[str, Cost] = {}
    try:
        if given.measure is not None:
            require_file_name(given.measure)
        for path in given.notebooks or lessons():
            if given.measure is None:
                logger.info("%s: %.0f s", path.name, execute(path))
            else:
                _, measured[path.stem] = run(path)
                logger.info("%s: %.0f s, %.0f MB", path.name, *measured[path.stem])
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    if given.measure is not None:
        write_keeping(given.measure, costs_written(measured, given.machine))


if __name__ == "__main__":
    main()
