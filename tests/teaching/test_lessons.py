"""Rules that every lesson keeps; nbval runs them, and a browser uses their controls, elsewhere."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest

from docs.make.slides import CHECKED
from rmt_mini.teaching.lessons import FOLDER, by_number, lessons, number_of, read_notebook
from tests.guide import words_of
from tests.lessons import MARK, digest, run

MOST_CELLS, MOST_LINES, MOST_BYTES = 40, 25, 1_500_000


@pytest.fixture(params=lessons(), ids=lambda path: path.stem)
def lesson(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def code_of(path: Path) -> list[Any]:
    return [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]


def shown_by(cell: Any) -> list[str]:
    return [output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]


def test_every_lesson_is_there_and_leads_to_the_next() -> None:
    assert list(by_number()) == [*map(str, range(8)), "7b", *map(str, range(8, 13))]
    for here, following in pairwise(lessons()):
        assert f"]({following.name})" in words_of(here), here.name


def test_notebook_is_valid_and_small_and_names_no_machine(lesson: Path) -> None:
    notebook = read_notebook(lesson)
    nbformat.validate(notebook)
    assert 8 <= len(notebook.cells) <= MOST_CELLS
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert all(len(cell.source.splitlines()) <= MOST_LINES for cell in code_of(lesson))
    assert lesson.stat().st_size < MOST_BYTES
    assert re.search(r"/(home|root|tmp|work)/", lesson.read_text(encoding="utf-8")) is None


def test_outputs_are_those_of_the_cells_and_some_are_checked(lesson: Path) -> None:
    cells = code_of(lesson)
    stale = [cell.source for cell in cells if cell.metadata.get(MARK) != digest(cell.source)]
    assert stale == [], f"run python -m tests.lessons {lesson.name}"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # from a clean kernel, in order
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    checked = [cell for cell in cells if CHECKED in cell.source]
    assert len(checked) >= 2
    for cell in checked:
        shown = [output for output in cell.outputs if output.output_type in ("stream", "execute_result")]
        text = "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in shown)
        assert text.strip(), "an empty output compares with anything"
        assert "object at 0x" not in text
        assert "<Figure" not in text


def test_every_picture_has_alt_text(lesson: Path) -> None:
    html = "".join(text for cell in code_of(lesson) for text in shown_by(cell))
    assert "<script" not in html
    assert all(re.search(r'alt="[^"]{20,}"', picture) for picture in re.findall(r"<img\b[^>]*>", html))
    outputs = [output for cell in code_of(lesson) for output in cell.outputs]
    bare = [kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image/")]
    assert not bare, "show a figure of rmt_mini.report.plots: a bare image has no alt text"
    assert re.search(r"!\[\]\(|<img(?![^>]*alt=\"[^\"]+\")", words_of(lesson)) is None


def test_a_lesson_has_its_parts(lesson: Path) -> None:
    first, words = read_notebook(lesson).cells[0].source, words_of(lesson)
    assert re.match(rf"# {number_of(lesson)}\. ", first)
    minutes, exercises = map(int, re.findall(r"\*\*(\d+) minutes\*\*, exercises (\d+) more", first)[0])
    assert exercises == sum(map(int, re.findall(r"(\d+) minutes", words.partition("### Exercise 1")[2])))
    listed = re.findall(rf"\| \[.*\]\({lesson.name}\).* \| (\d+) \|", words_of(lessons()[0]))
    assert listed == [str(minutes)] * len(listed)
    assert 2 <= len(re.findall(r"^### Exercise \d", words, re.MULTILINE)) <= 4
    cells = code_of(lesson)
    assert "find_spec" in cells[0].source  # installs the package where it is missing
    # the package comes before torch, since it says how torch's threads wait
    assert re.search(r"^from rmt_mini\.teaching\.begin import begin", cells[1].source, re.MULTILINE)
    assert "torch" not in cells[1].source.split("rmt_mini")[0]
    assert "begin(" in cells[1].source
    shown_before = False
    for cell in cells:  # a widget comes after what it shows at first
        assert shown_before or not re.search(r"[Ee]xplorer\(|Panel\(", cell.source), cell.source
        shown_before = shown_before or bool(shown_by(cell))


def test_links_resolve(lesson: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", words_of(lesson)):
        if re.match(r"https?://", target):
            assert re.match(r"https://(arxiv\.org/abs/\d{4}\.\d{5}|github\.com/[\w.-]+/[\w.-]+)", target), target
        elif not target.startswith("data:"):
            assert (lesson.parent / target).exists(), target


@pytest.mark.parametrize("name", ["a_better_budget", "b_is_it_luck"])
def test_a_project_is_complete_starts_small_and_grades_nothing(name: str) -> None:
    path = FOLDER / "projects" / f"{name}.ipynb"
    words, code = words_of(path), code_of(path)
    for part in ("**The question.**", "**What counts as an answer.**", "## What to hand in", "docs/instructor.md"):
        assert part in words
    assert re.search(r"expect \*\*\d+ to \d+ minutes\*\*", words)
    assert any("REAL = False" in cell.source for cell in code)
    assert not any("check(" in cell.source for cell in code)
    assert [cell.source for cell in code if cell.metadata.get(MARK) != digest(cell.source)] == []
    assert re.search(r"/(home|root|tmp|work)/", path.read_text(encoding="utf-8")) is None


# The tool that runs them


def test_memory_is_that_of_the_kernel_and_its_children(tmp_path: Path) -> None:
    hold = "held = b'x' * {size}; import time; time.sleep(0.5)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold.format(size=200_000_000)!r}])"
    peaks = []
    for number, source in enumerate((hold.format(size=10), child)):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nbformat.write(notebook, tmp_path / f"{number}.ipynb")
        _, seconds, peak = run(tmp_path / f"{number}.ipynb")
        assert 0.5 < seconds < 60
        peaks.append(peak)
    assert 200 < peaks[1] - peaks[0] < 300
