"""Cut a lesson into slides: by its headings, by Predict and Explain, and by what fits.

A lesson is written to be read, a slide to be seen from the last row. So no cell is tagged by hand: a heading begins a
slide, a question and its explanation never share one (else the answer is seen with the question), and what would not
fit goes on on a further slide under the same heading.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import nbformat

MOST = 16.0  # lines of a slide, its heading apart
WIDTH = 84  # characters of text that fit in a line of a slide
MOST_TOGETHER = 24  # lines of code and of what it printed that share a slide: they are set smaller
MOST_PRINTED = 28  # lines of what was printed; a slide has no more
FEW = 6  # lines of code that share a slide with a figure
NO_SOURCE, NO_OUTPUT = "slide-no-source", "slide-no-output"
_NEW = re.compile(r"\*\*(Predict|Explain|Try)\b")
_LIST, _PLAIN = re.compile(r"([-*]|\d+\.) "), re.compile(r"[A-Za-z*`]")
_LED_TO = re.compile(rf"{_LIST.pattern}|\|")
_SETUP = re.compile(r"find_spec\(|^begin\(", re.MULTILINE)
_CONTROL = re.compile(r"^(?:\w+ = )?(\w*(?:explorer|panel|quiz)\([^\n]*\))$", re.MULTILINE)
_LINK_AWAY = re.compile(r"\[([^\]]+)\]\((?!https?://)([^)]+)\)")


def blocks(source: str) -> list[str]:
    r"""Split Markdown at its blank lines, but not within fenced code or a folded part.

    Example:
        >>> blocks("# A\n\none\ntwo\n\n<details>\n\nb\n</details>")
        ['# A', 'one\ntwo', '<details>\n\nb\n</details>']
    """
    found: list[list[str]] = [[]]
    folded = fenced = False
    for line in source.splitlines():
        if not line.strip() and not folded and not fenced:
            found.append([])
            continue
        if re.match(r"#{1,4} ", line) and not fenced and not folded:
            found += [[line], []]
            continue
        if line.startswith("```"):
            fenced = not fenced
        folded = (folded or "<details>" in line) and "</details>" not in line
        found[-1].append(line)
    whole = ["\n".join(lines) for lines in found if lines]
    for place in range(len(whole) - 1, 0, -1):  # a list or a table is not parted from the words that lead to it
        if _LED_TO.match(whole[place]) and not whole[place - 1].endswith(".") and _PLAIN.match(whole[place - 1]):
            whole[place - 1 : place + 1] = [f"{whole[place - 1]}\n\n{whole[place]}"]
    return whole


def lines_of(block: str) -> float:
    r"""Estimate how many lines of a slide a block of Markdown takes, the space behind it included.

    Example:
        >>> lines_of("a word"), lines_of("| a | b |\n|---|---|\n| 1 | 2 |"), lines_of("x" * 100)
        (1.5, 3.5, 2.5)
    """
    if block.startswith("<details>"):
        return 1.5  # closed
    rows = block.splitlines()
    if block.startswith("|"):
        return sum(math.ceil(len(row) / (1.4 * WIDTH)) for row in rows) + 0.5
    if block.startswith(("    ", "```")):
        return 0.8 * len(rows) + 0.5
    if "\n\n" in block:
        return sum(lines_of(part) for part in block.split("\n\n"))
    if _LIST.match(block):
        items = re.split(r"\n(?=(?:[-*]|\d+\.) )", block)
        return sum(math.ceil(len(item) / (WIDTH - 4)) for item in items) + 0.5
    return math.ceil(len(" ".join(rows)) / WIDTH) + 0.5


def plain_links(source: str, decks: Sequence[str]) -> str:
    """Let links to a lesson lead to its deck, and leave of other links within the repository their words.

    Example:
        >>> plain_links("[a](05_grpo.ipynb), [b](../data/x.md)", ["05_grpo"])
        '[a](05_grpo.slides.html), b'
    """

    def turned(link: re.Match[str]) -> str:
        words, target = link.groups()
        stem = target.rpartition("/")[2].removesuffix(".ipynb")
        return f"[{words}]({stem}.slides.html)" if target.endswith(".ipynb") and stem in decks else words

    return _LINK_AWAY.sub(turned, source)


class Slides:
    """Cells with slide marks, as nbconvert's slides exporter takes them; grown one part at a time."""

    def __init__(self) -> None:
        self.cells: list[Any] = []
        self._heading, self._taken, self._empty = "", 0.0, True

    def begin(self, kind: str, heading: str | None = None) -> None:
        """Begin a slide: "slide" beside the last, "subslide" below it under the same heading."""
        if heading is not None:
            self._heading = heading
        self._kind, self._taken, self._empty = kind, 0.0, True

    def add(self, cell: Any, lines: float) -> None:
        """Add a cell to the slide, or to a further one where it does not fit."""
        if self._taken + lines > MOST and not self._empty:
            self.begin("subslide")
        shown: dict[str, Any] = {"slide_type": self._kind if self._empty else "-"}
        if self._empty and self._kind == "subslide":
            shown["data"] = {"section": self._heading}
        cell.metadata["slideshow"] = nbformat.from_dict(shown)
        self.cells.append(cell)
        self._taken, self._empty = self._taken + lines, False

    @property
    def lines(self) -> float:
        """How many lines of the slide are taken."""
        return self._taken


