"""Whatever a model answers, a question's scorer says right or wrong; and several guesses are no right answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmt_mini.worlds.questions import Question, load_questions
from tests.outcomes import either

SIGNS = st.sampled_from(
    [*"0123456789+-*/^!=<>()[]{}\\$.,;:%x ", "\\frac", "\\sqrt", "\\boxed{", "**", "\n", "é", "\0", "∞"]
)
ANSWER = st.lists(SIGNS, max_size=12).map("".join) | st.text(max_size=12)


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    pytest.importorskip("reasoning_gym")
    # the scorers of the last three stop with an error at answers that are none
    tasks = ("chain_sum", "countdown", "mini_sudoku", "prime_factorization", "game_of_life", "boxnet")
    return [*load_questions("micro", 3, 0), *(one for task in tasks for one in load_questions(f"gym:{task}", 2, 0))]


@pytest.fixture(scope="module")
def champ() -> dict[str, Question]:
    pytest.importorskip("math_verify")
    return {question.answer.strip(): question for question in load_questions("champ", 1000, seed=0)}


@given(answer=ANSWER)
def test_any_answer_to_a_question_is_right_or_wrong(answer: str, asked: list[Question]) -> None:
    for question in asked:
        assert question.score(answer) in (0.0, 1.0)


@given(answer=ANSWER)
@settings(max_examples=40)
def test_any_answer_to_a_problem_of_champ_is_right_or_wrong(answer: str, champ: dict[str, Question]) -> None:
    assert champ["239"].score(answer) in (0.0, 1.0)


@pytest.mark.parametrize(
    "between",
    [", ", " or ", "$ $", "\\) \\(", "\\] \\[", "|", ";", "=", "\\\\", "&", " ", "\\quad", "\\text{ or }", "\\neq", "<",
     "} \\boxed{", "\\lor", "$$", ":", "/1=", "\t"],
)  # fmt: skip
def test_several_guesses_at_a_problem_of_champ_are_at_best_one(between: str, champ: dict[str, Question]) -> None:
    """Attack: name two answers. However they are joined, one at most is taken: hedging pays no more than guessing."""
    judged = [champ["239"].score(between.join(guesses)) for guesses in (("239", "238"), ("238", "239"))]
    assert sum(judged) <= 1.0
    assert champ["239"].score(between.join(map(str, range(236, 243)))) == 0.0  # the right one in the middle


def test_a_task_that_cannot_be_made_is_refused_in_one_line() -> None:
    pytest.importorskip("reasoning_gym")
    _, message = either(lambda: load_questions("gym:composite", 3, 0))
    assert message is not None
    assert "'gym:composite' cannot be made" in message
