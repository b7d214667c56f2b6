"""Hold a learner's function against an exercise's cases, and name the likely slip in a sentence."""

from __future__ import annotations

import copy
import inspect
import linecache
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from rmt_mini.errors import UserError
from rmt_mini.teaching.checks import (
    of_answers,
    of_budget,
    of_curriculum,
    of_entropy,
    of_grpo,
    of_loop,
    of_objective,
    of_tree,
)
from rmt_mini.teaching.checks.cases import EDGE, HAND, KINDS, RANDOM, SHAPE, Case, Exercise, Raises
from rmt_mini.teaching.checks.compare import difference, short
from rmt_mini.teaching.checks.limit import TooSlow, time_limit

LIMIT = 10.0  # seconds for all cases of an exercise; a right answer takes well under one
_ROOMS = (of_answers, of_entropy, of_budget, of_curriculum, of_grpo, of_objective, of_tree, of_loop)
EXERCISES: Mapping[str, Exercise] = {one.name: one for room in _ROOMS for one in room.EXERCISES}
UNWRITTEN, IN_PLACE, CONSTANT, NOTHING, SLOW = GENERAL = (
    "not written yet", "changes its input", "the same for everything", "returns nothing", "too slow",
)  # fmt: skip
_PACKAGE = str(Path(__file__).resolve().parents[2])


class Wrong(Exception):
    """What a check says of a wrong answer; a notebook shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Verdict:
    """What a check makes of a function.

    Attributes:
        exercise: its name.
        passed: whether it is right.
        told: what is right or wrong, in words.
        slip: name of the wrong implementation that behaves like it, or of GENERAL; "" where none does.
    """

    exercise: str
    passed: bool
    told: str
    slip: str = ""

    def __repr__(self) -> str:
        return self.told


def check(function: Callable[..., Any], limit: float = LIMIT) -> Verdict:
    """Check a learner's answer.

    Args:
        function: the function or class; its name says which exercise it answers.
        limit: seconds that it may take for all cases.

    Returns:
        The verdict, whose text is what a notebook shows.

    Raises:
        Wrong: if it is not right: which case, what it gives there, what it should give, and the likely slip.
        UserError: if there is no exercise of its name.
    """
    verdict = judge(function, limit)
    if not verdict.passed:
        raise Wrong(verdict.told)
    return verdict


@dataclass(frozen=True)
class _Outcome:
    """What a function did with a case: gave a value, or raised; and whether it changed what it was given."""

    value: Any = None
    error: Exception | None = None
    changed: bool = False

    def like(self, other: _Outcome) -> bool:
        if self.error is not None or other.error is not None:
            return type(self.error) is type(other.error)
        return difference(self.value, other.value) == "" and difference(other.value, self.value) == ""


def judge(function: Callable[..., Any], limit: float = LIMIT) -> Verdict:
    """Do what ``check`` does, and return the verdict on a wrong answer too.

    Raises:
        UserError: if there is no exercise of the function's name.
    """
    name = getattr(function, "__name__", "")
    if name not in EXERCISES:
        raise UserError(f"there is no exercise called {name!r}; keep the name of the function that you were given")
    exercise = EXERCISES[name]
    cases, outcomes = exercise.all_cases(), list[_Outcome]()
    try:
        with time_limit(limit):
            for case in cases:
                outcomes.append(_outcome(exercise, function, case))
                if isinstance(outcomes[-1].error, NotImplementedError):
                    break
    except TooSlow:
        told = f"{_call(exercise, cases[len(outcomes)])} had not ended when the {limit:g} seconds for all cases were up"
        return Verdict(name, False, f"{name}: {told}.\nLikely slip: a loop that never ends.", SLOW)
    if isinstance(outcomes[-1].error, NotImplementedError):
        told = f"{name} is not written yet: your code takes the place of `raise NotImplementedError`."
        return Verdict(name, False, told, UNWRITTEN)
    for number, (case, outcome) in enumerate(zip(cases, outcomes, strict=True)):
        wrong = _complaint(exercise, function, case, outcome)
        if wrong:
            slip, sentence = _slip(exercise, cases, outcomes, number)
            told = f"{name}, {case.kind} case: {wrong}\nLikely slip: {sentence.rstrip('.')}."
            return Verdict(name, False, told, slip)
    counts = Counter(case.kind for case in cases)
    told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    return Verdict(name, True, f"{name} is right: {told} cases.")


def _outcome(exercise: Exercise, function: Callable[..., Any], case: Case) -> _Outcome:
    args = copy.deepcopy(case.args)
    try:
        value = exercise.call(function, *args)
    except Exception as error:
        return _Outcome(error=error)
    return _Outcome(value, changed=difference(list(args), list(case.args)) != "")


def _call(exercise: Exercise, case: Case) -> str:
    if exercise.told is not None:
        return exercise.told(*case.args)
    return f"{exercise.name}({', '.join(short(one) for one in case.args)})"


def _complaint(exercise: Exercise, function: Callable[..., Any], case: Case, outcome: _Outcome) -> str:
    """Say what is wrong with an outcome; "" where nothing is."""
    wanted, called = exercise.expected(case), _call(exercise, case)
    if isinstance(wanted, Raises):
        if outcome.error is None:
            return f"{called} gives {short(outcome.value)} and should raise {wanted.kind.__name__}"
        return "" if isinstance(outcome.error, wanted.kind) else _raised(function, outcome.error, called)
    if outcome.error is not None:
        return _raised(function, outcome.error, called)
    if outcome.changed:
        return f"{called} changes what it was given"
    told = difference(outcome.value, wanted, case.kind == SHAPE)
    return told and f"the answer of {called} {told}"


def _raised(function: Callable[..., Any], error: Exception, called: str) -> str:
    """Say what was raised, and in which line of the learner's."""
    files = {code.co_filename for code in _codes(function)}
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename in files]
    own = own or [frame for frame in frames if not frame.filename.startswith(_PACKAGE)]
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    if not own:
        return f"{called} raises {what}"
    line = (own[-1].line or linecache.getline(own[-1].filename, own[-1].lineno or 0)).strip()
    return f"{called} raises {what}\nin your line {own[-1].lineno}: {line}"


def _codes(function: Callable[..., Any]) -> list[CodeType]:
    members = vars(function).values() if inspect.isclass(function) else [function]
    return [one.__code__ for one in members if hasattr(one, "__code__")]


def _slip(exercise: Exercise, cases: Sequence[Case], outcomes: Sequence[_Outcome], failed: int) -> tuple[str, str]:
    """Return name and sentence of the likely slip behind the first case that failed."""
    case, outcome = cases[failed], outcomes[failed]
    if outcome.changed:
        return IN_PLACE, "your function changes its input in place; work on a copy, others still need the original"
    for mutant in exercise.mutants:
        if all(_outcome(exercise, mutant, one).like(mine) for one, mine in zip(cases, outcomes, strict=True)):
            return mutant.__name__, " ".join(str(mutant.__doc__).split())
    if outcome.error is None and outcome.value is None:
        return NOTHING, "your function returns nothing: is a `return` missing?"
    if _constant(exercise, cases, outcomes):
        return CONSTANT, "your function gives the same whatever it is given, as if copied from an example"
    return "", case.hint


def _constant(exercise: Exercise, cases: Sequence[Case], outcomes: Sequence[_Outcome]) -> bool:
    """Tell whether all hand-made, random and edge cases got one value although they ask for different ones."""
    looked = [number for number, case in enumerate(cases) if case.kind in (HAND, RANDOM, EDGE)]
    first = outcomes[looked[0]]
    return first.error is None and all(first.like(outcomes[number]) for number in looked)
