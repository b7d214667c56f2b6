"""Slides out of lessons: ``python -m rmt_mini.teaching.slides [NOTEBOOK ...] --out DIR``.

A deck is one HTML file that needs nothing else: reveal.js stands in it (out of the package ``pyreveal``, which carries
it), pictures are the lesson's own, and formulas are written as text in all lessons. So it opens in a classroom without
a network. nbconvert lays out the cells; ``slide_parts`` says what a slide is.
"""

from __future__ import annotations

import argparse
import html
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbconvert import SlidesExporter
from traitlets.config import Config

from rmt_mini.errors import UserError
from rmt_mini.files import write_keeping
from rmt_mini.teaching.lessons import lessons, read_notebook
from rmt_mini.teaching.slide_parts import NO_OUTPUT, NO_SOURCE, cut

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
CARRIER = "pyreveal"


def reveal(name: str) -> str:
    """Return the text of a file of reveal.js, "reveal.js" or "reveal.css".

    The package that carries it is looked up and never imported.

    Raises:
        UserError: if it is not installed.
    """
    spec = importlib.util.find_spec(CARRIER)
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / "revealjs" / "dist" / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise UserError(f"slides need reveal.js out of the package {CARRIER!r}; pip install 'rmt-mini[notebooks]'")


def deck(path: Path, decks: Sequence[str] = ()) -> str:
    """Return a notebook as slides: one HTML file that needs no other.

    Args:
        path: the notebook, with its outputs.
        decks: names of the notebooks that have decks beside this one.

    Raises:
        UserError: if there is no such notebook, or reveal.js is not installed.
    """
    notebook = read_notebook(path)
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {NO_SOURCE}
    config.TagRemovePreprocessor.remove_all_outputs_tags = {NO_OUTPUT}
    exporter = SlidesExporter(
        config=config,
        template_name="deck",
        extra_template_basedirs=[str(HERE)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    inlined = {
        "reveal_js": reveal("reveal.js"),
        "reveal_css": reveal("reveal.css"),
        "deck_js": (HERE / "deck" / "deck.js").read_text(encoding="utf-8"),
        "deck_css": (HERE / "deck" / "deck.css").read_text(encoding="utf-8"),
        "title": _title(notebook) or path.stem,
    }
    made = cut(notebook, decks)
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"  # new cells have random ones, and the same lesson is to give the same deck
    body, _ = exporter.from_notebook_node(made, resources={"deck": inlined})
    return str(body)


def write_decks(paths: Sequence[Path], out: Path) -> list[Path]:
    """Write a deck for each notebook, and a page that leads to them.

    Args:
        paths: notebooks.
        out: folder; made if it is missing. Files of the same names in it are kept (``write_keeping``).

    Returns:
        The files, the page of links last.

    Raises:
        UserError: as ``deck``, or if two notebooks have one name, or if ``out`` is no folder and cannot become one.
    """
    names = [path.stem for path in paths]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"two notebooks are called {twice.pop()!r}; make their slides in two folders")
    written = []
    titles = []
    for path in paths:
        titles.append(_title(read_notebook(path)) or path.stem)
        made = deck(path, names)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"output folder {str(out)!r} cannot be written ({error.strerror}); choose another --out"
            raise UserError(message) from error
        written.append(out / f"{path.stem}.slides.html")
        write_keeping(written[-1], made)
        logger.info("%s", written[-1])
    links = "\n".join(
        f'<li><a href="{html.escape(name)}.slides.html">{html.escape(title)}</a></li>'
        for name, title in zip(names, titles, strict=True)
    )
    written.append(out / "index.html")
    write_keeping(
        written[-1],
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Slides</title></head>\n'
        '<body style="font: 1.3em/1.6 sans-serif; margin: 2em"><h1>Slides</h1>\n'
        f'<ul style="list-style: none">\n{links}\n'
        "</ul>\n<p>Right arrow or Space: on. Left arrow: back. Escape: all slides. ?print-pdf behind the address: to "
        "print.</p></body></html>\n",
    )
    return written


def _title(notebook: Any) -> str:
    first = notebook.cells[0].source.splitlines() if notebook.cells else []
    return str(first[0]).removeprefix("# ") if first and first[0].startswith("# ") else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the decks of the notebooks named, or of all lessons."""
    parser = argparse.ArgumentParser(
        prog="python -m rmt_mini.teaching.slides", description=str(__doc__).partition("\n")[0]
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="all lessons where none is named")
    parser.add_argument(
        "--out", type=Path, default=Path("build/slides"), help="folder; build/slides where none is named"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        write_decks(given.notebooks or lessons(), given.out)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
