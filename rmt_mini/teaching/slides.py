"""Slides of lessons: ``python -m rmt_mini.teaching.slides [NOTEBOOK ...] --out DIR``.

nbconvert's slide export writes one HTML file a lesson; the template in ``deck/`` puts reveal.js into it (out of the
package pyreveal), so it needs no network. Displayed formulas become drawings, since MathJax would come from there.
``deck.js`` starts a new slide at headings, Predict and Explain, and where a slide is full. Cells whose slide type is
"skip" are left out.
"""

import argparse
import html
import io
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbconvert import SlidesExporter

from rmt_mini.errors import UserError
from rmt_mini.files import write_keeping
from rmt_mini.teaching.lessons import lessons, read_notebook

INDEX = '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>Slides</title><body>\n{}</body></html>\n'


def formula(latex: str) -> str:
    """Draw a displayed formula as SVG on one line, with the LaTeX as its label; a UserError if it cannot be drawn."""
    one_line, file = " ".join(latex.split()), io.BytesIO()
    try:
        with rc_context({"svg.fonttype": "path", "svg.hashsalt": "deck", "mathtext.fontset": "cm"}):
            math_to_image(f"${one_line}$", file, prop=FontProperties(size=10), format="svg")
    except ValueError as error:
        raise UserError(f"formula {one_line!r} cannot be drawn; use LaTeX that matplotlib's mathtext knows") from error
    drawn = re.sub(r"<!--.*?-->|<(metadata|style).*?</\1>", "", file.getvalue().decode(), flags=re.DOTALL)
    box, width, body = re.findall(r'<svg[^>]* viewBox="(0 0 ([\d.]+) [\d.]+)"[^>]*>(.*</svg>)', drawn, re.DOTALL)[0]
    size = f'viewBox="{box}" style="width: {float(width) / 10:.2f}em; max-width: 100%"'  # 10 points are 1 em
    links = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg role="img" aria-label="{html.escape(one_line)}" {size} {links}>{" ".join(body.split())}'


def deck(path: Path, decks: Sequence[str] = ()) -> str:
    """Return a notebook as slides; links to ``decks`` stay, other relative links become words.

    A UserError says that there is no such notebook, or that reveal.js is not installed.
    """
    notebook, carrier = read_notebook(path), find_spec("pyreveal")
    if carrier is None or carrier.origin is None:
        raise UserError("slides need reveal.js out of the package 'pyreveal'; pip install 'rmt-mini[notebooks]'")
    for cell in notebook.cells:
        cell.source = cell.source.replace("# NBVAL_CHECK_OUTPUT\n", "")
        cell.source = re.sub(rf"\]\((?:\.\./)?({'|'.join(decks) or '-'})\.ipynb\)", r"](\1.slides.html)", cell.source)
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[([^\]]+)\]\((?!https?:|\w+\.slides\.html)[^)]+\)", r"\1", cell.source)
            cell.source = re.sub(r"\$\$(.+?)\$\$", lambda found: formula(found[1]), cell.source, flags=re.DOTALL)
    exporter = SlidesExporter(
        template_name="deck",
        extra_template_basedirs=[str(Path(__file__).parent)],
        extra_template_paths=[str(Path(carrier.origin).parent / "revealjs" / "dist")],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    return str(exporter.from_notebook_node(notebook, resources={"metadata": {"name": path.stem}})[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write decks of the notebooks named, or of all lessons, and ``index.html`` with a link to each."""
    parser = argparse.ArgumentParser(prog="python -m rmt_mini.teaching.slides")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all lessons where none is named")
    parser.add_argument("--out", type=Path, default=Path("build/slides"), help="folder (default: %(default)s)")
    given = parser.parse_args(arguments)
    paths = given.notebooks or lessons()
    try:
        pages = {f"{path.stem}.slides.html": deck(path, [one.stem for one in paths]) for path in paths}
        links = "".join(f'<p><a href="{page}">{page.removesuffix(".slides.html")}</a></p>\n' for page in pages)
        for name, text in {**pages, "index.html": INDEX.format(links)}.items():
            write_keeping(given.out / name, text)
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    except OSError as error:
        parser.exit(2, f"error: output folder {str(given.out)!r} cannot be written ({error.strerror})\n")


if __name__ == "__main__":
    main()
