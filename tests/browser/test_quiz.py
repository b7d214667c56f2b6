"""The quiz in a real JupyterLab, worked from the keyboard alone: Tab goes from button to button, Space presses."""

from pathlib import Path
from typing import Any

import pytest

from rmt_mini.teaching.quiz import LETTERS, QUESTIONS
from tests.browser.conftest import Server
from tests.browser.lab import Lab

pytestmark = pytest.mark.browser
FOCUSED = "() => document.activeElement?.innerText || ''"


def test_the_quiz_is_answered_by_keyboard(server: Server, browser: Any, screenshots: Path) -> None:
    page = browser.new_page(viewport={"width": 1366, "height": 900})
    lab = Lab(page, server.lab("notebooks/classroom/quiz.ipynb"))
    assert lab.run_all()
    assert lab.errors() == []
    quiz = page.locator(".rmt-quiz").first
    quiz.scroll_into_view_if_needed()
    quiz.locator(".rmt-option").first.focus()  # a learner comes here by Tab out of the cell
    for number, question in enumerate(QUESTIONS[:3]):
        chosen = question.right if number != 1 else (question.right + 1) % len(question.options)
        for place, option in enumerate(question.options):
            label = f"{LETTERS[place]}. {option.text}"
            assert page.evaluate(FOCUSED).startswith(label)
            if place == chosen:
                page.keyboard.press("Space")
                role = "status" if chosen == question.right else "alert"
                quiz.locator(f'[role="{role}"]', has_text=option.why).wait_for()
                quiz.get_by_text(f"of {number + 1} right at the first try.").wait_for()
                assert page.evaluate(FOCUSED).startswith(label)  # the focus stays where it was
            page.keyboard.press("Tab")
    quiz.get_by_text("2 of 3 right at the first try.").wait_for()
    cut = quiz.evaluate(
        "node => [...node.querySelectorAll('button')]"
        ".filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
    )
    assert cut == []  # the words of every option are read whole
    page.screenshot(path=screenshots / "quiz.png")
    lab.shut_down()
