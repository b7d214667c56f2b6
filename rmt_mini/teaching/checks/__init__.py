"""Check a learner's function by an exercise's cases, and name the likely slip: ``check(your_function)``.

    >>> def length_reward(length, budget):
    ...     return max(0.0, 1 - abs(length - budget) / budget)
    >>> check(length_reward)
    length_reward is right: ...

What is asked, the cases and the known wrong answers are data: ``rmt_mini/teaching/exercises/*.yaml`` (``exercise``).
"""

import copy
import ctypes
import sysconfig
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rmt_mini.errors import UserError
from rmt_mini.teaching.checks.calls import difference, short
from rmt_mini.teaching.checks.exercise import EXERCISES, KINDS, SHAPE, Case, Exercise

LIMIT = 10.0  # seconds for all cases of an exercise; a right answer takes well under one
UNWRITTEN, IN_PLACE, CONSTANT, NOTHING, SLOW = (
    "not written yet", "changes its input", "the same for everything", "returns nothing", "too slow",
)  # fmt: skip
_OTHERS = (str(Path(__file__).resolve().parents[2]), *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))


class TooSlow(BaseException):
    """Raised in code that took too long; ``except Exception`` in it does not catch this."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block once it has taken so long, before the next line of Python."""
    thread, set_exception = ctypes.c_ulong(threading.get_ident()), ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, set_exception, (thread, ctypes.py_object(TooSlow)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        set_exception(thread, None)  # one that comes too late must not be raised


class Wrong(Exception):
    """The message of a wrong answer; a notebook shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Verdict:
    """What a check says of a function; ``slip`` names the mutant that behaves like it, or a general slip, or is ""."""

    exercise: str
    passed: bool
    message: str
    slip: str = ""

    def __repr__(self) -> str:
        return self.message


@dataclass(frozen=True)
class _Outcome:
    """What a function did with a case: returned a value, or raised; and whether it changed its arguments."""

    value: Any = None
    error: Exception | None = None
    changed: bool = False

    def like(self, other: Self) -> bool:
        if self.error is not None or other.error is not None:
            return type(self.error) is type(other.error)
        return difference(self.value, other.value) == "" and difference(other.value, self.value) == ""


def check(function: Callable[..., Any], limit: float = LIMIT) -> Verdict:
    """Check a learner's function or class, whose name says which exercise it answers, in ``limit`` seconds.

    Raises Wrong: which case is wrong, what it gives there and should give, and the likely slip.
    """
    verdict = judge(function, limit)
    if not verdict.passed:
        raise Wrong(verdict.message)
    return verdict


def judge(function: Callable[..., Any], limit: float = LIMIT) -> Verdict:
    """Do what ``check`` does, and return the verdict on a wrong answer too."""
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
                    message = f"{name} is not written yet: your code takes the place of `raise NotImplementedError`."
                    return Verdict(name, False, message, UNWRITTEN)
    except TooSlow:
        message = f"{exercise.written(cases[len(outcomes)])} had not ended when the {limit:g} seconds for all cases"
        return Verdict(name, False, f"{name}: {message} were up.\nLikely slip: a loop that never ends.", SLOW)
    for number, (case, outcome) in enumerate(zip(cases, outcomes, strict=True)):
        if wrong := _complaint(exercise, case, outcome):
            slip, sentence = _slip(exercise, cases, outcomes, number)
            message = f"{name}, {case.kind} case: {wrong}\nLikely slip: {sentence.rstrip('.')}."
            return Verdict(name, False, message, slip)
    counts = Counter(case.kind for case in cases)
    return Verdict(name, True, f"{name} is right: {', '.join(f'{counts[kind]} {kind}' for kind in KINDS)} cases.")


def _outcome(exercise: Exercise, function: Callable[..., Any], case: Case) -> _Outcome:
    args = copy.deepcopy(case.args)
    try:
        value = exercise.call(function, *args)
    except Exception as error:
        return _Outcome(error=error)
    return _Outcome(value, changed=difference(args, case.args) != "")


def _complaint(exercise: Exercise, case: Case, outcome: _Outcome) -> str:
    """Say what is wrong with an outcome; "" where nothing is."""
    called = exercise.written(case)
    if outcome.error is not None:
        if case.raises is not None and isinstance(outcome.error, case.raises):
            return ""
        stack = traceback.extract_tb(outcome.error.__traceback__)
        frames = [frame for frame in stack if not frame.filename.startswith(_OTHERS)]
        line = f"\nin your line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
        return f"{called} raises {type(outcome.error).__name__}: {outcome.error}".rstrip(": ") + line
    if case.raises is not None:
        return f"{called} gives {short(outcome.value)} and should raise {case.raises.__name__}"
    if outcome.changed:
        return f"{called} changes what it was given"
    if case.judge is not None and outcome.value is not None:
        wrong = case.judge(outcome.value, *case.args)
    else:
        wrong = "is None" if case.judge else difference(outcome.value, case.gives, case.kind == SHAPE)
    return wrong and f"the answer of {called} {wrong}"


def _slip(exercise: Exercise, cases: Sequence[Case], outcomes: Sequence[_Outcome], failed: int) -> tuple[str, str]:
    """Return name and sentence of the likely slip at the first case that failed."""
    case, outcome = cases[failed], outcomes[failed]
    if outcome.changed:
        return IN_PLACE, "your function changes its input in place; work on a copy, others still need the original"
    for mutant in exercise.mutants:
        wrong = exercise.build(mutant)
        if all(_outcome(exercise, wrong, one).like(mine) for one, mine in zip(cases, outcomes, strict=True)):
            return mutant.name, mutant.slip
    if outcome.error is None and outcome.value is None:
        return NOTHING, "your function returns nothing: is a `return` missing?"
    plain = [mine for one, mine in zip(cases, outcomes, strict=True) if one.kind != SHAPE]
    if plain[0].error is None and all(plain[0].like(other) for other in plain):
        return CONSTANT, "your function gives the same whatever it is given, as if copied from an example"
    return "", case.hint
