"""Paper for a class: ``python -m docs.make.handouts [LESSON ...] --out DIR``.

    handout         the method on one page
    predictions     every question "Predict" of the lessons, with lines to write on
    exam, exam_key  15 items out of ``exam.yaml``; the key is a file of its own, not for students

Each is one HTML file that needs no network, and, where Chromium is installed, a PDF with tags for screen readers.
"""

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from docs.make.slides import formulas
from rmt_mini.errors import UserError, logger
from rmt_mini.files import write_keeping
from rmt_mini.report.markdown import macro
from rmt_mini.report.plots import pipeline
from rmt_mini.teaching.lessons import lessons, read_notebook

PREDICT = re.compile(r"\*\*Predict[^*]*\*\*\s*(.+?)(?=\n\n|\Z)", re.DOTALL)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Item:
    """An item of the exam."""

    lesson: int  # that teaches it
    points: int
    asks: str
    answer: str  # with what earns the points
    holds: tuple[str, ...] = ()  # expressions that the tests evaluate against the package


ITEMS = TypeAdapter(tuple[Item, ...]).validate_python(
    yaml.safe_load(Path(__file__).with_name("exam.yaml").read_text(encoding="utf-8"))
)


def predictions(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Return the predictions that lessons ask for, by the lessons' titles."""
    found = {}
    for path in paths:
        cells = read_notebook(path).cells
        asked = [one for cell in cells if cell.cell_type == "markdown" for one in PREDICT.findall(cell.source)]
        found[cells[0].source.partition("\n")[0].removeprefix("# ")] = asked
    return {title: asked for title, asked in found.items() if asked}


def sheets(paths: Sequence[Path]) -> dict[str, str]:
    """Return each sheet as a page of HTML, by its name."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune as to_html

    def written(markdown: str) -> str:
        return str(to_html(formulas(markdown)))

    pages = {
        "handout": (
            "Reinforcement mid-training on one page",
            written(macro("sheets.md.j2", "handout", pipeline().svg)),
        ),
        "predictions": ("Predictions", written(macro("sheets.md.j2", "predictions", predictions(paths)))),
        "exam": ("Exam: reinforcement mid-training", written(macro("sheets.md.j2", "exam", ITEMS, key=False))),
        "exam_key": ("Exam: key", written(macro("sheets.md.j2", "exam", ITEMS, key=True))),
    }
    return {name: macro("sheets.md.j2", "page", title, body) for name, (title, body) in pages.items()}


def find_browser() -> str | None:
    """Return the Chromium of this machine, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def print_to_pdf(page: Path) -> bool:
    """Print a page beside itself; returns whether there is a browser that can."""
    if (browser := find_browser()) is None:
        return False
    root = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    command = [browser, "--headless", "--disable-gpu", *root, "--export-tagged-pdf", "--no-pdf-header-footer"]
    command += [f"--print-to-pdf={page.with_suffix('.pdf').resolve()}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sheets."""
    parser = argparse.ArgumentParser(prog="python -m docs.make.handouts")
    parser.add_argument("notebooks", nargs="*", type=Path, help="whose predictions; all lessons where none is named")
    parser.add_argument("--out", type=Path, default=Path("build/handouts"), help="folder (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        for name, page in sheets(given.notebooks or lessons()).items():
            write_keeping(given.out / f"{name}.html", page)
            if not print_to_pdf(given.out / f"{name}.html"):
                logger.warning("There is no Chromium here; open %s.html in a browser and print it", name)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
