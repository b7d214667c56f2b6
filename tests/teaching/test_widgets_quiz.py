"""The quiz widget scores the first answers, explains every one, and never takes a pressed button away."""

from __future__ import annotations

import html
import re

import ipywidgets
import pytest

from rmt_mini.errors import UserError
from rmt_mini.teaching.question import Question
from rmt_mini.teaching.quiz import QUESTIONS
from rmt_mini.teaching.widgets.quiz import Quiz, quiz

TWO = (
    Question(1, "a sum", "1 + 1?", ("1", "2", "3"), 1, ("That is 1 + 0 & no more.", "So it is.", "That is 1 + 2.")),
    Question(4, "a mark", "Is <b> text?", ("yes", "no"), 0, ("Here it is.", "Here it is, though.")),
)


def said(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", text))


def test_a_right_answer_is_scored_and_explained() -> None:
    asked = Quiz(TWO)
    asked.options[1].click()
    assert asked.score == (1, 1)
    assert said(asked.told) == "B is right. So it is."
    assert 'role="status"' in asked.told
    assert asked.options[1].description == "B. 2 (right)"
    assert said(asked.standing) == "1 of 1 right at the first try."


def test_a_wrong_answer_is_scored_and_explained_and_may_be_followed_by_others() -> None:
    asked = Quiz(TWO)
    asked.options[0].click()
    assert asked.score == (0, 1)
    assert said(asked.told) == "A is not right. That is 1 + 0 & no more."
    assert 'role="alert"' in asked.told
    assert asked.options[0].description == "A. 1 (not right)"
    assert [button.description for button in asked.options[1:]] == ["B. 2", "C. 3"]  # the right one is not given away
    asked.options[1].click()
    assert said(asked.told) == "B is right. So it is."
    assert asked.score == (0, 1)  # the first answer counts


def test_nothing_is_marked_before_an_answer() -> None:
    asked = Quiz(TWO)
    assert asked.told == asked.standing == ""
    assert [button.description for button in asked.options] == ["A. 1", "B. 2", "C. 3"]


def test_next_previous_and_again() -> None:
    asked = Quiz(TWO)
    asked.options[2].click()
    asked.buttons["next"].click()
    assert asked.question is TWO[1]
    assert asked.told == ""
    assert [button.layout.display for button in asked.options] == [None, None, "none"]
    asked.options[0].click()
    assert asked.score == (1, 2)
    assert said(asked.standing).endswith("All questions are answered. Look again at lesson 1.")
    asked.buttons["next"].click()  # behind the last comes the first, as it was left, with its right option shown
    assert [button.description for button in asked.options] == ["A. 1", "B. 2 (right)", "C. 3 (not right)"]
    asked.buttons["back"].click()
    assert asked.question is TWO[1]
    asked.buttons["again"].click()
    assert (asked.number, asked.score, asked.told, asked.standing) == (0, (0, 0), "", "")


def test_all_right_says_so() -> None:
    asked = Quiz(TWO)
    for question in TWO:
        asked.options[question.right].click()
        asked.buttons["next"].click()
    assert said(asked.standing) == "2 of 2 right at the first try. All questions are answered. Nothing was missed."


def test_what_is_asked_is_escaped() -> None:
    asked = Quiz(TWO)
    asked.buttons["next"].click()
    shown = "".join(child.value for child in asked.children if isinstance(child, ipywidgets.HTML))
    assert "Is &lt;b&gt; text?" in shown


def test_everything_is_a_button_that_stays_on() -> None:
    """Arrow keys move between cells in JupyterLab; and a button that is switched off loses the page its focus."""
    asked = Quiz(TWO)
    parts = [*asked.children, *(one for child in asked.children for one in getattr(child, "children", ()))]
    kinds = {type(part) for part in parts}
    assert kinds == {ipywidgets.HTML, ipywidgets.Button, ipywidgets.HBox}
    for button in (*asked.options, *asked.buttons.values()):
        assert button.description
        assert button.tooltip
        button.click()
        assert not button.disabled


def test_one_lesson_or_all() -> None:
    assert quiz().questions == list(QUESTIONS)
    assert {question.lesson for question in quiz(5).questions} == {5}
    with pytest.raises(UserError, match="lesson 13 has no questions; give one of 0, 1, 2"):
        quiz(13)


def test_answering_every_question_of_the_real_quiz() -> None:
    asked = quiz()
    for question in QUESTIONS:
        assert asked.question is question
        for place, why in enumerate(question.why):
            asked.options[place].click()
            assert why in said(asked.told)
        asked.buttons["next"].click()
    first = sum(question.right == 0 for question in QUESTIONS)  # each was tried first with A
    assert asked.score == (first, len(QUESTIONS))
