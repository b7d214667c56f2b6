"""The quiz's questions are sound and follow the package; its buttons score the first answers and explain every one."""

import html
import re
from collections import Counter
from typing import Any

import ipywidgets
import nbformat
import pytest
import torch

from rmt_mini import method
from rmt_mini.errors import UserError
from rmt_mini.report.claims import PAPER
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.teaching.lessons import FOLDER, lessons
from rmt_mini.teaching.quiz import LETTERS, QUESTIONS, Option, Quiz, QuizQuestion, question_sheet, quiz
from tests.lessons import MARK, digest
from tests.teaching.lesson_cells import defined_by

BY_NAME = {question.name: question for question in QUESTIONS}
NAMES = {**vars(method), "torch": torch, "re": re, "PAPER": PAPER, "pass_at_k": pass_at_k}
NAMES |= defined_by("07_document_tree", "count_step")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_a_question_has_one_right_option_and_an_explanation_of_each(question: QuizQuestion) -> None:
    assert 3 <= len(question.options) <= 5
    assert [option.right for option in question.options].count(True) == 1
    assert len({option.text.casefold() for option in question.options}) == len(question.options)
    assert len({option.why.casefold() for option in question.options}) == len(question.options)
    assert all(len(option.why) >= 20 for option in question.options)


def test_names_are_unique_and_every_lesson_has_questions() -> None:
    assert len(BY_NAME) == len(QUESTIONS) >= 25
    numbers = [question.lesson for question in QUESTIONS]
    assert set(numbers) == {int(path.name[:2]) for path in lessons()}
    assert numbers == sorted(numbers)
    assert sum(bool(question.holds) for question in QUESTIONS) >= 16  # tied to the package


def test_place_and_length_of_the_right_option_give_nothing_away() -> None:
    places = Counter(question.right for question in QUESTIONS)
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) <= len(QUESTIONS) / 3
    for extreme in (min, max):
        lengths = [[len(option.text) for option in question.options] for question in QUESTIONS]
        extremes = [row[one.right] == extreme(row) for row, one in zip(lengths, QUESTIONS, strict=True)]
        assert 0 < sum(extremes) < len(QUESTIONS) / 2


@pytest.mark.parametrize(
    ("question", "expression"),
    [(one, expression) for one in QUESTIONS for expression in one.holds],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_a_question_states_is_what_the_package_computes(question: QuizQuestion, expression: str) -> None:
    stated = {
        "right": question.options[question.right].text,
        "options": [option.text for option in question.options],
        "why": [option.why for option in question.options],
        "asks": question.asks,
    }
    assert eval(expression, NAMES | stated)


def test_only_one_sheet_has_the_answers() -> None:
    asked, answered = question_sheet(), question_sheet(answers=True)
    for question in QUESTIONS:
        assert f"(lesson {question.lesson}): **{LETTERS[question.right]}**" in answered
        for option in question.options:
            assert option.text in asked
            assert option.why in answered
            assert option.why not in asked
    assert asked.count("**") == 2 * len(QUESTIONS)  # nothing but the names is marked


def test_the_notebook_shows_the_questions_without_a_kernel_and_not_the_answers() -> None:
    cells = nbformat.read(FOLDER / "classroom" / "quiz.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert any(question_sheet() == output.get("data", {}).get("text/markdown") for output in code[2].outputs)
    written = str(cells)
    assert not any(option.why in written for question in QUESTIONS for option in question.options)
    assert [cell.metadata.get(MARK) for cell in code] == [digest(cell.source) for cell in code]
    for target in re.findall(r"\]\(([^)]+)\)", "".join(cell.source for cell in cells)):
        assert (FOLDER / "classroom" / target).exists()


TWO = (
    QuizQuestion(
        1, "a sum", "1 + 1?",
        (Option("1", "That is 1 + 0 & no more."), Option("2", "So it is.", True), Option("3", "That is 1 + 2.")),
    ),
    QuizQuestion(4, "a mark", "Is <b> text?", (Option("yes", "Here it is.", True), Option("no", "Here it is too."))),
)  # fmt: skip


def text(shown: Any) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", shown.value))


def labels(asked: Quiz) -> list[str]:
    return [button.description for button in asked.buttons[0]]


def test_the_first_answer_counts_others_may_be_tried_and_a_lesson_is_named() -> None:
    asked = Quiz(TWO)
    first = asked.buttons[0]
    assert (labels(asked), text(asked.messages[0]), text(asked.standing)) == (["A. 1", "B. 2", "C. 3"], "", "")
    first[0].click()
    assert asked.score == (0, 1)
    assert text(asked.messages[0]) == "A is not right. That is 1 + 0 & no more."
    assert 'role="alert"' in asked.messages[0].value
    assert labels(asked) == ["A. 1 (not right)", "B. 2", "C. 3"]  # the right one is not given away
    first[1].click()
    assert text(asked.messages[0]) == "B is right. So it is."
    assert 'role="status"' in asked.messages[0].value
    assert labels(asked) == ["A. 1 (not right)", "B. 2 (right)", "C. 3"]
    assert asked.score == (0, 1)
    assert text(asked.standing) == "0 of 1 right at the first try."
    asked.answer(1, 0)
    assert text(asked.standing) == "1 of 2 right at the first try. All questions are answered. Review lesson 1."
    assert "Is &lt;b&gt; text?" in "".join(child.value for child in asked.children if hasattr(child, "value"))


def test_the_quiz_asks_all_questions_or_those_of_a_lesson_by_buttons_alone() -> None:
    """Arrow keys move between cells in JupyterLab; and a button that is disabled loses the focus."""
    assert quiz().questions == QUESTIONS
    asked = quiz(5)
    assert {question.lesson for question in asked.questions} == {5}
    assert {type(part) for part in asked.children} == {ipywidgets.HTML, ipywidgets.Button}
    asked.buttons[0][0].click()
    assert all(button.tooltip and not button.disabled for row in asked.buttons for button in row)
    with pytest.raises(UserError, match="lesson 13 has no questions; give one of 0, 1, 2"):
        quiz(13)
