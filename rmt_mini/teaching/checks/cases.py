"""What an exercise's check is made of: calls of the learner's function, what each must give, and likely slips.

A check goes from shape over hand-made and random cases to the edges. What is expected of a hand-made case is written
by hand; of the others, it is what the reference gives, and the reference is the package's own function wherever there
is one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SHAPE, HAND, RANDOM, EDGE = KINDS = ("shape", "hand-made", "random", "edge")


class _Reference:
    """Stands where a case expects what the reference gives."""


BY_REFERENCE = _Reference()


@dataclass(frozen=True)
class Such:
    """An expectation that many answers meet.

    Attributes:
        complaint: takes the learner's answer and says what is wrong with it; "" where nothing is.
    """

    complaint: Callable[[Any], str]


@dataclass(frozen=True)
class Raises:
    """An expectation that the call raises.

    Attributes:
        kind: the exception's class.
    """

    kind: type[Exception]


@dataclass(frozen=True)
class Case:
    """One call of the learner's function.

    Attributes:
        kind: of KINDS.
        args: of the call; copied before it.
        expected: a value, Such, Raises, or BY_REFERENCE. A SHAPE case looks at type and shape alone.
        hint: the likely slip where this case fails and no known wrong implementation explains it.
    """

    kind: str
    args: tuple[Any, ...]
    expected: Any
    hint: str


def shape(*args: Any, hint: str = "look at the type and the shape that the docstring promises") -> Case:
    """Make a case that asks for the type and shape of what the reference gives."""
    return Case(SHAPE, args, BY_REFERENCE, hint)


def hand(*args: Any, gives: Any, hint: str) -> Case:
    """Make a case whose answer is worked out by hand."""
    return Case(HAND, args, gives, hint)


def chance(
    *args: Any, gives: Any = BY_REFERENCE, hint: str = "work this case out by hand, step by step, beside your code"
) -> Case:
    """Make a case out of random arguments."""
    return Case(RANDOM, args, gives, hint)


def edge(*args: Any, gives: Any = BY_REFERENCE, hint: str) -> Case:
    """Make a case at the edge of what the function must take."""
    return Case(EDGE, args, gives, hint)


def plainly(function: Callable[..., Any], *args: Any) -> Any:
    """Call the learner's function with the case's arguments, and nothing else."""
    return function(*args)


@dataclass(frozen=True)
class Exercise:
    """An exercise.

    Attributes:
        lesson: whose set it belongs to.
        points: for a right answer.
        reference: a right answer; its name is the exercise's, where ``name`` does not say another.
        cases: yields the cases from a seeded source of chance, in the order of KINDS.
        mutants: wrong answers, each with the slip as its docstring.
        call: how a case's arguments reach the function: a class is made and worked, a gradient is taken, and so on.
        name: of the function or class that the learner writes.
        told: how ``call`` is written in a verdict, from a case's arguments; None for the name and its arguments.
    """

    lesson: int
    points: int
    reference: Callable[..., Any]
    cases: Callable[[random.Random], Iterator[Case]]
    mutants: Sequence[Callable[..., Any]]
    call: Callable[..., Any] = plainly
    name: str = ""
    told: Callable[..., str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.reference.__name__)

    def all_cases(self) -> list[Case]:
        """Return the cases; the same ones each time."""
        return list(self.cases(random.Random(self.name)))

    def expected(self, case: Case) -> Any:
        """Return what a case must give."""
        if case.expected is BY_REFERENCE:
            return self.call(self.reference, *case.args)
        return case.expected
