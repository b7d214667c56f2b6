"""The quiz in a real JupyterLab, worked from the keyboard alone: Tab goes from button to button, Space presses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rmt_mini.teaching.quiz import QUESTIONS, letter
from tests.browser.conftest import Server
from tests.browser.lab import Lab

pytestmark = pytest.mark.browser


def focused(page: Any) -> str:
    return str(page.evaluate("() => document.activeElement?.innerText || ''"))


def tab_to(page: Any, words: str) -> None:
    """Press Tab until the button with these words has the focus."""
    for _ in range(12):
        if focused(page).strip().startswith(words):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {words!r}; at {focused(page)!r}")


def test_the_quiz_is_answered_by_keyboard(server: Server, browser: Any, screenshots: Path) -> None:
    page = browser.new_page(viewport={"width": 1366, "height": 900})
    lab = Lab(page, server.lab("notebooks/classroom/quiz.ipynb"))
    assert lab.run_all()
    assert lab.errors() == []
    quiz = page.locator(".rmt-quiz").first
    quiz.scroll_into_view_if_needed()
    quiz.locator(".rmt-option").first.focus()  # a learner comes here by Tab out of the cell
    right = given = 0
    for number, question in enumerate(QUESTIONS[:3]):
        quiz.get_by_text(f"Question {number + 1} of {len(QUESTIONS)}").wait_for()
        chosen = question.right if number != 1 else (question.right + 1) % len(question.options)
        if number:
            for _ in range(12):  # back up to the options: the order of the page is the order of the keys
                page.keyboard.press("Shift+Tab")
                if focused(page).strip().startswith("A. "):
                    break
        why = question.options[chosen].why
        tab_to(page, f"{letter(chosen)}. ")
        page.keyboard.press("Space")
        quiz.get_by_text(why).wait_for()
        right, given = right + (chosen == question.right), given + 1
        quiz.get_by_text(f"{right} of {given} right at the first try.").wait_for()
        role = "status" if chosen == question.right else "alert"
        assert quiz.locator(f'[role="{role}"]', has_text=why).count() == 1
        assert focused(page).strip().startswith(f"{letter(chosen)}. ")  # the focus stays where it was
        if number == 1:
            page.screenshot(path=screenshots / "quiz-answered.png")
        tab_to(page, "Next question")
        page.keyboard.press("Space")
    cut = quiz.evaluate(
        "node => [...node.querySelectorAll('button')]"
        ".filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
    )
    assert cut == []  # the words of every option are read whole
    for theme in ("Dark", "Light"):
        lab.theme(theme)
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        page.screenshot(path=screenshots / f"quiz-{theme.lower()}.png")
    lab.shut_down()
