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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from rmt_mini.errors import UserError
from rmt_mini.teaching.checks.calls import call, difference, short
from rmt_mini.teaching.checks.exercise import EXERCISES, KINDS, SHAPE, Case, Exercise

LIMIT = 10.0  # seconds for all cases of an exercise; a right answer takes well under one
UNWRITTEN, IN_PLACE, CONSTANT, NOTHING, SLOW, SWAPPED, BROADCAST, MEMORY = (
    "not written yet", "changes its input", "constant", "gives None", "too slow", "swapped", "broadcasting", "memory",
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


class Trial(NamedTuple):
    """What came of a call: the arguments after it, and the answer or the error."""

    args: Any
    value: Any = None
    error: str = ""  # its class, what it says, and the learner's line
    classes: Sequence[str] = ()  # of the error, its own first


def attempt(name: str, function: Callable[..., Any], args: Any) -> Trial:
    """Call a learner's function as exercise ``name`` does."""
    given = copy.deepcopy(args)
    try:
        return Trial(given, call(name, function, *given))
    except Exception as error:
        return _failed(error, given)


def attempts(name: str, function: Callable[..., Any], calls: Sequence[Any], limit: float = LIMIT) -> list[Trial]:
    """Make all calls; stop when the time is up, or where the function is not written yet."""
    tried = list[Trial]()
    with suppress(TooSlow), time_limit(limit):
        for args in calls:
            tried.append(attempt(name, function, args))
            if "NotImplementedError" in tried[-1].classes:
                break
    return tried


def _failed(error: Exception, args: Any) -> Trial:
    classes = [one.__name__ for one in type(error).__mro__]
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(_OTHERS)]
    line = f"\nin your line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
    try:
        return Trial(args, None, f"{classes[0]}: {error}".rstrip(": ") + line, classes)
    except Exception:
        return Trial(args, None, f"{classes[0]}, which cannot be printed{line}", classes)


def check(function: Callable[..., Any], limit: float = LIMIT) -> Verdict:
    """Check a learner's function or class, whose name says which exercise it answers, in ``limit`` seconds.

    Raises Wrong: which case is wrong, what it gives there and should give, and the likely slip.
    """
    verdict = judge(function, limit)
    if not verdict.passed:
        raise Wrong(verdict.message)
    return verdict


def judge(function: Callable[..., Any], limit: float = LIMIT, seed: str = "") -> Verdict:
    """Do what ``check`` does, and return the verdict on a wrong answer too; another seed draws other random cases."""
    name = getattr(function, "__name__", "")
    if name not in EXERCISES:
        raise UserError(f"there is no exercise called {name!r}; keep the name of the function that you were given")
    exercise, cases = EXERCISES[name], EXERCISES[name].all_cases(seed)
    verdict = verdict_on(exercise, cases, attempts(name, function, [case.args for case in cases], limit), limit)
    unclear = not verdict.passed and verdict.slip in ("", CONSTANT, BROADCAST)
    for (i, one), (j, other) in combinations(enumerate(signature(exercise.build()).parameters if unclear else ()), 2):
        turned = _turned(function, i, j)
        with suppress(TooSlow), time_limit(limit):
            if not any(_complaint(exercise, case, _read(case, attempt(name, turned, case.args))) for case in cases):
                said = verdict.message.partition("\nLikely slip")[0]
                message = f"{said}\nLikely slip: you use {one} for {other}, and {other} for {one}."
                return Verdict(name, False, message, SWAPPED)
    return verdict


def _turned(function: Callable[..., Any], i: int, j: int) -> Callable[..., Any]:
    return lambda *args: function(*(args[{i: j, j: i}.get(place, place)] for place in range(len(args))))


def verdict_on(exercise: Exercise, cases: Sequence[Case], tried: Sequence[Trial], limit: float = LIMIT) -> Verdict:
    """Judge what came of the cases; fewer trials than cases mean that the time was up."""
    name = exercise.name
    if tried and "NotImplementedError" in tried[-1].classes:
        message = f"{name} is not written yet: your code takes the place of `raise NotImplementedError`."
        return Verdict(name, False, message, UNWRITTEN)
    if len(tried) < len(cases):
        message = f"{exercise.written(cases[len(tried)])} had not ended when the {limit:g} seconds for all cases"
        return Verdict(name, False, f"{name}: {message} were up.\nLikely slip: a loop that never ends.", SLOW)
    tried = [_read(case, trial) for case, trial in zip(cases, tried, strict=True)]
    for number, (case, trial) in enumerate(zip(cases, tried, strict=True)):
        if wrong := _complaint(exercise, case, trial):
            slip, sentence = _slip(exercise, cases, tried, number)
            message = f"{name}, {case.kind} case: {wrong}\nLikely slip: {sentence.rstrip('.')}."
            return Verdict(name, False, message, slip)
    counts = Counter(case.kind for case in cases)
    return Verdict(name, True, f"{name} is right: {', '.join(f'{counts[kind]} {kind}' for kind in KINDS)} cases.")


def _read(case: Case, trial: Trial) -> Trial:
    """Put what is compared in the place of the answer."""
    try:
        return trial if trial.value is None else trial._replace(value=case.reads(trial.value, *case.args))
    except Exception as error:  # what was drawn, say, is nothing that can be counted
        return _failed(error, trial.args)


def _complaint(exercise: Exercise, case: Case, trial: Trial) -> str:
    """Say what is wrong with a trial; "" where nothing is."""
    called = exercise.written(case)
    if trial.classes:
        expected = case.raises is not None and case.raises.__name__ in trial.classes
        return "" if expected else f"{called} raises {trial.error}"
    if case.raises is not None:
        return f"{called} gives {short(trial.value)} and should raise {case.raises.__name__}"
    if difference(trial.args, case.args):
        return f"{called} changes what it was given"
    wrong = difference(trial.value, case.gives, case.kind == SHAPE, case.within)
    return wrong and f"the answer of {called} {wrong}"


def _alike(one: Trial, other: Trial) -> bool:
    if one.classes or other.classes:
        return one.classes[:1] == other.classes[:1]
    return difference(one.value, other.value) == difference(other.value, one.value) == ""


def _slip(exercise: Exercise, cases: Sequence[Case], tried: Sequence[Trial], failed: int) -> tuple[str, str]:
    """Return name and sentence of the likely slip at the first case that failed."""

    def same(wrong: Callable[..., Any]) -> bool:
        both = zip(cases, tried, strict=True)
        return all(_alike(_read(one, attempt(exercise.name, wrong, one.args)), mine) for one, mine in both)

    case, trial = cases[failed], tried[failed]
    if not trial.classes and difference(trial.args, case.args):
        return IN_PLACE, "your function changes its input in place; work on a copy, others still need the original"
    for mutant in exercise.mutants:
        if same(exercise.build(mutant)):
            return mutant.name, mutant.slip
    if trial.value is None and not trial.classes:
        return NOTHING, "your function returns nothing: is a `return` missing?"
    plain = [mine for one, mine in zip(cases, tried, strict=True) if one.kind != SHAPE]
    if not plain[0].classes and all(_alike(plain[0], other) for other in plain):
        return CONSTANT, "your function gives the same whatever it is given, as if copied from an example"
    if any("must match the size" in one.error for one in tried):
        return BROADCAST, "broadcasting: keep a reduced dimension (keepdim=True), or add one to a vector ([:, None])"
    if "MemoryError" in trial.classes or "allocate memory" in trial.error:
        return MEMORY, "a list or a tensor that grows without end"
    return "", case.hint
