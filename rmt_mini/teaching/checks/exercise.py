"""Exercises: cases, points and known wrong answers from ``teaching/exercises``, right answers from solved notebooks.

An exercise is a code cell of a solved notebook that has ``### BEGIN SOLUTION`` and ends in ``check(name)``. A mutant is
that cell with one text replaced. Cases are calls, in expressions over the file's ``values`` and ``case_names``.
"""

import builtins
import json
import re
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rmt_mini.errors import UserError
from rmt_mini.teaching.checks.calls import ABSOLUTE, call, case_names, short

SHAPE, HAND, RANDOM, EDGE, PROPERTY = KINDS = ("shape", "hand-made", "random", "edge", "property")
HINTS = {
    SHAPE: "look at the type and the shape that the docstring promises",
    RANDOM: "work this case out on paper, step by step, beside your code",
}
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
REGION = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}\n(?P<body>.*?)^[ \t]*{END}\n", re.MULTILINE | re.DOTALL)
ENDS_IN_CHECK = re.compile(r"^check\((?P<name>\w+)\)\s*\Z", re.MULTILINE)
_CLONE = Path(__file__).resolve().parents[3] / "notebooks" / "solutions"
SOLVED = _CLONE if _CLONE.is_dir() else Path(sysconfig.get_path("data"), "share/rmt_mini/solutions")


@dataclass(frozen=True)
class Case:
    """One call of the learner's function, and what it must give or raise."""

    kind: str  # SHAPE compares only type and shape, a PROPERTY follows from another answer
    args: tuple[Any, ...]
    hint: str  # the likely slip where this case fails and no mutant explains it
    gives: Any = None
    raises: type[Exception] | None = None
    within: float = ABSOLUTE  # numbers may be so far apart
    reads: Callable[..., Any] = lambda answer, *_: answer


@dataclass(frozen=True)
class Mutant:
    """A known wrong answer: the solved cell with ``replace``, which occurs once, replaced ``by`` another text."""

    name: str
    replace: str
    by: str
    slip: str


@dataclass(frozen=True, eq=False)
class Exercise:
    """What the YAML says of an exercise; ``stem`` names its solved notebook."""

    name: str
    stem: str
    points: int
    values: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    mutants: Sequence[Mutant]
    reads: str = "lambda answer, *_: answer"  # what of an answer to some arguments is compared
    says: str = ""  # how a call is written, where it is not as it is

    def written(self, case: Case) -> str:
        """Write a case's call for a message."""
        return eval(self.says)(*case.args) if self.says else f"{self.name}({', '.join(map(short, case.args))})"

    @cache  # noqa: B019 - there are only so many exercises and mutants
    def build(self, mutant: Mutant | None = None) -> Callable[..., Any]:
        """Return the right answer, or a mutant."""
        sources, names = dict(solved_cells(self.stem)), dict[str, Any]()
        if mutant is not None:
            sources[self.name] = sources[self.name].replace(mutant.replace, mutant.by)
        exec("\n\n".join(sources.values()), names)
        function: Callable[..., Any] = names[self.name]
        return function

    def all_cases(self, seed: str = "") -> list[Case]:
        """Return the cases; the same ones each time for a seed."""
        names = case_names(self.name + seed)
        for name, expression in self.values.items():
            names[name] = eval(expression, names)
        names[self.name] = lambda *args: args
        return [case for row in self.rows for case in self._cases(row, names)]

    def _cases(self, row: Mapping[str, Any], names: dict[str, Any]) -> Iterator[Case]:
        kind = next(kind for kind in KINDS if kind in row)
        raises = getattr(builtins, row["raises"]) if "raises" in row else None
        reads = eval(self.reads, names)

        def right(*args: Any) -> Any:
            return reads(call(self.name, self.build(), *args), *args)

        for _ in range(row.get("times", 1)):
            for name, expression in row.get("let", {}).items():
                names[name] = eval(expression, names)
            args = eval(row[kind], names)
            if "of" in row:  # a property: how the answer follows from that of other arguments
                names["answer"] = right(*eval(row["of"], names))
            gives = row.get("gives", "answer" if "of" in row else None)
            if isinstance(gives, str):
                gives = eval(gives, names)
            elif gives is None and not raises:
                gives = right(*args)
            within = eval(row["within"], names, {"gives": gives}) if "within" in row else ABSOLUTE
            yield Case(kind, args, row.get("hint") or HINTS[kind], gives, raises, within, reads)


def exercise_of(source: str) -> str | None:
    """Return the name of the exercise that a cell asks for; None where it is no exercise."""
    ends = ENDS_IN_CHECK.search(source)
    return ends["name"] if ends and BEGIN in source else None


def solution(source: str) -> str:
    """Return a cell without the marks of its solution and without its check."""
    return ENDS_IN_CHECK.sub("", REGION.sub(lambda found: found["body"], source)).rstrip() + "\n"


@cache
def solved_cells(stem: str) -> Mapping[str, str]:
    """Return the solved cells of a set by exercise, and under "" what its notebook imports; it must be there."""
    path = SOLVED / f"{stem}.ipynb"
    if not path.is_file():
        raise UserError(f"there is no solved notebook {str(path)!r}; install the package again")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    imports = re.findall(r"^(?:import|from) .+$", "\n".join(sources), re.MULTILINE)
    found = {name: solution(source) for source in sources if (name := exercise_of(source))}
    return {"": "\n".join(imports)} | found


def _read() -> Iterator[Exercise]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
    for path in sorted((Path(__file__).parents[1] / "exercises").glob("*.yaml")):
        read = yaml.load(path.read_text(encoding="utf-8"), loader)
        values = read.pop("values", {})
        for name, said in read.items():
            mutants = [Mutant(one["name"], one["replace"], one["with"], one["slip"]) for one in said["mutants"]]
            more = {key: said[key] for key in ("reads", "says") if key in said}
            yield Exercise(name, path.stem, said["points"], values, said["cases"], mutants, **more)


EXERCISES: Mapping[str, Exercise] = {one.name: one for one in _read()}
