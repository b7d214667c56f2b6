"""The bug hunt: each check fails on its bug and names it, and passes on the repair; all of it is in the notebook."""

import linecache
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rmt_mini.teaching.lessons import FOLDER, read_notebook

TOKENS = torch.tensor([4, 5, 6])
BY_HAND: dict[str, tuple[Callable[[Any], Any], list[float], list[float]]] = {  # a case; as found, repaired
    "it never stops": (lambda f: f(torch.tensor([[5, 0, 0]]), 0), [1, 0, 0], [1, 1, 0]),
    "KL through the roof": (
        lambda f: f(torch.tensor([0.5]).log(), torch.tensor([0.25]).log()),
        [2 - math.log(2) - 1],
        [0.5 + math.log(2) - 1],
    ),
    "smaller groups": (lambda f: f(torch.tensor([1.0, 0.0]), 2), [0.7071, -0.7071], [1.0, -1.0]),
    "the text fades": (lambda f: [f(t := TOKENS.clone(), torch.tensor([True, False])), t][1], [4, 5, 0], [4, 5, 6]),
    "credit for the wrong one": (lambda f: f(("x", "7"), 7), [1.0], [0.0, 1.0]),
    "a dip": (lambda f: f([4.0, 4.0, 4.0], 2), [4.0, 2.0], [4.0, 4.0]),
    "learning when to close": (
        lambda f: f(torch.tensor([0.1, 0.5]).log()),
        [-math.log(0.5)],
        [-(math.log(0.9) + math.log(0.5)) / 2],
    ),
}


@pytest.fixture(scope="module")
def lesson() -> dict[str, Any]:
    """Run the code cells of the lesson; return what they define."""
    cells = [cell for cell in read_notebook(FOLDER / "12_bug_hunt.ipynb").cells if cell.cell_type == "code"]
    defined: dict[str, Any] = {}
    for number, cell in enumerate(cells[2:]):  # after the set-up
        name = f"<bug hunt {number}>"
        linecache.cache[name] = (len(cell.source), None, cell.source.splitlines(keepends=True), name)  # for inspect
        exec(compile(cell.source, name, "exec"), defined)
    return defined


@pytest.mark.parametrize("name", BY_HAND)
def test_a_check_fails_on_the_bug_and_passes_on_the_repair(lesson: dict[str, Any], name: str) -> None:
    see, check, buggy, repaired = lesson["BUGS"][name]
    with pytest.raises(AssertionError):
        check(buggy)
    assert lesson["verdict"](check, repaired) == "passes"
    assert see(buggy).alt == see(buggy).alt != see(repaired).alt
    case, *wanted = BY_HAND[name]
    for function, expected in zip((buggy, repaired), wanted, strict=True):
        assert torch.as_tensor(case(function)).flatten().tolist() == pytest.approx(expected, abs=1e-3)


def test_the_explorer_shows_every_bug_both_ways(lesson: dict[str, Any]) -> None:
    assert list(lesson["BUGS"]) == list(BY_HAND)
    for number, (name, (see, check, *functions)) in enumerate(lesson["BUGS"].items(), 1):
        for repaired, function in enumerate(functions):
            shown = lesson["bug_report"](number, bool(repaired))
            assert shown.alt.startswith(f"Bug {number}, {name}")
            assert see(function).alt in shown.alt
            assert shown.alt.endswith(f"The check {lesson['verdict'](check, function)}.")
            assert f"def {function.__name__}(" in shown._repr_html_()
