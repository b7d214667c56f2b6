"""Run lessons: ``python -m tests.lessons [NOTEBOOK ...]``.

Notebooks run from clean kernels and keep their outputs; each code cell is marked with a digest of its source, and a
test compares them. What no reader without a kernel can use (live widgets, progress bars) is not kept.
"""

import argparse
import hashlib
import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient

from rmt_mini.errors import UserError, logger
from rmt_mini.files import write_keeping, write_whole
from rmt_mini.teaching.lessons import FOLDER, METADATA, lessons, number_cells, read_notebook

MARK = "source_digest"
EVERY = 0.1  # seconds between two looks at the memory
_LIVE = "application/vnd.jupyter.widget-view+json"


def digest(source: str) -> str:
    """Return the digest that marks a cell."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def run(path: Path, timeout: float = 600) -> tuple[Any, float, float]:
    """Run a notebook from a clean kernel, in its own folder, at most ``timeout`` seconds a cell; no file changes.

    Returns it with its outputs, the seconds that it took, and the peak memory in MB of its kernel's processes.
    """
    notebook = read_notebook(path)
    # no times of execution and no states of widgets: they differ in every run
    settings: dict[str, Any] = {
        "kernel_name": "python3",
        "record_timing": False,
        "store_widget_state": False,
        "timeout": timeout,
    }
    peak, over, began = 0.0, threading.Event(), time.perf_counter()

    def watch() -> None:
        nonlocal peak
        while not over.wait(EVERY):
            with suppress(psutil.Error):  # a process has ended
                kernel = psutil.Process().children(recursive=True)
                peak = max(peak, sum(one.memory_info().rss for one in kernel) / 1e6)

    threading.Thread(target=watch, daemon=True).start()
    try:
        NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}, **settings).execute()
    finally:
        over.set()
    return notebook, time.perf_counter() - began, peak


def execute(path: Path, timeout: float = 600) -> tuple[float, float]:
    """Run a notebook, and write it back with its outputs; return the seconds and the MB that it took.

    One whose cell raises stays as it was; a UserError if the file was edited meanwhile. Outside the project, the old
    file is kept beside the new one.
    """
    before = path.read_bytes() if path.is_file() else b""
    notebook, seconds, peak = run(path, timeout)
    if path.read_bytes() != before:
        raise UserError(f"{path} was edited while it ran and is left as it is; run it again")
    notebook.metadata.update(nbformat.from_dict(METADATA))
    number_cells(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata[MARK] = digest(cell.source)
            shown = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [output for output in shown if _LIVE not in output.get("data", {})]
    path = path.resolve()
    write = write_whole if path.is_relative_to(FOLDER) else write_keeping  # git keeps the project's own
    write(path, nbformat.writes(notebook) + "\n")
    return seconds, peak


def main() -> None:
    """Run the notebooks named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.lessons", description="Run lessons.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all lessons where none is named")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        for path in given.notebooks or lessons():
            logger.info("%s: %.0f s, %.0f MB", path.name, *execute(path))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
