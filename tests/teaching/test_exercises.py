"""Every exercise's check accepts the right answer, and tells every known wrong one from it by its slip."""

from __future__ import annotations

import inspect
import math
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from rmt_mini.teaching.checks import EXERCISES, Wrong, check, judge
from rmt_mini.teaching.checks.cases import HAND, KINDS, Exercise
from rmt_mini.teaching.checks.checking import CONSTANT, IN_PLACE, NOTHING, SLOW, UNWRITTEN
from rmt_mini.teaching.checks.compare import difference
from rmt_mini.teaching.checks.limit import TooSlow, time_limit

ROOT = Path(__file__).resolve().parents[2]
ALL = list(EXERCISES.values())
WRONG = [(exercise, mutant) for exercise in ALL for mutant in exercise.mutants]
SECONDS = 2.0  # that a verdict may take


def as_learners(exercise: Exercise, function: Callable[..., Any]) -> Any:
    """Return a copy of a function or class under the exercise's name."""
    if inspect.isclass(function):
        return type(exercise.name, (function,), {})
    return lambda_named(exercise.name, lambda *args, **kwargs: function(*args, **kwargs))


def lambda_named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = name
    return function


@pytest.fixture(params=ALL, ids=lambda exercise: exercise.name)
def exercise(request: pytest.FixtureRequest) -> Exercise:
    found: Exercise = request.param
    return found


def test_the_reference_is_right(exercise: Exercise) -> None:
    verdict = judge(as_learners(exercise, exercise.reference), SECONDS)
    assert verdict.passed, verdict.message
    assert verdict.message.startswith(f"{exercise.name} is right: ")


def test_a_check_goes_from_shape_to_edge(exercise: Exercise) -> None:
    kinds = [case.kind for case in exercise.all_cases()]
    assert set(kinds) == set(KINDS)
    assert kinds == sorted(kinds, key=KINDS.index)
    assert Counter(kinds)[HAND] >= 1
    assert all(case.hint for case in exercise.all_cases())


@pytest.mark.parametrize(("exercise", "mutant"), WRONG, ids=lambda one: getattr(one, "name", None) or one.__name__)
def test_a_wrong_answer_fails_with_its_own_slip(exercise: Exercise, mutant: Callable[..., Any]) -> None:
    verdict = judge(as_learners(exercise, mutant), SECONDS)
    assert not verdict.passed
    assert verdict.slip == mutant.__name__, verdict.message
    assert " ".join(str(mutant.__doc__).split()).rstrip(".") in verdict.message


def test_an_exercise_knows_four_slips_and_says_each_in_a_sentence(exercise: Exercise) -> None:
    assert len(exercise.mutants) >= 4
    assert len({mutant.__name__ for mutant in exercise.mutants}) == len(exercise.mutants)
    for mutant in exercise.mutants:
        assert 30 <= len(str(mutant.__doc__)) <= 300, mutant.__name__


def test_general_slips_are_named(exercise: Exercise) -> None:
    first = next(case for case in exercise.all_cases() if case.kind == HAND)
    example = exercise.expected(first)

    def unwritten(*_: Any) -> Any:
        raise NotImplementedError

    for function, slip in ((unwritten, UNWRITTEN), (lambda *_: None, NOTHING), (lambda *_: example, CONSTANT)):
        if not inspect.isclass(exercise.reference):
            verdict = judge(lambda_named(exercise.name, function), SECONDS)
            assert not verdict.passed
            assert verdict.slip == slip or (slip, verdict.slip) == (CONSTANT, ""), verdict.message


def test_an_answer_that_changes_its_input_is_told_so() -> None:
    exercise = EXERCISES["close_at_cap"]

    def close_at_cap(thought: list[int], closing: list[int], cap: int) -> Any:
        found = exercise.reference(thought, closing, cap)
        del thought[cap:]
        thought += closing
        return found

    assert judge(close_at_cap).slip == IN_PLACE


def test_an_endless_answer_is_ended() -> None:
    def length_reward(length: int, budget: int) -> float:
        while True:
            pass

    verdict = judge(length_reward, limit=0.2)
    assert verdict.slip == SLOW
    assert "0.2 seconds" in verdict.message


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no alarm")
def test_a_check_leaves_the_limit_around_it_in_force() -> None:
    began = time.monotonic()

    def loop() -> None:
        with time_limit(5):
            pass
        while time.monotonic() - began < 5:
            pass

    with pytest.raises(TooSlow), time_limit(0.3):
        loop()
    assert time.monotonic() - began < 2