def cut(notebook: Any, decks: Sequence[str] = ()) -> Any:
    """Cut a notebook into slides.

    Args:
        notebook: with its outputs.
        decks: names of the notebooks that have slides, for links from one to another.

    Returns:
        A new notebook whose cells carry slide marks.
    """
    slides = Slides()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            _cut_words(plain_links(cell.source, decks), slides)
        elif cell.cell_type == "code" and not _SETUP.search(cell.source):
            _cut_code(cell, slides)
    made = nbformat.v4.new_notebook(cells=slides.cells)
    made.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
    return made


def _cut_words(source: str, slides: Slides) -> None:
    for block in blocks(source):
        heading = re.match(r"(#{1,4}) (.*)", block)
        if heading:
            kind = "slide" if len(heading[1]) <= 2 else "subslide"
            slides.begin(kind, heading[2])
            if kind == "subslide":
                continue  # its words stand above the slide already
        elif _NEW.match(block) and slides.lines > 2:
            slides.begin("subslide")
        slides.add(nbformat.v4.new_markdown_cell(block), 0 if heading else lines_of(block))


def _cut_code(cell: Any, slides: Slides) -> None:
    source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("# NBVAL_")).strip()
    control = _CONTROL.search(source)
    if control and not cell.outputs:
        slides.add(nbformat.v4.new_markdown_cell(f"*In the notebook, live:* `{control[1]}`"), 1.5)
        return
    outputs = [part for output in _joined(cell.outputs) for part in _parted(_shortened(output))]
    printed = [output for output in outputs if not _is_rich(output)]
    lines = len(source.splitlines()) + sum(len(_text(output).splitlines()) for output in printed)
    together = printed if lines <= MOST_TOGETHER else []
    if len(outputs) == 1 and not printed and len(source.splitlines()) <= FEW:
        together = outputs
    slides.begin("subslide")
    slides.add(_code(source, together, "" if together else NO_OUTPUT), MOST)
    for output in outputs:
        if output not in together:
            slides.begin("subslide")
            slides.add(_code("", [output], NO_SOURCE), MOST - 3)


def _joined(outputs: Sequence[Any]) -> Iterator[Any]:
    """Yield outputs, with neighbouring pieces of what was printed as one."""
    before: Any = None
    for output in outputs:
        if output.output_type == "stream" and before is not None and before.output_type == "stream":
            before.text += output.text
            continue
        if before is not None:
            yield before
        before = output.copy()
    if before is not None:
        yield before


def _parted(output: Any) -> list[Any]:
    """Part Markdown that is longer than a slide where its tables and paragraphs end."""
    written = output.get("data", {}).get("text/markdown")
    if written is None:
        return [output]
    parts: list[list[str]] = [[]]
    for block in blocks(written):
        if parts[-1] and sum(map(lines_of, [*parts[-1], block])) > MOST_TOGETHER:
            parts.append([])
        parts[-1].append(block)
    return [nbformat.v4.new_output("display_data", {"text/markdown": "\n\n".join(part)}) for part in parts]


def _shortened(output: Any) -> Any:
    """Leave what was printed at its first lines, as many as a slide holds; pictures and tables stay whole."""
    lines = [line[at : at + 120] for line in _text(output).splitlines() for at in range(0, max(1, len(line)), 120)]
    if _is_rich(output) or len(lines) <= MOST_PRINTED:
        return output
    told = f"... {len(lines) - MOST_PRINTED} further lines stand in the notebook"
    written = "\n".join([*lines[:MOST_PRINTED], told]) + "\n"
    return nbformat.from_dict({"output_type": "stream", "name": "stdout", "text": written})


def _is_rich(output: Any) -> bool:
    return bool({"text/html", "text/markdown"} & set(output.get("data", {})))


def _text(output: Any) -> str:
    return str(output.get("text", "") or output.get("data", {}).get("text/plain", ""))


def _code(source: str, outputs: Sequence[Any], tag: str) -> Any:
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata={"tags": [tag] if tag else []})
