"""Exercises: cases, points and known wrong answers out of ``teaching/exercises``; right answers out of solved notebooks.

An exercise is a code cell of a solved notebook that has ``### BEGIN SOLUTION`` and ends in ``check(name)``. A mutant is
that cell with one text replaced. Cases are calls, written as expressions over the names of ``case_names``.
"""

from __future__ import annotations

import ast
import builtins
import json
import random
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rmt_mini.errors import UserError
from rmt_mini.teaching.checks import case_names
from rmt_mini.teaching.checks.calls import CALLS, JUDGES

SHAPE, HAND, RANDOM, EDGE = KINDS = ("shape", "hand-made", "random", "edge")
KEYS = {"shape": SHAPE, "hand": HAND, "random": RANDOM, "edge": EDGE}
HINTS = {
    SHAPE: "look at the type and the shape that the docstring promises",
    RANDOM: "work this case out on paper, step by step, beside your code",
}
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
REGION = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}\n(?P<body>.*?)^[ \t]*{END}\n", re.MULTILINE | re.DOTALL)
ENDS_IN_CHECK = re.compile(r"^check\((?P<name>\w+)\)\s*\Z", re.MULTILINE)
_ROOT = Path(__file__).resolve().parents[3]
_PLACES = _ROOT / "notebooks" / "solutions", Path(sysconfig.get_path("data"), "share/rmt_mini/solutions")
SOLVED = next((place for place in _PLACES if place.is_dir()), _PLACES[0])


@dataclass(frozen=True)
class Case:
    """One call of the learner's function, and what it must do.

    Attributes:
        kind: of KINDS; a SHAPE case compares only type and shape.
        args: of the call; copied before it.
        hint: the likely slip where this case fails and no mutant explains it.
        gives: the answer; the solved cell's where it is not stated.
        raises: the exception that the call must raise, or None.
        judge: takes the answer and the arguments and says what is wrong, where many answers are right, or None.
    """

    kind: str
    args: tuple[Any, ...]
    hint: str
    gives: Any = None
    raises: type[Exception] | None = None
    judge: Callable[..., str] | None = None


@dataclass(frozen=True)
class Mutant:
    """A known wrong answer: the solved cell with ``replace``, which occurs once, replaced ``by`` another text."""

    name: str
    replace: str
    by: str
    slip: str


@dataclass(frozen=True)
class Exercise:
    """An exercise: what its YAML says, and its solved cell."""

    name: str
    stem: str
    points: int
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    mutants: Sequence[Mutant] = field(repr=False)

    @property
    def lesson(self) -> int:
        """Number of the lesson whose set it belongs to."""
        return int(self.stem[:2])

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a learner's function with a case's arguments, as this exercise does."""
        return CALLS[self.name](function, *args) if self.name in CALLS else function(*args)

    def build(self, mutant: Mutant | None = None) -> Callable[..., Any]:
        """Return the right answer, or a mutant."""
        return _built(self.stem, self.name, mutant)

    def all_cases(self) -> list[Case]:
        """Return the cases; the same ones each time."""
        source = random.Random(self.name)
        return [case for row in self.rows for case in self._cases(row, source)]

    def _cases(self, row: Mapping[str, Any], source: random.Random) -> Iterator[Case]:
        names = vars(case_names) | case_names.names_to_draw(source) | {self.name: lambda *args: args}
        key = next(key for key in KEYS if key in row)
        raises = getattr(builtins, row["raises"]) if "raises" in row else None
        judge = JUDGES[row["judge"]] if "judge" in row else None
        for _ in range(row.get("times", 1)):
            for name, expression in row.get("let", {}).items():
                names[name] = eval(expression, names)
            args = eval(row[key], names)
            if isinstance(row.get("gives"), str):
                gives = eval(row["gives"], names)
            elif "gives" in row or raises or judge:
                gives = row.get("gives")
            else:
                gives = self.call(self.build(), *args)
            yield Case(KEYS[key], args, row.get("hint") or HINTS[KEYS[key]], gives, raises, judge)


def exercise_of(source: str) -> str | None:
    r"""Return the name of the exercise that a cell asks for; None where it is no exercise.

    Example:
        >>> exercise_of(f"def f():\n    {BEGIN}\n    return 1\n    {END}\n\n\ncheck(f)")
        'f'
    """
    ends = ENDS_IN_CHECK.search(source)
    return ends["name"] if ends and BEGIN in source else None


def solution(source: str) -> str:
    """Return a cell without the marks of its solution and without its check."""
    return ENDS_IN_CHECK.sub("", REGION.sub(lambda found: found["body"], source)).rstrip() + "\n"


@cache
def solved_cells(stem: str) -> Mapping[str, str]:
    """Return the solved cells of a set by exercise, and under "" what its notebook imports.

    Raises:
        UserError: if the solved notebook is missing.
    """
    path = SOLVED / f"{stem}.ipynb"
    if not path.is_file():
        raise UserError(f"there is no solved notebook {str(path)!r}; install the package again")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    parsed = [ast.parse(source) for source in sources if "%pip" not in source]
    imports = [node for tree in parsed for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = {name: solution(source) for source in sources if (name := exercise_of(source))}
    return {"": "\n".join(map(ast.unparse, imports))} | found


@cache
def _built(stem: str, name: str, mutant: Mutant | None) -> Callable[..., Any]:
    sources = dict(solved_cells(stem))
    if mutant is not None:
        sources[name] = sources[name].replace(mutant.replace, mutant.by)
    names: dict[str, Any] = {}
    exec("\n\n".join(sources.values()), names)
    function: Callable[..., Any] = names[name]
    return function


def _read() -> Iterator[Exercise]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
    for path in sorted((Path(__file__).parents[1] / "exercises").glob("*.yaml")):
        for name, said in yaml.load(path.read_text(encoding="utf-8"), loader).items():
            mutants = [Mutant(one["name"], one["replace"], one["with"], one["slip"]) for one in said["mutants"]]
            yield Exercise(name, path.stem, said["points"], said["cases"], mutants)


EXERCISES: Mapping[str, Exercise] = {one.name: one for one in _read()}
