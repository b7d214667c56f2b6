"""The quiz's questions are sound and follow the package; its buttons score the first answers and explain every one."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from typing import Any

import ipywidgets
import nbformat
import pytest
import torch

from rmt_mini import method
from rmt_mini.errors import UserError
from rmt_mini.method import TierSampler, group_advantages, rl_loss
from rmt_mini.report.claims import PAPER
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.teaching.lessons import CHECKED, FOLDER, MARK, digest, lessons
from rmt_mini.teaching.quiz import QUESTIONS, Option, Question, Quiz, letter, question_sheet, quiz
from tests.teaching.lesson_cells import defined_by

BY_NAME = {question.name: question for question in QUESTIONS}
NAMES = {**vars(method), "torch": torch, "re": re, "PAPER": PAPER, "pass_at_k": pass_at_k}
NAMES |= defined_by("07_document_tree", "count_step")


def right(name: str) -> str:
    question = BY_NAME[name]
    return question.options[question.right].text


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_a_question_has_one_right_option_and_an_explanation_of_each(question: Question) -> None:
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
def test_what_a_question_states_is_what_the_package_computes(question: Question, expression: str) -> None:
    stated = {
        "right": question.options[question.right].text,
        "options": [option.text for option in question.options],
        "why": [option.why for option in question.options],
        "asks": question.asks,
    }
    assert eval(expression, NAMES | stated)


def test_an_empty_tier_gives_in_proportion() -> None:
    sampler = TierSampler(10, early=(0.5, 0.3, 0.2), late=(0.5, 0.3, 0.2))
    drawn = [int(sampler.sample(torch.tensor([1, 2]), 1, step=0)) for _ in range(4000)]
    share = 100 * drawn.count(0) / len(drawn)
    assert share == pytest.approx(int(right("An empty tier").split()[0]), abs=3)  # four deviations


def test_a_loss_of_0_has_a_gradient_and_the_clip_one_side() -> None:
    logprobs = torch.full((4, 3), -1.0, requires_grad=True)
    advantages = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), 4)
    mask = torch.ones(4, 3, dtype=torch.bool)
    loss = rl_loss(logprobs, advantages, mask, old_logprobs=logprobs.detach(), clip_epsilon=0.2)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient.norm() > 0.1
    assert right("A loss of nothing").startswith("Nothing")
    for advantage, clipped in ((-1.0, False), (1.0, True)):  # clipping is active on one side
        old = torch.tensor([[-2.0]])
        now = (old + math.log(1.5)).requires_grad_()
        loss = rl_loss(now, torch.tensor([advantage]), torch.tensor([[True]]), old_logprobs=old, clip_epsilon=0.2)
        assert (torch.autograd.grad(loss, now)[0].item() == 0) == clipped
    assert "not clipped" in right("The clip")


def test_only_one_sheet_has_the_answers() -> None:
    asked, answered = question_sheet(), question_sheet(answers=True)
    for question in QUESTIONS:
        assert f"(lesson {question.lesson}): **{letter(question.right)}**" in answered
        for option in question.options:
            assert option.text in asked
            assert option.why in answered
            assert option.why not in asked
    assert asked.count("**") == 2 * len(QUESTIONS)  # nothing but the names is marked


def test_the_notebook_shows_the_questions_without_a_kernel_and_not_the_answers() -> None:
    cells = nbformat.read(FOLDER / "classroom" / "quiz.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    shown = "\n".join(output.get("text", "") or output.data.get("text/markdown", "") for output in outputs)
    written = "\n".join(cell.source for cell in cells) + shown
    assert question_sheet() in shown
    assert not any(option.why in written for question in QUESTIONS for option in question.options)
    assert [cell.metadata.get(MARK) for cell in code] == [digest(cell.source) for cell in code]
    assert sum(CHECKED in cell.source and bool(cell.outputs) for cell in code) >= 2
    targets = [link for cell in cells for link in re.findall(r"\]\(([^)]+)\)", cell.source)]
    assert targets
    assert all((FOLDER / "classroom" / target).exists() for target in targets)


TWO = (
    Question(
        1, "a sum", "1 + 1?",
        (Option("1", "That is 1 + 0 & no more."), Option("2", "So it is.", True), Option("3", "That is 1 + 2.")),
    ),
    Question(4, "a mark", "Is <b> text?", (Option("yes", "Here it is.", True), Option("no", "Here it is, though."))),
)  # fmt: skip


def text(shown: Any) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", shown.value))


def labels(asked: Quiz) -> list[str]:
    return [button.description for button in asked.options]


def test_the_first_answer_counts_and_others_may_be_tried() -> None:
    asked = Quiz(TWO)
    assert (labels(asked), text(asked.message), text(asked.standing)) == (["A. 1", "B. 2", "C. 3"], "", "")
    asked.options[0].click()
    assert asked.score == (0, 1)
    assert text(asked.message) == "A is not right. That is 1 + 0 & no more."
    assert 'role="alert"' in asked.message.value
    assert labels(asked) == ["A. 1 (not right)", "B. 2", "C. 3"]  # the right one is not given away
    asked.options[1].click()
    assert text(asked.message) == "B is right. So it is."
    assert 'role="status"' in asked.message.value
    assert labels(asked) == ["A. 1 (not right)", "B. 2 (right)", "C. 3"]
    assert asked.score == (0, 1)
    assert text(asked.standing) == "0 of 1 right at the first try."


def test_next_previous_and_again() -> None:
    asked = Quiz(TWO)
    asked.options[2].click()
    asked.buttons["next"].click()
    assert asked.question is TWO[1]
    assert text(asked.message) == ""
    assert [button.layout.display for button in asked.options] == [None, None, "none"]
    assert "Is &lt;b&gt; text?" in "".join(child.value for child in asked.children if hasattr(child, "value"))
    asked.options[0].click()
    assert asked.score == (1, 2)
    assert text(asked.standing).endswith("All questions are answered. Review lesson 1.")
    asked.buttons["next"].click()  # after the last comes the first, as it was left, with its right option shown
    assert labels(asked) == ["A. 1", "B. 2 (right)", "C. 3 (not right)"]
    asked.buttons["back"].click()
    assert asked.question is TWO[1]
    asked.buttons["again"].click()
    assert (asked.number, asked.score, text(asked.message), text(asked.standing)) == (0, (0, 0), "", "")


def test_everything_is_a_button_that_stays_on() -> None:
    """Arrow keys move between cells in JupyterLab; and a button that is disabled loses the focus."""
    asked = Quiz(TWO)
    assert {type(part) for part in asked.children} == {ipywidgets.HTML, ipywidgets.Button, ipywidgets.HBox}
    for button in (*asked.options[:2], *asked.buttons.values()):
        assert button.description
        assert button.tooltip
        button.click()
        assert not button.disabled


def test_the_quiz_asks_all_questions_or_those_of_a_lesson() -> None:
    assert quiz().questions == list(QUESTIONS)
    assert {question.lesson for question in quiz(5).questions} == {5}
    with pytest.raises(UserError, match="lesson 13 has no questions; give one of 0, 1, 2"):
        quiz(13)
