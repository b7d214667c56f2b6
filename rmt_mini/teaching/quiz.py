"""The quiz: questions out of ``quiz.yaml``, as Markdown sheets and as buttons that explain every option.

Everything is a button, reached with Tab and pressed with Space: in JupyterLab arrow keys move between cells, so lists
and radio buttons cannot be used from the keyboard. A pressed button is never disabled: it would lose the focus. The
first answer counts; others may be tried afterwards, for their explanations.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ipywidgets
import yaml
from pydantic import TypeAdapter

from rmt_mini.errors import UserError
from rmt_mini.teaching.widgets.controls import alert, status

# ipywidgets cuts off long button labels; an option must be readable whole.
_STYLE = (
    "<style>.rmt-quiz .rmt-option { height: auto; white-space: normal; text-align: left; line-height: 1.5;"
    " padding: 0.3em 0.8em; }"
    " .rmt-quiz button:focus-visible { outline: 2px solid currentColor !important; outline-offset: -3px; }</style>"
)


@dataclass(frozen=True)
class Option:
    """One option, and why it is right or what is wrong with it."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with several options, one of which is right."""

    lesson: int  # that answers it
    name: str  # unique
    asks: str
    options: tuple[Option, ...]
    holds: tuple[str, ...] = ()  # expressions that the tests evaluate against the package

    @property
    def right(self) -> int:
        """The index of the right option."""
        return [option.right for option in self.options].index(True)


_ENTRIES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
QUESTIONS = TypeAdapter(tuple[Question, ...]).validate_python(_ENTRIES)


def letter(index: int) -> str:
    """Name an option by its index: 0 is A."""
    return chr(ord("A") + index)


def question_sheet(answers: bool = False) -> str:
    """Return the questions as Markdown, with or without the right options and the explanations.

    Example:
        >>> question_sheet().splitlines()[0]
        '**1. The source of questions** (lesson 0)'
    """
    parts: list[str] = []
    for number, question in enumerate(QUESTIONS, 1):
        right = f": **{letter(question.right)}**" if answers else ""
        parts.append(f"**{number}. {question.name}** (lesson {question.lesson}){right}\n\n{question.asks}\n")
        for place, option in enumerate(question.options):
            mark, why = ("**" if option.right else "", f": {option.why}") if answers else ("", "")
            parts.append(f"- {mark}{letter(place)}. {option.text}{mark}{why}")
        parts.append("")
    return "\n".join(parts)


def quiz(lesson: int | None = None) -> Quiz:
    """Ask the questions of one lesson, or of all.

    Raises:
        UserError: if there is no question about that lesson.
    """
    chosen = [one for one in QUESTIONS if lesson is None or one.lesson == lesson]
    if not chosen:
        known = ", ".join(str(number) for number in sorted({one.lesson for one in QUESTIONS}))
        raise UserError(f"lesson {lesson!r} has no questions; give one of {known}")
    return Quiz(chosen)


class Quiz(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no annotations
    """Questions one at a time, an explanation of every option chosen, and a score of first answers."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions, self.number, self.first = list(questions), 0, dict[int, int]()
        self._heading, self.message, self.standing = (ipywidgets.HTML() for _ in range(3))
        self.options = [
            _button("", "", partial(self._answer, place))
            for place in range(max(len(one.options) for one in self.questions))
        ]
        for option in self.options:
            option.layout.width = option.layout.height = "auto"
            option.add_class("rmt-option")
        self.buttons = {
            "back": _button("Previous question", "go back, wherever you are", lambda: self.show(self.number - 1)),
            "next": _button("Next question", "go on, answered or not", lambda: self.show(self.number + 1)),
            "again": _button("Start again", "forget all answers", self.restart),
        }
        row = ipywidgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        parts = [ipywidgets.HTML(_STYLE), self._heading, *self.options, self.message, row, self.standing]
        super().__init__(parts, layout={"max_width": "48em"})
        self.add_class("rmt-quiz")
        self.show(0)

    @property
    def question(self) -> Question:
        """The current question."""
        return self.questions[self.number]

    @property
    def score(self) -> tuple[int, int]:
        """How many first answers were right, and how many were given."""
        return sum(self.questions[n].right == place for n, place in self.first.items()), len(self.first)

    def show(self, number: int) -> None:
        """Go to a question; after the last comes the first."""
        self.number = number % len(self.questions)
        first = self.first.get(self.number)
        self._draw(first, set() if first is None else {first, self.question.right})

    def restart(self) -> None:
        """Forget all answers, and go to the first question."""
        self.first = {}
        self.show(0)

    def _answer(self, place: int) -> None:
        self.first.setdefault(self.number, place)
        self._draw(place, self._marked | {place})

    def _draw(self, chosen: int | None, marked: set[int]) -> None:
        """Show the question, what is said of the option chosen, and the score; label the marked options."""
        self._marked, question = marked, self.question
        title = f"Question {self.number + 1} of {len(self.questions)}, lesson {question.lesson}: {question.name}"
        asks = html.escape(question.asks)
        self._heading.value = f'<p role="status"><b>{html.escape(title)}</b></p><p style="line-height: 1.5">{asks}</p>'
        for place, button in enumerate(self.options):
            button.layout.display = None if place < len(question.options) else "none"
        for place, (option, button) in enumerate(zip(question.options, self.options, strict=False)):
            mark = (" (right)" if option.right else " (not right)") if place in marked else ""
            button.description, button.tooltip = f"{letter(place)}. {option.text}{mark}", f"answer {letter(place)}"
        self.message.value = ""
        if chosen is not None:
            option = question.options[chosen]
            words = f"{letter(chosen)} is {'right' if option.right else 'not right'}. {option.why}"
            self.message.value = status(words) if option.right else alert(words)
        right, given = self.score
        words = f"{right} of {given} right at the first try."
        if given == len(self.questions):
            missed = {self.questions[n].lesson for n, place in self.first.items() if self.questions[n].right != place}
            again = ", ".join(map(str, sorted(missed)))
            words += f" All questions are answered. {f'Review lesson {again}.' if again else 'All were right.'}"
        self.standing.value = status(words) if given else ""


def _button(label: str, tip: str, act: Callable[[], None]) -> ipywidgets.Button:
    made = ipywidgets.Button(description=label, tooltip=tip)
    made.on_click(lambda _: act())
    return made
