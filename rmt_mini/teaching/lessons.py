"""Run lessons, measure them, and keep the instructor guide up to date: ``python -m rmt_mini.teaching.lessons``.

Notebooks run from clean kernels and keep their outputs; each code cell is marked with a digest of its source, and a
test compares them. What no reader without a kernel can use (live widgets, progress bars) is not kept.
``--measure FILE`` writes what each notebook took instead; ``data/lessons.json`` is the result. ``--guide`` writes the
parts of ``docs/instructor.md`` between markers: what each lesson takes, and the answers of the quiz.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import threading
import time
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import psutil
from nbclient import NotebookClient

from rmt_mini.errors import UserError
from rmt_mini.files import require_file_name, write_keeping, write_whole
from rmt_mini.teaching.begin import recorded

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
GUIDE = FOLDER.parent / "docs" / "instructor.md"
CHECKED = "# NBVAL_CHECK_OUTPUT"
MARK = "source_digest"
EVERY = 0.1  # seconds between two looks at the memory
_LIVE = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},  # the rest changes with every minor version
}


class Cost(NamedTuple):
    """What one run of a notebook took; the memory is that of its kernel and of the processes that it started."""

    seconds: float
    peak_memory_mb: float


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
    memory, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            with suppress(AttributeError, psutil.Error):  # the kernel has not started, or a process has ended
                manager: Any = client.km
                kernel = psutil.Process(manager.provisioner.process.pid)
                memory.append(sum(one.memory_info().rss for one in (kernel, *kernel.children(recursive=True))) / 1e6)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()
    try:
        client.execute()
    finally:
        over.set()
        watcher.join()
    return notebook, Cost(time.perf_counter() - began, max(memory))


def execute(path: Path, timeout: float = 600) -> float:
    """Run a notebook, and write it back with its outputs; return the seconds it took.

    One whose cell raises stays as it was. Outside the project, the old file is kept beside the new one.

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


def costs_read(path: Path) -> dict[str, Cost]:
    """Read what ``--measure`` wrote, by the names of notebooks."""
    return {name: Cost(**row) for name, row in json.loads(path.read_text(encoding="utf-8"))["lessons"].items()}


def _measure(paths: list[Path], file: Path, machine: str) -> None:
    require_file_name(file)
    rows = {}
    for path in paths:
        _, cost = run(path)
        rows[path.stem] = {"seconds": round(cost.seconds, 1), "peak_memory_mb": round(cost.peak_memory_mb)}
        logger.info("%s: %.0f s, %.0f MB", path.name, *cost)
    versions = {name: version(name) for name in ("torch", "transformers", "ipykernel")}
    written = {"date": f"{date.today():%Y-%m-%d}", "machine": machine, "versions": versions, "lessons": rows}
    write_keeping(file, json.dumps(written, indent=2) + "\n")


def cost_table() -> str:
    """Return what each lesson takes as Markdown: a learner's minutes, a machine's seconds and megabytes."""
    measured = recorded("lessons.json")
    costs, written = costs_read(measured), json.loads(measured.read_text(encoding="utf-8"))
    rows = ["| lesson | minutes with a class | seconds to run it all | peak memory, MB |", "|---|---|---|---|"]
    total = 0
    for path in lessons():
        cost, head = costs[path.stem], re.match(r"# (.+)\n+\*\*(\d+) minutes\*\*", read_notebook(path).cells[0].source)
        if not head:
            raise UserError(f"{path.name} does not begin with a title and its minutes")
        total += int(head[2])
        took = f"{cost.seconds:.0f} | {cost.peak_memory_mb:.0f}"
        rows.append(f"| [{head[1]}](../notebooks/{path.name}) | {head[2]} | {took} |")
    rows.append(f"| together | {total} | {sum(one.seconds for one in costs.values()):.0f} | |")
    return "\n".join([*rows, "", f"Measured {written['date']}: {written['machine']}."])


def guide(text: str) -> str:
    """Return the instructor guide with both generated parts replaced.

    Raises:
        UserError: if their markers are missing.
    """
    from rmt_mini.teaching.quiz import question_sheet  # loads widgets, which nothing else here needs

    for name, part in (("lessons", cost_table()), ("quiz", question_sheet(answers=True))):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        pieces = re.split(f"(?<={begin}).*(?={end})", text, flags=re.DOTALL)
        if len(pieces) != 2:
            raise UserError(f"the guide needs {begin} and {end} after it, once each")
        text = f"\n\n{part.strip()}\n\n".join(pieces)
    return text


def main() -> None:
    """Run the notebooks named, or all."""
    parser = argparse.ArgumentParser(prog="python -m rmt_mini.teaching.lessons", description="Run lessons.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all lessons where none is named")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="write seconds and peak memory here, no notebook")
    parser.add_argument("--machine", default="", help="with --measure: the machine in words, and what else ran on it")
    parser.add_argument("--guide", action="store_true", help="write docs/instructor.md, no notebook")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    paths = given.notebooks or lessons()
    try:
        if given.guide:
            write_whole(GUIDE, guide(GUIDE.read_text(encoding="utf-8")))
        elif given.measure is not None:
            _measure(paths, given.measure, given.machine)
        else:
            for path in paths:
                logger.info("%s: %.0f s", path.name, execute(path))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