def test_an_endless_answer_is_ended_in_a_thread_too() -> None:
    """Where there is no alarm: on Windows, or behind a server."""

    def length_reward(length: int, budget: int) -> float:
        while True:
            with suppress(Exception):
                length += 1

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(judge, length_reward, 0.2).result(timeout=60).slip == SLOW
        assert pool.submit(judge, EXERCISES["length_reward"].reference, 60).result(timeout=60).passed


@pytest.mark.parametrize(
    ("got", "expected", "told"),
    [
        (torch.zeros(2), torch.zeros(2, 1), "has shape (2,) and should have (2, 1)"),
        (torch.tensor([1, 0]), torch.tensor([True, False]), "is a tensor of whole numbers and should be one of truth"),
        ([0.0, 1.0], torch.tensor([0.0, 1.0]), "is [0.0, 1.0], of type list, and should be a tensor"),
        (torch.tensor([0.0, math.nan]), torch.tensor([0.0, 1.0]), "is tensor([0.0, nan]) and should be"),
        (torch.tensor(0.5), 0.5, ""),
        (0.5 + 1e-8, 0.5, ""),
        (1.0, 1, "is 1.0, a float, and should be a whole number (int)"),
        (1, True, "is 1, of type int, and should be True or False"),
        (math.nan, 0.0, "is nan and should be 0.0"),
        ((1, 2), [1, 2], ""),
        ([1, [2, 3]], [1, [2, 4]], "at [1][1] is 3 and should be 4"),
        ({"a": 1}, {"a": 1, "b": 2}, "has the keys ['a'] and should have ['a', 'b']"),
        ("ab", ["a", "b"], "is 'ab', of type str, and should be a list"),
        (None, 0.0, "is None"),
    ],
)
def test_a_difference_is_told_in_words(got: Any, expected: Any, told: str) -> None:
    assert difference(got, expected).startswith(told)
    assert bool(difference(got, expected)) == bool(told)
    assert difference(expected, expected) == ""


def test_an_exception_shows_the_learners_line() -> None:
    def length_reward(length: int, budget: int) -> float:
        share = length / (budget - budget)
        return share

    with pytest.raises(Wrong) as raised:
        check(length_reward)
    assert "ZeroDivisionError: division by zero" in str(raised.value)
    assert "share = length / (budget - budget)" in str(raised.value)
    assert str(length_reward.__code__.co_firstlineno + 1) in str(raised.value)
    assert raised.value._render_traceback_() == [str(raised.value)]


def test_the_readme_quotes_a_verdict_as_it_is() -> None:
    def length_reward(length: int, budget: int) -> float:
        return 1 - abs(length - budget) / budget

    assert judge(length_reward).message in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_name_without_an_exercise_is_refused() -> None:
    from rmt_mini.errors import UserError

    def another_name() -> None: ...

    with pytest.raises(UserError, match="another_name"):
        check(another_name)


def test_a_class_that_is_not_written_is_told_so() -> None:
    class TierSampler:
        def __init__(self, probabilities: Any, seed: int) -> None:
            raise NotImplementedError

    assert judge(TierSampler).slip == UNWRITTEN


def test_a_class_that_raises_shows_the_learners_line_and_how_it_was_called() -> None:
    class TierSampler:
        def __init__(self, probabilities: Any, seed: int) -> None:
            self.probabilities = probabilities

        def sample(self, tiers: list[int], n: int) -> list[int]:
            return [int(self.generator) for _ in range(n)]  # type: ignore[attr-defined]

    told = judge(TierSampler).message
    assert "TierSampler((0.0, 0.0, 1.0), 0).sample([0, 1, 2, 2], 2) raises AttributeError" in told
    assert "return [int(self.generator) for _ in range(n)]" in told


def test_none_can_be_a_wrong_answer_with_a_slip_of_its_own() -> None:
    def boxed_answer(response: str) -> str | None:
        return None if "{x_" in response else EXERCISES["boxed_answer"].reference(response)

    assert judge(boxed_answer).slip == NOTHING
    assert judge(lambda_named("boxed_answer", lambda response: None)).slip == NOTHING
