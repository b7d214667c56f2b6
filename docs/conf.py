"""The book, for Sphinx: ``make book``. The repository is its source; no page is copied or executed.

Pages are this repository's Markdown and notebooks, with their stored outputs, and the API reference, which apidoc
writes to docs/api. A page loads nothing from a network: formulas are MathML, and widgets are their static figures.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
from sphinx.application import Sphinx
from sphinx.util.rst import escape

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from badges import BLOCK, BRANCH, repository  # noqa: E402

from docs.make.slides import CHECKED, formulas  # noqa: E402
from rmt_mini import __version__  # noqa: E402

ADDRESS = repository() if "//github.com/" in repository() else ""  # the theme knows no other addresses

project, author, version = "rmt_mini", "rmt_mini contributors", __version__
copyright = f"2026, {author}"
extensions = ["myst_nb", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "data/**.md", "docs/**", "notebooks/**.ipynb"]
exclude_patterns = ["notebooks/solutions", "docs/api/modules.rst", "**/.ipynb_checkpoints"]
suppress_warnings = ["myst.header"]  # exercises are headings of the third level
smartquotes = False  # commands in tables are copied from
html_theme = "sphinx_book_theme"
html_title = "Reinforcement Mid-Training"
html_copy_source = False
html_show_search_summary = False  # browsers fetch nothing for a page that is a file
html_static_path = ["book.css"]
html_css_files = ["book.css"]
html_context = {"default_mode": "auto"}
html_theme_options = {"navbar_persistent": [], "use_download_button": False}
if ADDRESS:
    html_theme_options |= {
        "repository_url": ADDRESS,
        "repository_branch": BRANCH,
        "use_repository_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }

myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # by default from a network

apidoc_modules = [{"path": "../rmt_mini", "destination": "docs/api", "module_first": True}]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100

CONTENTS = """
```{toctree}
:hidden:
:glob:
:caption: Lessons

notebooks/*
```
```{toctree}
:hidden:
:glob:
:caption: Practice

notebooks/exercises/*
notebooks/projects/*
notebooks/classroom/*
```
```{toctree}
:hidden:
:glob:
:caption: Guides

docs/*
CONTRIBUTING
CHANGELOG
```
```{toctree}
:hidden:
:glob:
:caption: Results

data/PROTOCOL
data/PROVENANCE
data/**
```
```{toctree}
:hidden:
:caption: API

docs/api/rmt_mini
```
"""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
WIDGET = re.compile(r"^(Explorer|Panel|quiz)\(.*\)\s*\Z", re.MULTILINE)
STATIC = "*A running kernel shows controls here, which change what is drawn above. This page shows it as stored.*"


def words(markdown: str, folder: Path, app: Sphinx) -> str:
    """Return the Markdown of a page, with links to files that are no pages as links to the repository, or as words."""

    def linked(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(folder / found[2]))
        if not path.exists() or app.env.path2doc(path) in app.env.found_docs:
            return found[0]  # a page, or nothing: then Sphinx says so
        return f"[{found[1]}]({ADDRESS}/blob/{BRANCH}/{path.relative_to(ROOT).as_posix()})" if ADDRESS else found[1]

    return LINK.sub(linked, formulas(markdown))


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Prepare a page as it is read."""
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        source[0] = words(BLOCK.sub("", source[0]), path.parent, app) + (CONTENTS if name == root_doc else "")
    elif path.suffix == ".ipynb":
        notebook = nbformat.reads(source[0], as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = words(cell.source, path.parent, app)
            elif cell.cell_type == "code":
                cell.source = cell.source.replace(f"{CHECKED}\n", "")
                if cell.metadata.get("slideshow", {}).get("slide_type") == "skip":
                    cell.metadata["tags"] = ["remove-cell"]
                if WIDGET.search(cell.source) and not cell.outputs:
                    cell.outputs = [nbformat.v4.new_output("display_data", {"text/markdown": STATIC})]
        source[0] = nbformat.writes(notebook)
    else:  # apidoc asks for members without a docstring too, whatever its settings say
        source[0] = source[0].replace("   :undoc-members:\n", "")


def settings_of(thing: object) -> list[str]:
    """Return the settings of a class, where they have help, as parameters with help and default."""
    fields = getattr(thing, "model_fields", {}) if isinstance(thing, type) else {}
    helped = {name: field for name, field in fields.items() if field.description}
    return [f":param {name}: {escape(one.description)} (``{one.default!r}``)" for name, one in helped.items()]


def leave_out(app: Sphinx, what: str, name: str, thing: object, *_: object) -> tuple[str, None] | None:
    """Leave out the signature of settings, which are listed."""
    return ("", None) if settings_of(thing) else None


def describe(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep the line ends of indented blocks, formulas and tables; list settings."""
    text = re.sub(r"(?m)^(\S.*\n)\n(?= +[^\s>])", r"\1\n::\n\n", "\n".join(lines))
    lines[:] = [*text.split("\n"), *settings_of(thing)]


def finish(app: Sphinx, failed: Exception | None) -> None:
    """Let the book begin at index.html."""
    if not failed:
        shutil.copy(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Connect the above to Sphinx."""
    app.connect("source-read", read)
    app.connect("autodoc-process-signature", leave_out)
    app.connect("autodoc-process-docstring", describe, priority=400)  # before napoleon
    app.connect("build-finished", finish)
