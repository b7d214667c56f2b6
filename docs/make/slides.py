"""Slides of lessons, and of talks: ``python -m docs.make.slides [NOTEBOOK ...] --out DIR``.

nbconvert's slide export writes one HTML file a lesson; the template in ``deck/`` puts reveal.js into it (out of the
package pyreveal), so it needs no network. ``deck.js`` starts a new slide at headings, Predict and Explain, and where
a slide is full. Cells whose slide type is "skip" are left out.
"""

import argparse
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import SlidesExporter

from rmt_mini.errors import UserError
from rmt_mini.files import write_keeping
from rmt_mini.report.plots import pipeline
from rmt_mini.teaching.lessons import FOLDER, by_number, lessons, read_notebook

GUIDE = FOLDER.parent / "docs" / "instructor.md"
CHECKED = "# NBVAL_CHECK_OUTPUT"  # for tests, and not for readers
TALKS = (50, 90)  # minutes; docs/instructor.md has a table of sections for each
TALK = re.compile(r"^## (\d+) minutes: (.+)\n\n((?:\|.*\n)+)", re.MULTILINE)
INDEX = '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>Slides</title><body>\n{}</body></html>\n'


def formulas(markdown: str) -> str:
    """Replace LaTeX outside of code by MathML, which browsers draw without a network."""
    from latex2mathml.converter import convert

    def drawn(found: re.Match[str]) -> str:
        if found["code"]:
            return found["code"]
        tex = " ".join((found["block"] or found["line"]).split())
        return str(convert(tex, display="block" if found["block"] else "inline"))

    pattern = r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|\$(?P<line>[^$\n]+)\$"
    return re.sub(pattern, drawn, markdown, flags=re.DOTALL)


def sections(path: Path) -> dict[str, list[Any]]:
    """Return the cells of a notebook by the heading that they are under."""
    found, own = dict[str, list[Any]](), list[Any]()
    for cell in read_notebook(path).cells:
        for part in re.split(r"(?m)^(?=#{1,3} )", cell.source) if cell.cell_type == "markdown" else [None]:
            if part and (heading := re.match(r"#+ (.+)", part)):
                own = found.setdefault(heading[1], [])
            if part is None or part.strip():
                own.append(cell if part is None else nbformat.v4.new_markdown_cell(part))
    return found


def talk(minutes: int) -> Any:
    """Return a notebook of the sections that the instructor guide plans for a talk of so many minutes."""
    title, table = next(
        found.groups()[1:] for found in TALK.finditer(GUIDE.read_text("utf-8")) if found[1] == f"{minutes}"
    )
    head = f"# {title[0].upper()}{title[1:]}\n\n{pipeline('midtraining')._repr_html_()}"
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(head)])
    numbered = by_number()
    of = cache(lambda number: sections(numbered[number]))  # several rows are of one lesson
    for row in table.splitlines()[2:]:
        when, what, where = row.strip("| ").split(" | ")
        made.cells.append(nbformat.v4.new_markdown_cell(f"# {what}\n\nMinutes {when}"))
        for number, heading in re.findall(r"lesson (\w+), \*(.+?)\*", where):
            made.cells += of(number)[heading]
    return made


def deck(notebook: Any, name: str, decks: Sequence[str] = ()) -> str:
    """Return a notebook as slides; links to ``decks`` stay, other relative links become words.

    A UserError says that reveal.js is not installed.
    """
    carrier = find_spec("pyreveal")
    if carrier is None or carrier.origin is None:
        raise UserError("slides need reveal.js out of the package 'pyreveal'; pip install -e '.[notebooks]'")
    for cell in notebook.cells:
        cell.source = cell.source.replace(f"{CHECKED}\n", "")
        cell.source = re.sub(rf"\]\((?:\.\./)?({'|'.join(decks) or '-'})\.ipynb\)", r"](\1.slides.html)", cell.source)
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[([^\]]+)\]\((?!https?:|\w+\.slides\.html)[^)]+\)", r"\1", cell.source)
            cell.source = formulas(cell.source)
    exporter = SlidesExporter(
        template_name="deck",
        extra_template_basedirs=[str(Path(__file__).parent)],
        extra_template_paths=[str(Path(carrier.origin).parent / "revealjs" / "dist")],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    return str(exporter.from_notebook_node(notebook, resources={"metadata": {"name": name}})[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write decks of the notebooks named, or of all lessons and talks, and ``index.html`` with a link to each."""
    parser = argparse.ArgumentParser(prog="python -m docs.make.slides")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all lessons where none is named")
    parser.add_argument("--out", type=Path, default=Path("build/slides"), help="folder (default: %(default)s)")
    given = parser.parse_args(arguments)
    paths = given.notebooks or lessons()
    try:
        names = [path.stem for path in paths]
        pages = {f"{path.stem}.slides.html": deck(read_notebook(path), path.stem, names) for path in paths}
        if not given.notebooks:
            pages |= {f"talk_{minutes}.slides.html": deck(talk(minutes), f"talk_{minutes}", names) for minutes in TALKS}
        links = "".join(f'<p><a href="{page}">{page.removesuffix(".slides.html")}</a></p>\n' for page in pages)
        for name, text in {**pages, "index.html": INDEX.format(links)}.items():
            write_keeping(given.out / name, text)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    except OSError as error:
        parser.exit(2, f"error: output folder {str(given.out)!r} cannot be written ({error.strerror})\n")


if __name__ == "__main__":
    main()
