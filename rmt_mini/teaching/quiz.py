"""Questions about the lessons, for people: each with one right option, and a word on every option.

They ask for understanding: every wrong option is a mistake that people make, and its word says why it is one. What
can be computed is computed by ``tests/teaching/test_quiz.py``, which holds the right option against the package.
"""

from __future__ import annotations

from collections.abc import Sequence

from rmt_mini.teaching.question import Question
from rmt_mini.teaching.quiz_method import ABOUT_THE_METHOD
from rmt_mini.teaching.quiz_practice import ABOUT_PRACTICE

QUESTIONS: tuple[Question, ...] = (*ABOUT_THE_METHOD, *ABOUT_PRACTICE)


def letter(index: int) -> str:
    """Return what an option is called.

    Example:
        >>> letter(0), letter(3)
        ('A', 'D')
    """
    return chr(ord("A") + index)


def question_sheet(questions: Sequence[Question] | None = None) -> str:
    """Return the questions as Markdown, without their answers.

    Example:
        >>> print(question_sheet(QUESTIONS[:1]).splitlines()[0])
        **1. The source of questions** (lesson 0)
    """
    parts: list[str] = []
    for number, question in enumerate(QUESTIONS if questions is None else questions, 1):
        parts.append(f"**{number}. {question.name}** (lesson {question.lesson})\n\n{question.asks}\n")
        parts += [f"- {letter(place)}. {option}" for place, option in enumerate(question.options)]
        parts.append("")
    return "\n".join(parts)


def answer_sheet(questions: Sequence[Question] | None = None) -> str:
    """Return the answers as Markdown: the right option, and a word on each.

    Example:
        >>> print(answer_sheet(QUESTIONS[:1]).splitlines()[0])
        **1. The source of questions** (lesson 0): **B**
    """
    parts: list[str] = []
    for number, question in enumerate(QUESTIONS if questions is None else questions, 1):
        right = letter(question.right)
        parts.append(f"**{number}. {question.name}** (lesson {question.lesson}): **{right}**\n\n{question.asks}\n")
        for place, (option, why) in enumerate(zip(question.options, question.why, strict=True)):
            marked = f"**{letter(place)}. {option}**" if place == question.right else f"{letter(place)}. {option}"
            parts.append(f"- {marked}: {why}")
        parts.append("")
    return "\n".join(parts)
